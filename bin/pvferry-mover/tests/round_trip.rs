//! Backup and restore with this program alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{fs, path::PathBuf, process::Command};

use common::{PASSWORD, Repo};
use testkit::{Aspects, Content, Process, Snapshot, TempTree, assert_same, differences, skip};

#[test]
fn restores_every_kind_of_entry_with_its_metadata() {
    if !skip::root() {
        return;
    }
    let (repo, source, destination) = (Repo::local(), TempTree::new(), TempTree::new());
    source.everything().mode("", 0o751).owner("", 7, 8).mtime("", -5, 123_456_789);
    let backup = repo.backup(source.path(), 0);
    assert_eq!(backup["outcome"], "completed");
    let restored = repo.restore(destination.path(), 0);
    assert_same(source.path(), destination.path());
    assert_eq!(backup["snapshot"], restored["snapshot"]);
    assert_eq!(backup["entries"], restored["entries"]);
}

#[test]
fn holes_take_no_room_in_the_restored_volume() {
    let (repo, source, destination) = (Repo::local(), TempTree::new(), TempTree::new());
    source.sparse(
        "sparse",
        64 << 20,
        &[(0, b"start"), (33 << 20, b"middle"), ((64 << 20) - 1, b"e")],
    );
    source.sparse("hole", 16 << 20, &[]);
    repo.backup(source.path(), 0);
    repo.restore(destination.path(), 0);
    let aspects = Aspects { extents: Some(3), ..Aspects::default() };
    let (left, right) = (Snapshot::of(source.path()), Snapshot::of(destination.path()));
    assert_eq!(differences(&left, &right, aspects), [""; 0]);
}

#[test]
fn unchanged_volume_is_not_read_again() {
    let (repo, source) = (Repo::local(), TempTree::new());
    source.file("a", Content::random(1, 3 << 20)).file("d/b", "small");
    assert_eq!(repo.backup(source.path(), 0)["bytes_literal"], (3 << 20) + 5);
    assert_eq!(repo.backup(source.path(), 0)["bytes_literal"], 0);
    source.file("d/b", "other");
    let third = repo.backup(source.path(), 0);
    assert_eq!(third["bytes_literal"], 5);
    let listed = repo.mover(["snapshots", "--json"]);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed.expect(0).stdout).unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[2]["id"], third["snapshot"]);
}

#[test]
fn unreadable_file_and_directory_are_reported_and_the_backup_is_partial() {
    if !skip::root() || !skip::commands(&["setpriv"]) {
        return;
    }
    let (repo, source, destination) = (Repo::local(), TempTree::new(), TempTree::new());
    source.file("readable", "text").file("secret", "text").mode("secret", 0);
    source.file("closed/file", "text").mode("closed", 0);
    for tree in [source.path(), repo.path(), &repo.credentials()] {
        // What lies above must be passable for the user.
        for above in tree.ancestors().take(2) {
            Process::run(command("chmod", &["a+rwx", above.to_str().unwrap()])).expect(0);
        }
    }
    Process::run(command("chmod", &["-R", "a+rwX", repo.path().to_str().unwrap()])).expect(0);
    let backup = repo.command([
        "backup",
        source.path().to_str().unwrap(),
        "--host",
        "h",
        "--path",
        "/data",
        "--json",
    ]);
    let mut unprivileged = Command::new("setpriv");
    unprivileged.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    unprivileged.arg(backup.get_program()).args(backup.get_args());
    let report = common::report(Process::run(unprivileged).expect(23));
    let named: Vec<_> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["name"].as_str().unwrap())
        .collect();
    assert!(named.contains(&"secret") && named.contains(&"closed"), "{named:?}");
    assert_eq!(report["outcome"], "partial");
    // The snapshot is marked as partial, so that a restore reports it, too.
    let restored = repo.restore(destination.path(), 23);
    assert!(restored["reason"].as_str().unwrap().contains("does not hold all"), "{restored}");
    assert_eq!(fs::read(destination.at("readable")).unwrap(), b"text");
}

