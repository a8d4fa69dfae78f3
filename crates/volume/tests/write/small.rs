//! Small files in one piece.

use std::fs;

use proptest::prelude::*;
use rustix::io::Errno;
use volume::{
    create::ParentHints,
    metadata::{Applied, ApplyOptions},
    small,
    staging::Place,
};
use wire::Metadata;

use super::support::*;

type Write = fn(&Scratch, &Metadata, &[u8]) -> volume::Result<Applied>;

/// Writes `f`: where its name is free, and over the old one.
const WAYS: [Write; 2] = [
    |scratch, want, content| {
        let hints = ParentHints::of(&scratch.dir).unwrap();
        small::write_new(&scratch.dir, &name("f"), want, content, hints, ApplyOptions::default())
    },
    |scratch, want, content| scratch.write_over(&scratch.dir, "f", want, content),
];

#[test]
fn both_ways_give_exactly_what_is_wanted() {
    for scratch in [Scratch::disk(), Scratch::memory()] {
        let hints = ParentHints::of(&scratch.dir).unwrap();
        let options = ApplyOptions::default();
        for (i, mode) in [0o644, 0o666, 0o000, 0o444, 0o6755, 0o1777].into_iter().enumerate() {
            for (j, uid) in [0, 1000].into_iter().enumerate() {
                for with_xattrs in [false, true] {
                    let at = format!("{i}{j}{with_xattrs}");
                    let mut want = Metadata { uid, gid: uid, ..file(mode, 7) };
                    if with_xattrs {
                        want.xattrs = vec![
                            xattr("security.capability", &capability()),
                            xattr("user.note", b"x"),
                        ];
                    }
                    let new = small::write_new(
                        &scratch.dir,
                        &name(&at),
                        &want,
                        b"content",
                        hints,
                        options,
                    );
                    assert_exact(&scratch, &at, &want, &new.unwrap());
                    let over = scratch.write_over(&scratch.dir, &at, &want, b"CONTENT");
                    assert_exact(&scratch, &at, &want, &over.unwrap());
                    assert_eq!(fs::read(scratch.at(&at)).unwrap(), b"CONTENT");
                }
            }
        }
        assert_eq!(scratch.unfinished(), [""; 0]);
    }
}

#[test]
fn wrong_hints_cost_time_and_nothing_else() {
    let scratch = Scratch::disk();
    set_default_acl(&scratch.path);
    let hints = ParentHints { default_acl: true, uid: 77, gid: 78, foreign_group: false };
    for (uid, gid) in [(0, 0), (77, 78), (5, 0)] {
        let want = Metadata { uid, gid, ..file(0o640, 1) };
        let options = ApplyOptions::default();
        let applied = scratch
            .place(&scratch.dir, "f", true, |place| {
                small::write_over(Place { hints, ..place }, &want, b"x", options)
            })
            .unwrap();
        assert_exact(&scratch, "f", &want, &applied);
    }
}

#[test]
fn what_does_not_take_is_a_problem_here_too() {
    let scratch = Scratch::disk().of_user();
    let want = Metadata { uid: 1, gid: 1, ..file(0o6711, 1) };
    for write in WAYS {
        let applied = as_user(|| write(&scratch, &want, b"x")).unwrap();
        let what: Vec<_> = applied.problems.iter().map(|p| p.what.as_str()).collect();
        assert_eq!(what, ["set owner 1:1", "set mode 6711 for another owner"]);
        assert_eq!((applied.actual.uid, applied.actual.mode), (USER, 0o711));
        assert_eq!(applied.actual.mtime, want.mtime);
    }
}

#[test]
fn errors_leave_the_old_and_nothing_else() {
    let scratch = Scratch::disk();
    let hints = ParentHints::of(&scratch.dir).unwrap();
    let options = ApplyOptions::default();
    fs::write(scratch.at("f"), b"old").unwrap();
    fs::create_dir(scratch.at("d")).unwrap();
    let errno = |result: volume::Result<_>| {
        result.map(|_: volume::metadata::Applied| ()).unwrap_err().errno
    };
    let want = file(0o600, 3);
    let new = |at: &str, content: &[u8]| {
        small::write_new(&scratch.dir, &name(at), &want, content, hints, options)
    };
    let over = |at: &str, content: &[u8]| scratch.write_over(&scratch.dir, at, &want, content);
    assert_eq!(errno(new("f", b"new")), Errno::EXIST);
    assert_eq!(errno(over("d", b"new")), Errno::ISDIR);
    assert_eq!(errno(new("g", b"four")), Errno::UCLEAN);
    assert_eq!(errno(over("f", b"")), Errno::UCLEAN);
    assert_eq!(fs::read(scratch.at("f")).unwrap(), b"old");
    assert_eq!(scratch.names(), ["d", "f"]);
}

#[test]
fn flags_come_last() {
    let scratch = Scratch::disk();
    let mut want = file(0o640, 1);
    want.attributes.immutable = true;
    for write in WAYS {
        let applied = write(&scratch, &want, b"x").unwrap();
        assert_exact(&scratch, "f", &want, &applied);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_mode_owner_and_content(
        mode in 0..0o10000_u16,
        uid in 0..3_u32,
        gid in 0..3_u32,
        content in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let scratch = Scratch::memory();
        let want = Metadata { uid, gid, ..file(mode, content.len()) };
        for write in WAYS {
            let applied = write(&scratch, &want, &content);
            assert_exact(&scratch, "f", &want, &applied.unwrap());
            prop_assert!(fs::read(scratch.at("f")).unwrap() == content);
        }
    }
}
