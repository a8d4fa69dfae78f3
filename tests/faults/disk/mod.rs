//! Disks that fail: full, over quota, read-only, broken, and sources that do not stand still.
//!
//! Whatever fails, the same must hold: neither end claims success, the reason says what is wrong and where, every file is the
//! old or the new one, nothing is removed before the rest is there, and a run without the fault converges.

mod broken;
mod calls;
mod full;
mod live;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use testkit::{
    Content, Finished, Kind, Process, Snapshot, TempTree, assert_same,
    interrupted::{is_staged, left_behind},
};

use crate::{
    pod::Pod,
    support::{below, report},
};

/// Runs a program as it is.
const PLAIN: &[&str] = &["env"];

/// The one file that is patched in place: it may show half-patched, but never with the time of the source.
const IN_PLACE: &str = "patched";

/// Adds what the source has: something of every way that content takes.
fn fill_source(tree: &TempTree) -> &TempTree {
    for n in 0..4 {
        tree.file(format!("d{n}/same"), "as it was").mtime(format!("d{n}/same"), 1_000_000, 1);
        tree.file(format!("d{n}/changed"), Content::random(100 + n, 3000));
        tree.file(format!("d{n}/new"), Content::random(200 + n, 2000));
        tree.file(format!("n/{n}/small"), Content::random(300 + n, 5000));
    }
    tree.file(IN_PLACE, Content::random(1, 3 << 20).overwrite(1 << 20, b"another page"));
    tree.file("shifted", Content::random(2, 600_000).insert(0, b"a few bytes"));
    tree.file("grown", Content::random(3, 500_000)).file("whole", Content::random(4, 1 << 20));
    tree.file("rewritten", Content::random(5, 250_000)).file("turned/inside", "a directory now");
    tree.file("was a directory", "a file now").symlink("link", "there").fifo("fifo");
    tree.file("linked", "two names").hard_link("linked", "linked too");
    tree.sparse("sparse", 8 << 20, &[(0, b"start"), (5 << 20, b"middle")]);
    tree.xattr("linked", "user.note", b"new")
}

/// Adds what the destination has of it.
fn fill_destination(tree: &TempTree) -> &TempTree {
    for n in 0..4 {
        tree.file(format!("d{n}/same"), "as it was").mtime(format!("d{n}/same"), 1_000_000, 1);
        tree.file(format!("d{n}/changed"), Content::random(400 + n, 2900));
        tree.file(format!("d{n}/extraneous"), "to be removed");
    }
    tree.file(IN_PLACE, Content::random(1, 3 << 20)).mtime(IN_PLACE, 1_000_000, 1);
    tree.file("shifted", Content::random(2, 600_000));
    tree.file("grown", Content::random(3, 400_000));
    tree.file("rewritten", Content::random(6, 200_000)).file("turned", "a file still");
    tree.file("was a directory/inside", "still one").symlink("link", "elsewhere");
    tree.file("extraneous/deep", "to be removed, too")
}

/// What a program ends with whose libraries cannot be read.
const CANNOT_BE_LOADED: i32 = 127;

/// Why a program ends that cannot open the file of its termination message.
const NO_MESSAGE: &str = "cannot write the termination message";

/// How both ends of a transfer ended.
struct Ended {
    code: i32,
    report: Value,
    served: Finished,
}

/// Syncs `source` to `destination` with `--delete`, each end run by another program. `None` where one of them did not
/// come to its start.
#[track_caller]
fn transfer(source: &Path, destination: &Path, serve: &[&str], sync: &[&str]) -> Option<Ended> {
    transfer_with(&["--delete"], source, destination, serve, sync)
}

/// The same with other options.
#[track_caller]
fn transfer_with(
    options: &[&str],
    source: &Path,
    destination: &Path,
    serve: &[&str],
    sync: &[&str],
) -> Option<Ended> {
    let pod = Pod::new();
    let command =
        pod.serve_command(&pod.pki.destination(), &[("a", destination)], &["--exit-when", "1"]);
    let serve = Process::start(below(serve, &command));
    if !serve.says("listening on") {
        assert_ne!(serve.wait().code(), 0);
        return None;
    }
    let options = [options, &["--wait", "1", "--attempts", "2"]].concat();
    let command = pod.direct(pod.server, &pod.pki.source(), source, &options);
    let synced = Process::run(below(sync, &command));
    serve.terminate();
    let served = serve.wait();
    if synced.code() == CANNOT_BE_LOADED {
        return None;
    }
    let report = report(&synced);
    assert_eq!(pod.marker("a"), report);
    if report["reason"].as_str().is_some_and(|why| why.starts_with(NO_MESSAGE)) {
        assert_eq!(fs::read(pod.message_path("a")).unwrap_or_default(), b"", "{report}");
    } else {
        assert_eq!(pod.message("a"), report);
    }
    assert_eq!(report["outcome"] == "completed", synced.code() == 0, "{report}");
    for told in [&synced.stderr, &served.stderr] {
        assert!(!told.contains("panicked"), "{told}");
    }
    Some(Ended { code: synced.code(), report, served })
}

