//! `kill -9` at a random moment, and then an ordinary run that trusts size and time: it must end with 0, and the trees
//! must be equal. What lies there after the kill may be unfinished, but must not pass for finished.
//!
//! Every third case is killed again and again, and what was interrupted is a source, too: its leftovers do not travel.

use std::{path::Path, thread, time::Duration};

use testkit::{
    Aspects, Process, Rng, Snapshot, TempTree, differences, interrupted::unfinished, lock, skip,
};

use crate::{
    attributes::clear_flags,
    counts,
    expected::Expected,
    findings::{Findings, seeds},
    grow::Powers,
    options::Options,
    route::Route,
    stage::Stage,
    support::copy,
    trees::{last_line, set_up},
};

/// How a name of ours begins.
const OURS: &[u8] = b".pvferry-";

#[test]
fn of_one_process() {
    let stage = Stage::new();
    kill("kills::of_one_process", "kills of copy", &stage, &Route::Copy, 230);
}

#[test]
fn of_a_sender_through_a_tunnel() {
    let stage = Stage::new();
    let route = Route::pods(&stage, true);
    kill("kills::of_a_sender_through_a_tunnel", "kills of sync", &stage, &route, 120);
}

fn kill(test: &'static str, what: &str, stage: &Stage, route: &Route, usual: u64) {
    if !skip::root() {
        return;
    }
    let mut findings = Findings::of(test);
    let (mut tried, mut kills) = (0, 0);
    for seed in seeds(usual) {
        let mut options = set_up(stage, seed, Powers::Root);
        enlarge(stage, seed);
        stage.keep();
        // A limit may stop the last run, and --verify reads what is left out.
        (options.max_delete, options.verify) = (None, false);
        let case = Killed { stage, route, options: &options, seed };
        let (killed, wrong) = case.run();
        findings.add(seed, &options.arguments().join(" "), &wrong);
        tried += 1;
        kills += killed;
        stage.clear();
        if findings.are_enough() {
            break;
        }
    }
    counts::tell(what, format!("{kills} kills in {tried} trees, all of which converged"));
    findings.conclude();
}

/// Content that takes a while.
fn enlarge(stage: &Stage, seed: u64) {
    let mut rng = Rng::new(seed ^ 0x6b69_6c6c);
    for index in 0..4 {
        let path = format!("large {index}");
        let length = usize::try_from(1 + rng.below(3 << 20)).unwrap();
        let content = testkit::Content::random(rng.below(9), length);
        if rng.below(2) == 0 {
            stage.destination.file(&path, content.clone()).mtime(&path, 1_000_000, 5);
        }
        let at = usize::try_from(rng.below(length as u64)).unwrap();
        let content = if rng.below(2) == 0 {
            content.overwrite(at, b"changed")
        } else {
            content.insert(at, b"more")
        };
        stage.source.file(&path, content).mtime(&path, 2_000_000, 6);
    }
}

struct Killed<'a> {
    stage: &'a Stage,
    route: &'a Route,
    options: &'a Options,
    seed: u64,
}

impl Killed<'_> {
    /// How many kills came in time, and what went wrong.
    fn run(&self) -> (u32, Vec<String>) {
        let mut rng = Rng::new(self.seed ^ 0x6d6f_6d65);
        let (source, before) =
            (Snapshot::of(self.stage.source.path()), Snapshot::of(self.stage.destination.path()));
        let expected = Expected { source: &source, before: &before, options: self.options };
        let (mut wrong, mut kills) = (Vec::new(), 0);
        let times = if self.seed.is_multiple_of(3) { 3 } else { 1 };
        for _ in 0..times {
            let arguments = self.options.arguments();
            let mut process = Process::start(self.route.command(self.stage, &arguments));
            thread::sleep(Duration::from_micros(rng.below(90_000)));
            kills += u32::from(process.is_running());
            process.kill();
            lock::wait_until_free(self.stage.destination.path());
            wrong.extend(self.passes_for_finished(&source, &before));
        }
        if self.seed.is_multiple_of(4) {
            wrong.extend(self.as_a_source(&source, &before));
        }
        if expected.conflicts() {
            return (kills, wrong);
        }
        // Without --checksum, whatever it was killed with.
        let options = Options { checksum: false, ..self.options.clone() };
        let expected = Expected { options: &options, ..expected };
        let last = self.route.run(self.stage, &options.arguments());
        let after = Snapshot::of(self.stage.destination.path());
        match last.status.code() {
            Some(0) => {
                let found = expected.differences(&after);
                let found = found.into_iter().filter(|(_, what)| !what.starts_with("blocks"));
                wrong.extend(found.map(|(path, what)| {
                    format!("success after a kill, but {} {what}", path.display())
                }));
            }
            Some(3) if expected.arriving().count() <= 1 => {}
            code => wrong.push(format!("the last run ended with {code:?}: {}", last_line(&last))),
        }
        (kills, wrong)
    }

    /// What goes wrong where the interrupted destination is the source of another run: its leftovers do not travel,
    /// everything else does.
    fn as_a_source(&self, source: &Snapshot, before: &Snapshot) -> Vec<String> {
        let interrupted = Snapshot::of(self.stage.destination.path());
        let is_leftover = |path: &Path| {
            path.ancestors().any(|above| {
                let name = above.file_name().unwrap_or_default().as_encoded_bytes();
                let known = [source, before].iter().any(|tree| tree.0.contains_key(above));
                name.starts_with(OURS) && !known
            })
        };
        let wanted = without(&interrupted, is_leftover);
        let third = TempTree::below(Path::new("/dev/shm"));
        let run = copy(self.stage.destination.path(), third.path(), &[]);
        let mut wrong = Vec::new();
        if wanted.0.len() > 1 {
            if run.status.code() != Some(0) {
                wrong.push(format!("an interrupted source: {} {}", last_line(&run), run.stderr));
            }
            let found = differences(&wanted, &Snapshot::of(third.path()), Aspects::default());
            // A name that lies in a leftover is a link of the inode, too.
            let found = found.iter().filter(|line| !line.contains(": links "));
            wrong.extend(found.map(|line| format!("copied from an interrupted source: {line}")));
        }
        clear_flags(third.path());
        wrong
    }

    /// What looks finished and is not, in a destination that was left behind.
    fn passes_for_finished(&self, source: &Snapshot, before: &Snapshot) -> Vec<String> {
        let now = Snapshot::of(self.stage.destination.path());
        let in_place: Vec<&str> = source
            .0
            .iter()
            .filter(|(_, node)| node.size > 100_000)
            .filter_map(|(p, _)| p.to_str())
            .collect();
        let ours = |path: &Path| path.iter().any(|name| name.as_encoded_bytes().starts_with(OURS));
        let found = unfinished(
            &without(source, ours),
            &without(before, ours),
            &without(&now, ours),
            &in_place,
        );
        found.into_iter().map(|line| format!("left by a kill: {line}")).collect()
    }
}

fn without(snapshot: &Snapshot, out: impl Fn(&Path) -> bool) -> Snapshot {
    let nodes = snapshot.0.iter().filter(|(path, _)| !out(path));
    Snapshot(nodes.map(|(path, node)| (path.clone(), node.clone())).collect())
}
