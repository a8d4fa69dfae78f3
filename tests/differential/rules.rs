//! Filters and limits on deletions, with rsync as the judge: what survives at the destination is the same set.
//!
//! Both programs get the same rules, the same source and equal destinations full of junk. Where they may differ:
//!
//! * `lost+found` at the root is left alone by us, rule or no rule, so no tree here has one.
//! * What counts as a deletion where a file takes the place of a directory differs, so rsync runs without a limit. Where
//!   ours stops the run, which entries went first depends on the order; only the count is compared.
//! * Where a file of the source takes the place of a directory of which something must stay, both say 23 and keep what
//!   must stay. What else of that directory is removed before is not compared.
//! * An entry that the rules leave out at the destination, and that is of another kind at the source, where they do not, is
//!   kept by us, with 23; rsync replaces it.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, process::Command};

use serde_json::Value;
use testkit::{Finished, Kind, Process, Rng, Snapshot, TempTree, skip};

use crate::{
    counts,
    findings::{Findings, seeds},
    support::copy,
    trees::last_line,
};

const NAMES: [&str; 14] = [
    "a", "b", "ab", "abc", "a.keep", "b.keep", "x.tmp", "keep", "d", "e", "a b", "[x]", "a*b",
    "a\\b",
];

const PARTS: [&str; 26] = [
    "a",
    "b",
    "d",
    "e",
    "keep",
    "*",
    "*.keep",
    "*.tmp",
    "a*",
    "?",
    "??",
    "[ab]",
    "[!a]",
    "[a-c]b",
    "[^d]",
    "\\[x\\]",
    "a\\*b",
    "[[:alpha:]]",
    "*b*",
    "**",
    "a b",
    ".*",
    "[x]",
    "a\\b",
    "*[x]",
    "?b",
];

#[test]
fn survivors_are_those_of_rsync() {
    if !skip::commands(&["rsync"]) {
        return;
    }
    let mut findings = Findings::of("rules::survivors_are_those_of_rsync");
    let trees = Trees::new();
    let (mut tried, mut successes) = (0, 0);
    for seed in seeds(1100) {
        let mut rng = Rng::new(seed ^ 0x7275_6c65);
        trees.grow(&mut rng);
        let rules = rules(&mut rng);
        let (succeeded, wrong) = trees.compare(&mut rng, &rules);
        findings.add(seed, &rules.join(" "), &wrong);
        trees.clear();
        tried += 1;
        successes += u32::from(succeeded);
        if findings.are_enough() {
            break;
        }
    }
    counts::tell("rules against rsync", format!("{tried} sets, {successes} without a conflict"));
    findings.conclude();
}

struct Trees {
    source: TempTree,
    ours: TempTree,
    theirs: TempTree,
}

impl Trees {
    fn new() -> Self {
        let [source, ours, theirs] = [(); 3].map(|()| TempTree::below("/dev/shm".as_ref()));
        Self { source, ours, theirs }
    }

    fn clear(&self) {
        for tree in [&self.source, &self.ours, &self.theirs] {
            tree.clear();
        }
    }

    fn grow(&self, rng: &mut Rng) {
        let seed = rng.next_u64();
        fill(&self.source, seed, 14);
        let junk = if rng.below(3) == 0 { seed } else { rng.next_u64() };
        for tree in [&self.ours, &self.theirs] {
            fill(tree, junk, 20);
        }
    }

    /// Whether both succeeded, and what went differently.
    fn compare(&self, rng: &mut Rng, rules: &[String]) -> (bool, Vec<String>) {
        let (before, source) = (survivors(&self.ours), survivors(&self.source));
        let limit = (rng.below(5) == 0).then(|| rng.below(8));
        let mut options = vec!["--delete".to_owned()];
        options.extend(rules.iter().cloned());
        let theirs = self.rsync(&options);
        options.extend(limit.map(|most| format!("--max-delete={most}")));
        let ours = self.pvferry(&options);

        let codes = (theirs.status.code(), ours.status.code());
        let limited = codes.1 == Some(25) && limit.is_some();
        let kept = kept_in_the_way(&ours);
        let mut wrong = Vec::new();
        if codes.0 != codes.1 && !limited && (codes.1 != Some(23) || kept.is_empty()) {
            let told = [&theirs, &ours].map(|run| run.stderr.lines().last().unwrap_or_default());
            wrong.push(format!("rsync and we ended with {codes:?}: {told:?}"));
        }
        let left = [&self.theirs, &self.ours].map(survivors);
        if !limited {
            wrong.extend(only("only we removed", &left[0], &left[1], &kept));
        }
        if codes.0 == Some(0) && !limited {
            wrong.extend(only("only we kept", &left[1], &left[0], &kept));
        }
        if let Some(most) = limit {
            let is_gone = |left: &BTreeMap<_, _>, path: &PathBuf| {
                !left.contains_key(path) && !source.contains_key(path)
            };
            let count = |left| before.keys().filter(|path| is_gone(left, path)).count() as u64;
            if count(&left[1]) > most {
                wrong.push(format!("{} were removed of at most {most}", count(&left[1])));
            }
        }
        (codes == (Some(0), Some(0)), wrong)
    }

