//! Metadata that takes, and metadata that does not.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use proptest::prelude::*;
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    io::Errno,
    thread::CapabilitySet,
};
use volume::metadata::{Applied, ApplyOptions, apply_at, apply_dir, apply_fd};
use wire::{Attributes, FileKind, Metadata, Timestamp};

use super::support::*;

const KINDS: [FileKind; 7] = [
    FileKind::File,
    FileKind::Directory,
    FileKind::Symlink,
    FileKind::Fifo,
    FileKind::Socket,
    FileKind::CharDevice,
    FileKind::BlockDevice,
];

fn make(path: &Path, kind: FileKind) {
    let node = |kind, device| mknodat(CWD, path, kind, Mode::RUSR, device).unwrap();
    let device = rustix::fs::makedev(1, 3);
    match kind {
        FileKind::File => fs::write(path, b"").unwrap(),
        FileKind::Directory => fs::create_dir(path).unwrap(),
        FileKind::Symlink => std::os::unix::fs::symlink("nowhere", path).unwrap(),
        FileKind::Fifo => node(FileType::Fifo, 0),
        FileKind::Socket => node(FileType::Socket, 0),
        FileKind::CharDevice => node(FileType::CharacterDevice, device),
        FileKind::BlockDevice => node(FileType::BlockDevice, device),
    }
}

fn apply(scratch: &Scratch, at: &str, want: &Metadata) -> Applied {
    apply_at(&scratch.dir, &name(at), want, ApplyOptions::default()).unwrap()
}

/// Everything that an entry of this kind can carry.
fn rich(kind: FileKind) -> Metadata {
    let mut want = Metadata { uid: 70_000, gid: 3_000_000_000, ..meta(kind, 0o6751) };
    want.xattrs = vec![xattr("trusted.note", b"\0\xff")];
    if matches!(kind, FileKind::File | FileKind::Directory) {
        want.xattrs.push(xattr("system.posix_acl_access", &acl(7, 7, 5, 5, 1)));
        want.xattrs.extend([xattr("user.empty", b""), xattr("user.note", b"a\0b")]);
    }
    if kind == FileKind::File {
        want.xattrs.push(xattr("security.capability", &capability()));
    }
    if kind == FileKind::Directory {
        want.mode = 0o3751;
        want.xattrs.push(xattr("system.posix_acl_default", &acl(7, 7, 7, 7, 0)));
    }
    if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) {
        want.rdev = (1, 3);
    }
    want.xattrs.sort();
    want
}

#[test]
fn every_kind_gets_exactly_what_it_can_carry() {
    let others = [Scratch::image("xfs"), Scratch::image("btrfs"), Scratch::overlay()];
    let all = [Scratch::disk(), Scratch::memory()].into_iter().chain(others.into_iter().flatten());
    for scratch in all {
        for (i, kind) in KINDS.into_iter().enumerate() {
            let at = i.to_string();
            make(&scratch.at(&at), kind);
            let want = rich(kind);
            let applied = apply(&scratch, &at, &want);
            assert!(applied.changed);
            assert_exact(&scratch, &at, &want, &applied);
        }
    }
}

#[test]
fn what_is_right_already_is_not_written_again() {
    let scratch = Scratch::disk();
    for (i, kind) in KINDS.into_iter().enumerate() {
        let at = i.to_string();
        make(&scratch.at(&at), kind);
        let want = rich(kind);
        apply(&scratch, &at, &want);
        let ctime = |at: &str| {
            let meta = fs::symlink_metadata(scratch.at(at)).unwrap();
            (meta.ctime(), meta.ctime_nsec())
        };
        let before = ctime(&at);
        let applied = apply(&scratch, &at, &want);
        assert!(!applied.changed);
        assert_eq!(applied.problems, []);
        assert_eq!(ctime(&at), before, "{kind:?}");
    }
}

#[test]
fn a_new_owner_takes_away_neither_setuid_nor_capabilities() {
    let scratch = Scratch::disk();
    make(&scratch.at("f"), FileKind::File);
    let mut want = file(0o6755, 0);
    want.xattrs = vec![xattr("security.capability", &capability())];
    let applied = apply(&scratch, "f", &want);
    assert_exact(&scratch, "f", &want, &applied);
    // Only the owner differs now, but to change it clears the rest.
    want.uid = 1000;
    let applied = apply(&scratch, "f", &want);
    assert_exact(&scratch, "f", &want, &applied);
}

#[test]
fn a_time_that_the_file_system_cannot_keep_is_named() {
    let scratch = Scratch::disk();
    let stat = rustix::fs::statfs(&scratch.path).unwrap();
    if stat.f_type != 0xef53 {
        return skip("/tmp is not ext4, which cuts times off");
    }
    make(&scratch.at("f"), FileKind::File);
    let mut want = file(0o644, 0);
    // The year 2500.
    want.mtime = Timestamp { secs: 16_725_225_600, nanos: 5 };
    let applied = apply(&scratch, "f", &want);
    assert_ne!(applied.actual.mtime, want.mtime);
    let [problem] = &applied.problems[..] else { panic!("{:?}", applied.problems) };
    assert_eq!(problem.errno, None);
    let says = "the file system did not preserve the modification time: it is ";
    assert!(problem.to_string().starts_with(says), "{problem}");
    // Times before the epoch are kept.
    want.mtime = Timestamp { secs: -1_000_000_000, nanos: 999_999_999 };
    let applied = apply(&scratch, "f", &want);
    assert_exact(&scratch, "f", &want, &applied);
}

