//! Snapshots are removed by id and by policy, and nothing else is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use common::Repo;
use serde_json::Value;
use testkit::{Process, TempTree, skip};

/// A repository with `count` snapshots, and their ids, the oldest first.
fn backed_up(count: usize) -> (Repo, TempTree, Vec<String>) {
    let (repo, source) = (Repo::local(), TempTree::new());
    let ids = (0..count).map(|number| {
        source.file("a", &*number.to_string());
        repo.backup(source.path(), 0)["snapshot"].as_str().unwrap().to_owned()
    });
    let ids = ids.collect();
    (repo, source, ids)
}

fn listed(repo: &Repo) -> Vec<String> {
    let list = repo.mover(["snapshots", "--json"]);
    let list: Vec<Value> = serde_json::from_str(&list.expect(0).stdout).unwrap();
    list.iter().map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
}

fn locks(repo: &Repo) -> usize {
    fs::read_dir(repo.path().join("locks")).map_or(0, Iterator::count)
}

#[test]
fn snapshots_are_removed_by_the_start_of_their_ids_and_the_others_stay() {
    let (repo, _source, ids) = backed_up(3);
    let dry = common::report(repo.mover(["forget", &ids[1], "--dry-run", "--json"]).expect(0));
    assert_eq!((&dry["dry_run"], &dry["files_deleted"]), (&true.into(), &0.into()));
    assert_eq!(dry["removed"], Value::from(vec![&*ids[1]]));
    assert_eq!(listed(&repo), ids);
    let report = common::report(
        repo.mover(["forget", &ids[1][..12], "latest", &ids[2], "--json"]).expect(0),
    );
    assert_eq!((&report["outcome"], &report["files_deleted"]), (&"completed".into(), &2.into()));
    assert_eq!(listed(&repo), [&*ids[0]]);
    assert_eq!(locks(&repo), 0);
}

#[test]
fn unknown_snapshot_beside_known_ones_is_refused_and_nothing_is_removed() {
    let (repo, _source, ids) = backed_up(2);
    repo.mover(["forget", &ids[0], "abcdefabcdef"]).expect(3);
    repo.mover(["forget", &ids[0], ""]).expect(3);
    assert_eq!(listed(&repo), ids);
}

#[test]
fn policy_that_keeps_nothing_is_refused_and_nothing_is_removed() {
    let (repo, _source, ids) = backed_up(2);
    repo.mover(["forget"]).expect(1);
    repo.mover(["forget", "--keep-last", "0"]).expect(1);
    repo.mover(["forget", "--keep-tag", "none-has-it"]).expect(1);
    repo.mover(["forget", "--keep-last", "-1"]).expect(1);
    repo.mover(["forget", &ids[0], "--keep-last", "1"]).expect(1);
    repo.mover(["forget", &ids[0], "--host", "claim"]).expect(1);
    assert_eq!(listed(&repo), ids);
}

#[test]
fn policy_is_applied_to_each_host_by_itself_and_to_those_of_the_filter_only() {
    let (repo, source, ids) = backed_up(2);
    let path = source.path().to_str().unwrap();
    for _ in 0..2 {
        repo.mover(["backup", path, "--host", "other", "--path", "/data"]).expect(0);
    }
    let all = listed(&repo);
    repo.mover(["forget", "--keep-last", "1", "--host", "claim"]).expect(0);
    assert_eq!(listed(&repo), all[1..]);
    assert!(!listed(&repo).contains(&ids[0]));
    let text = repo.mover(["forget", "--keep-daily", "1", "--path", "/data"]);
    let text = &text.expect(0).stdout;
    assert!(text.contains(&format!("remove  {}", &all[2][..8])), "{text}");
    assert!(text.contains("1 snapshot removed"), "{text}");
    assert_eq!(listed(&repo), [&*all[1], &*all[3]]);
}

#[test]
fn snapshot_that_cannot_be_removed_is_listed_with_23_and_the_others_are_removed() {
    if !skip::root() || !skip::commands(&["chattr"]) {
        return;
    }
    let (repo, _source, ids) = backed_up(3);
    let file = repo.path().join("snapshots").join(&ids[0]);
    let chattr = |flag: &str, file: &Path| {
        Process::run({
            let mut command = Command::new("chattr");
            command.arg(flag).arg(file);
            command
        })
    };
    chattr("+i", &file).expect(0);
    let finished = repo.mover(["forget", "--keep-last", "1", "--json"]);
    chattr("-i", &file).expect(0);
    let report = common::report(finished.expect(23));
    assert_eq!((&report["outcome"], &report["files_deleted"]), (&"partial".into(), &1.into()));
    assert_eq!(report["errors"][0]["name"], *ids[0]);
    assert_eq!(report["removed"], Value::from(vec![&*ids[1]]));
    assert_eq!(listed(&repo), [&*ids[0], &*ids[2]]);
}

#[test]
fn repository_in_use_is_refused_with_5_and_nothing_is_removed() {
    let (repo, source, ids) = backed_up(1);
    source.file("large", testkit::Content::random(1, 100 << 20));
    let path = source.path().to_str().unwrap();
    let backup =
        Process::start(repo.command(["backup", path, "--host", "claim", "--path", "/data"]));
    let deadline = Instant::now() + Duration::from_secs(60);
    while locks(&repo) == 0 {
        assert!(Instant::now() < deadline, "no lock is written");
        thread::sleep(Duration::from_millis(1));
    }
    backup.freeze();
    let report = common::report(repo.mover(["forget", &ids[0], "--json"]).expect(5));
    assert_eq!(report["retryable"], true);
    assert_eq!(listed(&repo), ids);
    backup.thaw();
    backup.wait().expect(0);
}
