//! What no snapshot needs is removed, and nothing that one needs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use common::Repo;
use serde_json::Value;
use testkit::{Content, Process, TempTree, assert_same};

/// The files of the repository with their content, but for locks.
fn files(repo: &Repo) -> BTreeMap<PathBuf, Vec<u8>> {
    fn below(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, found);
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    for dir in ["data", "index", "snapshots"] {
        below(&repo.path().join(dir), &mut found);
    }
    found
}

fn bytes(repo: &Repo) -> usize {
    files(repo).values().map(Vec::len).sum()
}

/// A repository with one snapshot, which needs some of the blobs of each of its packs, and the source of the snapshot.
fn partly_used() -> (Repo, TempTree) {
    let (repo, source) = (Repo::local(), TempTree::new());
    source.file("kept", Content::random(1, 3 << 20)).file("d/e/small", "small");
    source.file("gone", Content::random(2, 9 << 20)).file("d/gone", "gone");
    repo.backup(source.path(), 0);
    source.remove("gone").remove("d/gone");
    repo.backup(source.path(), 0);
    repo.mover(["forget", "--keep-last", "1"]).expect(0);
    (repo, source)
}

fn prune(repo: &Repo, code: i32) -> Value {
    common::report(repo.mover(["prune", "--json"]).expect(code))
}

fn restores(repo: &Repo, source: &TempTree) {
    let destination = TempTree::new();
    repo.restore(destination.path(), 0);
    assert_same(source.path(), destination.path());
}

#[test]
fn unused_content_is_removed_and_the_snapshot_that_is_left_is_restored() {
    let (repo, source) = partly_used();
    let before = bytes(&repo);
    assert!(before > 12 << 20, "{before}");
    let dry = repo.mover(["prune", "--dry-run", "--json"]);
    let dry = common::report(dry.expect(0));
    assert_eq!((&dry["dry_run"], &dry["files_deleted"]), (&true.into(), &0.into()));
    assert!(dry["bytes_freed"].as_i64().unwrap() > 9 << 20, "{dry}");
    assert_eq!(bytes(&repo), before);
    let report = prune(&repo, 0);
    let after = bytes(&repo);
    assert_eq!(report["bytes_freed"].as_i64(), Some((before - after) as i64), "{report}");
    assert!(after < 4 << 20, "{after} bytes are left of {before}");
    repo.mover(["check", "--read-data"]).expect(0);
    restores(&repo, &source);
    assert_eq!(prune(&repo, 0)["files_deleted"], 0);
    assert_eq!(fs::read_dir(repo.path().join("locks")).unwrap().count(), 0);
}

#[test]
fn forget_with_prune_removes_the_content_too_and_without_snapshots_everything() {
    let (repo, source) = (Repo::local(), TempTree::new());
    source.file("a", Content::random(1, 5 << 20));
    repo.backup(source.path(), 0);
    let arguments = ["forget", "latest", "--prune", "--json"];
    let dry = repo.mover([&arguments[..], &["--dry-run"]].concat());
    let dry = common::report(dry.expect(0));
    assert!(dry["bytes_freed"].as_i64().unwrap() > 5 << 20, "{dry}");
    let report = common::report(repo.mover(arguments).expect(0));
    assert_eq!(report["removed"].as_array().unwrap().len(), 1);
    assert!(report["bytes_freed"].as_i64().unwrap() > 5 << 20, "{report}");
    assert_eq!(files(&repo).keys().collect::<Vec<_>>(), Vec::<&PathBuf>::new());
    repo.backup(source.path(), 0);
    restores(&repo, &source);
}

#[test]
fn packs_of_a_backup_that_was_killed_are_removed() {
    let (repo, source) = (Repo::local(), TempTree::new());
    source.file("a", "small");
    repo.backup(source.path(), 0);
    let before = files(&repo);
    let pack = repo.path().join("data/ab");
    fs::create_dir_all(&pack).unwrap();
    fs::write(pack.join("ab".repeat(32)), Content::random(3, 1 << 20).bytes()).unwrap();
    prune(&repo, 0);
    assert_eq!(files(&repo), before);
}

/// Damages each of the files below `dir` in three ways, and expects a prune to fail, or to leave a sound repository. Where it
/// fails all files are there, and the index is the same.
fn damaged(dir: &str) {
    let (repo, source) = partly_used();
    let sound = files(&repo);
    let write = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        for dir in ["data", "index", "snapshots"] {
            fs::remove_dir_all(repo.path().join(dir)).unwrap();
        }
        for (path, content) in files {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    };
    let path = repo.path().join(dir);
    for damaged in sound.keys().filter(|file| file.starts_with(&path)) {
        for how in ["flipped", "truncated", "removed"] {
            let mut files = sound.clone();
            let content = files.get_mut(damaged).unwrap();
            match how {
                "flipped" => {
                    let middle = content.len() / 2;
                    content[middle] ^= 1;
                }
                "truncated" => content.truncate(content.len() / 2),
                _ => drop(files.remove(damaged)),
            }
            write(&files);
            let finished = repo.mover(["prune"]);
            assert!(!finished.stderr.contains("panicked"), "{how} {damaged:?}: {finished:?}");
            if finished.code() == 0 {
                // The damage was in something that is not used.
                repo.mover(["check", "--read-data"]).expect(0);
                restores(&repo, &source);
                continue;
            }
            assert_eq!(finished.code(), 11, "{how} {damaged:?}: {finished:?}");
            let after = self::files(&repo);
            let kept = files.iter().all(|(path, content)| after.get(path) == Some(content));
            assert!(kept, "{how} {damaged:?}: something was removed: {finished:?}");
            let index = |files: &BTreeMap<PathBuf, Vec<u8>>| {
                files.keys().filter(|file| file.starts_with(repo.path().join("index"))).count()
            };
            assert_eq!(index(&after), index(&files), "{how} {damaged:?}: {finished:?}");
        }
    }
}

#[test]
fn damaged_pack_ends_a_prune_before_anything_is_removed() {
    damaged("data");
}

#[test]
fn damaged_index_ends_a_prune_before_anything_is_removed() {
    damaged("index");
}

#[test]
fn damaged_snapshot_ends_a_prune_before_anything_is_removed() {
    let (repo, _source) = partly_used();
    let before = files(&repo);
    let snapshot = before.keys().find(|path| path.to_str().unwrap().contains("/snapshots/"));
    let snapshot = snapshot.unwrap();
    fs::write(snapshot, &before[snapshot][..50]).unwrap();
    prune(&repo, 11);
    fs::write(snapshot, &before[snapshot]).unwrap();
    assert_eq!(files(&repo), before);
}

#[test]
fn repository_in_use_is_refused_with_5_and_a_dry_run_is_not() {
    let (repo, source) = partly_used();
    source.file("large", Content::random(4, 100 << 20));
    let path = source.path().to_str().unwrap();
    let backup =
        Process::start(repo.command(["backup", path, "--host", "claim", "--path", "/data"]));
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read_dir(repo.path().join("locks")).map_or(0, Iterator::count) == 0 {
        assert!(Instant::now() < deadline, "no lock is written");
        thread::sleep(Duration::from_millis(1));
    }
    backup.freeze();
    assert_eq!(prune(&repo, 5)["retryable"], true);
    repo.mover(["prune", "--dry-run"]).expect(0);
    backup.thaw();
    backup.wait().expect(0);
    prune(&repo, 0);
    restores(&repo, &source);
}
