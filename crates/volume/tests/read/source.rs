use std::{
    fs::{self, File},
    ops::Range,
    os::unix::fs::{FileExt as _, PermissionsExt as _, symlink},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use proptest::prelude::*;
use rustix::{
    fs::{CWD, FileType},
    io::Errno,
};
use volume::source::SourceFile;

use super::support::{in_memory, name, node, root};

const BLOCK: u64 = 4096;

#[test]
fn only_regular_files_are_opened_and_nothing_blocks() {
    let tmp = tempfile::tempdir().unwrap();
    fs::write(tmp.path().join("file"), b"x").unwrap();
    symlink("file", tmp.path().join("link")).unwrap();
    fs::create_dir(tmp.path().join("dir")).unwrap();
    node(&tmp.path().join("fifo"), FileType::Fifo, (0, 0));
    node(&tmp.path().join("null"), FileType::CharacterDevice, (1, 3));
    let dir = root(tmp.path());
    let errno = |entry| SourceFile::open(&dir, &name(entry)).err().map(|e| e.errno);
    assert_eq!(errno("file"), None);
    assert_eq!(errno("link"), Some(Errno::LOOP));
    assert_eq!(errno("dir"), Some(Errno::ISDIR));
    assert_eq!(errno("fifo"), Some(Errno::INVAL));
    assert_eq!(errno("null"), Some(Errno::INVAL));
    assert_eq!(errno("none"), Some(Errno::NOENT));
}

/// With a name that is now a file or directory and now a link to elsewhere, nothing elsewhere is read.
#[test]
fn what_is_swapped_for_a_link_leads_nowhere_else() {
    let (tmp, outside) = (in_memory(), in_memory());
    for at in [tmp.path(), outside.path()] {
        fs::create_dir(at.join("dir")).unwrap();
    }
    for file in ["file", "dir/file"] {
        fs::write(tmp.path().join(file), b"inside").unwrap();
        fs::write(outside.path().join(file), b"secret").unwrap();
    }
    symlink(outside.path().join("file"), tmp.path().join("file link")).unwrap();
    symlink(outside.path().join("dir"), tmp.path().join("dir link")).unwrap();
    let stop = AtomicBool::new(false);
    let swap = |entry: &str| {
        let (here, link) = (tmp.path().join(entry), tmp.path().join(format!("{entry} link")));
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(CWD, &here, CWD, &link, flags).unwrap();
    };
    let dir = root(tmp.path());
    let (mut opened, mut refused, mut leaked) = (0, 0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                swap("file");
                swap("dir");
            }
        });
        for _ in 0..20_000 {
            let direct = SourceFile::open(&dir, &name("file"));
            let below = dir.open_child(&name("dir")).and_then(|below| {
                below.release();
                SourceFile::open(&below, &name("file"))
            });
            for file in [direct, below] {
                let Ok(file) = file else {
                    refused += 1;
                    continue;
                };
                opened += 1;
                let mut content = [0; 6];
                let len = file.read_at(0, &mut content);
                leaked += u32::from(len != Ok(6) || content != *b"inside");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(leaked, 0);
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused: nothing was swapped");
}

#[test]
fn reads_are_short_at_the_end_only() {
    let tmp = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..10_000).map(|i: u32| i.to_le_bytes()[0]).collect();
    fs::write(tmp.path().join("file"), &content).unwrap();
    let file = SourceFile::open(&root(tmp.path()), &name("file")).unwrap();
    file.advise_sequential();
    let mut buffer = [0; 6000];
    assert_eq!(file.read_at(0, &mut buffer).unwrap(), 6000);
    assert_eq!(buffer, content[..6000]);
    assert_eq!(file.read_at(6000, &mut buffer).unwrap(), 4000);
    assert_eq!(buffer[..4000], content[6000..]);
    assert_eq!(file.read_at(10_000, &mut buffer).unwrap(), 0);
    assert_eq!(file.read_at(u64::MAX, &mut buffer).unwrap_err().errno, Errno::INVAL);
}

