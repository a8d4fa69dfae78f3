//! File systems in user space that do less than the kernel's own.

use std::{fs, os::unix::fs::MetadataExt};

use testkit::{Content, Errno, Mount, OddMount, Quirks, TempTree};

use crate::support::{assert_explains, copy, report};

/// What exFAT can hold: seconds, and one mode for everything.
fn plain(tree: &TempTree) {
    for path in ["", "d", "d/small", "d/large"] {
        tree.mode(path, 0o777).mtime(path, 1_000_000_000, 0);
    }
}

#[test]
fn a_file_system_that_sets_both_times_or_none_gets_the_time_of_the_source() {
    let Some(mount) = Mount::exfat(64) else { return };
    let source = TempTree::new();
    source.file("d/small", "small").file("d/large", Content::random(1, 3 << 20));
    plain(&source);
    let destination = TempTree::below(mount.path());
    report(copy(source.path(), destination.path(), &[]).expect(0));
    for path in ["", "d", "d/small", "d/large"] {
        assert_eq!(fs::metadata(destination.at(path)).unwrap().mtime(), 1_000_000_000, "{path}");
    }
    // Patched in place, and its time alone.
    source.patch("d/large", 1 << 20, b"other").mtime("d/large", 1_000_000_000, 0);
    source.mtime("d/large", 1_000_000_010, 0).mtime("d/small", 1_000_000_011, 0);
    report(copy(source.path(), destination.path(), &[]).expect(0));
    testkit::assert_same(source.path(), destination.path());
    assert_eq!(report(copy(source.path(), destination.path(), &[]).expect(0))["files_written"], 0);
}

#[test]
fn a_directory_keeps_its_time_where_open_files_leave_hidden_names() {
    let Some(mount) = Mount::exfat(64) else { return };
    let (source, destination) = (TempTree::new(), TempTree::below(mount.path()));
    source.file("d/small", "small").file("d/large", Content::random(1, 300_000));
    plain(&source);
    copy(source.path(), destination.path(), &[]).expect(0);
    for options in [&[][..], &["--checksum"], &["--atomic"]] {
        for round in 0..3 {
            source.patch("d/small", 1, &[round + 1]).patch("d/large", 100_000, &[round + 1; 50]);
            plain(&source);
            source.mtime("d/large", 1_000_000_010 + i64::from(round), 0);
            source.mtime("d/small", 1_000_000_010 + i64::from(round), 0);
            report(copy(source.path(), destination.path(), options).expect(0));
            let found: Vec<_> = fs::read_dir(destination.at("d"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(found.len(), 2, "{found:?}");
            let mtime = fs::metadata(destination.at("d")).unwrap().mtime();
            assert_eq!(mtime, 1_000_000_000, "{options:?} {round}");
        }
    }
}

/// `syncfs` does not reach such a file system, and nobody looks at the answer of an ordinary close.
#[test]
fn content_that_is_lost_when_a_file_is_closed_is_no_success() {
    let source = TempTree::new();
    source
        .file("small", "1")
        .file("large", Content::random(1, 2 << 20))
        .dir("d")
        .file("d/new", "2");
    let Some(odd) = OddMount::new(Quirks { close_error: Some(Errno::DQUOT), ..Quirks::default() })
    else {
        return;
    };
    let finished = copy(source.path(), odd.path(), &[]);
    assert_eq!(finished.code(), 11, "{}", finished.stderr);
    assert_explains(&finished, &["quota exceeded"]);
    odd.set(|quirks| quirks.close_error = None);
    copy(source.path(), odd.path(), &[]).expect(0);
}
