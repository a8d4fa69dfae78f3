//! File systems of other kinds at both ends, and odd ones by FUSE.
//!
//! On ext4, XFS and btrfs everything is as in memory. On an odd one a run may end with 23; then it names what is not as at
//! the source, and lost nothing that had to stay.

use std::path::{Path, PathBuf};

use testkit::{Errno, Mount, OddMount, Quirks, Snapshot, skip};

use crate::{
    attributes::clear_flags,
    counts,
    findings::{Findings, seeds},
    grow::Powers,
    route::Route,
    stage::Stage,
    trees::{Around, Case, set_up},
};

#[test]
fn ext4_xfs_and_btrfs() {
    if !skip::root() {
        return;
    }
    let memory = Path::new("/dev/shm");
    let (Some(ext4), Some(xfs), Some(btrfs)) = (
        Mount::ext4_below(memory, 200),
        Mount::xfs_below(memory, 320),
        Mount::btrfs_below(memory, 256),
    ) else {
        return;
    };
    let pairs = [
        (memory, ext4.path()),
        (ext4.path(), xfs.path()),
        (xfs.path(), btrfs.path()),
        (btrfs.path(), memory),
        (memory, xfs.path()),
    ];
    let mut findings = Findings::of("systems::ext4_xfs_and_btrfs");
    let stages = pairs.map(|(source, destination)| Stage::between(source, destination));
    let mut tried = 0;
    for seed in seeds(100) {
        let stage = &stages[usize::try_from(seed % 5).unwrap()];
        try_one(stage, seed, Powers::Root, false, &mut findings);
        tried += 1;
        if findings.are_enough() {
            break;
        }
    }
    counts::tell("between tmpfs, ext4, XFS and btrfs", format!("{tried} trees"));
    findings.conclude();
}

#[test]
fn odd_destinations() {
    let Some(odd) = OddMount::new(Quirks::default()) else { return };
    let stage = Stage::between(Path::new("/dev/shm"), odd.path());
    explore(
        "systems::odd_destinations",
        "to odd file systems",
        &stage,
        &odd,
        &destinations(),
        |_, _, _| Vec::new(),
    );
}

#[test]
fn odd_sources() {
    let Some(odd) = OddMount::new(Quirks::default()) else { return };
    let stage = Stage::between(odd.path(), Path::new("/dev/shm"));
    let all = sources();
    explore("systems::odd_sources", "from odd file systems", &stage, &odd, &all, unseen_and_gone);
}

