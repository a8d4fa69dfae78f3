//! Random trees × random options × every route.
//!
//! For each case: a dry run, a run, a second run. A success means that the destination is as the model says; the dry run
//! named what the run did and changed nothing; the second run wrote nothing; the source is as it was. A failure is
//! legitimate for few reasons, and every entry that is wrong then is named.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use testkit::{Aspects, Finished, Rng, Snapshot, differences, skip};

use crate::{
    attributes::set_flags,
    counts,
    expected::Expected,
    findings::{Findings, seeds},
    grow::{Powers, grow},
    mutate::mutate,
    options::Options,
    route::Route,
    stage::Stage,
};

#[test]
fn by_one_process() {
    let stage = Stage::new();
    explore(
        "trees::by_one_process",
        "random trees by copy",
        &stage,
        &Route::Copy,
        Powers::Root,
        550,
    );
}

#[test]
fn by_three_processes() {
    let stage = Stage::new();
    let route = Route::pods(&stage, true);
    explore("trees::by_three_processes", "by three processes", &stage, &route, Powers::Root, 300);
}

#[test]
fn by_an_ordinary_user() {
    let stage = Stage::new();
    let route = Route::CopyAsUser;
    explore("trees::by_an_ordinary_user", "by an ordinary user", &stage, &route, Powers::User, 150);
}

#[test]
fn to_an_unprivileged_server() {
    let stage = Stage::new();
    let route = Route::pods(&stage, false);
    explore(
        "trees::to_an_unprivileged_server",
        "to an unprivileged server",
        &stage,
        &route,
        Powers::User,
        150,
    );
}

fn explore(
    test: &'static str,
    what: &str,
    stage: &Stage,
    route: &Route,
    powers: Powers,
    usual: u64,
) {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let mut findings = Findings::of(test);
    let (mut tried, mut successes) = (0, 0);
    for seed in seeds(usual) {
        let options = set_up(stage, seed, powers);
        let arguments = options.arguments();
        let case =
            Case { stage, route, options: &options, arguments, tolerant: false, around: None };
        let (succeeded, wrong) = case.run();
        findings.add(seed, &case.arguments.join(" "), &wrong);
        tried += 1;
        successes += u32::from(succeeded);
        stage.clear();
        if findings.are_enough() {
            break;
        }
    }
    counts::tell(what, format!("{tried} trees, {successes} successes, all of them true"));
    findings.conclude();
}

/// Both trees of a case, and its options.
pub(crate) fn set_up(stage: &Stage, seed: u64, powers: Powers) -> Options {
    let mut rng = Rng::new(seed ^ 0x7472_6565);
    let (source, destination) = (&stage.source, &stage.destination);
    let entries = 3 + rng.below(22);
    grow(source, seed, entries, powers);
    match rng.below(6) {
        0 => {}
        1 => grow(destination, seed + 1, entries, powers),
        _ => grow(destination, seed, entries, powers),
    }
    let (new, old) = (rng.below(10), rng.below(5));
    mutate(source, seed, new, powers);
    mutate(destination, seed + 1, old, powers);
    if powers == Powers::Root && rng.below(4) == 0 {
        set_flags(source.path(), seed, 9);
        set_flags(destination.path(), seed + rng.below(2), 9);
    }
    if powers == Powers::User {
        // Whatever was made on the way belongs to the user, too.
        for tree in [source, destination] {
            for path in Snapshot::of(tree.path()).0.keys() {
                let mode = Snapshot::of(tree.path()).node(path).mode;
                tree.owner(path, crate::grow::NOBODY, crate::grow::NOBODY);
                if Snapshot::of(tree.path()).node(path).kind != testkit::Kind::Symlink {
                    tree.mode(path, mode);
                }
            }
        }
    }
    Options::random(&mut rng)
}

pub(crate) struct Case<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) route: &'a Route,
    pub(crate) options: &'a Options,
    pub(crate) arguments: Vec<String>,
    /// Whether 23 is legitimate as such.
    pub(crate) tolerant: bool,
    pub(crate) around: Option<Around<'a>>,
}

/// What is done before and after each run.
pub(crate) struct Around<'a> {
    pub(crate) before: &'a dyn Fn(),
    pub(crate) after: &'a dyn Fn(),
}

