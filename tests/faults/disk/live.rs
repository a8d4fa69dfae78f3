//! Sources that do not stand still while the built program reads them.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use testkit::{Content, Rng, Snapshot, TempTree, skip};

use super::{PLAIN, named, transfer};
use crate::counts;

/// Files of each sort that changes, and the bytes of a whole one.
const EACH: u64 = 4;
const LEN: usize = 400_000;

/// Changes something of the source below `root`, of every sort in turn.
fn change(root: &Path, outside: &Path, rng: &mut Rng) {
    let n = rng.below(EACH);
    match rng.below(5) {
        0 => replace(root, n, rng.below(50)),
        1 => {
            // It grows, and never changes what is there.
            let mut log =
                OpenOptions::new().append(true).open(root.join(format!("log {n}"))).unwrap();
            log.write_all(&[b'x'; 3000]).unwrap();
        }
        2 => {
            let file =
                OpenOptions::new().write(true).open(root.join(format!("shrinks {n}"))).unwrap();
            file.set_len(rng.below(LEN as u64)).unwrap();
        }
        3 => {
            let path = root.join(format!("comes and goes {n}"));
            if fs::remove_file(&path).is_err() {
                fs::write(&path, Content::random(n, LEN).bytes()).unwrap();
            }
        }
        _ => swap(&root.join(format!("turns {n}")), outside, rng.below(5)),
    }
}

/// A whole new version takes the place of the one before.
fn replace(root: &Path, n: u64, version: u64) {
    let beside = root.with_file_name(format!("beside {n}"));
    fs::write(&beside, version_of(n, version)).unwrap();
    fs::rename(&beside, root.join(format!("version {n}"))).unwrap();
}

fn version_of(n: u64, version: u64) -> Vec<u8> {
    let mut bytes =
        Content::random(n * 1000 + version, LEN + version as usize * 100).bytes().to_vec();
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    bytes
}

/// Something of another kind.
fn swap(path: &Path, outside: &Path, kind: u64) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
    match kind {
        0 => fs::write(path, Content::random(kind, LEN).bytes()).unwrap(),
        1 => {
            fs::create_dir(path).unwrap();
            fs::write(path.join("inside"), "a directory now").unwrap();
        }
        2 => rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap(),
        3 => symlink(outside.join("secret"), path).unwrap(),
        _ => symlink(outside, path).unwrap(),
    }
}

/// Ends the changes also where a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Fails unless every file that arrived is one that the source had at some moment.
#[track_caller]
fn check(destination: &TempTree, source: &TempTree, outside: &TempTree, seed: u64) {
    for n in 0..EACH {
        if let Ok(bytes) = fs::read(destination.at(format!("live/version {n}"))) {
            let version = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert!(
                bytes == version_of(n, version),
                "seed {seed}: a torn version {version} of {n}"
            );
        }
        if let Ok(bytes) = fs::read(destination.at(format!("live/log {n}"))) {
            assert!(bytes.iter().all(|&byte| byte == b'x'), "seed {seed}: a torn log {n}");
        }
        if let Ok(bytes) = fs::read(destination.at(format!("live/shrinks {n}"))) {
            let whole = Content::random(n, LEN);
            // What was cut off and comes back is zeros.
            let same = |(at, byte): (usize, &u8)| *byte == whole.bytes()[at] || *byte == 0;
            assert!(bytes.iter().enumerate().all(same), "seed {seed}: a torn file {n}");
        }
    }
    let arrived = Snapshot::of(destination.path());
    let secret = Snapshot::of(outside.path()).node("secret").content;
    assert!(
        arrived.0.values().all(|node| node.content != secret),
        "seed {seed}: read through a link"
    );
    for (path, node) in &Snapshot::of(&source.at("still")).0 {
        let there = arrived.0.get(&Path::new("still").join(path)).map(|there| there.content);
        assert_eq!(there, Some(node.content), "seed {seed}: {path:?} did not arrive");
    }
}

#[test]
fn sources_that_change_while_they_are_read() {
    let outside = TempTree::new();
    outside.file("secret", "what a link of the source leads to");
    let (changes, mut runs) = (AtomicU64::new(0), 0);
    for seed in 0..6 {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for n in 0..EACH {
            source.file(format!("live/version {n}"), version_of(n, 0));
            source.file(format!("live/log {n}"), vec![b'x'; LEN]);
            source.file(format!("live/shrinks {n}"), Content::random(n, LEN));
            for m in 0..40 {
                source.file(format!("still/{n}/{m}"), Content::random(n * 100 + m, 3000));
            }
        }
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut rng = Rng::new(seed);
                while !stop.load(Relaxed) {
                    change(&source.at("live"), outside.path(), &mut rng);
                    changes.fetch_add(1, Relaxed);
                }
            });
            let _stop = Stop(&stop);
            for _ in 0..3 {
                let ended = transfer(source.path(), destination.path(), PLAIN, PLAIN).unwrap();
                assert!([0, 23, 24].contains(&ended.code), "seed {seed}: {}", ended.report);
                check(&destination, &source, &outside, seed);
                runs += 1;
            }
        });
        let ended = transfer(source.path(), destination.path(), PLAIN, PLAIN).unwrap();
        assert_eq!(ended.code, 0, "seed {seed}: {}", ended.report);
        testkit::assert_same(source.path(), destination.path());
    }
    counts::tell("runs over a source that changes", runs);
    counts::tell("changes meanwhile", changes.into_inner());
}

