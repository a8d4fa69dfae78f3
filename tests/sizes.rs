//! Files that hold more than the size that their file system reports.

use std::{fs, path::Path};

use testkit::{OddMount, Process, Quirks, TempTree};

use crate::support::{assert_explains, copy, pvferry, report};

const REASON: &str = "has more content than its reported size";

/// A FUSE file system with a file `f` of 9 bytes that reports `size`, beside two ordinary files.
fn mount(size: u64) -> Option<OddMount> {
    let odd = OddMount::new(Quirks::default())?;
    for (name, content) in [("f", "nine byte"), ("empty", ""), ("whole", "text")] {
        fs::write(odd.path().join(name), content).unwrap();
    }
    odd.set(|quirks| quirks.reported_sizes = vec![("f".into(), size)]);
    Some(odd)
}

#[test]
fn a_file_with_more_content_than_its_reported_size_is_named_and_does_not_arrive_cut() {
    for size in [0, 5] {
        let Some(odd) = mount(size) else { return };
        for options in [&[][..], &["--verify"], &["--checksum"], &["--streams", "2"]] {
            let destination = TempTree::new();
            let finished = copy(odd.path(), destination.path(), options);
            assert_eq!(finished.code(), 23, "{size} {options:?}: {}", finished.stderr);
            assert_explains(&finished, &["f", REASON]);
            assert!(!destination.at("f").exists(), "{size} {options:?}");
            assert_eq!(fs::read(destination.at("whole")).unwrap(), b"text");
            assert_eq!(fs::read(destination.at("empty")).unwrap(), b"");
        }
    }
}

#[test]
fn a_file_at_the_destination_is_kept_where_the_source_has_more_content_than_its_reported_size() {
    for size in [0, 5] {
        let Some(odd) = mount(size) else { return };
        let destination = TempTree::new();
        destination.file("f", "older").file("extra", "more");
        let finished = copy(odd.path(), destination.path(), &["--delete"]);
        assert_eq!(finished.code(), 23, "{size}: {}", finished.stderr);
        assert_eq!(fs::read(destination.at("f")).unwrap(), b"older");
        assert_eq!(report(&finished)["files_deleted"], u64::from(size == 5), "{}", finished.stderr);
    }
}

#[test]
fn a_file_that_reports_0_and_has_content_is_no_equal_of_an_empty_one() {
    let Some(odd) = mount(0) else { return };
    let other = TempTree::new();
    other.file("f", "").file("empty", "").file("whole", "text");
    for name in ["f", "empty", "whole", ""] {
        let mtime = fs::metadata(odd.path().join(name)).unwrap().modified().unwrap();
        fs::File::open(other.at(name)).unwrap().set_modified(mtime).unwrap();
    }
    for (a, b) in [(odd.path(), other.path()), (other.path(), odd.path())] {
        let finished = Process::run(pvferry(["verify".as_ref(), a.as_os_str(), b.as_os_str()]));
        assert_ne!(finished.code(), 0, "{}", finished.stdout);
        assert!(finished.stdout.contains(REASON), "{}{}", finished.stdout, finished.stderr);
    }
    let finished = Process::run(pvferry(["digest".as_ref(), odd.path().as_os_str()]));
    assert_eq!(finished.code(), 23, "{}{}", finished.stdout, finished.stderr);
    let finished = copy(odd.path(), other.path(), &[]);
    assert_eq!(finished.code(), 23, "{}", finished.stderr);
}

#[test]
fn a_file_with_less_content_than_its_reported_size_is_equal_to_nothing() {
    let (Some(odd), Some(same)) = (mount(20_000), mount(20_000)) else { return };
    let less = "has less content than its reported size";
    let finished =
        Process::run(pvferry(["verify".as_ref(), odd.path().as_os_str(), same.path().as_os_str()]));
    assert_eq!(finished.code(), 23, "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains(less), "{}{}", finished.stdout, finished.stderr);
    let finished = Process::run(pvferry(["digest".as_ref(), odd.path().as_os_str()]));
    assert_eq!(finished.code(), 23, "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stderr.contains(less), "{}{}", finished.stdout, finished.stderr);
    let finished = copy(odd.path(), TempTree::new().path(), &[]);
    assert_eq!(finished.code(), 23, "{}", finished.stderr);
}

#[test]
fn files_of_proc_that_report_0_and_have_content_are_named() {
    let destination = TempTree::new();
    let settings = Path::new("/proc/sys/kernel/random");
    let finished = copy(settings, destination.path(), &["--allow-empty-source"]);
    assert_eq!(finished.code(), 23, "{}", finished.stderr);
    assert_explains(&finished, &["boot_id", REASON]);
    assert_eq!(report(&finished)["files_written"], 0);
}

#[test]
fn a_file_whose_size_differs_from_look_to_look_arrives_whole_or_is_named() {
    for size in [3000, 300_000] {
        let Some(odd) = OddMount::new(Quirks::default()) else { return };
        let content = vec![b'x'; size];
        fs::write(odd.path().join("f"), &content).unwrap();
        odd.set(|quirks| quirks.every_other_size = vec![("f".into(), size as u64 / 2)]);
        for round in 0..8 {
            let destination = TempTree::new();
            if round % 2 == 1 {
                destination.file("f", "older");
            }
            let finished = copy(odd.path(), destination.path(), &[]);
            let there = fs::read(destination.at("f")).unwrap_or_default();
            match finished.code() {
                0 => assert!(there == content, "{size}: {} bytes arrived", there.len()),
                code => {
                    assert!([23, 24].contains(&code), "{code}: {}", finished.stderr);
                    assert!(finished.stderr.contains("f: "), "{}", finished.stderr);
                    assert!(there == content || there == b"older" || there.is_empty());
                }
            }
        }
    }
}
