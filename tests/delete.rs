//! What is deleted, and what a dry run says of it.

use std::path::{Path, PathBuf};

use testkit::{
    Errno, Finished, Mount, OddMount, Process, Quirks, Snapshot, TempTree, assert_same, skip,
};

use crate::support::{assert_untouched, below, changes, copy, copy_command, report};

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
        assert_eq!(dry_changes, real_changes, "seed {seed}");
        let (dry, real) = (report(&dry), report(&real));
        for count in ["files_written", "files_deleted", "entries"] {
            assert_eq!(dry[count], real[count], "seed {seed}: {count}\n{dry}\n{real}");
        }
        let again = copy(source.path(), destination.path(), &options);
        assert_eq!(changes(&again), [""; 0]);
    }
}

#[test]
fn a_dry_run_makes_no_destination() {
    let (source, parent) = (TempTree::new(), TempTree::new());
    source.populate(1, 20);
    let finished =
        copy(source.path(), &parent.at("new"), &["--dry-run", "--itemize", "--progress", "none"]);
    finished.expect(0);
    assert!(!parent.at("new").exists());
    let count = Snapshot::of(source.path()).paths().count();
    assert!(changes(&finished).len() >= count, "{}", finished.stderr);
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

/// A copy whose calls of `statx` on entries of the directory `dir` fail with `errno`.
fn copy_with_failing_stat(
    dir: &Path,
    errno: &str,
    source: &Path,
    destination: &Path,
    options: &[&str],
) -> Finished {
    let inject = format!("inject=statx:error={errno}");
    let dir = dir.to_str().unwrap();
    let strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", dir, "-e", &inject];
    Process::run(below(&strace, &copy_command(source, destination, options)))
}

#[test]
fn source_entries_that_cannot_be_reached_are_not_deleted_at_the_destination() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    for errno in ["ESTALE", "ENOTDIR", "EACCES", "EIO"] {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for tree in [&source, &destination] {
            tree.file("dir/a", "1").file("dir/b", "2").file("c", "3");
        }
        destination.file("extra", "4");
        let options = ["--delete", "--progress", "none"];
        let paths = (source.path(), destination.path());
        let ended = copy_with_failing_stat(&source.at("dir"), errno, paths.0, paths.1, &options);
        ended.expect(23);
        assert!(destination.at("dir/a").exists() && destination.at("dir/b").exists(), "{errno}");
        assert!(!destination.at("extra").exists(), "{errno}: other directories are as usual");
        let report = report(&ended);
        assert!(report["errors"][0]["name"].as_str().unwrap().starts_with("dir/"), "{report}");
    }
}

#[test]
fn source_entries_that_are_gone_are_deleted_with_exit_code_24() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    for tree in [&source, &destination] {
        tree.file("dir/a", "1").file("c", "3");
    }
    let paths = (source.path(), destination.path());
    let ended =
        copy_with_failing_stat(&source.at("dir"), "ENOENT", paths.0, paths.1, &["--delete"]);
    ended.expect(24);
    assert!(!destination.at("dir/a").exists());
}

/// More than one entry may carry, so that reading it fails.
fn too_many_attributes(tree: &TempTree, path: &str) {
    for number in 0..20 {
        tree.xattr(path, &format!("user.{number}"), &[b'x'; 60_000]);
    }
}

#[test]
fn an_excluded_entry_is_not_read_at_either_end() {
    let (Some(from), Some(to)) = (Mount::xfs(320), Mount::xfs(320)) else { return };
    let (source, destination) = (TempTree::below(from.path()), TempTree::below(to.path()));
    source.file("a", "1").file("b.skip", "2").dir("d/skipped").file("d/x", "3");
    too_many_attributes(&source, "b.skip");
    too_many_attributes(&source, "d/skipped");
    destination.file("extra", "4").file("own.skip", "5").dir("d/skipped").file("d/extra", "6");
    too_many_attributes(&destination, "own.skip");
    too_many_attributes(&destination, "d/skipped");
    let options = ["--delete", "--verify", "--exclude", "*.skip", "--exclude", "skipped/"];
    for dry_run in [&["-n"][..], &[]] {
        copy(source.path(), destination.path(), &[&options[..], dry_run].concat()).expect(0);
    }
    let left: Vec<_> = Snapshot::of(destination.path()).paths().map(PathBuf::from).collect();
    assert_eq!(left, ["a", "d", "d/skipped", "d/x", "own.skip"].map(PathBuf::from));
}

