//! Directories, links, FIFOs, sockets and devices.

use std::fs;

use rustix::io::Errno;
use volume::{
    create::{ParentHints, directory, node, publish_directory, replace_node},
    metadata::{ApplyOptions, apply_dir},
    small, temp,
    writer::FileWriter,
};
use wire::{FileKind, Metadata};

use super::support::*;

fn nodes() -> Vec<wire::Entry> {
    let device = |kind| Metadata { rdev: (259, 77_777), ..meta(kind, 0o622) };
    vec![
        entry("link", meta(FileKind::Symlink, 0o777), b"/nowhere/\xff\n"),
        entry("long", meta(FileKind::Symlink, 0o777), &[b'x'; 4095]),
        entry("loop", meta(FileKind::Symlink, 0o777), b"loop"),
        entry("fifo", Metadata { uid: 7, ..meta(FileKind::Fifo, 0o640) }, b""),
        entry("sock", Metadata { gid: 8, ..meta(FileKind::Socket, 0o755) }, b""),
        entry("char", device(FileKind::CharDevice), b""),
        entry("block", device(FileKind::BlockDevice), b""),
    ]
}

fn assert_node(scratch: &Scratch, entry: &wire::Entry, applied: &volume::metadata::Applied) {
    assert_exact(scratch, &entry.name.to_string(), &entry.meta, applied);
    let options = volume::stat::ReadOptions::default();
    let (read, _) = volume::stat::read_entry(&scratch.dir, &entry.name, &options).unwrap();
    assert_eq!(read.target, entry.target);
}

#[test]
fn every_kind_is_made_where_its_name_is_free() {
    for scratch in [Scratch::disk(), Scratch::memory()] {
        for entry in nodes() {
            // ext4 keeps 4,095 bytes of a link only in blocks of 4 KiB, which /tmp has.
            let applied = node(&scratch.dir, &entry, ApplyOptions::default()).unwrap();
            assert_node(&scratch, &entry, &applied);
            let error = node(&scratch.dir, &entry, ApplyOptions::default()).unwrap_err();
            assert_eq!(error.errno, Errno::EXIST);
        }
        assert_eq!(scratch.names().len(), nodes().len());
    }
}

#[test]
fn every_kind_takes_the_place_of_every_other_but_a_directory() {
    let scratch = Scratch::disk();
    for old in nodes() {
        for mut new in nodes() {
            fs::write(scratch.at("outside"), b"outside").unwrap();
            let first = wire::Entry { name: name("x"), ..old.clone() };
            replace_node(&scratch.dir, &first, ApplyOptions::default()).unwrap();
            new.name = name("x");
            let applied = replace_node(&scratch.dir, &new, ApplyOptions::default()).unwrap();
            assert_node(&scratch, &new, &applied);
        }
    }
    assert_eq!(scratch.names(), ["outside", "x"]);
}

#[test]
fn a_directory_is_not_replaced_and_nothing_is_left_behind() {
    let scratch = Scratch::disk();
    for mut new in nodes() {
        new.name = name("d");
        let _ = fs::create_dir(scratch.at("d"));
        // What a run that was killed has left.
        fs::write(scratch.at(&temp::part_name(&new.name).to_string()), b"stale").unwrap();
        let error = replace_node(&scratch.dir, &new, ApplyOptions::default()).unwrap_err();
        assert_eq!((error.name.as_str(), error.errno), ("d", Errno::ISDIR));
        assert_eq!(scratch.names(), ["d"]);
    }
}

#[test]
fn a_device_that_may_not_be_made_is_an_error_of_its_name() {
    let scratch = Scratch::disk().of_user();
    for new in nodes() {
        let made = as_user(|| node(&scratch.dir, &new, ApplyOptions::default()));
        let device = matches!(new.meta.kind, FileKind::CharDevice | FileKind::BlockDevice);
        match made {
            Err(error) => {
                assert!(device);
                assert_eq!((error.name, error.errno), (new.name.to_string(), Errno::PERM));
            }
            Ok(applied) => assert!(!device && !applied.problems.is_empty()),
        }
    }
}

