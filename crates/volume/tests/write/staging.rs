//! The staging directory, and what happens to an entry that appears after a directory was listed.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::io::Errno;
use volume::{
    Error,
    create::{ParentHints, adopt, directory, link, node, publish_directory, staged_directory},
    list::NameList,
    metadata::ApplyOptions,
    small,
    staging::{self, CONFLICT, Staging},
    writer::FileWriter,
};
use wire::FileKind;

use super::support::*;

fn find(scratch: &Scratch) -> Staging {
    Staging::find(&scratch.dir, &NameList::read(&scratch.dir).unwrap()).unwrap()
}

fn paths(staging: &Staging, scratch: &Scratch) -> Vec<std::path::PathBuf> {
    staging.dirs().iter().map(|dir| scratch.at(&dir.display())).collect()
}

#[test]
fn an_entry_that_appears_after_the_listing_is_not_replaced() {
    let scratch = Scratch::disk();
    let options = ApplyOptions::default();
    fs::write(scratch.at("leader"), b"leader").unwrap();
    let hints = ParentHints::of(&scratch.dir).unwrap();
    type Way<'a> = &'a dyn Fn() -> volume::Result<()>;
    let appear = || fs::write(scratch.at("x"), b"somebody's").unwrap();
    let ways: [(&str, Way<'_>); 8] = [
        ("large file", &|| {
            let writer = scratch.place(&scratch.dir, "x", false, FileWriter::staged)?;
            appear();
            writer.finish(&file(0o600, 0), options).map(|_| ())
        }),
        ("small file", &|| {
            appear();
            scratch
                .place(&scratch.dir, "x", false, |place| {
                    small::write_over(place, &file(0o600, 1), b"1", options)
                })
                .map(|_| ())
        }),
        ("small file with flags", &|| {
            appear();
            let mut want = file(0o600, 1);
            want.attributes.immutable = true;
            scratch
                .place(&scratch.dir, "x", false, |place| {
                    small::write_over(place, &want, b"1", options)
                })
                .map(|_| ())
        }),
        ("small file in a new directory", &|| {
            appear();
            let want = file(0o600, 1);
            small::write_new(&scratch.dir, &name("x"), &want, b"1", hints, options).map(|_| ())
        }),
        ("directory", &|| {
            let made = scratch.place(&scratch.dir, "x", false, staged_directory)?;
            appear();
            publish_directory(&made).inspect_err(|_| {
                fs::remove_dir(scratch.part("x").with_file_name(staged_dir(&scratch))).unwrap();
            })
        }),
        ("directory in a new directory", &|| {
            appear();
            directory(&scratch.dir, &name("x"), hints).map(|_| ())
        }),
        ("link", &|| {
            appear();
            let leader = name("leader");
            scratch.place(&scratch.dir, "x", false, |place| link(&scratch.dir, &leader, place))
        }),
        ("symbolic link", &|| {
            appear();
            let entry = entry("x", meta(FileKind::Symlink, 0o777), b"target");
            node(&scratch.dir, &entry, options).map(|_| ())
        }),
    ];
    for (what, way) in ways {
        let _ = fs::remove_file(scratch.at("x"));
        let error = way().unwrap_err();
        assert_eq!(error, Error::new(CONFLICT, "x", Errno::EXIST), "{what}");
        assert_eq!(fs::read(scratch.at("x")).unwrap(), b"somebody's", "{what}");
        assert_eq!(scratch.unfinished(), [""; 0], "{what}");
    }
}

fn staged_dir(scratch: &Scratch) -> String {
    staging::staged_dir_name(&scratch.dir, &name("x")).to_string()
}

#[test]
fn it_is_private_and_recognised_by_its_own_inode_number_alone() {
    let scratch = Scratch::disk();
    set_default_acl(&scratch.path);
    std::os::unix::fs::chown(&scratch.path, None, Some(555)).unwrap();
    fs::set_permissions(&scratch.path, std::os::unix::fs::PermissionsExt::from_mode(0o2777))
        .unwrap();
    let before = fs::metadata(&scratch.path).unwrap();
    assert!(find(&scratch).dirs().is_empty());
    fs::write(scratch.part("kept"), b"part").unwrap();
    let [made] = &paths(&scratch.staging, &scratch)[..] else { panic!() };
    let now = fs::metadata(&scratch.path).unwrap();
    assert_eq!((now.mtime(), now.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
    assert_eq!(fs::metadata(made).unwrap().mode() & 0o7777, 0o700);
    assert!(!ParentHints::of(&scratch.staging.dir().unwrap()).unwrap().default_acl);

    let found = find(&scratch);
    assert_eq!(paths(&found, &scratch), std::slice::from_ref(made));
    assert!(found.left_part(&scratch.dir, &name("kept")));
    assert!(!found.left_part(&scratch.dir, &name("other")));
    // None of these is one: a copy, one that others may enter, one of somebody else, one that lies deeper.
    let moved = scratch.at("moved");
    fs::rename(made, &moved).unwrap();
    fs::create_dir(made).unwrap();
    fs::set_permissions(made, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    assert!(find(&scratch).dirs().is_empty(), "a copy");
    fs::remove_dir(made).unwrap();
    fs::create_dir(scratch.at("sub")).unwrap();
    let deeper = scratch.at("sub").join(made.file_name().unwrap());
    fs::rename(&moved, &deeper).unwrap();
    assert!(find(&scratch).dirs().is_empty(), "deeper");
    fs::rename(&deeper, made).unwrap();
    for mode in [0o710, 0o701, 0o777] {
        fs::set_permissions(made, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        assert!(find(&scratch).dirs().is_empty(), "{mode:o}");
    }
    fs::set_permissions(made, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(made, Some(USER), None).unwrap();
    assert!(find(&scratch).dirs().is_empty(), "of another user");
    std::os::unix::fs::chown(made, Some(0), None).unwrap();
    assert_eq!(find(&scratch).dirs().len(), 1);
}

#[test]
fn all_that_are_left_are_cleared_and_removed_and_the_root_keeps_its_time() {
    let scratch = Scratch::disk();
    let lay = |random: &str| {
        let path = scratch.at("made");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        fs::create_dir_all(path.join("half-dir/sub")).unwrap();
        fs::write(path.join("part"), b"part").unwrap();
        fs::write(path.join("crash-marker"), b"marker").unwrap();
        let number = fs::metadata(&path).unwrap().ino();
        let name = format!(".pvferry-{number:x}-{random}");
        fs::rename(&path, scratch.at(&name)).unwrap();
    };
    lay("0123456789abcdef");
    lay("fedcba9876543210");
    fs::write(scratch.at("data"), b"").unwrap();
    let staging = find(&scratch);
    assert_eq!(staging.dirs().len(), 2);
    let before = fs::metadata(&scratch.path).unwrap();
    staging.clear(&mut |error| panic!("{error}"));
    for path in paths(&staging, &scratch) {
        assert_eq!(names(&path), ["crash-marker"]);
    }
    staging.remove(false).unwrap();
    assert_eq!(names(&scratch.path), ["data"]);
    let after = fs::metadata(&scratch.path).unwrap();
    assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
}

#[test]
fn with_unfinished_entries_in_it_it_stays_where_they_are_to_be_kept() {
    let scratch = Scratch::disk();
    fs::write(scratch.part("f"), b"part").unwrap();
    scratch.staging.remove(true).unwrap();
    assert_eq!(find(&scratch).dirs().len(), 1);
    let staging = find(&scratch);
    assert_eq!(staging.remove(false).unwrap_err().errno, Errno::NOTEMPTY);
}

#[test]
fn names_are_recognised_in_their_exact_form_only() {
    let exact = b".pvferry-2f-0123456789abcdef";
    assert_eq!(staging::inode_number(exact), Some(0x2f));
    for cut in 0..exact.len() {
        assert_eq!(staging::inode_number(&exact[..cut]), None, "{cut}");
    }
    let others: [&[u8]; 8] = [
        b".pvferry-2f-0123456789abcdef0",
        b".pvferry-2F-0123456789abcdef",
        b".pvferry-02f-0123456789abcdef",
        b".pvferry-2f-0123456789abcdeg",
        b".pvferry--0123456789abcdef",
        b".pvferry-+2-0123456789abcdef",
        b".pvferry-10000000000000000-0123456789abcdef",
        b"x.pvferry-2f-0123456789abcdef",
    ];
    for other in others {
        assert_eq!(staging::inode_number(other), None, "{}", other.escape_ascii());
    }
}

#[test]
fn a_renamed_file_is_taken_into_staging_and_its_flags_do_not_matter() {
    let scratch = Scratch::disk();
    fs::create_dir(scratch.at("old")).unwrap();
    fs::write(scratch.at("old/f"), b"content").unwrap();
    let old = scratch.dir.open_child(&name("old")).unwrap();
    scratch.place(&scratch.dir, "new", false, |place| adopt(&old, &name("f"), place)).unwrap();
    assert_eq!(names(&scratch.at("old")), [""; 0]);
    let part = scratch.place(&scratch.dir, "new", false, FileWriter::open_part).unwrap();
    assert_eq!(part.unwrap().1, 7);
}

#[test]
fn an_unwritable_root_is_named() {
    let scratch = Scratch::disk();
    fs::set_permissions(&scratch.path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let error = as_user(|| scratch.staged(&scratch.dir, "f").err().unwrap());
    let shown = error.to_string();
    assert!(shown.starts_with(".: create the staging directory: Permission denied"), "{shown}");
    assert_eq!(names(Path::new(&scratch.path)), [""; 0]);
}
