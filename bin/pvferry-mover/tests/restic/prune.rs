//! A prune beside those of restic: as thorough, safe to kill, and safe beside other programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use testkit::{Content, Process, Rng, TempTree, assert_same};

use crate::{
    common::{PASSWORD, Repo, report},
    program, restic, same_for_restic,
};

/// Bytes of the files below a directory.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.metadata().unwrap() {
            meta if meta.is_dir() => size(&entry.path()),
            meta => meta.len(),
        })
        .sum()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// The state of a volume after some changes.
fn change(source: &TempTree, random: &mut Rng) {
    for _ in 0..6 {
        let name = format!("d{}/f{}", random.below(4), random.below(5));
        let length = 1 << (8 + random.below(13));
        source.file(&*name, Content::random(random.next_u64(), length));
    }
    let removed = format!("d{}/f{}", random.below(4), random.below(5));
    if source.at(&removed).exists() {
        source.remove(&removed);
    }
}

/// A repository with snapshots of both programs and some of them removed, and what the snapshots are of.
fn history(seed: u64) -> (Repo, Vec<(String, TempTree)>) {
    let (repo, source, random) = (Repo::local(), TempTree::new(), &mut Rng::new(seed));
    let mut states = Vec::new();
    for number in 0..8 {
        change(&source, random);
        let state = TempTree::new();
        copy(source.path(), state.path());
        if number % 2 == 0 {
            let id = repo.backup(source.path(), 0)["snapshot"].as_str().unwrap().to_owned();
            states.push((id, state));
        } else {
            let mut command = Command::new(program("restic"));
            command.current_dir(source.path()).env("RESTIC_PASSWORD", PASSWORD);
            command.args(["--repo", &repo.url, "--no-cache", "--json", "backup", "."]);
            let finished = Process::run(command);
            let summary = finished.expect(0).stdout.lines().last().unwrap();
            let summary: Value = serde_json::from_str(summary).unwrap();
            states.push((summary["snapshot_id"].as_str().unwrap().to_owned(), state));
        }
    }
    for _ in 0..5 {
        let (id, _) = states.remove(random.below(states.len() as u64) as usize);
        repo.mover(["forget", &id]).expect(0);
    }
    (repo, states)
}

/// Both programs find all snapshots complete and restore them.
fn all_are_restored(repo: &Repo, states: &[(String, TempTree)]) {
    restic(repo, &["check", "--read-data"]).expect(0);
    repo.mover(["check", "--read-data"]).expect(0);
    for (id, state) in states {
        let (ours, theirs) = (TempTree::new(), TempTree::new());
        let path = |tree: &TempTree| tree.path().to_str().unwrap().to_owned();
        repo.mover(["restore", id, &path(&ours), "--verify"]).expect(0);
        restic(repo, &["restore", id, "--target", &path(&theirs)]).expect(0);
        // The root of the volume is a directory of our snapshots only.
        let theirs = Some(theirs.at("data")).filter(|data| data.exists()).unwrap_or(theirs.at(""));
        same_content(state.path(), &theirs);
        same_content(state.path(), ours.path());
    }
}

/// Names and content, without the metadata that the copy of the state does not have.
fn same_content(left: &Path, right: &Path) {
    let mut command = Command::new("diff");
    command.arg("-r").args([left, right]);
    Process::run(command).expect(0);
}

#[test]
#[ignore = "tests/restic/run"]
fn prune_leaves_all_snapshots_whole_and_not_more_bytes_than_that_of_restic() {
    for seed in [1, 2] {
        let (repo, states) = history(seed);
        let other = tempfile::tempdir().unwrap();
        let url = other.path().join("copy");
        copy(repo.path(), &url);
        let theirs = Repo::at(url.to_str().unwrap().to_owned(), other);
        let before = size(&repo.path().join("data"));
        report(repo.mover(["prune", "--json"]).expect(0));
        restic(&theirs, &["prune"]).expect(0);
        let stored = |repo: &Repo| size(&repo.path().join("data"));
        let (ours, restics) = (stored(&repo), stored(&theirs));
        println!("seed {seed}: {before} bytes, ours {ours}, restic {restics}");
        assert!(ours <= restics + restics / 10, "{ours} bytes are stored, by restic {restics}");
        all_are_restored(&repo, &states);
    }
}

#[test]
#[ignore = "tests/restic/run"]
fn prune_that_is_killed_damages_nothing_and_the_next_one_ends_it() {
    let (original, states) = history(3);
    let random = &mut Rng::new(4);
    let copied = || {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("copy");
        copy(original.path(), &url);
        Repo::at(url.to_str().unwrap().to_owned(), dir)
    };
    let index = |repo: &Repo| {
        let files = fs::read_dir(repo.path().join("index")).unwrap();
        files.map(|file| file.unwrap().file_name()).collect::<BTreeSet<_>>()
    };
    let old = index(&original);
    let start = Instant::now();
    copied().mover(["prune"]).expect(0);
    let whole = u64::try_from(start.elapsed().as_millis()).unwrap();
    let (mut killed, mut removing) = (0, 0);
    for round in 0..20 {
        let repo = copied();
        let mut process = Process::start(repo.command(["prune"]));
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(random.below(whole)));
        } else {
            // While files are removed, which takes the least time.
            while process.is_running() && index(&repo).is_superset(&old) {
                thread::sleep(Duration::from_micros(200));
            }
            thread::sleep(Duration::from_micros(random.below(4000)));
        }
        killed += u32::from(process.is_running());
        process.kill();
        removing += u32::from(!index(&repo).is_superset(&old));
        drop(process.wait());
        let check = restic(&repo, &["check", "--read-data", "--no-lock"]);
        assert_eq!(check.code(), 0, "round {round}: {check:?}");
        restic(&repo, &["unlock", "--remove-all"]).expect(0);
        repo.mover(["prune"]).expect(0);
        if round % 5 == 0 {
            all_are_restored(&repo, &states);
        } else {
            restic(&repo, &["check", "--read-data"]).expect(0);
        }
    }
    println!("{killed} of 20 were running when they were killed, {removing} had begun to remove");
    assert!(killed > 3, "{killed}");
}

