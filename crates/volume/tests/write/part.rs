//! Files that are written beside the old ones, or under the names of new ones.

use std::{fs, os::unix::fs::PermissionsExt};

use rustix::io::Errno;
use volume::{
    create::{ParentHints, directory},
    metadata::ApplyOptions,
    temp,
    writer::FileWriter,
};
use wire::Metadata;

use super::support::*;

fn part(text: &str) -> String {
    temp::part_name(&name(text)).to_string()
}

#[test]
fn a_file_shows_when_it_is_whole_and_not_before() {
    let scratch = Scratch::disk();
    fs::write(scratch.at("f"), b"old").unwrap();
    let writer = FileWriter::beside(&scratch.dir, &name("f")).unwrap();
    writer.write_at(3, b"def").unwrap();
    writer.write_at(0, b"abc").unwrap();
    assert_eq!(fs::read(scratch.at("f")).unwrap(), b"old");
    let mode = fs::metadata(scratch.at(&part("f"))).unwrap().permissions().mode();
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
        let writer = FileWriter::beside(&scratch.dir, &name("f")).unwrap();
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
    let unfinished = |make: fn(&volume::Dir, &wire::Name) -> volume::Result<FileWriter>| {
        let writer = make(&scratch.dir, &name("f")).unwrap();
        writer.write_at(0, b"some").unwrap();
        writer
    };
    drop(unfinished(FileWriter::beside));
    drop(unfinished(FileWriter::create_new));
    // Under its final name it would look like a finished one.
    unfinished(FileWriter::create_new).keep();
    assert!(scratch.names().is_empty());

    assert!(FileWriter::open_part(&scratch.dir, &name("f")).unwrap().is_none());
    unfinished(FileWriter::beside).keep();
    assert_eq!(scratch.names(), [part("f")]);
    let (writer, size) = FileWriter::open_part(&scratch.dir, &name("f")).unwrap().unwrap();
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
    fs::write(scratch.at(&part("f")), b"part").unwrap();
    fs::set_permissions(scratch.at(&part("f")), PermissionsExt::from_mode(0o4777)).unwrap();
    let (writer, _) = FileWriter::open_part(&scratch.dir, &name("f")).unwrap().unwrap();
    let mode = fs::metadata(scratch.at(&part("f"))).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    writer.keep();
}

#[test]
fn nothing_stale_is_written_through() {
    let (scratch, outside) = (Scratch::disk(), Scratch::disk());
    fs::write(outside.at("target"), b"outside").unwrap();
    let lay = |kind: usize| {
        let path = scratch.at(&part("f"));
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
        assert!(FileWriter::open_part(&scratch.dir, &name("f")).unwrap().is_none());
        assert_eq!(scratch.names().len(), 1 + usize::from(kind > 0));
        lay(kind);
        let writer = FileWriter::beside(&scratch.dir, &name("f")).unwrap();
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
    let error = FileWriter::create_new(&scratch.dir, &name("f")).err().unwrap();
    assert_eq!((error.name.as_str(), error.errno), ("f", Errno::EXIST));
    let writer = FileWriter::beside(&scratch.dir, &name("f")).unwrap();
    writer.finish(&file(0o600, 0), ApplyOptions::default()).unwrap();
    assert_eq!(scratch.names(), ["f"]);
    assert!(fs::symlink_metadata(scratch.at("f")).unwrap().is_file());
}

#[test]
fn a_directory_in_the_way_is_an_error_and_stays() {
    let scratch = Scratch::disk();
    fs::create_dir(scratch.at("f")).unwrap();
    let writer = FileWriter::beside(&scratch.dir, &name("f")).unwrap();
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
    let writer = FileWriter::beside(&sub, &name("f")).unwrap();
    let error = (0..8).find_map(|i| writer.write_at(i * (64 << 10), &block).err()).unwrap();
    assert_eq!((error.name.as_str(), error.errno), ("sub/f", Errno::NOSPC));
    assert!(error.is_volume_failure());
    drop(writer);
    assert_eq!(names(&scratch.at("sub")), ["f"]);
    assert_eq!(fs::read(scratch.at("sub/f")).unwrap(), b"old");

    let writer = FileWriter::beside(&sub, &name("f")).unwrap();
    let error = writer.preallocate(1 << 20).unwrap_err();
    assert_eq!((error.name.as_str(), error.errno), ("sub/f", Errno::NOSPC));
    drop(writer);
    let content = vec![7; 1 << 20];
    for write in [volume::small::write_new, volume::small::write_over] {
        let want = file(0o600, content.len());
        let error =
            write(&sub, &name("g"), &want, &content, hints, ApplyOptions::default()).unwrap_err();
        assert_eq!((error.name.as_str(), error.errno), ("sub/g", Errno::NOSPC));
        assert_eq!(names(&scratch.at("sub")), ["f"]);
    }
}

#[test]
fn a_file_that_is_too_large_for_the_file_system_is_an_error() {
    let scratch = Scratch::disk();
    let writer = FileWriter::beside(&scratch.dir, &name("f")).unwrap();
    let error = writer.set_len(1 << 62).unwrap_err();
    assert_eq!((error.name.as_str(), error.errno), ("f", Errno::FBIG));
}

#[test]
fn a_read_only_volume_is_an_error() {
    let Some(scratch) = Scratch::mounted("tmpfs", "size=1m,ro") else { return };
    let error = FileWriter::beside(&scratch.dir, &name("f")).err().unwrap();
    assert_eq!((error.name.as_str(), error.errno), ("f", Errno::ROFS));
    assert!(error.is_volume_failure());
}

#[test]
fn flags_come_after_the_name() {
    let scratch = Scratch::disk();
    let mut want = file(0o444, 1);
    want.attributes.immutable = true;
    for content in [b"1", b"2"] {
        // The second time, the old file is immutable.
        let writer = FileWriter::beside(&scratch.dir, &name("f")).unwrap();
        writer.write_at(0, content).unwrap();
        let applied = writer.finish(&want, ApplyOptions::default()).unwrap();
        assert_exact(&scratch, "f", &want, &applied);
        assert_eq!(fs::read(scratch.at("f")).unwrap(), content);
    }
    assert_eq!(scratch.names(), ["f"]);
}
