//! Entries that forbid to be changed: to their owner by the mode, to everybody by inode flags.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use rustix::{io::Errno, thread::CapabilitySet};
use volume::{
    create::{ParentHints, directory, link, node},
    metadata::{ApplyOptions, apply_at, apply_dir},
    unlock,
    writer::FileWriter,
};
use wire::{FileKind, Metadata};

use super::support::*;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn close(path: &Path, mode: u32) {
    chown(path, Some(USER), Some(USER)).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Metadata as the ordinary user can set it.
fn own(meta: Metadata) -> Metadata {
    Metadata { uid: USER, gid: USER, ..meta }
}

#[test]
fn a_directory_without_write_permission_is_written_by_its_owner_and_closed_again() {
    let scratch = Scratch::disk().of_user();
    fs::create_dir(scratch.at("d")).unwrap();
    fs::write(scratch.at("d/leader"), b"").unwrap();
    chown(scratch.at("d/leader"), Some(USER), Some(USER)).unwrap();
    let options = ApplyOptions::default();
    type Change<'a> = &'a (dyn Fn(&volume::Dir) -> volume::Result<()> + Sync);
    let ways: [(&str, Change<'_>); 6] = [
        ("dir", &|d| directory(d, &name("dir"), ParentHints::of(d)?).map(|_| ())),
        ("small", &|d| scratch.write_over(d, "small", &own(file(0o400, 1)), b"x").map(|_| ())),
        ("file", &|d| scratch.staged(d, "file")?.finish(&own(file(0o400, 0)), options).map(|_| ())),
        ("fifo", &|d| {
            node(d, &entry("fifo", own(meta(FileKind::Fifo, 0o200)), b""), options).map(|_| ())
        }),
        ("symlink", &|d| {
            node(d, &entry("symlink", own(meta(FileKind::Symlink, 0o777)), b"x"), options)
                .map(|_| ())
        }),
        ("link", &|d| scratch.place(d, "link", false, |place| link(d, &name("leader"), place))),
    ];
    for (at, change) in ways {
        close(&scratch.at("d"), 0o550);
        let want = own(meta(FileKind::Directory, 0o550));
        let applied = as_user(|| {
            let dir = scratch.dir.open_child(&name("d")).unwrap();
            change(&dir).unwrap();
            apply_dir(&dir, &want, options).unwrap()
        });
        assert!(fs::symlink_metadata(scratch.at("d").join(at)).is_ok(), "{at}");
        assert_exact(&scratch, "d", &want, &applied);
    }
}

#[test]
fn a_directory_that_its_owner_cannot_open_is_opened_by_him() {
    let scratch = Scratch::disk().of_user();
    fs::create_dir(scratch.at("d")).unwrap();
    close(&scratch.at("d"), 0o000);
    as_user(|| {
        assert_eq!(scratch.dir.open_child(&name("d")).err().unwrap().errno, Errno::ACCESS);
        let opened = unlock::open_dir(&scratch.dir, &name("d")).unwrap();
        assert_eq!(mode(&scratch.at("d")), 0o700);
        assert!(unlock::restore(&opened).unwrap());
        assert_eq!(mode(&scratch.at("d")), 0o000);
        assert!(!unlock::restore(&opened).unwrap());
        // At the latest when nobody holds it any more, whether its descriptor was given back or not.
        for released in [false, true] {
            let opened = unlock::open_dir(&scratch.dir, &name("d")).unwrap();
            fs::create_dir(scratch.at("d/below")).unwrap();
            let below = opened.open_child(&name("below")).unwrap();
            if released {
                opened.release();
            }
            drop(opened);
            assert_eq!(mode(&scratch.at("d")), 0o700);
            fs::remove_dir(scratch.at("d/below")).unwrap();
            drop(below);
            assert_eq!(mode(&scratch.at("d")), 0o000);
        }
    });
    // Somebody else's stays closed.
    chown(scratch.at("d"), Some(0), Some(0)).unwrap();
    fs::set_permissions(scratch.at("d"), PermissionsExt::from_mode(0o700)).unwrap();
    as_user(|| {
        let error = unlock::open_dir(&scratch.dir, &name("d")).err().unwrap();
        assert_eq!((error.name.as_str(), error.errno), ("d", Errno::ACCESS));
    });
}

#[test]
fn a_read_only_file_is_patched_by_its_owner_and_never_opened_to_others() {
    let scratch = Scratch::disk().of_user();
    fs::write(scratch.at("f"), b"old").unwrap();
    close(&scratch.at("f"), 0o404);
    as_user(|| {
        let place = identity(&scratch.at("f"));
        let want = own(file(0o404, 3));
        let open = || FileWriter::in_place(&scratch.dir, &name("f"), place, &want).unwrap();
        let writer = open();
        assert_eq!(mode(&scratch.at("f")), 0o404, "put back as soon as it is open");
        writer.write_at(0, b"new").unwrap();
        assert_eq!(mode(&scratch.at("f")), 0o404);
        drop(writer);
        assert_eq!(mode(&scratch.at("f")), 0o404);
        let writer = open();
        writer.write_at(0, b"NEW").unwrap();
        let applied = writer.finish(&want, ApplyOptions::default()).unwrap();
        assert_exact(&scratch, "f", &want, &applied);
    });
    assert_eq!(fs::read(scratch.at("f")).unwrap(), b"NEW");
}

#[test]
fn attributes_of_a_closed_file_are_set_by_its_owner() {
    let scratch = Scratch::disk().of_user();
    for (at, closed) in [("none", 0o000), ("read", 0o400), ("write", 0o200)] {
        fs::write(scratch.at(at), b"").unwrap();
        set_xattr(&scratch.at(at), "user.old", b"old");
        close(&scratch.at(at), closed);
        let mut want = own(file(closed as u16, 0));
        want.xattrs = vec![xattr("user.new", b"new")];
        let applied =
            as_user(|| apply_at(&scratch.dir, &name(at), &want, ApplyOptions::default()).unwrap());
        assert_exact(&scratch, at, &want, &applied);
        let again =
            as_user(|| apply_at(&scratch.dir, &name(at), &want, ApplyOptions::default()).unwrap());
        assert!(!again.changed);
        assert_eq!(mode(&scratch.at(at)), closed);
    }
}

#[test]
fn flags_of_a_directory_and_of_a_file_are_cleared_for_a_change() {
    let scratch = Scratch::disk();
    let hints = ParentHints::of(&scratch.dir).unwrap();
    let sub = directory(&scratch.dir, &name("d"), hints).unwrap();
    for flag in ["+i", "+a"] {
        fs::write(scratch.at("d/f"), b"old").unwrap();
        let paths = [scratch.at("d/f"), scratch.at("d")];
        if !paths.iter().all(|path| run(&["chattr", flag, path.to_str().unwrap()])) {
            return skip("no inode flags on /tmp");
        }
        let options = ApplyOptions::default();
        let place = identity(&paths[0]);
        let patch = || FileWriter::in_place(&sub, &name("f"), place, &file(0o600, 3));
        let replace = || scratch.write_over(&sub, "f", &file(0o600, 1), b"x").map(|_| ());
        let error = without(CapabilitySet::LINUX_IMMUTABLE, replace).unwrap_err();
        assert_eq!((error.name.as_str(), error.errno), ("d/f", Errno::PERM));
        let error = without(CapabilitySet::LINUX_IMMUTABLE, || patch().err().unwrap());
        assert_eq!((error.name.as_str(), error.errno), ("d/f", Errno::PERM));
        assert_eq!(fs::read(&paths[0]).unwrap(), b"old");
        patch().unwrap().write_at(0, b"OLD").unwrap();
        assert!(fs::write(&paths[0], b"no").is_err(), "the flag is put back");
        replace().unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), b"x");
        assert_eq!(names(&paths[1]), ["f"]);
        // Whoever changed something in a directory applies its metadata in the end.
        let mut want = meta(FileKind::Directory, 0o755);
        want.attributes.immutable = flag == "+i";
        want.attributes.append_only = flag == "+a";
        let applied = apply_dir(&sub, &want, options).unwrap();
        assert_exact(&scratch, "d", &want, &applied);
        assert!(unlock::clear_blocking_flags(&scratch.dir, &name("d")).unwrap());
        assert!(!unlock::clear_blocking_flags(&scratch.dir, &name("d")).unwrap());
    }
}