/// A file whose content is that of a directory as it is stored has the same id.
#[test]
#[ignore = "tests/restic/run"]
fn prune_of_a_file_that_equals_a_stored_directory_is_refused_and_loses_neither() {
    let (repo, source) = (Repo::local(), TempTree::new());
    source.file("d/inner", "x").file("large", Content::random(1, 4 << 20));
    let report = repo.backup(source.path(), 0);
    let tree = format!("{}:/data/d", report["snapshot"].as_str().unwrap());
    let tree = restic(&repo, &["cat", "tree", &tree]);
    // Stored trees end in one line feed.
    let tree = format!("{}\n", tree.expect(0).stdout.trim_end());
    source.remove("large").file("copy", &*tree).file("other", "y");
    repo.backup(source.path(), 0);
    repo.mover(["forget", "--keep-last", "1"]).expect(0);
    let refused = repo.mover(["prune"]);
    assert!(refused.expect(3).stderr.contains("restic prune"), "{refused:?}");
    restic(&repo, &["prune"]).expect(0);
    restic(&repo, &["check", "--read-data"]).expect(0);
    let destination = TempTree::new();
    repo.restore(destination.path(), 0);
    assert_same(source.path(), destination.path());
}

/// How often each kind of run succeeded, was refused by a lock, or lost its lock.
#[derive(Default, Debug)]
struct Counts(BTreeMap<(usize, i32), u32>);

#[test]
#[ignore = "tests/restic/run"]
fn both_programs_side_by_side_lose_nothing() {
    let rounds = env::var("PVFERRY_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let (repo, random) = (Repo::local(), &mut Rng::new(5));
    let (ours, theirs) = (TempTree::new(), TempTree::new());
    let mut counts = Counts::default();
    let mut last: [Option<String>; 2] = [None, None];
    for round in 0..rounds {
        change(&ours, random);
        change(&theirs, random);
        let path = |tree: &TempTree| tree.path().to_str().unwrap().to_owned();
        let stock = |arguments: &[&str]| {
            let mut command = Command::new(program("restic"));
            command.args(["--repo", &repo.url, "--no-cache", "--json"]).args(arguments);
            command.env("RESTIC_PASSWORD", PASSWORD);
            command
        };
        let keep = ["forget", "--keep-last", "2", "--prune"];
        let commands = [
            repo.command(["backup", &path(&ours), "--host", "a", "--path", "/data", "--json"]),
            stock(&["backup", &path(&theirs), "--host", "b"]),
            repo.command([&keep[..], &["--host", "b"]].concat()),
            stock(&[&keep[..], &["--host", "a"]].concat()),
            repo.command(["prune"]),
            stock(&["prune"]),
        ];
        let delays: Vec<_> = commands.iter().map(|_| random.below(4000)).collect();
        let finished: Vec<_> = thread::scope(|scope| {
            let start = |(command, delay)| {
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(delay));
                    Process::run(command)
                })
            };
            let started: Vec<_> = commands.into_iter().zip(delays).map(start).collect();
            started.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for (number, run) in finished.iter().enumerate() {
            // Refused by the lock of another one: 5 of ours, 11 of restic.
            let refused = if [0, 2, 4].contains(&number) { 5 } else { 11 };
            let code = run.code();
            assert!(code == 0 || code == refused, "round {round}, run {number}: {run:?}");
            *counts.0.entry((number, code)).or_default() += 1;
        }
        if finished[0].code() == 0 {
            last[0] = Some(report(&finished[0])["snapshot"].as_str().unwrap().to_owned());
        }
        if finished[1].code() == 0 {
            let summary: Value =
                serde_json::from_str(finished[1].stdout.lines().last().unwrap()).unwrap();
            last[1] = Some(summary["snapshot_id"].as_str().unwrap().to_owned());
        }
        restic(&repo, &["check", "--read-data"]).expect(0);
        let list = restic(&repo, &["snapshots", "--json"]);
        for id in last.iter().flatten() {
            assert!(list.expect(0).stdout.contains(id), "round {round}: snapshot {id} is lost");
        }
        if finished[0].code() == 0 {
            let destination = TempTree::new();
            let id = last[0].as_deref().unwrap();
            repo.mover(["restore", id, &path(&destination), "--verify"]).expect(0);
            assert_same(ours.path(), destination.path());
        }
        if finished[1].code() == 0 {
            let destination = TempTree::new();
            let from = format!("{}:{}", last[1].as_deref().unwrap(), path(&theirs));
            repo.mover(["restore", &from, &path(&destination)]).expect(0);
            same_for_restic(theirs.path(), destination.path());
        }
    }
    println!("{rounds} rounds; runs by number and exit code: {counts:?}");
}