impl Case<'_> {
    /// Whether the run succeeded, and what went wrong.
    pub(crate) fn run(&self) -> (bool, Vec<String>) {
        let mut wrong = Vec::new();
        self.stage.keep();
        let (source, before) = self.both();
        let expected = Expected { source: &source, before: &before, options: self.options };

        let dry = self.go(&["--dry-run", "-i"]);
        wrong.extend(touched("the dry run wrote", &before, self.stage.destination.path()));

        let run = self.go(&["-i"]);
        let after = Snapshot::of(self.stage.destination.path());
        wrong.extend(touched("the run changed the source", &source, self.stage.source.path()));
        let code = run.status.code();
        if code == Some(0) {
            wrong.extend(shown("success, but", &expected.differences(&after)));
            if expected.conflicts() {
                wrong.push("success, although something could not be done".into());
            }
        } else {
            wrong.extend(self.judge_failure(&expected, &run, &after));
        }
        let may_differ = self.options.verify || self.tolerant || self.is_unreadable(&expected);
        if dry.status.code() != code && !may_differ {
            let ends = (dry.status.code(), code);
            wrong.push(format!("the dry run and the run ended with {ends:?}: {}", dry.stderr));
        } else if code == Some(0) {
            wrong.extend(unlike_actions(&settled(&dry, &before), &settled(&run, &before)));
        }
        if code == Some(0) {
            let again = self.go(&["-i"]);
            // What the first run made may be what cannot be listed.
            let failed = again.status.code() != Some(0) && !self.tolerant;
            if failed || !actions(&again).is_empty() {
                let what = (again.status.code(), actions(&again));
                wrong.push(format!("the second run: {what:?} {}", last_line(&again)));
            }
            wrong.extend(touched("the second run wrote", &after, self.stage.destination.path()));
        }
        (code == Some(0), wrong)
    }

    /// Whether an end without privileges cannot read a file of its own.
    fn is_unreadable(&self, expected: &Expected<'_>) -> bool {
        !self.route.is_privileged()
            && expected
                .arriving()
                .any(|(_, node)| node.kind == testkit::Kind::File && node.mode & 0o400 == 0)
    }

    fn both(&self) -> (Snapshot, Snapshot) {
        (Snapshot::of(self.stage.source.path()), Snapshot::of(self.stage.destination.path()))
    }

    fn go(&self, more: &[&str]) -> Finished {
        let more = more.iter().map(|option| (*option).to_owned());
        let arguments: Vec<_> = self.arguments.iter().cloned().chain(more).collect();
        if let Some(around) = &self.around {
            (around.before)();
        }
        let finished = self.route.run(self.stage, &arguments);
        if let Some(around) = &self.around {
            (around.after)();
        }
        finished
    }

    /// What is wrong with a run that failed: it had no reason to, it lost what had to stay, or it does not name what it
    /// did not do.
    fn judge_failure(
        &self,
        expected: &Expected<'_>,
        run: &Finished,
        after: &Snapshot,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let code = run.status.code().unwrap_or(-1);
        let nothing_arrives = expected.arriving().count() <= 1;
        let legitimate = match code {
            3 => nothing_arrives,
            25 => self.options.max_delete.is_some(),
            // A directory that cannot be listed may end the run.
            11 | 12 => self.tolerant,
            23 => {
                self.tolerant
                    || expected.conflicts()
                    || self.is_unreadable(expected)
                    || (self.options.verify && (expected.has_secrets() || expected.is_partial()))
            }
            _ => false,
        };
        if !legitimate {
            wrong.push(format!("ended with {code}: {} {}", last_line(run), run.stderr));
        }
        let lost = expected.lost(after);
        wrong.extend(shown("failure, and", &lost));
        if code == 23 && !self.options.verify {
            let named = named(run);
            let mut unnamed = expected.differences(after);
            // An inode may be named by any of its names.
            let names = |path: &PathBuf| {
                let links = expected.source.0.get(path).map(|node| node.links.clone());
                [links.unwrap_or_default(), vec![path.clone()]].concat()
            };
            unnamed.retain(|(path, _)| !names(path).iter().any(|path| is_named(path, &named)));
            // Nothing is deleted where a listing is not complete.
            unnamed.retain(|(_, what)| !(self.tolerant && what == "is still there"));
            wrong.extend(shown("not named:", &unnamed));
        }
        if let (25, Some(most)) = (code, self.options.max_delete) {
            let removed = expected.before.0.keys().filter(|path| {
                !after.0.contains_key(*path) && !expected.source.0.contains_key(*path)
            });
            let removed = removed.count() as u64;
            if removed > most {
                wrong.push(format!("removed {removed} of at most {most}"));
            }
        }
        wrong
    }
}

