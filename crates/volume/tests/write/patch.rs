//! Content: patching in place, holes, copies and shared blocks.

use std::{fs, os::unix::fs::MetadataExt as _, time::Duration};

use proptest::prelude::*;
use rustix::io::Errno;
use volume::{metadata::ApplyOptions, writer::FileWriter};

use super::support::*;

const BLOCK: u64 = 64 << 10;

fn in_place(scratch: &Scratch, at: &str) -> FileWriter {
    let want = as_it_is(&scratch.at(at));
    FileWriter::in_place(&scratch.dir, &name(at), identity(&scratch.at(at)), &want).unwrap()
}

fn mtime(scratch: &Scratch, at: &str) -> (i64, i64) {
    let meta = fs::metadata(scratch.at(at)).unwrap();
    (meta.mtime(), meta.mtime_nsec())
}

/// A file whose time is that of the source, as after a complete run.
fn old_file(scratch: &Scratch, at: &str, content: &[u8]) -> (i64, i64) {
    fs::write(scratch.at(at), content).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 42);
    fs::File::options().write(true).open(scratch.at(at)).unwrap().set_modified(time).unwrap();
    (1_000_000_000, 42)
}

#[test]
fn a_file_is_marked_before_it_changes_and_until_it_is_whole() {
    let scratch = Scratch::disk();
    let source_time = old_file(&scratch, "f", b"old content");
    // The kernel sets both times in one step.
    let marked = |at: &str| {
        let meta = fs::metadata(scratch.at(at)).unwrap();
        (meta.mtime(), meta.mtime_nsec()) == (meta.ctime(), meta.ctime_nsec())
    };

    let writer = in_place(&scratch, "f");
    let mut buffer = [0; 11];
    writer.read_at(0, &mut buffer).unwrap();
    drop(writer);
    assert_eq!(mtime(&scratch, "f"), source_time, "nothing was changed");

    // A change of nothing has set the mark, and no write has moved it on.
    let writer = in_place(&scratch, "f");
    writer.write_at(0, b"").unwrap();
    assert!(marked("f"));
    writer.write_at(0, b"new").unwrap();
    assert_ne!(mtime(&scratch, "f"), source_time, "this is what a killed run leaves");
    drop(writer);
    assert!(marked("f"));
    assert_eq!(fs::read(scratch.at("f")).unwrap(), b"new content");

    let writer = in_place(&scratch, "f");
    writer.write_at(11, b"!").unwrap();
    writer.keep();
    assert!(marked("f"));

    let mut want = file(0o6755, 12);
    want.xattrs = vec![xattr("security.capability", &capability())];
    let writer = in_place(&scratch, "f");
    writer.write_at(3, b"-").unwrap();
    let applied = writer.finish(&want, ApplyOptions::default()).unwrap();
    assert_exact(&scratch, "f", &want, &applied);
    assert_eq!(fs::read(scratch.at("f")).unwrap(), b"new-content!");
    assert_eq!(scratch.names(), ["f"]);
}

