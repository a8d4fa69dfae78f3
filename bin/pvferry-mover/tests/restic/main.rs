//! The program and stock restic on one repository, in a directory and on an S3 server. `tests/restic/run` builds both
//! programs and runs these.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod policy;
mod prune;

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use common::{PASSWORD, Repo, loop_device::Loop};
use testkit::{
    Aspects, Content, Finished, Kind, Process, Snapshot, TempTree, assert_same, differences, skip,
};

const KEY: &str = "access-key";
const SECRET: &str = "secret-key-of-the-test";

fn program(name: &str) -> PathBuf {
    let programs = env::var_os("PVFERRY_RESTIC_PROGRAMS").expect("run tests/restic/run");
    Path::new(&programs).join(name)
}

fn restic(repo: &Repo, arguments: &[&str]) -> Finished {
    let mut command = Command::new(program("restic"));
    command.args(["--repo", &repo.url, "--no-cache", "--quiet"]).args(arguments);
    command.env("RESTIC_PASSWORD", PASSWORD);
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
    Process::run(command)
}

/// An S3 server over a directory, with one bucket.
struct S3 {
    process: Process,
    port: u16,
    dir: tempfile::TempDir,
}

impl S3 {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("data/bucket")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program("versitygw"));
        command.args(["--port", &format!("127.0.0.1:{port}"), "--access", KEY, "--secret", SECRET]);
        command.args(["--region", "us-east-1", "--quiet", "posix"]).arg(dir.path().join("data"));
        let process = Process::start(command);
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the S3 server does not start");
            thread::sleep(Duration::from_millis(50));
        }
        Self { process, port, dir }
    }

    fn repo(&self) -> Repo {
        let url = format!("s3:http://127.0.0.1:{}/bucket/prefix", self.port);
        let repo = Repo::at(url, tempfile::tempdir().unwrap());
        repo.credential("AWS_ACCESS_KEY_ID", KEY);
        repo.credential("AWS_SECRET_ACCESS_KEY", SECRET);
        repo.mover(["init"]).expect(0);
        repo
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// What restic's format has no place for, and sockets, which restic does not restore, are not compared.
fn as_restic_keeps_it(mut tree: Snapshot) -> Snapshot {
    tree.0.retain(|_, node| node.kind != Kind::Socket);
    for node in tree.0.values_mut() {
        node.flags = (false, false);
    }
    tree
}

#[track_caller]
fn same_for_restic(left: &Path, right: &Path) {
    let tree = |path| as_restic_keeps_it(Snapshot::of(path));
    let found = differences(&tree(left), &tree(right), Aspects::default());
    assert!(found.is_empty(), "the trees differ:\n  {}", found.join("\n  "));
}

#[test]
#[ignore = "tests/restic/run"]
fn restic_checks_and_restores_a_backup_of_ours() {
    if !skip::root() {
        return;
    }
    let (repo, source, destination) = (Repo::local(), TempTree::new(), TempTree::new());
    source.everything().file("large", Content::random(9, 40 << 20));
    source.mode("", 0o751).owner("", 7, 8).mtime("", -5, 123_456_789);
    let report = repo.backup(source.path(), 0);
    restic(&repo, &["check", "--read-data"]).expect(0);
    let target = destination.path().to_str().unwrap();
    restic(&repo, &["restore", report["snapshot"].as_str().unwrap(), "--target", target]).expect(0);
    same_for_restic(source.path(), &destination.at("data"));
}

#[test]
#[ignore = "tests/restic/run"]
fn restores_a_backup_of_restic() {
    if !skip::root() {
        return;
    }
    let (repo, source, destination) = (Repo::local(), TempTree::new(), TempTree::new());
    source.everything().file("large", Content::random(9, 40 << 20));
    let path = source.path().to_str().unwrap();
    restic(&repo, &["backup", path]).expect(0);
    let snapshot = format!("latest:{path}");
    let target = destination.path().to_str().unwrap();
    repo.mover(["restore", &snapshot, target, "--verify"]).expect(0);
    same_for_restic(source.path(), destination.path());
}

#[test]
#[ignore = "tests/restic/run"]
fn restic_dumps_a_block_device_and_its_own_image_is_restored_onto_one() {
    let content = Content::random(1, 40 << 20).overwrite(9 << 20, &vec![0; 16 << 20]);
    let (Some(source), Some(target)) =
        (Loop::new(&content), Loop::new(&Content::random(2, 40 << 20)))
    else {
        return;
    };
    let (repo, files) = (Repo::local(), TempTree::new());
    let report = repo.backup(source.path(), 0);
    let id = report["snapshot"].as_str().unwrap();
    let (dump, path) = (files.at("dump"), files.path().to_str().unwrap());
    restic(&repo, &["dump", "--target", dump.to_str().unwrap(), id, "/data"]).expect(0);
    assert!(fs::read(&dump).unwrap() == content.bytes(), "the dump differs");
    restic(&repo, &["check", "--read-data"]).expect(0);
    restic(&repo, &["backup", path]).expect(0);
    let snapshot = format!("latest:{path}/dump");
    repo.mover(["restore", &snapshot, target.path().to_str().unwrap()]).expect(0);
    assert!(target.content() == content.bytes(), "the device differs");
}

#[test]
#[ignore = "tests/restic/run"]
fn backs_up_to_s3_and_back_and_restic_agrees() {
    if !skip::root() {
        return;
    }
    let (server, source, destination) = (S3::start(), TempTree::new(), TempTree::new());
    let repo = server.repo();
    source.everything().file("large", Content::random(9, 40 << 20));
    repo.backup(source.path(), 0);
    restic(&repo, &["check", "--read-data"]).expect(0);
    repo.restore(destination.path(), 0);
    assert_same(source.path(), destination.path());
    assert_eq!(repo.backup(source.path(), 0)["bytes_literal"], 0);
    assert!(server.dir.path().join("data/bucket/prefix/config").exists());
}

#[test]
#[ignore = "tests/restic/run"]
fn unused_content_is_removed_from_s3_and_restic_agrees() {
    let (server, source, destination) = (S3::start(), TempTree::new(), TempTree::new());
    let repo = server.repo();
    source.file("kept", Content::random(1, 3 << 20)).file("gone", Content::random(2, 9 << 20));
    repo.backup(source.path(), 0);
    source.remove("gone");
    repo.backup(source.path(), 0);
    let arguments = ["forget", "--keep-last", "1", "--prune", "--json"];
    let report = common::report(repo.mover(arguments).expect(0));
    assert!(report["bytes_freed"].as_i64().unwrap() > 9 << 20, "{report}");
    restic(&repo, &["check", "--read-data"]).expect(0);
    repo.restore(destination.path(), 0);
    assert_same(source.path(), destination.path());
}

#[test]
#[ignore = "tests/restic/run"]
fn refused_credentials_are_one_sentence_and_never_shown() {
    let server = S3::start();
    let repo = server.repo();
    repo.credential("AWS_SECRET_ACCESS_KEY", "not the secret");
    let refused = repo.mover(["snapshots"]);
    refused.expect(10);
    assert!(
        !refused.stderr.contains("not the secret") && !refused.stderr.contains(KEY),
        "{refused:?}"
    );
    assert_eq!(refused.stderr.trim().lines().count(), 1, "{refused:?}");
}

/// Stops `process` as soon as the repository has a lock, and leaves it stopped.
fn stop_while_it_holds_a_lock(repo: &Repo, process: &Process) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let locks =
        || fs::read_dir(repo.path().join("locks")).is_ok_and(|mut locks| locks.next().is_some());
    while !locks() {
        assert!(Instant::now() < deadline, "no lock is written");
    }
    process.freeze();
}

