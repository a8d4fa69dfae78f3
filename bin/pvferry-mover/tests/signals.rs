//! SIGTERM ends a run cleanly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use common::{Repo, loop_device::Loop};
use serde_json::Value;
use testkit::{Content, Process, TempTree};

const SIZE: usize = 160 << 20;

fn locks(repo: &Repo) -> usize {
    fs::read_dir(repo.path().join("locks")).map_or(0, Iterator::count)
}

/// Terminates a run as soon as it has locked the repository, expects 20, and answers the report.
fn terminated(repo: &Repo, arguments: &[&str]) -> Value {
    let process = Process::start(repo.command(arguments));
    let deadline = Instant::now() + Duration::from_secs(60);
    while locks(repo) == 0 {
        assert!(Instant::now() < deadline, "no lock is written");
        thread::sleep(Duration::from_millis(1));
    }
    process.terminate();
    let report = common::report(process.wait().expect(20));
    assert_eq!(locks(repo), 0, "the lock was not removed: {report}");
    assert_eq!((&report["outcome"], &report["retryable"]), (&"failed".into(), &true.into()));
    assert!(report["reason"].as_str().unwrap().contains("interrupted"), "{report}");
    report
}

fn backup(repo: &Repo, source: &Path) -> Value {
    let log = repo.credentials().with_file_name("termination-log");
    fs::write(&log, "").unwrap();
    let (source, log) = (source.to_str().unwrap(), log.to_str().unwrap());
    let report = terminated(
        repo,
        &["backup", source, "--host", "h", "--path", "/data", "--json", "--termination-log", log],
    );
    let message: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!(message["exit_code"], 20);
    assert_eq!(repo.mover(["snapshots", "--json"]).expect(0).stdout.trim(), "[]");
    report
}

#[test]
fn terminated_backup_exits_20_without_a_snapshot_and_without_its_lock() {
    let (repo, source) = (Repo::local(), TempTree::new());
    source.file("a", Content::random(1, SIZE));
    backup(&repo, source.path());
    repo.backup(source.path(), 0);
}

#[test]
fn terminated_backup_of_a_device_exits_20_without_a_snapshot_and_without_its_lock() {
    let Some(source) = Loop::new(&Content::random(1, SIZE)) else { return };
    let repo = Repo::local();
    backup(&repo, source.path());
    repo.backup(source.path(), 0);
}

#[test]
fn terminated_restore_exits_20_and_removes_its_lock() {
    let (repo, source, destination) = (Repo::local(), TempTree::new(), TempTree::new());
    source.file("a", Content::random(1, SIZE));
    repo.backup(source.path(), 0);
    let path = destination.path().to_str().unwrap();
    terminated(&repo, &["restore", "latest", path, "--json"]);
    assert!(!destination.at("a").exists(), "a file is visible that is not complete");
}

#[test]
fn terminated_restore_onto_a_device_exits_20_and_can_be_repeated() {
    let content = Content::random(1, SIZE);
    let (Some(source), Some(target)) = (Loop::new(&content), Loop::new(&Content::zeros(SIZE)))
    else {
        return;
    };
    let repo = Repo::local();
    repo.backup(source.path(), 0);
    let path = target.path().to_str().unwrap();
    terminated(&repo, &["restore", "latest", path, "--json"]);
    repo.restore(target.path(), 0);
    assert!(target.content() == content.bytes(), "the devices differ");
}