#[test]
fn every_way_to_change_a_file_sets_the_mark() {
    let scratch = Scratch::disk();
    let basis = fs::File::open("/proc/self/exe").unwrap();
    type Change<'a> = &'a dyn Fn(&FileWriter);
    let ways: [(&str, Change<'_>); 6] = [
        ("write", &|w| w.write_at(0, b"x").unwrap()),
        ("punch", &|w| w.punch_hole(0, 1).unwrap()),
        ("set_len", &|w| w.set_len(1).unwrap()),
        ("preallocate", &|w| w.preallocate(BLOCK).unwrap()),
        ("copy", &|w| w.copy_range(&basis, 0, 0, 10).unwrap()),
        ("reflink", &|w| assert!(!w.reflink_from(&basis).unwrap())),
    ];
    for (at, change) in ways {
        let before = old_file(&scratch, at, b"content");
        let writer = in_place(&scratch, at);
        change(&writer);
        drop(writer);
        assert_ne!(mtime(&scratch, at), before, "{at}");
    }
}

#[test]
fn only_the_one_regular_file_that_was_listed_is_patched() {
    let scratch = Scratch::disk();
    fs::write(scratch.at("f"), b"f").unwrap();
    fs::hard_link(scratch.at("f"), scratch.at("second")).unwrap();
    std::os::unix::fs::symlink("f", scratch.at("link")).unwrap();
    assert!(run(&["mkfifo", scratch.at("fifo").to_str().unwrap()]));
    fs::create_dir(scratch.at("d")).unwrap();
    fs::write(scratch.at("other"), b"other").unwrap();
    let open = |at: &str, identity| {
        FileWriter::in_place(&scratch.dir, &name(at), identity, &file(0o600, 1))
            .err()
            .map(|e| e.errno)
    };
    assert_eq!(open("f", identity(&scratch.at("f"))), Some(Errno::MLINK));
    assert_eq!(open("other", identity(&scratch.at("f"))), Some(Errno::STALE));
    for at in ["link", "fifo", "d"] {
        assert_eq!(open(at, identity(&scratch.at(at))), Some(Errno::INVAL), "{at}");
    }
    assert_eq!(open("gone", (0, 0)), Some(Errno::NOENT));
    assert_eq!(open("other", identity(&scratch.at("other"))), None);
}

fn everywhere() -> Vec<Scratch> {
    let mut all = vec![Scratch::disk(), Scratch::memory()];
    all.extend([Scratch::image("xfs"), Scratch::image("btrfs")].into_iter().flatten());
    all
}

#[test]
fn a_new_hole_in_an_old_file_is_a_hole() {
    for scratch in everywhere() {
        fs::write(scratch.at("f"), vec![1; 4 << 20]).unwrap();
        volume::flush::file_system(&scratch.dir).unwrap();
        let before = allocated(&scratch.at("f"));
        let writer = in_place(&scratch, "f");
        writer.punch_hole(BLOCK, 2 << 20).unwrap();
        // Not on the edges of blocks.
        writer.punch_hole((3 << 20) + 5, 10).unwrap();
        writer.finish(&file(0o600, 4 << 20), ApplyOptions::default()).unwrap();
        volume::flush::file_system(&scratch.dir).unwrap();
        assert!(allocated(&scratch.at("f")) + (2 << 20) <= before);
        let mut expected = vec![1; 4 << 20];
        expected[BLOCK as usize..][..2 << 20].fill(0);
        expected[(3 << 20) + 5..][..10].fill(0);
        assert!(fs::read(scratch.at("f")).unwrap() == expected);
    }
}

#[test]
fn a_sparse_file_stays_sparse_up_to_its_end() {
    for scratch in everywhere() {
        let writer = scratch.staged(&scratch.dir, "f").unwrap();
        let size = 1 << 30;
        writer.punch_hole(0, size / 2).unwrap();
        writer.write_at(size / 2, &[1; 4096]).unwrap();
        writer.punch_hole(size / 2 + 4096, size / 2 - 4096).unwrap();
        writer.set_len(size).unwrap();
        let want = file(0o600, 1 << 30);
        let applied = writer.finish(&want, ApplyOptions::default()).unwrap();
        assert_exact(&scratch, "f", &want, &applied);
        volume::flush::file_system(&scratch.dir).unwrap();
        assert!(allocated(&scratch.at("f")) <= 128 << 10);
    }
}

#[test]
fn where_holes_cannot_be_made_zeros_are_written() {
    let Some(scratch) = Scratch::mounted("ramfs", "mode=755") else { return };
    let writer = scratch.staged(&scratch.dir, "f").unwrap();
    writer.write_at(0, &vec![1; 1 << 20]).unwrap();
    writer.punch_hole(10, 600_000).unwrap();
    // Beyond the end there is nothing to make zero, and the file does not grow.
    writer.punch_hole((1 << 20) - 1, 10 << 20).unwrap();
    assert_eq!(writer.preallocate(1 << 20), Ok(()));
    assert_eq!(writer.reflink_from(&writer), Ok(false));
    writer.finish(&file(0o600, 1 << 20), ApplyOptions::default()).unwrap();
    let mut expected = vec![1; 1 << 20];
    expected[10..600_010].fill(0);
    expected[(1 << 20) - 1] = 0;
    assert!(fs::read(scratch.at("f")).unwrap() == expected);
}

#[test]
fn blocks_are_shared_where_the_file_system_can() {
    for (kind, can) in [("xfs", true), ("btrfs", true), ("ext4", false)] {
        let Some(scratch) = Scratch::image(kind) else { continue };
        let content: Vec<u8> = (0..BLOCK * 16).map(|i| (i / 512 % 251) as u8).collect();
        fs::write(scratch.at("basis"), &content).unwrap();
        let basis = fs::File::open(scratch.at("basis")).unwrap();
        let writer = scratch.staged(&scratch.dir, "f").unwrap();
        assert_eq!(writer.reflink_from(&basis), Ok(can), "{kind}");
        writer.write_at(0, b"new").unwrap();
        let size = if can { content.len() } else { 3 };
        writer.finish(&file(0o600, size), ApplyOptions::default()).unwrap();
        assert!(fs::read(scratch.at("basis")).unwrap() == content);
        if can {
            assert!(fs::read(scratch.at("f")).unwrap()[3..] == content[3..]);
        }
    }
}

#[test]
fn a_copy_is_whole_or_an_error() {
    let (disk, memory) = (Scratch::disk(), Scratch::memory());
    let content: Vec<u8> = (0..1_000_000_u32).map(|i| (i * 31 % 253) as u8).collect();
    fs::write(disk.at("basis"), &content).unwrap();
    let basis = fs::File::open(disk.at("basis")).unwrap();
    // Within a file system and into another one.
    for scratch in [&disk, &memory] {
        let writer = scratch.staged(&scratch.dir, "f").unwrap();
        writer.copy_range(&basis, 1000, 5, 900_000).unwrap();
        let mut copied = vec![9; 900_005];
        assert_eq!(writer.read_at(0, &mut copied).unwrap(), 900_005);
        assert!(copied[..5] == [0; 5] && copied[5..] == content[1000..901_000]);
        // Within the file itself.
        writer.copy_range(&writer, 5, 900_005, 1000).unwrap();
        assert_eq!(writer.read_at(900_005, &mut copied).unwrap(), 1000);
        assert!(copied[..1000] == content[1000..2000]);
        let error = writer.copy_range(&basis, 999_999, 0, 2).unwrap_err();
        assert_eq!((error.name.as_str(), error.errno), ("f", Errno::NODATA));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, Vec<u8>),
    Punch(u64, u64),
    SetLen(u64),
    Copy(u64, u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..200_000_u64;
    prop_oneof![
        (at(), prop::collection::vec(1..255_u8, 0..9000)).prop_map(|(a, d)| Step::Write(a, d)),
        (at(), at()).prop_map(|(a, len)| Step::Punch(a, len)),
        at().prop_map(Step::SetLen),
        (0..50_000_u64, at(), 0..50_000_u64).prop_map(|(a, b, len)| Step::Copy(a, b, len)),
    ]
}

fn model(file: &mut Vec<u8>, basis: &[u8], step: &Step) {
    let mut put = |at: u64, data: &[u8]| {
        let end = at as usize + data.len();
        if file.len() < end && !data.is_empty() {
            file.resize(end, 0);
        }
        if !data.is_empty() {
            file[at as usize..end].copy_from_slice(data);
        }
    };
    match step {
        Step::Write(at, data) => put(*at, data),
        Step::Copy(from, to, len) => put(*to, &basis[*from as usize..][..*len as usize]),
        Step::SetLen(len) => file.resize(*len as usize, 0),
        Step::Punch(at, len) => {
            let size = file.len();
            let end = (*at + *len).min(size as u64) as usize;
            file[(*at as usize).min(size)..end.max((*at as usize).min(size))].fill(0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn content_is_what_the_steps_say(
        steps in prop::collection::vec(step(), 1..12),
        on_disk in any::<bool>(),
        existing in any::<bool>(),
    ) {
        let scratch = if on_disk { Scratch::disk() } else { Scratch::memory() };
        let basis: Vec<u8> = (0..100_000_u32).map(|i| (i * 17 % 255) as u8).collect();
        fs::write(scratch.at("basis"), &basis).unwrap();
        let open = fs::File::open(scratch.at("basis")).unwrap();
        let mut expected = Vec::new();
        let writer = if existing {
            expected = vec![5; 70_000];
            fs::write(scratch.at("f"), &expected).unwrap();
            in_place(&scratch, "f")
        } else {
            scratch.staged(&scratch.dir, "f").unwrap()
        };
        for step in &steps {
            model(&mut expected, &basis, step);
            match step {
                Step::Write(at, data) => writer.write_at(*at, data).unwrap(),
                Step::Punch(at, len) => writer.punch_hole(*at, *len).unwrap(),
                Step::SetLen(len) => writer.set_len(*len).unwrap(),
                Step::Copy(from, to, len) => writer.copy_range(&open, *from, *to, *len).unwrap(),
            }
        }
        writer.finish(&file(0o600, expected.len()), ApplyOptions::default()).unwrap();
        prop_assert!(fs::read(scratch.at("f")).unwrap() == expected);
    }
}