#[test]
fn stale_entries_of_a_network_file_system_are_kept_at_the_destination() {
    let destination = TempTree::new();
    let Some(odd) = OddMount::new(Quirks::default()) else { return };
    let source = TempTree::below(odd.path());
    for tree in [&source, &destination] {
        tree.file("dir/a", "1").file("dir/sub/b", "2").file("other/c", "3").symlink("dir/l", "x");
    }
    destination.file("dir/extra", "4").file("other/extra", "5");
    for (name, kept) in [("a", "dir/a"), ("sub", "dir/sub/b"), ("l", "dir/l")] {
        for errno in [Errno::STALE, Errno::NOTDIR, Errno::ACCESS] {
            odd.set(|quirks| quirks.lookup_errors = vec![(name.into(), errno)]);
            let options = ["--delete", "--progress", "none"];
            let dry = copy(source.path(), destination.path(), &[&options[..], &["-n"]].concat());
            dry.expect(23);
            copy(source.path(), destination.path(), &options).expect(23);
            let at = destination.at(kept);
            assert!(at.symlink_metadata().is_ok(), "{name} {errno}: {kept} is gone");
            assert!(
                destination.at("dir/extra").exists(),
                "{name} {errno}: the listing is not complete"
            );
            assert!(!destination.at("other/extra").exists(), "{name} {errno}");
            destination.file("other/extra", "5");
        }
    }
    odd.set(|quirks| quirks.lookup_errors.clear());
    copy(source.path(), destination.path(), &["--delete"]).expect(0);
    assert!(!destination.at("dir/extra").exists());
}

#[test]
fn verify_counts_what_only_the_destination_has_and_doubts_no_content() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("a", "1").dir("kept");
    destination.file("own", "2").file("other/deep", "3").file("gone/excluded", "4");
    destination.file("other/excluded", "5");
    let run = |options: &[&str]| {
        let options = [&["--verify", "--progress", "none"], options].concat();
        copy(source.path(), destination.path(), &options)
    };
    let kept = run(&[]);
    kept.expect(23);
    let line = ".: 3 entries exist only at the destination, so the trees differ: run again with --verify --delete to delete them";
    assert!(kept.stderr.contains(line), "{}", kept.stderr);

    // An excluded entry keeps its directory.
    let excluding = run(&["--delete", "--exclude", "excluded"]);
    excluding.expect(23);
    let why = "not deleted, because it contains excluded entries";
    for name in ["gone", "other"] {
        let line = format!("{name}: exists only at the destination, so the trees differ; {why}");
        assert!(excluding.stderr.contains(&line), "{}", excluding.stderr);
    }
    for more in [&[][..], &["--dry-run"]] {
        let options = [&["--delete", "--exclude", "excluded"], more].concat();
        let silent = copy(source.path(), destination.path(), &options);
        silent.expect(0);
        let said = [&*silent.stdout, &*silent.stderr].concat();
        assert!(said.contains(&format!("gone: {why}")), "{said}");
    }

    let last = run(&["--delete"]);
    last.expect(0);
    assert!(!last.stderr.contains("comparing the content"), "{}", last.stderr);
    assert_same(source.path(), destination.path());
}

#[test]
fn verify_finds_other_content_beside_entries_that_only_the_destination_has_and_the_next_run_copies_it()
 {
    for (next, kept) in
        [(&["--delete"][..], false), (&["--verify", "--delete"], false), (&[], true)]
    {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for (tree, content) in [(&source, "1"), (&destination, "2")] {
            tree.file("d/a", content).mtime("d/a", 7, 0).mtime("d", 7, 0);
        }
        destination.file("extra", "3").file("d/more/f", "4");
        let first = copy(source.path(), destination.path(), &["--verify"]);
        for line in [
            "2 entries exist only at the destination",
            "the digests of source and destination differ",
        ] {
            assert!(first.expect(23).stderr.contains(line), "{line}: {}", first.stderr);
        }
        let report = report(&copy(source.path(), destination.path(), next));
        assert_eq!(report["files_written"], 1, "{report}");
        assert_eq!(std::fs::read(destination.at("d/a")).unwrap(), b"1");
        assert_eq!(destination.at("extra").exists(), kept);
        // Nothing is left to doubt but what stays and was not compared.
        let quiet = copy(source.path(), destination.path(), &[]);
        let doubts = quiet.expect(0).stderr.contains("comparing the content");
        assert_eq!(doubts, kept, "{}", quiet.stderr);
    }
}

#[test]
fn verify_reports_no_difference_where_only_extraneous_entries_differ() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("d/a", "1");
    destination.file("extra/deep/f", "3").file("d/more", "4");
    let copied = copy(source.path(), destination.path(), &["--verify"]);
    let report = report(copied.expect(23));
    assert_eq!(report["errors"].as_array().unwrap().len(), 1, "{report}");
}