#[test]
fn an_acl_goes_and_leaves_the_mode_behind() {
    let scratch = Scratch::disk();
    make(&scratch.at("f"), FileKind::File);
    set_xattr(&scratch.at("f"), "system.posix_acl_access", &acl(6, 7, 4, 7, 0));
    set_xattr(&scratch.at("f"), "user.extra", b"x");
    let want = file(0o640, 0);
    let applied = apply(&scratch, "f", &want);
    assert_exact(&scratch, "f", &want, &applied);
    // And back, with only a part of it different.
    for mask in [4, 6] {
        let mut want = file(0o600 | mask << 3, 0);
        want.xattrs = vec![xattr("system.posix_acl_access", &acl(6, 7, 4, mask, 0))];
        let applied = apply(&scratch, "f", &want);
        assert_exact(&scratch, "f", &want, &applied);
    }
}

#[test]
fn values_of_64_kib_take_where_there_is_room() {
    let Some(scratch) = Scratch::image("xfs") else { return };
    make(&scratch.at("f"), FileKind::File);
    let mut want = file(0o644, 0);
    let value: Vec<u8> = (0..65536_u32).map(|i| (i * 7 % 251) as u8).collect();
    want.xattrs = vec![xattr("trusted.large", &value), xattr("user.large", &value)];
    let applied = apply(&scratch, "f", &want);
    assert_exact(&scratch, "f", &want, &applied);
    want.xattrs.pop();
    let applied = apply(&scratch, "f", &want);
    assert_exact(&scratch, "f", &want, &applied);
}

#[test]
fn a_value_without_room_is_a_problem_and_the_rest_is_set() {
    let scratch = Scratch::disk();
    make(&scratch.at("f"), FileKind::File);
    let mut want = Metadata { uid: 5, ..file(0o604, 0) };
    want.xattrs = vec![xattr("user.a", &[1; 60_000]), xattr("user.b", b"b")];
    let applied = apply(&scratch, "f", &want);
    let [problem] = &applied.problems[..] else { panic!("{:?}", applied.problems) };
    assert_eq!(
        problem.to_string(),
        "cannot set the attribute user.a: the file system has no room for attributes of this size"
    );
    want.xattrs.remove(0);
    assert_eq!(applied.actual, want);
}

#[test]
fn flags_are_lifted_for_a_change_and_set_last() {
    let scratch = Scratch::disk();
    for kind in [FileKind::File, FileKind::Directory] {
        let at = format!("{kind:?}");
        make(&scratch.at(&at), kind);
        let mut want = meta(kind, 0o711);
        for (immutable, append_only) in [(true, false), (true, true), (false, true), (true, true)] {
            want.attributes = Attributes { immutable, append_only };
            want.mtime.nanos += 1;
            want.uid += 1;
            let applied = apply(&scratch, &at, &want);
            assert_exact(&scratch, &at, &want, &applied);
        }
        want.attributes = Attributes::default();
        let applied = apply(&scratch, &at, &want);
        assert_exact(&scratch, &at, &want, &applied);
    }
}

#[test]
fn flags_that_may_not_be_set_are_a_problem() {
    let scratch = Scratch::disk();
    make(&scratch.at("f"), FileKind::File);
    let mut want = file(0o644, 0);
    want.attributes.immutable = true;
    let applied = without(CapabilitySet::LINUX_IMMUTABLE, || apply(&scratch, "f", &want));
    let [problem] = &applied.problems[..] else { panic!("{:?}", applied.problems) };
    assert_eq!(problem.to_string(), "cannot set inode flags: Operation not permitted");
    assert!(!applied.actual.attributes.immutable);
    assert_eq!(applied.actual.mtime, want.mtime);
}

#[test]
fn nobody_gets_set_id_bits_for_an_owner_that_could_not_be_set() {
    let scratch = Scratch::disk().of_user();
    let applied = as_user(|| {
        make(&scratch.at("f"), FileKind::File);
        let mut want = Metadata { uid: 0, gid: USER, ..file(0o6755, 0) };
        want.xattrs = vec![xattr("user.note", b"x")];
        apply(&scratch, "f", &want)
    });
    assert_eq!(applied.actual.mode, 0o755);
    assert_eq!((applied.actual.uid, applied.actual.gid), (USER, USER));
    assert_eq!(applied.actual.xattrs.len(), 1);
    let what: Vec<_> = applied.problems.iter().map(|p| (p.what.as_str(), p.errno)).collect();
    assert_eq!(
        what,
        [
            ("set owner 0:65534", Some(Errno::PERM)),
            ("set mode 6755 for another owner", Some(Errno::PERM))
        ]
    );
}