#[test]
fn a_default_acl_of_the_parent_leaks_into_nothing() {
    for scratch in [Scratch::disk(), Scratch::memory()] {
        set_default_acl(&scratch.path);
        let hints = ParentHints::of(&scratch.dir).unwrap();
        assert!(hints.default_acl);
        let options = ApplyOptions::default();

        let made = directory(&scratch.dir, &name("d"), hints).unwrap();
        // Before anything is applied: it must not hand the ACL down while it is being filled.
        assert!(!ParentHints::of(&made).unwrap().default_acl);
        let want = meta(FileKind::Directory, 0o755);
        let applied = apply_dir(&made, &want, options).unwrap();
        assert_exact(&scratch, "d", &want, &applied);

        let want = file(0o664, 3);
        let applied =
            small::write_new(&scratch.dir, &name("new"), &want, b"abc", hints, options).unwrap();
        assert_exact(&scratch, "new", &want, &applied);
        let applied =
            small::write_over(&scratch.dir, &name("new"), &want, b"abd", hints, options).unwrap();
        assert_exact(&scratch, "new", &want, &applied);
        for (at, writer) in [
            ("a", FileWriter::create_new(&scratch.dir, &name("a")).unwrap()),
            ("b", FileWriter::beside(&scratch.dir, &name("b")).unwrap()),
        ] {
            writer.write_at(0, b"abc").unwrap();
            let applied = writer.finish(&want, options).unwrap();
            assert_exact(&scratch, at, &want, &applied);
        }
        for entry in nodes() {
            let applied = node(&scratch.dir, &entry, options).unwrap();
            assert_node(&scratch, &entry, &applied);
            let applied = replace_node(&scratch.dir, &entry, options).unwrap();
            assert_node(&scratch, &entry, &applied);
        }
    }
}

#[test]
fn a_setgid_parent_is_foreseen() {
    let scratch = Scratch::disk();
    std::os::unix::fs::chown(&scratch.path, None, Some(555)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o2777);
    fs::set_permissions(&scratch.path, mode).unwrap();
    let hints = ParentHints::of(&scratch.dir).unwrap();
    assert_eq!((hints.uid, hints.gid), (0, 555));
    for gid in [0, 555] {
        let options = ApplyOptions::default();
        let want = Metadata { gid, ..file(0o640, 1) };
        let applied =
            small::write_over(&scratch.dir, &name("f"), &want, b"x", hints, options).unwrap();
        assert_exact(&scratch, "f", &want, &applied);
        let at = format!("d{gid}");
        let made = directory(&scratch.dir, &name(&at), hints).unwrap();
        let want = Metadata { gid, ..meta(FileKind::Directory, 0o755) };
        let applied = apply_dir(&made, &want, options).unwrap();
        assert_exact(&scratch, &at, &want, &applied);
    }
}

#[test]
fn a_directory_is_filled_under_its_temporary_name_and_published() {
    let scratch = Scratch::disk();
    let hints = ParentHints::of(&scratch.dir).unwrap();
    let made = directory(&scratch.dir, &temp::new_dir_name(&name("d")), hints).unwrap();
    made.show_as(name("d"));
    assert_eq!(made.display(), "d");
    let options = ApplyOptions::default();
    small::write_new(&made, &name("f"), &file(0o600, 1), b"1", hints, options).unwrap();
    assert!(!scratch.at("d").exists());
    publish_directory(&made, &name("d")).unwrap();
    assert_eq!(scratch.names(), ["d"]);
    // Still the same directory, also when it has to be opened again.
    made.release();
    small::write_new(&made, &name("g"), &file(0o600, 1), b"2", hints, options).unwrap();
    assert_eq!(names(&scratch.at("d")), ["f", "g"]);

    let other = directory(&scratch.dir, &name("other"), hints).unwrap();
    let error = publish_directory(&other, &name("d")).unwrap_err();
    assert_eq!(error.errno, Errno::EXIST);
    let error = publish_directory(&scratch.dir, &name("d")).unwrap_err();
    assert_eq!(error.errno, Errno::INVAL);
}

#[test]
fn a_directory_that_became_a_link_leads_nowhere() {
    let (scratch, outside) = (Scratch::disk(), Scratch::disk());
    fs::create_dir(scratch.at("d")).unwrap();
    fs::write(outside.at("f"), b"outside").unwrap();
    let dir = scratch.dir.open_child(&name("d")).unwrap();
    let hints = ParentHints::of(&dir).unwrap();
    fs::rename(scratch.at("d"), scratch.at("moved")).unwrap();
    std::os::unix::fs::symlink(&outside.path, scratch.at("d")).unwrap();
    let options = ApplyOptions::default();
    let write = |at: &str| {
        small::write_over(&dir, &name(at), &file(0o600, 1), b"x", hints, options).map(|_| ())
    };
    // Held open, it is still the directory that it was.
    write("held").unwrap();
    assert_eq!(names(&scratch.at("moved")), ["held"]);
    dir.release();
    assert!(write("f").is_err());
    assert!(directory(&dir, &name("sub"), hints).is_err());
    assert!(FileWriter::beside(&dir, &name("f")).is_err());
    assert!(scratch.dir.open_child(&name("d")).is_err());
    assert_eq!(fs::read(outside.at("f")).unwrap(), b"outside");
    assert_eq!(outside.names(), ["f"]);
}