#[test]
#[ignore = "tests/restic/run"]
fn prune_of_restic_and_a_backup_of_ours_refuse_each_other() {
    let (repo, source) = (Repo::local(), TempTree::new());
    source.file("a", Content::random(1, 200 << 20));
    let mut prune = Command::new(program("restic"));
    prune.args(["--repo", &repo.url, "--no-cache", "prune"]).env("RESTIC_PASSWORD", PASSWORD);
    let prune = Process::start(prune);
    stop_while_it_holds_a_lock(&repo, &prune);
    let refused = repo.backup(source.path(), 5);
    assert!(refused["reason"].as_str().unwrap().contains("exclusively locked"), "{refused}");
    assert_eq!(refused["retryable"], true);
    prune.thaw();
    prune.wait().expect(0);

    let path = source.path().to_str().unwrap();
    let backup = repo.command(["backup", path, "--host", "claim", "--path", "/data"]);
    let backup = Process::start(backup);
    stop_while_it_holds_a_lock(&repo, &backup);
    let refused = restic(&repo, &["prune"]);
    assert_eq!(refused.code(), 11, "{refused:?}");
    backup.thaw();
    backup.wait().expect(0);
    assert_eq!(fs::read_dir(repo.path().join("locks")).unwrap().count(), 0);
    restic(&repo, &["check"]).expect(0);
}
