//! What is deleted, and what a dry run says of it.

use std::collections::BTreeSet;

use testkit::{Finished, Snapshot, TempTree, assert_same};

use crate::support::{assert_untouched, copy, report};

/// The lines that a run printed about its changes.
fn changes(finished: &Finished) -> BTreeSet<&str> {
    finished.stdout.lines().filter(|line| !line.starts_with('{')).collect()
}

#[test]
fn a_dry_run_prints_what_the_real_run_does() {
    for seed in 0..6 {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for tree in [&source, &destination] {
            tree.populate(seed, 60);
        }
        source.mutate(seed + 50, 40);
        let before = Snapshot::of(destination.path());

        let options = ["--delete", "--itemize", "--progress", "none"];
        let dry = copy(source.path(), destination.path(), &[&options[..], &["--dry-run"]].concat());
        dry.expect(0);
        assert_untouched(&before, destination.path());
        let real = copy(source.path(), destination.path(), &options);
        real.expect(0);
        assert_same(source.path(), destination.path());

        let (dry_changes, real_changes) = (changes(&dry), changes(&real));
        assert!(!real_changes.is_empty());
        let different: Vec<_> = dry_changes.symmetric_difference(&real_changes).collect();
        assert!(different.is_empty(), "seed {seed}: {different:#?}");
        let (dry, real) = (report(&dry), report(&real));
        for count in ["files_written", "files_deleted", "entries"] {
            assert_eq!(dry[count], real[count], "seed {seed}: {count}\n{dry}\n{real}");
        }
        let again = copy(source.path(), destination.path(), &options);
        assert_eq!(changes(&again), BTreeSet::new());
    }
}

#[test]
fn a_dry_run_makes_no_destination() {
    let (source, parent) = (TempTree::new(), TempTree::new());
    source.populate(1, 20);
    let finished = copy(source.path(), &parent.at("new"), &["--dry-run", "--itemize"]);
    finished.expect(0);
    assert!(!parent.at("new").exists());
    let count = Snapshot::of(source.path()).paths().count();
    assert!(changes(&finished).len() >= count, "{}", finished.stdout);
}

#[test]
fn exactly_the_extraneous_entries_go() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("keep/a", "1").file("keep/b", "2").dir("empty");
    destination.file("keep/a", "1").file("keep/extra", "3").file("gone/deep/er/f", "4");
    destination.symlink("gone/link", "../keep").fifo("pipe").file("empty/now", "5");
    let outside = TempTree::new();
    outside.file("f", "precious");
    destination.symlink("out", outside.path().to_str().unwrap());

    let finished = copy(source.path(), destination.path(), &["--delete"]);
    let report = report(finished.expect(0));
    assert_same(source.path(), destination.path());
    assert_eq!(report["files_deleted"], 9, "{report}");
    assert!(outside.at("f").exists());
}

#[test]
fn the_limit_on_deletions() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("new", "1");
    for index in 0..10 {
        destination.file(format!("old {index}"), "x");
    }
    let limited = copy(source.path(), destination.path(), &["--delete", "--max-delete", "3"]);
    let limited_report = report(limited.expect(25));
    assert_eq!(limited_report["outcome"], "partial");
    let left = Snapshot::of(destination.path()).paths().count();
    assert!(left >= 8, "{left} entries left: {limited_report}");
    assert!(destination.at("new").exists());

    copy(source.path(), destination.path(), &["--delete", "--max-delete", "10"]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn what_a_filter_leaves_out_is_protected() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("a.log", "1").file("b.txt", "2").file("d/c.log", "3").file("d/keep.log", "4");
    destination.file("old.log", "5").file("old.txt", "6").file("d/old.log", "7");
    let options = ["--delete", "--include", "keep.log", "--exclude", "*.log"];
    copy(source.path(), destination.path(), &options).expect(0);
    let after = Snapshot::of(destination.path());
    let paths: Vec<_> = after.paths().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(paths, ["b.txt", "d", "d/keep.log", "d/old.log", "old.log"]);
}

#[test]
fn a_renamed_directory_of_large_files_is_not_sent_again() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    for index in 0..4 {
        let content = testkit::Content::random(index, 4 << 20);
        for tree in [&source, &destination] {
            tree.file(format!("before/f{index}"), content.clone());
            tree.mtime(format!("before/f{index}"), 1_000_000, 1);
        }
    }
    source.rename("before", "after");
    let report = report(copy(source.path(), destination.path(), &["--delete"]).expect(0));
    assert_same(source.path(), destination.path());
    assert!(report["wire_sent"].as_u64().unwrap() < 1 << 20, "{report}");
}