fn shown(what: &str, found: &[(PathBuf, String)]) -> Vec<String> {
    let line = |(path, wrong): &(PathBuf, String)| {
        format!("{what} {} {wrong}", path.as_os_str().as_bytes().escape_ascii())
    };
    found.iter().map(line).collect()
}

/// Whatever was written to the tree since `before`.
pub(crate) fn touched(what: &str, before: &Snapshot, path: &Path) -> Vec<String> {
    let aspects = Aspects { untouched: true, ..Aspects::default() };
    let found = differences(before, &Snapshot::of(path), aspects);
    found.iter().map(|line| format!("{what}: {line}")).collect()
}

/// The changes that a run tells of, wherever and in whatever form.
pub(crate) fn actions(run: &Finished) -> BTreeSet<String> {
    let verbs = ["create ", "update ", "metadata ", "delete ", "rename ", "link "];
    let lines = run.stdout.lines().chain(run.stderr.lines());
    let changes = lines.filter_map(|line| match serde_json::from_str::<Value>(line) {
        Ok(object) if object["type"] == "change" => Some(object["what"].as_str()?.to_owned()),
        Ok(_) => None,
        Err(_) => verbs.iter().any(|verb| line.starts_with(verb)).then(|| line.to_owned()),
    });
    changes.collect()
}

/// The changes that do not depend on the order of work. Of an inode that has several names at the destination, what
/// becomes of one name depends on which of the others is replaced before: it is written anew, or gets metadata, or stays.
fn settled(run: &Finished, before: &Snapshot) -> BTreeSet<String> {
    let shared = before.0.iter().filter(|(_, node)| !node.links.is_empty());
    let shared: BTreeSet<_> = shared.map(|(path, _)| escaped(path)).collect();
    // A directory in which nothing is replaced gets metadata, and not only its time back.
    let parents = shared.iter().map(|path| path.rsplit_once('/').map_or(".", |(parent, _)| parent));
    let parents: BTreeSet<_> = parents.collect();
    let depends = |line: &String| {
        let path = line.strip_prefix("update ").or_else(|| line.strip_prefix("metadata "));
        path.is_some_and(|path| {
            shared.contains(path) || parents.contains(path.trim_end_matches('/'))
        })
    };
    actions(run).into_iter().filter(|line| !depends(line)).collect()
}

fn unlike_actions(dry: &BTreeSet<String>, run: &BTreeSet<String>) -> Vec<String> {
    let only = |what: &str, one: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
        one.difference(other).map(|line| format!("only {what}: {line}")).collect()
    };
    [only("the dry run says", dry, run), only("the run says", run, dry)].concat()
}

pub(crate) fn last_line(run: &Finished) -> &str {
    run.stdout.lines().last().unwrap_or_default()
}

/// The names of the problems in the report.
fn named(run: &Finished) -> Vec<String> {
    let report: Value = serde_json::from_str(last_line(run)).unwrap_or_default();
    let errors = report["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().filter_map(|error| Some(error["name"].as_str()?.to_owned())).collect()
}

/// Whether an error names the path, or a directory above it.
fn is_named(path: &Path, named: &[String]) -> bool {
    let path = escaped(path);
    named.iter().any(|name| {
        let name = name.trim_end_matches('/');
        name == "."
            || path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// A path as messages show it: text as it is, control characters, backslashes and other bytes in hexadecimal digits.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    let hexadecimal =
        |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect() };
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() || letter == '\\' {
                text.push_str(&hexadecimal(letter.to_string().as_bytes()));
            } else {
                text.push(letter);
            }
        }
        text.push_str(&hexadecimal(chunk.invalid()));
    }
    text
}