/// A file that goes between the listing of its directory and the reading.
#[test]
fn files_that_vanish_before_they_are_read() {
    if !skip::commands(&["strace"]) {
        return;
    }
    let mut tried = 0;
    for (kind, code) in [("gone", 24), ("file", 0), ("directory", 24), ("fifo", 24), ("link", 24)] {
        let (source, destination) = (TempTree::new(), TempTree::new());
        source
            .file("d/vanishes", Content::random(1, 300_000))
            .file("d/stays", "here")
            .file("z", "last");
        destination.file("d/vanishes", "what was there before").file("d/extraneous", "to go");
        // Its directory is opened first, listed at once, and then it is opened; each call is told of 1.2 s before it is made.
        let log = tempfile::NamedTempFile::new().unwrap();
        let trace = ["-e", "trace=openat2", "-e", "inject=openat2:delay_enter=1200000"];
        let to = ["strace", "-D", "-f", "-qq", "-o", log.path().to_str().unwrap()];
        let strace = [&to[..], &trace].concat();
        let listed = || fs::read_to_string(log.path()).unwrap().contains("\"d\"");
        let path = source.at("d/vanishes");
        let ended = thread::scope(|scope| {
            let ended = scope
                .spawn(|| transfer(source.path(), destination.path(), PLAIN, &strace).unwrap());
            while !listed() && !ended.is_finished() {
                thread::sleep(Duration::from_millis(10));
            }
            thread::sleep(Duration::from_millis(1800));
            fs::remove_file(&path).unwrap();
            match kind {
                "file" => fs::write(&path, "another one").unwrap(),
                "directory" => fs::create_dir(&path).unwrap(),
                "fifo" => swap(&path, &path, 2),
                "link" => symlink("/etc/passwd", &path).unwrap(),
                _ => {}
            }
            ended.join().unwrap()
        });
        assert_eq!(ended.code, code, "{kind}: {}", ended.report);
        let names = named(&ended.report, |_| true);
        assert_eq!(names, vec![PathBuf::from("d/vanishes"); usize::from(code != 0)], "{kind}");
        assert_eq!(ended.report["retryable"], code == 24, "{kind}: {}", ended.report);
        if code != 0 {
            let kept = fs::read_to_string(destination.at("d/vanishes")).unwrap();
            assert_eq!(kept, "what was there before", "{kind}");
        }
        assert_eq!(fs::read_to_string(destination.at("z")).unwrap(), "last");
        let ended = transfer(source.path(), destination.path(), PLAIN, PLAIN).unwrap();
        assert_eq!(ended.code, 0, "{kind}: {}", ended.report);
        testkit::assert_same(source.path(), destination.path());
        tried += 1;
    }
    counts::tell("ways to vanish", tried);
}

/// A file that changes when some of it was read, once: it is read again, and no mix of both stays.
#[test]
fn files_that_change_halfway() {
    if !skip::commands(&["strace"]) {
        return;
    }
    let (before, after) = (vec![1; 2 << 20], vec![2; 2 << 20]);
    let mut tried = 0;
    for there in [false, true] {
        for change in ["rewritten", "longer", "shorter"] {
            let (source, destination) = (TempTree::new(), TempTree::new());
            source.file("f", before.clone()).file("z", "last");
            if there {
                destination.file("f", vec![7; 2 << 20]);
            }
            let log = tempfile::NamedTempFile::new().unwrap();
            let trace = ["-e", "trace=pread64", "-e", "inject=pread64:delay_enter=150000"];
            let to = ["strace", "-D", "-f", "-qq", "-o", log.path().to_str().unwrap()];
            let strace = [&to[..], &trace].concat();
            let begun = || fs::read_to_string(log.path()).unwrap().contains("\\1\\1\\1");
            let ended = thread::scope(|scope| {
                let ended = scope
                    .spawn(|| transfer(source.path(), destination.path(), PLAIN, &strace).unwrap());
                while !begun() && !ended.is_finished() {
                    thread::sleep(Duration::from_millis(5));
                }
                match change {
                    "rewritten" => _ = source.patch("f", 0, &after),
                    "longer" => _ = source.patch("f", 2 << 20, b"more of it"),
                    _ => {
                        let file = OpenOptions::new().write(true).open(source.at("f")).unwrap();
                        file.set_len(1 << 20).unwrap();
                    }
                }
                ended.join().unwrap()
            });
            assert_eq!(ended.code, 0, "{change}: {}", ended.report);
            testkit::assert_same(source.path(), destination.path());
            tried += 1;
        }
    }
    counts::tell("changes halfway", tried);
}
