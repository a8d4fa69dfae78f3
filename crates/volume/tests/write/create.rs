//! Directories, links, FIFOs, sockets and devices.

use std::fs;

use rustix::io::Errno;
use volume::{
    create::{
        ParentHints, can_stage_directories, directory, left_directory, node, publish_directory,
        staged_directory,
    },
    list::NameList,
    metadata::{ApplyOptions, apply_dir},
    small,
    staging::{CONFLICT, Place, Staging},
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
            scratch.replace_node(&first).unwrap();
            new.name = name("x");
            let applied = scratch.replace_node(&new).unwrap();
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
        fs::write(scratch.part("d"), b"stale").unwrap();
        let error = scratch.replace_node(&new).unwrap_err();
        assert_eq!((error.name.as_str(), error.errno), ("d", Errno::ISDIR));
        assert_eq!(scratch.names(), ["d"]);
        assert_eq!(scratch.unfinished(), [""; 0]);
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
        let applied = scratch.write_over(&scratch.dir, "new", &want, b"abd").unwrap();
        assert_exact(&scratch, "new", &want, &applied);
        let writer = scratch.staged(&scratch.dir, "b").unwrap();
        writer.write_at(0, b"abc").unwrap();
        let applied = writer.finish(&want, options).unwrap();
        assert_exact(&scratch, "b", &want, &applied);
        for entry in nodes() {
            let applied = node(&scratch.dir, &entry, options).unwrap();
            assert_node(&scratch, &entry, &applied);
            let applied = scratch.replace_node(&entry).unwrap();
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
        let applied = scratch.write_over(&scratch.dir, "f", &want, b"x").unwrap();
        assert_exact(&scratch, "f", &want, &applied);
        let at = format!("d{gid}");
        let made = directory(&scratch.dir, &name(&at), hints).unwrap();
        let want = Metadata { gid, ..meta(FileKind::Directory, 0o755) };
        let applied = apply_dir(&made, &want, options).unwrap();
        assert_exact(&scratch, &at, &want, &applied);
    }
}

#[test]
fn a_directory_is_filled_unseen_and_published() {
    let scratch = Scratch::disk();
    let hints = ParentHints::of(&scratch.dir).unwrap();
    assert!(can_stage_directories(&scratch.dir, hints).unwrap());
    let made = scratch.place(&scratch.dir, "d", false, staged_directory).unwrap();
    assert_eq!(made.display(), "d");
    let options = ApplyOptions::default();
    small::write_new(&made, &name("f"), &file(0o600, 1), b"1", hints, options).unwrap();
    let sub = directory(&made, &name("sub"), hints).unwrap();
    assert_eq!(sub.display(), "d/sub");
    assert_eq!(scratch.names(), [""; 0]);
    // Still the same directories, also when they have to be opened again.
    for published in [false, true] {
        if published {
            publish_directory(&made).unwrap();
            assert_eq!(scratch.names(), ["d"]);
        }
        made.release();
        sub.release();
        let at = name(if published { "after" } else { "before" });
        small::write_new(&sub, &at, &file(0o600, 1), b"2", hints, options).unwrap();
    }
    assert_eq!(names(&scratch.at("d/sub")), ["after", "before"]);

    let other = scratch.place(&scratch.dir, "d", false, staged_directory).unwrap();
    let error = publish_directory(&other).unwrap_err();
    assert_eq!((error.operation, error.errno), (CONFLICT, Errno::EXIST));
    let error = publish_directory(&scratch.dir).unwrap_err();
    assert_eq!(error.errno, Errno::INVAL);
    // The next run finds it.
    let names = NameList::read(&scratch.dir).unwrap();
    let staging = Staging::find(&scratch.dir, &names).unwrap();
    let next =
        Place { staging: &staging, dir: &scratch.dir, name: &name("d"), occupied: false, hints };
    assert_eq!(left_directory(next).unwrap().unwrap().identity(), other.identity());
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
    let write = |at: &str| scratch.write_over(&dir, at, &file(0o600, 1), b"x").map(|_| ());
    // Held open, it is still the directory that it was.
    write("held").unwrap();
    assert_eq!(names(&scratch.at("moved")), ["held"]);
    dir.release();
    assert!(write("f").is_err());
    assert!(directory(&dir, &name("sub"), hints).is_err());
    let writer = scratch.place(&scratch.dir, "f", true, |place| {
        let place = Place { dir: &dir, ..place };
        volume::writer::FileWriter::staged(place)
    });
    assert!(writer.unwrap().finish(&file(0o600, 0), options).is_err());
    assert!(scratch.dir.open_child(&name("d")).is_err());
    assert_eq!(fs::read(outside.at("f")).unwrap(), b"outside");
    assert_eq!(outside.names(), ["f"]);
}
