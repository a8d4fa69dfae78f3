//! What protects an entry of the destination holds on every path by which it may vanish: removal, rename, and making
//! way for an entry of another kind.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use testkit::{Content, Mount, Process, Rng, Snapshot, TempTree, skip};

use crate::support::{assert_untouched, copy, report};

/// The paths below the root.
fn paths(tree: &TempTree) -> Vec<PathBuf> {
    Snapshot::of(tree.path()).paths().map(PathBuf::from).collect()
}

/// Copies, first as a dry run, which must change nothing and exit in the same way.
#[track_caller]
fn copy_both(source: &TempTree, destination: &TempTree, options: &[&str], code: i32) {
    let before = Snapshot::of(destination.path());
    let dry = copy(source.path(), destination.path(), &[options, &["-n"]].concat());
    assert_untouched(&before, destination.path());
    let ended = copy(source.path(), destination.path(), options);
    ended.expect(code);
    dry.expect(code);
}

#[test]
fn a_file_that_a_filter_protects_is_no_source_of_a_rename() {
    for (kept, filter) in [("old/k.keep", "*.keep"), ("old/keep/k", "keep/"), ("old/k", "old/k")] {
        let (source, destination) = (TempTree::new(), TempTree::new());
        source.file("new/b", Content::random(1, 100_000)).mtime("new/b", 5, 5);
        destination.file(kept, Content::random(1, 100_000)).mtime(kept, 5, 5);
        copy_both(&source, &destination, &["--delete", "--exclude", filter], 0);
        assert!(destination.at(kept).exists(), "{filter}: {:?}", paths(&destination));
        assert!(destination.at("new/b").exists(), "{filter}");
    }
}

#[test]
fn a_renamed_file_beside_a_protected_one_is_moved() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    let content = Content::random(1, 4 << 20);
    source.file("new/b", content.clone()).mtime("new/b", 5, 5);
    destination.file("old/b", content).mtime("old/b", 5, 5).file("old/k.keep", "protected");
    let ended = copy(source.path(), destination.path(), &["--delete", "--exclude", "*.keep"]);
    let report = report(ended.expect(0));
    assert_eq!(report["bytes_literal"], 0, "{report}");
    assert_eq!(paths(&destination), ["new", "new/b", "old", "old/k.keep"].map(PathBuf::from));
}

#[test]
fn a_directory_with_a_protected_entry_does_not_make_way_for_a_file() {
    let cases = [("x/a.keep", "*.keep"), ("x/deep/er/a.keep", "*.keep"), ("x/keep/a", "keep/")];
    for (kept, filter) in cases {
        for options in [&["--delete", "--exclude", filter][..], &["--exclude", filter]] {
            let (source, destination) = (TempTree::new(), TempTree::new());
            source.file("x", "a file now").file("y", "arrives");
            destination.file(kept, "protected");
            copy_both(&source, &destination, options, 23);
            assert!(destination.at(kept).exists(), "{options:?}");
            assert!(destination.at("y").exists(), "{options:?}");
            let named = report(&copy(source.path(), destination.path(), options));
            assert_eq!(named["errors"][0]["name"], "x", "{named}");
        }
    }
}

#[test]
fn a_directory_that_is_excluded_itself_does_not_make_way() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("x", "a file now");
    destination.file("x/a", "below an excluded directory").dir("d");
    copy_both(&source, &destination, &["--delete", "--exclude", "x/"], 23);
    assert_eq!(paths(&destination), ["x", "x/a"].map(PathBuf::from));
}

#[test]
fn an_excluded_file_does_not_make_way_for_a_directory() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("x/a", "1");
    destination.file("x", "every file is excluded");
    let options = ["--delete", "--include", "*/", "--exclude", "*"];
    copy_both(&source, &destination, &options, 23);
    assert_eq!(std::fs::read(destination.at("x")).unwrap(), b"every file is excluded");
}

#[test]
fn lost_and_found_does_not_make_way_for_a_file() {
    for options in [&["--delete"][..], &[]] {
        let (source, destination) = (TempTree::new(), TempTree::new());
        source.file("lost+found", "a file");
        destination.dir("lost+found");
        copy_both(&source, &destination, options, 23);
        assert!(destination.at("lost+found").is_dir(), "{options:?}");
    }
}

#[test]
fn threads_that_make_way_delete_no_more_than_the_limit() {
    for round in 0..8 {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for dir in 0..8 {
            for name in 0..4 {
                source.file(format!("{dir}/{name}"), "a file now");
                for inner in 0..40 {
                    destination.file(format!("{dir}/{name}/{inner}"), "1");
                }
            }
        }
        let count = || Snapshot::of(destination.path()).paths().count() as u64;
        let before = count();
        let ended = copy(source.path(), destination.path(), &["--delete", "--max-delete", "100"]);
        let report = report(ended.expect(25));
        assert_eq!(report["files_deleted"], 100, "round {round}: {report}");
        assert!(before - count() <= 100, "round {round}");
    }
}

