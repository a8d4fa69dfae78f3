//! A file that was half patched is never taken for unchanged, and no time that a source may have is special.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    thread,
    time::{Duration, Instant},
};

use testkit::{Content, Process, Snapshot, TempTree};

use crate::support::{assert_untouched, copy, copy_command, report};

#[test]
fn a_file_from_a_nanosecond_after_the_epoch_is_written_once() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    for (name, size) in [("empty", 0), ("small", 100), ("medium", 200_000), ("large", 3 << 20)] {
        source.file(name, Content::random(1, size)).mtime(name, 0, 1);
    }
    copy(source.path(), destination.path(), &[]).expect(0);
    let before = Snapshot::of(destination.path());
    let second = copy(source.path(), destination.path(), &[]);
    assert_eq!(report(second.expect(0))["files_written"], 0);
    assert_untouched(&before, destination.path());
}

/// Stops a run in the middle of a patch, by a signal or without a chance to clean up.
fn half_patched(source: &TempTree, destination: &TempTree, kill: bool) {
    for tree in [source, destination] {
        tree.file("large", Content::random(1, 8 << 20)).mtime("large", 1000, 0).file("other", "x");
    }
    for page in 0..200 {
        source.patch("large", 40_960 * page, &[page as u8 ^ 0x55; 4096]);
    }
    let old = fs::read(destination.at("large")).unwrap();
    let slow = copy_command(source.path(), destination.path(), &["--bwlimit", "60K"]);
    let mut process = Process::start(slow);
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read(destination.at("large")).unwrap() == old {
        assert!(Instant::now() < deadline && process.is_running(), "nothing is patched");
        thread::sleep(Duration::from_millis(5));
    }
    if kill {
        process.kill();
    } else {
        process.terminate();
    }
    drop(process.wait());
    assert_ne!(fs::read(destination.at("large")).unwrap(), old);
    assert_ne!(fs::read(destination.at("large")).unwrap(), fs::read(source.at("large")).unwrap());
}

/// The source gets exactly the time that the half patched file has at the destination.
#[test]
fn a_half_patched_file_is_made_whole_even_where_the_source_got_its_time() {
    for kill in [false, true] {
        for options in [&[][..], &["--exclude", "large"]] {
            let (source, destination) = (TempTree::new(), TempTree::new());
            half_patched(&source, &destination, kill);
            // A run that may not look at it leaves it as suspect as it was.
            if !options.is_empty() {
                copy(source.path(), destination.path(), options).expect(0);
            }
            let half = fs::metadata(destination.at("large")).unwrap();
            source.mtime("large", half.mtime(), u32::try_from(half.mtime_nsec()).unwrap());
            copy(source.path(), destination.path(), &[]).expect(0);
            testkit::assert_same(source.path(), destination.path());
            let before = Snapshot::of(destination.path());
            copy(source.path(), destination.path(), &[]).expect(0);
            assert_untouched(&before, destination.path());
        }
    }
}