#[test]
fn every_change_changes_the_stamp() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("file");
    fs::write(&path, b"content").unwrap();
    let file = SourceFile::open(&root(tmp.path()), &name("file")).unwrap();
    let first = file.stamp().unwrap();
    assert_eq!((first.size, file.changed_since(&first).unwrap()), (7, false));
    let changes: [fn(&Path); 4] = [
        |path| File::options().write(true).open(path).unwrap().set_len(9).unwrap(),
        |path| File::options().write(true).open(path).unwrap().set_len(3).unwrap(),
        |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
        |path| {
            // Other content, and the old time set back.
            let file = File::options().write(true).open(path).unwrap();
            let old = file.metadata().unwrap().modified().unwrap();
            file.write_all_at(b"new", 0).unwrap();
            file.set_modified(old).unwrap();
        },
    ];
    for change in changes {
        let before = file.stamp().unwrap();
        // The clock of a file system is no finer than a tick.
        let noticed = (0..1_000_000).any(|_| {
            change(&path);
            file.changed_since(&before).unwrap()
        });
        assert!(noticed);
    }
}

#[test]
fn a_hole_at_the_end_and_an_empty_file_have_no_data() {
    let tmp = in_memory();
    File::create(tmp.path().join("hole")).unwrap().set_len(100 * BLOCK).unwrap();
    fs::write(tmp.path().join("empty"), b"").unwrap();
    let dir = root(tmp.path());
    for entry in ["hole", "empty"] {
        let file = SourceFile::open(&dir, &name(entry)).unwrap();
        assert_eq!(file.extents(0..u64::MAX).count(), 0, "{entry}");
    }
}

#[test]
fn where_holes_are_unknown_all_is_data() {
    // Files of procfs are regular, have no holes to ask for, and say that their size is 0.
    let proc = SourceFile::open(&root(Path::new("/proc")), &name("version")).unwrap();
    assert!(proc.extents(0..100).all(|extent| extent.is_ok()));
}

/// Writes `blocks` and checks that extents cover them all, and nothing but them and zeros.
fn check(at: &Path, blocks: &[bool], range: Range<u64>) {
    let path = at.join("file");
    let writer = File::create(&path).unwrap();
    let size = blocks.len() as u64 * BLOCK + 17;
    writer.set_len(size).unwrap();
    for (index, _) in blocks.iter().enumerate().filter(|(_, written)| **written) {
        writer.write_all_at(&[9; BLOCK as usize], index as u64 * BLOCK).unwrap();
    }
    let file = SourceFile::open(&root(at), &name("file")).unwrap();
    let extents: Vec<Range<u64>> = file.extents(range.clone()).map(Result::unwrap).collect();
    // An empty range has nothing in it that could be data or hole.
    if range.start < range.end {
        assert_eq!(file.is_hole(range.clone()), extents.is_empty(), "{range:?} of {blocks:?}");
    }
    let limit = range.start.min(size)..range.end.min(size);
    assert!(
        extents.iter().all(|e| e.start < e.end && limit.start <= e.start && e.end <= limit.end)
    );
    assert!(extents.windows(2).all(|pair| pair[0].end < pair[1].start), "{extents:?}");
    let content = fs::read(&path).unwrap();
    for at in limit {
        let in_data = extents.iter().any(|extent| extent.contains(&at));
        let is_written = blocks.get((at / BLOCK) as usize).is_some_and(|written| *written);
        assert!(in_data || content[at as usize] == 0, "byte {at} is in no extent");
        assert!(is_written || !in_data, "byte {at} of a hole is in an extent");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]
    #[test]
    fn extents_are_the_data(
        blocks in prop::collection::vec(any::<bool>(), 0..8),
        (start, end) in (0..40_000_u64, 0..40_000_u64),
    ) {
        for tmp in [in_memory(), tempfile::tempdir().unwrap()] {
            check(tmp.path(), &blocks, start..end);
            check(tmp.path(), &blocks, 0..u64::MAX);
        }
    }
}