/// A source, and what is known of it.
struct Source {
    tree: TempTree,
    wanted: Snapshot,
}

impl Source {
    fn new() -> Self {
        let tree = TempTree::new();
        fill_source(&tree);
        let wanted = Snapshot::of(tree.path());
        Self { tree, wanted }
    }

    fn path(&self) -> &Path {
        self.tree.path()
    }

    /// Syncs without any fault, which must make `destination` the same, and once more, which must find nothing to do.
    #[track_caller]
    fn converges(&self, destination: &Path) {
        let ended = transfer(self.path(), destination, PLAIN, PLAIN).unwrap();
        assert_eq!(ended.code, 0, "{}\n{}", ended.report, ended.served.stderr);
        ended.served.expect(0);
        assert_same(self.path(), destination);
    }

    /// What must hold of `destination`, however the run ended that found `before` there.
    #[track_caller]
    fn check(&self, case: &str, before: &Snapshot, destination: &Path, ended: &Ended) {
        let after = Snapshot::of(destination);
        let told = format!("{case}: {}\n{}", ended.report, ended.served.stderr);
        if ended.code == 0 {
            assert_same(self.path(), destination);
            return;
        }
        assert_ne!(ended.served.code(), 0, "success at the other end only: {told}");
        for (path, node) in after.0.iter().filter(|(_, node)| node.kind == Kind::File) {
            let is = |other: &Snapshot| {
                other.0.get(path).is_some_and(|other| other.content == node.content)
            };
            let passes = self
                .wanted
                .0
                .get(path)
                .is_some_and(|wanted| (wanted.size, wanted.mtime) == (node.size, node.mtime));
            let finished = is(&self.wanted) || is(before);
            assert!(finished || !passes, "{path:?} passes for finished: {told}");
            // In a directory that is new files grow under their own names.
            let known = path.parent().is_some_and(|dir| before.0.contains_key(dir));
            let exempt = path == Path::new(IN_PLACE) || is_staged(path);
            assert!(finished || exempt || !known, "{path:?} is half-written: {told}");
        }
    }

    /// Nothing may be removed while anything of the source is neither there nor named, and nothing in a directory that
    /// could not be read.
    #[track_caller]
    fn check_removals(&self, case: &str, before: &Snapshot, destination: &Path, ended: &Ended) {
        let after = Snapshot::of(destination);
        let told = format!("{case}: {}\n{}", ended.report, ended.served.stderr);
        let (named, unread) = (named(&ended.report, |_| true), named(&ended.report, is_reading));
        let gone: Vec<_> = before
            .paths()
            .filter(|path| path.to_string_lossy().contains("extraneous"))
            .filter(|path| !after.0.contains_key(*path))
            .collect();
        if gone.is_empty() {
            return;
        }
        for (path, node) in self.wanted.0.iter().filter(|(_, node)| node.kind == Kind::File) {
            let there = after.0.get(path).is_some_and(|there| there.content == node.content);
            assert!(
                there || named.iter().any(|name| path.starts_with(name)),
                "{gone:?} before {path:?}: {told}"
            );
        }
        for path in gone {
            let dir = path.parent().unwrap();
            let lost = unread.iter().any(|name| name == dir);
            assert!(!lost, "{path:?} is gone, and its directory was not read: {told}");
        }
    }
}

/// The entries that a report names, for such reasons.
fn named(report: &Value, reason: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let errors = report["errors"].as_array().map_or(&[][..], |errors| errors);
    let text = |error: &Value, key: &str| error[key].as_str().unwrap().to_owned();
    let root = |name: String| if name == "." { PathBuf::new() } else { name.into() };
    let such = errors.iter().filter(|error| reason(&text(error, "what")));
    such.map(|error| root(text(error, "name"))).collect()
}

/// Whether an entry could not be looked at, so that nobody knows what is in it.
fn is_reading(what: &str) -> bool {
    ["open", "list", "stat"].iter().any(|operation| what.starts_with(operation))
}

/// Fails where a run that could go no further left more than its crash marker behind.
#[track_caller]
fn assert_tidy(destination: &Path) {
    let after = Snapshot::of(destination);
    let left = left_behind(&after);
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Fails unless the run ended with 11, and said where and why, in one of these words.
#[track_caller]
fn assert_volume_failed(ended: &Ended, why: &[&str], case: &str) {
    let told = format!("{case}: {}\n{}", ended.report, ended.served.stderr);
    assert_eq!(ended.code, 11, "{told}");
    let reason = ended.report["reason"].as_str().unwrap();
    assert!(why.iter().any(|why| reason.contains(why)), "no {why:?}: {told}");
    // "NAME: OPERATION: WHAT IS WRONG"
    assert!(reason.matches(": ").count() >= 2, "no name: {told}");
}
