//! A source that is written to while it is copied: files replaced, rewritten, cut, linked, renamed and removed.
//!
//! A run over it may end with 0, or say with 23 or 24 what changed under it. Then the writers stop, and one quiet run that
//! trusts size and time must end with 0 and leave equal trees: nothing torn may have passed for finished. A file that is
//! only ever replaced in one step must never be torn at all.

use std::{
    fs,
    io::ErrorKind,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use testkit::{Content, Process, Rng, Snapshot, TempTree, skip};

use crate::{
    counts,
    expected::Expected,
    findings::{Findings, seeds},
    grow::{Powers, grow},
    options::Options,
    route::Route,
    stage::Stage,
    trees::last_line,
};

const FILES: u64 = 24;

#[test]
fn a_quiet_run_after_live_ones_leaves_equal_trees() {
    if !skip::root() {
        return;
    }
    let mut findings = Findings::of("live::a_quiet_run_after_live_ones_leaves_equal_trees");
    let stage = Stage::new();
    let (mut runs, mut changed) = (0, 0);
    for seed in seeds(110) {
        let mut rng = Rng::new(seed ^ 0x6c69_7665);
        let options = options(&mut rng);
        grow(&stage.source, seed, 10, Powers::User);
        for index in 0..FILES {
            let path = name(index);
            if stage.source.at(&path).symlink_metadata().is_err() {
                stage.source.file(&path, version(index, &mut rng));
            }
        }
        let before = Snapshot::of(stage.destination.path());
        let (codes, mut wrong) = live(&stage, &options, seed);
        runs += codes.len();
        changed += codes.iter().filter(|code| **code != Some(0)).count();
        wrong.extend(quiet(&stage, &options, &before));
        findings.add(seed, &options.arguments().join(" "), &wrong);
        stage.clear();
        if findings.are_enough() {
            break;
        }
    }
    counts::tell("live sources", format!("{runs} runs, {changed} of which told of changes"));
    findings.conclude();
}

fn options(rng: &mut Rng) -> Options {
    let mut options = Options::random(rng);
    (options.delete, options.max_delete, options.verify, options.checksum) =
        (true, None, false, false);
    options.no_owner = false;
    options.rules.clear();
    options
}

/// Some runs while writers are at work.
fn live(stage: &Stage, options: &Options, seed: u64) -> (Vec<Option<i32>>, Vec<String>) {
    let stop = AtomicBool::new(false);
    let (mut codes, mut wrong) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        for writer in 0..2 {
            let (source, stop) = (&stage.source, &stop);
            scope.spawn(move || write(source, seed * 2 + writer, stop));
        }
        for _ in 0..2 {
            let run = Process::run(Route::Copy.command(stage, &options.arguments()));
            let code = run.status.code();
            codes.push(code);
            if !matches!(code, Some(0 | 23 | 24)) {
                wrong.push(format!("a live run ended with {code:?}: {}", last_line(&run)));
            }
            wrong.extend(torn(stage.destination.path()));
        }
        stop.store(true, Relaxed);
    });
    (codes, wrong)
}

fn quiet(stage: &Stage, options: &Options, before: &Snapshot) -> Vec<String> {
    let source = Snapshot::of(stage.source.path());
    let last = Route::Copy.run(stage, &options.arguments());
    let expected = Expected { source: &source, before, options };
    if last.status.code() != Some(0) {
        return vec![format!("the quiet run: {} {}", last_line(&last), last.stderr)];
    }
    let found = expected.differences(&Snapshot::of(stage.destination.path()));
    let found = found.into_iter().filter(|(_, what)| !what.starts_with("blocks"));
    found.map(|(path, what)| format!("after the quiet run {} {what}", path.display())).collect()
}

fn name(index: u64) -> String {
    let kind = if index.is_multiple_of(2) { "replaced" } else { "rewritten" };
    format!("live {}/{kind} {index}", index % 3)
}

/// A whole version of a file: every 16 bytes are the same. Two versions hardly ever have one length: new files of one tick
/// of the clock have one time, and with one length they would be the same to a run that trusts size and time.
fn version(index: u64, rng: &mut Rng) -> Content {
    let lines = *rng.pick(&[1_u64, 7, 300, 1250, 4375, 18_750]) + rng.below(1000);
    let line = format!("{index:07}.{:07}\n", rng.below(10_000_000));
    Content::from(line.as_bytes().repeat(usize::try_from(lines).unwrap()))
}

/// Files that are replaced in one step, and that the destination has in no whole version.
fn torn(destination: &Path) -> Vec<String> {
    let mut torn = Vec::new();
    for index in (0..FILES).step_by(2) {
        let Ok(bytes) = fs::read(destination.join(name(index))) else { continue };
        if bytes.chunks(16).any(|line| line != &bytes[..16.min(bytes.len())]) {
            torn.push(format!("{} is torn", name(index)));
        }
    }
    torn
}

/// Changes the source until it is told to stop. Another writer may have removed anything meanwhile.
fn write(tree: &TempTree, seed: u64, stop: &AtomicBool) {
    let mut rng = Rng::new(seed ^ 0x7772_6974);
    while !stop.load(Relaxed) {
        match change(tree, &mut rng) {
            Ok(()) => {}
            Err(error) => {
                let expected =
                    [ErrorKind::NotFound, ErrorKind::AlreadyExists, ErrorKind::DirectoryNotEmpty];
                assert!(expected.contains(&error.kind()), "{error}");
            }
        }
        thread::sleep(Duration::from_micros(rng.below(2000)));
    }
}

fn change(tree: &TempTree, rng: &mut Rng) -> std::io::Result<()> {
    let index = rng.below(FILES);
    let path = tree.at(name(index));
    let beside = tree.at(format!("live {}/beside {}", rng.below(3), rng.below(6)));
    if index.is_multiple_of(2) {
        return match rng.below(5) {
            0 => fs::remove_file(path),
            1 => fs::hard_link(path, beside),
            _ => {
                let new = tree.at(format!("live {}/.new {}", index % 3, rng.next_u64()));
                fs::write(&new, version(index, rng).bytes())?;
                fs::rename(new, path)
            }
        };
    }
    match rng.below(8) {
        0 => fs::remove_file(path),
        1 => fs::rename(path, beside),
        2 => fs::hard_link(path, beside),
        3 => fs::remove_file(beside),
        4 => fs::File::options().write(true).open(path)?.set_len(rng.below(100_000)),
        5 => {
            fs::create_dir_all(tree.at("live 0/dir/in"))?;
            let length = usize::try_from(rng.below(9000)).unwrap();
            fs::write(tree.at("live 0/dir/in/file"), rng.bytes(length))?;
            fs::rename(tree.at("live 0/dir"), tree.at(format!("live 1/dir {}", rng.below(4))))
        }
        6 => fs::remove_dir_all(tree.at(format!("live 1/dir {}", rng.below(4)))),
        _ => fs::write(path, version(index, rng).bytes()),
    }
}