#[test]
fn wrong_password_missing_repository_and_second_init_are_refused_in_one_sentence() {
    let repo = Repo::local();
    let again = repo.mover(["init"]);
    assert!(again.expect(3).stderr.contains("exists here already"), "{again:?}");
    repo.credential("RESTIC_PASSWORD", "wrong");
    let wrong = repo.mover(["snapshots"]);
    assert!(wrong.expect(1).stderr.contains("wrong password"), "{wrong:?}");
    assert_eq!(wrong.stderr.trim().lines().count(), 1, "{wrong:?}");
    let missing = Repo::at("/nonexistent/repository".to_owned(), tempfile::tempdir().unwrap());
    let said = missing.mover(["snapshots"]);
    assert!(said.expect(3).stderr.contains("no repository here"), "{said:?}");
    assert!(!said.stderr.contains(PASSWORD));
}

#[test]
fn destination_with_content_is_refused() {
    let (repo, source, destination) = (Repo::local(), TempTree::new(), TempTree::new());
    source.file("a", "a");
    repo.backup(source.path(), 0);
    destination.file("mine", "keep");
    let restored = repo.restore(destination.path(), 3);
    assert!(restored["reason"].as_str().unwrap().contains("not empty"), "{restored}");
    assert_eq!(fs::read(destination.at("mine")).unwrap(), b"keep");
}

#[test]
fn damaged_pack_is_found_by_check_and_restored_around() {
    let (repo, source, destination) = (Repo::local(), TempTree::new(), TempTree::new());
    source.file("first", Content::random(1, 100_000));
    repo.backup(source.path(), 0);
    let before = packs(&repo);
    source.file("second", Content::random(2, 100_000));
    repo.backup(source.path(), 0);
    repo.mover(["check", "--read-data"]).expect(0);
    // The pack of the content is the larger one of those that the first backup wrote.
    let damaged = before.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let mut bytes = fs::read(damaged).unwrap();
    bytes[5000] ^= 1;
    fs::write(damaged, bytes).unwrap();
    repo.mover(["check", "--read-data"]).expect(23);
    let restored = repo.restore(destination.path(), 23);
    assert_eq!(restored["errors"][0]["name"], "first", "{restored}");
    assert!(!destination.at("first").exists());
    assert_eq!(fs::read(destination.at("second")).unwrap(), fs::read(source.at("second")).unwrap());
}

#[test]
fn backup_of_content_in_a_truncated_or_missing_pack_saves_no_snapshot() {
    let (repo, source) = (Repo::local(), TempTree::new());
    source.file("a", Content::random(1, 100_000));
    repo.backup(source.path(), 0);
    let packs = packs(&repo);
    let pack = packs.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    fs::write(pack, &fs::read(pack).unwrap()[..5000]).unwrap();
    let truncated = repo.backup(source.path(), 11);
    assert!(truncated["reason"].as_str().unwrap().contains("is truncated"), "{truncated}");
    fs::remove_file(pack).unwrap();
    let missing = repo.backup(source.path(), 11);
    assert!(missing["reason"].as_str().unwrap().contains("is not listed"), "{missing}");
    assert_eq!(fs::read_dir(repo.path().join("snapshots")).unwrap().count(), 1);
}

#[test]
fn excluded_files_are_not_in_the_snapshot() {
    let (repo, source, destination) = (Repo::local(), TempTree::new(), TempTree::new());
    source.file("keep", "a").file("d/skip.tmp", "b").file("cache/c", "c");
    let path = source.path().to_str().unwrap();
    let arguments = [
        "backup",
        path,
        "--host",
        "h",
        "--path",
        "/data",
        "--exclude",
        "*.tmp",
        "--exclude",
        "/cache/",
    ];
    repo.mover(arguments).expect(0);
    repo.restore(destination.path(), 0);
    assert!(destination.at("keep").exists() && destination.at("d").exists());
    assert!(!destination.at("d/skip.tmp").exists() && !destination.at("cache").exists());
}

fn packs(repo: &Repo) -> Vec<PathBuf> {
    let list = |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    list(repo.path().join("data")).flat_map(list).collect()
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