#[test]
fn a_limit_on_deletions_names_what_could_not_be_replaced() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("x", "a file now");
    destination.file("x/1", "1").file("x/2", "2");
    copy_both(&source, &destination, &["--delete", "--max-delete", "1"], 25);
    let options = ["--delete", "--max-delete", "0"];
    let report = report(&copy(source.path(), destination.path(), &options));
    let named = report["errors"].as_array().unwrap().iter().any(|error| error["name"] == "x");
    assert!(named, "{report}");
}

/// A tree with a few names at each level, so that names of different kinds meet.
fn small_names(rng: &mut Rng, entries: u64) -> TempTree {
    let tree = TempTree::new();
    for _ in 0..entries {
        let depth = 1 + rng.below(3);
        let parts: Vec<_> =
            (0..depth).map(|_| ["a", "b", "c.keep", "keep"][rng.below(4) as usize]).collect();
        let path = parts.join("/");
        let free = (1..=parts.len()).all(|n| {
            let at = tree.at(parts[..n].join("/"));
            at.symlink_metadata().map_or(true, |meta| n < parts.len() && meta.is_dir())
        });
        if free && rng.below(4) == 0 {
            tree.dir(&path);
        } else if free {
            tree.file(&path, path.as_bytes()).mtime(&path, 5, 0);
        }
    }
    tree
}

/// Where rsync can make way and we keep an excluded entry on purpose, trees are not compared.
#[test]
fn with_filters_the_same_entries_survive_as_with_rsync() {
    if !skip::commands(&["rsync"]) {
        return;
    }
    let rules = [
        &["--exclude=*.keep"][..],
        &["--exclude=keep/"],
        &["--exclude=/a/keep", "--exclude=*.keep"],
        &["--include=keep", "--exclude=*.keep"],
        &["--exclude=b/**"],
        &["--include=*/", "--exclude=c*"],
    ];
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let (source, ours) = (small_names(&mut rng, 25), small_names(&mut rng, 25));
        let theirs = TempTree::new();
        let rsync = |options: &[&str], from: &TempTree, to: &TempTree| {
            let mut command = Command::new("rsync");
            command.arg("-a").args(options).arg(from.at("")).arg(to.path());
            Process::run(command)
        };
        rsync(&[], &ours, &theirs).expect(0);
        let options = [&["--delete"], rules[seed as usize % rules.len()]].concat();
        let judged = rsync(&options, &source, &theirs);
        let ended = copy(source.path(), ours.path(), &options);
        if ended.code() == 0 {
            judged.expect(0);
            assert_eq!(paths(&ours), paths(&theirs), "seed {seed} {options:?}");
        } else {
            ended.expect(23);
            let left = paths(&ours);
            let lost: Vec<_> = paths(&theirs)
                .into_iter()
                .filter(|path| !left.contains(path) && !source.at(path).exists())
                .collect();
            assert_eq!(lost, Vec::<PathBuf>::new(), "seed {seed} {options:?}: rsync keeps these");
        }
    }
}

#[test]
fn a_mount_point_in_an_extraneous_directory_is_kept_and_reported() {
    let (Some(inside), source) = (Mount::tmpfs("size=1m"), TempTree::new()) else { return };
    source.file("f", "1");
    let destination = TempTree::new();
    destination.file("old/f", "2").dir("old/mounted");
    let point = destination.at("old/mounted");
    let bind = Command::new("mount").arg("--bind").args([inside.path(), &point]).status();
    assert!(bind.unwrap().success());
    std::fs::write(point.join("beyond"), "another volume").unwrap();
    let ended = copy(source.path(), destination.path(), &["--delete"]);
    let kept = point.join("beyond").exists();
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    ended.expect(23);
    assert!(kept && !destination.at("old/f").exists());
}

/// What removes or renames away an entry of the destination, by the words of the code.
const VANISH: [&str; 6] =
    ["remove_tree(", "empty_dir(", "create::adopt(", "unlinkat(", "renameat(", "renameat_with("];

#[test]
fn nothing_but_its_owner_lets_an_entry_of_the_destination_vanish() {
    let session = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/session/src");
    let mut owner_does = false;
    for entry in walkdir::WalkDir::new(session) {
        let path = entry.unwrap().into_path();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let does: Vec<_> = VANISH.iter().filter(|word| text.contains(*word)).collect();
        let name = path.file_name().unwrap().to_str().unwrap();
        owner_does |= name == "deletions.rs" && !does.is_empty();
        assert!(does.is_empty() || name == "deletions.rs", "{}: {does:?}", path.display());
    }
    assert!(owner_does, "the words are out of date");
}
