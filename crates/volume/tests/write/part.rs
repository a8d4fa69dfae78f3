//! Files that are written in the staging directory.

use std::{fs, os::unix::fs::PermissionsExt};

use rustix::io::Errno;
use volume::{
    create::{ParentHints, directory},
    metadata::ApplyOptions,
    writer::FileWriter,
};
use wire::Metadata;

use super::support::*;

/// What an earlier run left of `f`.
fn open_part(scratch: &Scratch) -> Option<(FileWriter, u64)> {
    scratch.place(&scratch.dir, "f", false, FileWriter::open_part).unwrap()
}

#[test]
fn a_file_shows_when_it_is_whole_and_not_before() {
    let scratch = Scratch::disk();
    fs::write(scratch.at("f"), b"old").unwrap();
    let writer = scratch.staged(&scratch.dir, "f").unwrap();
    writer.write_at(3, b"def").unwrap();
    writer.write_at(0, b"abc").unwrap();
    assert_eq!(fs::read(scratch.at("f")).unwrap(), b"old");
    let mode = fs::metadata(scratch.part("f")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let want = Metadata { uid: 3, ..file(0o4711, 6) };
    let applied = writer.finish(&want, ApplyOptions::default()).unwrap();
    assert_exact(&scratch, "f", &want, &applied);
    assert_eq!(fs::read(scratch.at("f")).unwrap(), b"abcdef");
    assert_eq!(scratch.names(), ["f"]);
}

#[test]
fn a_file_of_another_size_than_announced_is_not_published() {
    let scratch = Scratch::disk();
    fs::write(scratch.at("f"), b"old").unwrap();
    for size in [0, 2, 4] {
        let writer = scratch.staged(&scratch.dir, "f").unwrap();
        writer.write_at(0, b"new").unwrap();
        let error = writer.finish(&file(0o600, size), ApplyOptions::default()).unwrap_err();
        assert_eq!((error.name.as_str(), error.errno), ("f", Errno::UCLEAN));
    }
    assert_eq!(fs::read(scratch.at("f")).unwrap(), b"old");
    assert_eq!(scratch.names(), ["f"]);
}

#[test]
fn what_is_dropped_unfinished_is_gone_and_what_is_kept_is_there() {
    let scratch = Scratch::disk();
    let unfinished = || {
        let writer = scratch.staged(&scratch.dir, "f").unwrap();
        writer.write_at(0, b"some").unwrap();
        writer
    };
    drop(unfinished());
    assert_eq!(scratch.unfinished(), [""; 0]);

    assert!(open_part(&scratch).is_none());
    unfinished().keep();
    assert!(scratch.part("f").exists());
    assert_eq!(scratch.names(), [""; 0]);
    let (writer, size) = open_part(&scratch).unwrap();
    let mut basis = [0; 10];
    assert_eq!((size, writer.read_at(0, &mut basis).unwrap()), (4, 4));
    writer.write_at(4, b"thing").unwrap();
    let want = file(0o644, 9);
    let applied = writer.finish(&want, ApplyOptions::default()).unwrap();
    assert_exact(&scratch, "f", &want, &applied);
    assert_eq!(fs::read(scratch.at("f")).unwrap(), b"something");
    assert_eq!(scratch.names(), ["f"]);
}

#[test]
fn a_part_with_its_final_mode_loses_it_while_it_is_written_on() {
    let scratch = Scratch::disk();
    fs::write(scratch.part("f"), b"part").unwrap();
    fs::set_permissions(scratch.part("f"), PermissionsExt::from_mode(0o4777)).unwrap();
    let (writer, _) = open_part(&scratch).unwrap();
    let mode = fs::metadata(scratch.part("f")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    writer.keep();
}

#[test]
fn nothing_stale_is_written_through() {
    let (scratch, outside) = (Scratch::disk(), Scratch::disk());
    fs::write(outside.at("target"), b"outside").unwrap();
    let lay = |kind: usize| {
        let path = scratch.part("f");
        match kind {
            // A hard link on its way to be renamed.
            0 => fs::hard_link(scratch.at("leader"), path).unwrap(),
            1 => std::os::unix::fs::symlink(outside.at("target"), path).unwrap(),
            // To open one for reading would block.
            _ => assert!(run(&["mkfifo", path.to_str().unwrap()])),
        }
    };
    fs::write(scratch.at("leader"), b"leader").unwrap();
    for kind in 0..3 {
        lay(kind);
        assert!(open_part(&scratch).is_none());
        assert_eq!(scratch.unfinished(), [""; 0]);
        lay(kind);
        let writer = scratch.staged(&scratch.dir, "f").unwrap();
        writer.write_at(0, b"new").unwrap();
        writer.finish(&file(0o600, 3), ApplyOptions::default()).unwrap();
        assert_eq!(fs::read(scratch.at("f")).unwrap(), b"new");
        assert_eq!(scratch.names(), ["f", "leader"]);
    }
    assert_eq!(fs::read(scratch.at("leader")).unwrap(), b"leader");
    assert_eq!(fs::read(outside.at("target")).unwrap(), b"outside");
}

#[test]
fn a_new_name_is_new() {
    let scratch = Scratch::disk();
    std::os::unix::fs::symlink("elsewhere", scratch.at("f")).unwrap();
    let writer = scratch.place(&scratch.dir, "f", false, FileWriter::staged).unwrap();
    let error = writer.finish(&file(0o600, 0), ApplyOptions::default()).unwrap_err();
    assert_eq!((error.name.as_str(), error.errno), ("f", Errno::EXIST));
    let writer = scratch.staged(&scratch.dir, "f").unwrap();
    writer.finish(&file(0o600, 0), ApplyOptions::default()).unwrap();
    assert_eq!(scratch.names(), ["f"]);
    assert!(fs::symlink_metadata(scratch.at("f")).unwrap().is_file());
}

#[test]
fn a_directory_in_the_way_is_an_error_and_stays() {
    let scratch = Scratch::disk();
    fs::create_dir(scratch.at("f")).unwrap();
    let writer = scratch.staged(&scratch.dir, "f").unwrap();
    let error = writer.finish(&file(0o600, 0), ApplyOptions::default()).unwrap_err();
    assert_eq!((error.name.as_str(), error.errno), ("f", Errno::ISDIR));
    assert_eq!(scratch.names(), ["f"]);
}

#[test]
fn a_full_volume_is_an_error_with_the_name_and_the_old_file_stays() {
    let Some(scratch) = Scratch::mounted("tmpfs", "size=256k") else { return };
    let hints = ParentHints::of(&scratch.dir).unwrap();
    let sub = directory(&scratch.dir, &name("sub"), hints).unwrap();
    fs::write(scratch.at("sub/f"), b"old").unwrap();
    let block = vec![7; 64 << 10];
    let writer = scratch.staged(&sub, "f").unwrap();
    let error = (0..8).find_map(|i| writer.write_at(i * (64 << 10), &block).err()).unwrap();
    assert_eq!((error.name.as_str(), error.errno), ("sub/f", Errno::NOSPC));
    assert!(error.is_volume_failure());
    drop(writer);
    assert_eq!(names(&scratch.at("sub")), ["f"]);
    assert_eq!(fs::read(scratch.at("sub/f")).unwrap(), b"old");

    let writer = scratch.staged(&sub, "f").unwrap();
    let error = writer.preallocate(1 << 20).unwrap_err();
    assert_eq!((error.name.as_str(), error.errno), ("sub/f", Errno::NOSPC));
    drop(writer);
    let content = vec![7; 1 << 20];
    let want = file(0o600, content.len());
    let options = ApplyOptions::default();
    let new = volume::small::write_new(&sub, &name("g"), &want, &content, hints, options);
    for written in [new, scratch.write_over(&sub, "g", &want, &content)] {
        let error = written.unwrap_err();
        assert_eq!((error.name.as_str(), error.errno), ("sub/g", Errno::NOSPC));
        assert_eq!(names(&scratch.at("sub")), ["f"]);
    }
}

#[test]
fn a_file_that_is_too_large_for_the_file_system_is_an_error() {
    let scratch = Scratch::disk();
    let writer = scratch.staged(&scratch.dir, "f").unwrap();
    let error = writer.set_len(1 << 62).unwrap_err();
    assert_eq!((error.name.as_str(), error.errno), ("f", Errno::FBIG));
}

#[test]
fn a_read_only_volume_is_an_error() {
    let Some(scratch) = Scratch::mounted("tmpfs", "size=1m,ro") else { return };
    let error = scratch.staged(&scratch.dir, "f").err().unwrap();
    assert_eq!((error.name.as_str(), error.errno), (".", Errno::ROFS));
    assert!(error.is_volume_failure());
}

#[test]
fn flags_come_after_the_name() {
    let scratch = Scratch::disk();
    let mut want = file(0o444, 1);
    want.attributes.immutable = true;
    for content in [b"1", b"2"] {
        // The second time, the old file is immutable.
        let writer = scratch.staged(&scratch.dir, "f").unwrap();
        writer.write_at(0, content).unwrap();
        let applied = writer.finish(&want, ApplyOptions::default()).unwrap();
        assert_exact(&scratch, "f", &want, &applied);
        assert_eq!(fs::read(scratch.at("f")).unwrap(), content);
    }
    assert_eq!(scratch.names(), ["f"]);
}