#[test]
fn a_user_gives_files_to_his_own_groups() {
    let scratch = Scratch::disk().of_user();
    let applied = as_user(|| {
        make(&scratch.at("f"), FileKind::File);
        apply(&scratch, "f", &Metadata { uid: 0, gid: GROUP, ..file(0o2755, 0) })
    });
    assert_eq!((applied.actual.uid, applied.actual.gid), (USER, GROUP));
    assert_eq!(
        applied.actual.mode, 0o755,
        "setgid would lend the group to a file of another owner"
    );
    let what: Vec<_> = applied.problems.iter().map(|p| p.what.as_str()).collect();
    assert_eq!(what, ["set owner 0:4343", "set mode 2755 for another owner"]);
}

#[test]
fn the_capabilities_of_a_transfer_pod_are_enough_for_all_but_one_thing() {
    let scratch = Scratch::disk();
    let pod = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SETFCAP
        | CapabilitySet::MKNOD;
    for (i, kind) in KINDS.into_iter().enumerate() {
        let at = i.to_string();
        make(&scratch.at(&at), kind);
        let mut want = rich(kind);
        let applied = without(!pod, || apply(&scratch, &at, &want));
        let what: Vec<_> = applied.problems.iter().map(|p| p.what.as_str()).collect();
        assert_eq!(what, ["set the attribute trusted.note"], "{kind:?}");
        want.xattrs.retain(|xattr| &*xattr.name != b"trusted.note");
        assert_same(&applied.actual, &want);
    }
}

#[test]
fn values_that_mean_something_else_to_the_kernel_are_refused() {
    let scratch = Scratch::disk();
    make(&scratch.at("f"), FileKind::File);
    let mut want = Metadata { uid: u32::MAX, gid: u32::MAX, ..file(0o644, 0) };
    // "Now", in the language of utimensat.
    want.mtime.nanos = 0x3fff_ffff;
    want.xattrs = vec![xattr("security.selinux", b"x"), xattr("system.nfs4_acl", b"x")];
    let applied = apply(&scratch, "f", &want);
    let what: Vec<_> = applied.problems.iter().map(|p| p.what.as_str()).collect();
    assert_eq!(
        what,
        [
            "set owner 4294967295:4294967295",
            "set the attribute security.selinux",
            "set the attribute system.nfs4_acl",
            "set modification time"
        ]
    );
    assert_eq!((applied.actual.uid, applied.actual.gid), (0, 0));
}

#[test]
fn an_entry_of_another_kind_is_left_alone() {
    let scratch = Scratch::disk();
    fs::write(scratch.at("target"), b"").unwrap();
    std::os::unix::fs::symlink("target", scratch.at("f")).unwrap();
    let before = fs::metadata(scratch.at("target")).unwrap();
    let want = Metadata { uid: 5, ..file(0o600, 0) };
    let error = apply_at(&scratch.dir, &name("f"), &want, ApplyOptions::default()).unwrap_err();
    assert_eq!((error.name.as_str(), error.errno), ("f", Errno::STALE));
    let after = fs::metadata(scratch.at("target")).unwrap();
    assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
}

#[test]
fn an_open_directory_gets_its_metadata_through_its_descriptor() {
    let scratch = Scratch::disk();
    fs::create_dir(scratch.at("d")).unwrap();
    let dir = scratch.dir.open_child(&name("d")).unwrap();
    let want = rich(FileKind::Directory);
    let applied = apply_dir(&dir, &want, ApplyOptions::default()).unwrap();
    assert_exact(&scratch, "d", &want, &applied);
}

fn some_xattrs() -> impl Strategy<Value = Vec<wire::Xattr>> {
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let one = (prop::sample::select(vec!["trusted.x", "user.a", "user.b", "user.c"]), value);
    prop::collection::btree_map(one.0, one.1, 0..4)
        .prop_map(|map| map.iter().map(|(name, value)| xattr(name, value)).collect())
}

fn some_metadata() -> impl Strategy<Value = Metadata> {
    let time = (-1_000_000_000..4_000_000_000_i64, 0..1_000_000_000_u32);
    (0..0o10000_u16, 0..5_u32, 0..u32::MAX, time, some_xattrs()).prop_map(
        |(mode, uid, gid, (secs, nanos), xattrs)| Metadata {
            uid,
            gid,
            mtime: Timestamp { secs, nanos },
            xattrs,
            ..file(mode, 0)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn from_any_metadata_to_any_other(steps in prop::collection::vec(some_metadata(), 1..4)) {
        let scratch = Scratch::memory();
        let open = fs::File::create(scratch.at("f")).unwrap();
        for want in steps {
            use std::os::fd::AsFd as _;
            let by_name = apply(&scratch, "f", &want);
            assert_exact(&scratch, "f", &want, &by_name);
            let again =
                apply_fd(&scratch.dir, &name("f"), open.as_fd(), &want, ApplyOptions::default());
            prop_assert!(!again.unwrap().changed);
        }
    }
}