type Kind = (&'static str, Quirks);
type Check = fn(&Quirks, (&Snapshot, &Snapshot), &Snapshot) -> Vec<String>;

/// Tries each kind by turns. A run may fail with 23; `check` gets both trees before it, and what it left.
fn explore(
    test: &'static str,
    what: &str,
    stage: &Stage,
    odd: &OddMount,
    kinds: &[Kind],
    check: Check,
) {
    let mut findings = Findings::of(test);
    let mut tried = 0;
    for seed in seeds(100) {
        let (name, quirks) = &kinds[usize::try_from(seed).unwrap() % kinds.len()];
        let powers = if seed.is_multiple_of(3) { Powers::Root } else { Powers::User };
        let mut options = set_up(stage, seed, powers);
        without_negative_times(stage);
        // What --verify reads a second time may be unreadable for good reasons.
        options.verify = false;
        // What it has no room for is lost already.
        odd.set(|now| *now = quirks.clone());
        odd.set(|now| *now = Quirks::default());
        stage.keep();
        let trees = (Snapshot::of(stage.source.path()), Snapshot::of(stage.destination.path()));
        let before_run = || odd.set(|now| *now = quirks.clone());
        let after_run = || odd.set(|now| *now = Quirks::default());
        let arguments = options.arguments();
        let around = Some(Around { before: &before_run, after: &after_run });
        let route = &Route::Copy;
        let case = Case { stage, route, options: &options, arguments, tolerant: true, around };
        let (_, mut wrong) = case.run();
        let after = Snapshot::of(stage.destination.path());
        wrong.extend(check(quirks, (&trees.0, &trees.1), &after));
        wrong.retain(|line| !line.contains(" blocks ("));
        findings.add(seed, &format!("{name}: {}", case.arguments.join(" ")), &wrong);
        stage.clear();
        tried += 1;
        if findings.are_enough() {
            break;
        }
    }
    counts::tell(what, format!("{tried} trees"));
    findings.conclude();
}

/// What the source has, or has beside something that cannot be looked at or listed, and what is gone all the same.
fn unseen_and_gone(
    quirks: &Quirks,
    (source, before): (&Snapshot, &Snapshot),
    after: &Snapshot,
) -> Vec<String> {
    let unseen = |path: &PathBuf| {
        let name = path.file_name();
        let lost = quirks.lookup_errors.iter().any(|(known, _)| Some(known.as_os_str()) == name);
        lost.then(|| path.parent().unwrap().to_owned())
    };
    let unlisted = |path: &PathBuf| {
        let name = path.file_name();
        let lost = quirks.list_errors.iter().any(|(known, _)| Some(known.as_os_str()) == name);
        lost.then(|| path.clone())
    };
    let incomplete: Vec<PathBuf> =
        source.0.keys().flat_map(|path| [unseen(path), unlisted(path)]).flatten().collect();
    let must_stay = |path: &&PathBuf| {
        // Where the directory itself takes the place of something else, nothing in it can stay.
        let parent = path.parent().unwrap_or(path);
        incomplete.iter().any(|dir| dir == parent)
            && source.0.get(parent).is_some_and(|node| node.kind == testkit::Kind::Directory)
    };
    let gone = before.0.keys().filter(must_stay).filter(|path| !after.0.contains_key(*path));
    gone.map(|path| format!("its listing was not complete, and {} is gone", path.display()))
        .collect()
}

/// FUSE by `fuser` is off by a nanosecond before 1970.
fn without_negative_times(stage: &Stage) {
    for tree in [&stage.source, &stage.destination] {
        clear_flags(tree.path());
        for (path, node) in Snapshot::of(tree.path()).0.iter().rev() {
            if node.mtime.0 < 0 {
                tree.mtime(path, 86_400, 1);
            }
        }
    }
}

fn sources() -> Vec<Kind> {
    let plain = Quirks::default();
    vec![
        ("plain", plain.clone()),
        ("lists twice", Quirks { listed_twice: vec!["a".into(), "d".into()], ..plain.clone() }),
        ("stale", Quirks { lookup_errors: vec![("b".into(), Errno::STALE)], ..plain.clone() }),
        ("broken", Quirks { lookup_errors: vec![("c".into(), Errno::IO)], ..plain.clone() }),
        ("denied", Quirks { lookup_errors: vec![("e".into(), Errno::ACCESS)], ..plain.clone() }),
        ("not listed", Quirks { list_errors: vec![("d".into(), Errno::IO)], ..plain.clone() }),
        ("not read", Quirks { read_errors: vec![("a".into(), Errno::IO)], ..plain.clone() }),
        ("no attributes", Quirks { no_xattrs: true, ..plain.clone() }),
        ("empty targets", Quirks { empty_targets: vec!["f".into(), "b".into()], ..plain }),
    ]
}

fn destinations() -> Vec<Kind> {
    let plain = Quirks::default();
    vec![
        ("plain", plain.clone()),
        ("ignores case", Quirks { ignore_case: true, ..plain.clone() }),
        ("hides open files", Quirks { hide_open_files: true, ..plain.clone() }),
        ("no attributes", Quirks { no_xattrs: true, ..plain.clone() }),
        ("coarse times", Quirks { time_step: 2, ..plain.clone() }),
        ("times only together", Quirks { times_only_together: true, ..plain.clone() }),
        ("short writes", Quirks { short_writes: Some(1000), ..plain.clone() }),
        ("no hard links", Quirks { no_hard_links: true, ..plain.clone() }),
        ("no special files", Quirks { no_special_files: true, ..plain.clone() }),
        ("no owners", Quirks { no_owners: true, ..plain.clone() }),
        ("no modes", Quirks { no_modes: true, ..plain.clone() }),
        ("no flags of rename", Quirks { no_rename_flags: true, ..plain.clone() }),
        ("lists twice", Quirks { listed_twice: vec!["a".into(), "d".into()], ..plain.clone() }),
        ("stale", Quirks { lookup_errors: vec![("b".into(), Errno::STALE)], ..plain.clone() }),
        ("not listed", Quirks { list_errors: vec![("d".into(), Errno::IO)], ..plain }),
    ]
}

fn try_one(stage: &Stage, seed: u64, powers: Powers, tolerant: bool, findings: &mut Findings) {
    let options = set_up(stage, seed, powers);
    let arguments = options.arguments();
    let route = &Route::Copy;
    let case = Case { stage, route, options: &options, arguments, tolerant, around: None };
    let (_, wrong) = case.run();
    // Each counts blocks in its own way.
    let wrong: Vec<_> = wrong.into_iter().filter(|line| !line.contains(" blocks (")).collect();
    findings.add(seed, &case.arguments.join(" "), &wrong);
    stage.clear();
}