#[test]
fn set_id_bits_and_capabilities_fall_where_owner_or_group_is_not_the_wanted_one() {
    let scratch = Scratch::disk().of_user();
    let options = ApplyOptions::default();
    let cases = [
        // Another owner, another group, both; and the right ones.
        (0, USER, 0o755, 3),
        (USER, 0, 0o755, 3),
        (0, 0, 0o755, 3),
        (USER, USER, 0o6755, 0),
    ];
    for (uid, gid, expected, problems) in cases {
        fs::write(scratch.at("f"), b"").unwrap();
        close(&scratch.at("f"), 0o6755);
        let capability = xattr("security.capability", &capability());
        let mut want = Metadata { uid, gid, ..file(0o6755, 0) };
        if problems > 0 {
            want.xattrs.push(capability);
        }
        let applied = as_user(|| apply_at(&scratch.dir, &name("f"), &want, options).unwrap());
        assert_eq!(mode(&scratch.at("f")), expected, "{uid}:{gid}");
        assert_eq!(applied.actual.mode, expected as u16);
        assert_eq!(applied.problems.len(), problems, "{:?}", applied.problems);
    }
    // The right to set a capability does not help where the owner could not be set.
    fs::write(scratch.at("f"), b"").unwrap();
    let mut want = Metadata { uid: USER, ..file(0o4755, 0) };
    want.xattrs = vec![xattr("security.capability", &capability())];
    chown(scratch.at("f"), Some(0), Some(0)).unwrap();
    let apply = || apply_at(&scratch.dir, &name("f"), &want, options).unwrap();
    let applied = without(CapabilitySet::CHOWN, apply);
    assert!(applied.actual.xattrs.is_empty(), "{:?}", applied.actual);
    assert_eq!((applied.actual.mode, applied.problems.len()), (0o755, 3));
}

/// Two threads meet the same flag or mode: the one that comes second finds nothing in its way.
#[test]
fn a_change_that_was_refused_is_tried_again_where_another_thread_has_cleared_the_way() {
    let scratch = Scratch::disk();
    for refused in [Errno::PERM, Errno::ACCESS] {
        for refusals in [1, 2] {
            let mut tries = 0;
            let done = unlock::unlocking(&scratch.dir, None, || {
                tries += 1;
                if tries > refusals { Ok(()) } else { Err(refused) }
            });
            assert_eq!((done, tries), (if refusals == 1 { Ok(()) } else { Err(refused) }, 2));
        }
    }
}