    fn rsync(&self, options: &[String]) -> Finished {
        let mut rsync = Command::new("rsync");
        rsync.args(["-rlt", "--modify-window=-1"]).args(options);
        for tree in [&self.source, &self.theirs] {
            let mut inside = OsString::from(tree.path());
            inside.push("/");
            rsync.arg(inside);
        }
        Process::run(rsync)
    }

    fn pvferry(&self, options: &[String]) -> Finished {
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let options = [&options[..], &["--allow-empty-source"]].concat();
        copy(self.source.path(), self.ours.path(), &options)
    }
}

/// Files and directories, named from a few names.
fn fill(tree: &TempTree, seed: u64, entries: u64) {
    let mut rng = Rng::new(seed);
    let mut folders = vec![PathBuf::new()];
    for index in 0..entries {
        let path = rng.pick(&folders).join(rng.pick::<&str>(&NAMES));
        if tree.at(&path).symlink_metadata().is_ok() {
            continue;
        }
        if rng.below(5) < 2 {
            tree.dir(&path);
            folders.push(path);
        } else {
            tree.file(&path, index.to_string().as_str());
            let seconds = i64::try_from(rng.below(1_000_000_000)).unwrap();
            tree.mtime(&path, seconds, 0);
        }
    }
}

/// Up to five rules.
fn rules(rng: &mut Rng) -> Vec<String> {
    let mut rules = Vec::new();
    for _ in 0..=rng.below(5) {
        let kind = if rng.below(3) == 0 { "include" } else { "exclude" };
        rules.push(format!("--{kind}={}", pattern(rng)));
    }
    rules
}

fn pattern(rng: &mut Rng) -> String {
    let mut pattern = String::new();
    if rng.below(4) == 0 {
        pattern.push('/');
    }
    let parts = *rng.pick(&[1, 1, 1, 2, 2, 3]);
    for index in 0..parts {
        if index > 0 {
            pattern.push('/');
        }
        pattern.push_str(rng.pick::<&str>(&PARTS));
    }
    match rng.below(8) {
        0 | 1 => pattern.push('/'),
        2 => pattern.push_str("/***"),
        _ => {}
    }
    pattern
}

/// What is there: of files their content, of directories nothing.
fn survivors(tree: &TempTree) -> BTreeMap<PathBuf, Option<[u8; 32]>> {
    let nodes = Snapshot::of(tree.path()).0.into_iter();
    let nodes = nodes.map(|(path, node)| {
        let content = if node.kind == Kind::File { node.content } else { None };
        (path, content)
    });
    nodes.collect()
}

/// What stands in the way of something else and is kept, as our report names it.
fn kept_in_the_way(run: &Finished) -> Vec<PathBuf> {
    let report: Value = serde_json::from_str(last_line(run)).unwrap_or_default();
    let errors = report["errors"].as_array().cloned().unwrap_or_default();
    let kept = errors.iter().filter(|error| {
        error["what"].as_str().is_some_and(|what| what.starts_with("cannot replace a"))
    });
    kept.filter_map(|error| Some(error["name"].as_str()?.replace("\\x5c", "\\").into())).collect()
}

fn only(
    what: &str,
    one: &BTreeMap<PathBuf, Option<[u8; 32]>>,
    other: &BTreeMap<PathBuf, Option<[u8; 32]>>,
    but_for: &[PathBuf],
) -> Vec<String> {
    let only = one.iter().filter(|(path, content)| other.get(*path) != Some(content));
    let only = only.filter(|(path, _)| !but_for.iter().any(|kept| path.starts_with(kept)));
    only.map(|(path, _)| format!("{what}: {}", path.display())).collect()
}
