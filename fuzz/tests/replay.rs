//! Every target once more, without libFuzzer: each seed, and changes to it that follow from a number, with the compiler
//! that the project is built with.
//!
//! `PVFERRY_FUZZ_SECONDS=30` gives each target so much time; without it each seed has a fixed number of changes.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use pvferry_fuzz::{TARGETS, Target};

/// Changes to each seed. An end of a session is a hundred times as slow as a decoder.
const CHANGES: u64 = 400;
const CHANGES_OF_SESSIONS: u64 = 10;

fn folder(part: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(part)
}

fn names(part: &str) -> Vec<String> {
    let entries = fs::read_dir(folder(part)).expect("the folder is read");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let corpus = format!("corpus/{target}");
    let read = |name| fs::read(folder(&corpus).join(name)).expect("a seed");
    names(&corpus).into_iter().map(read).collect()
}

#[test]
fn every_target_has_a_program_and_seeds() {
    let mut known: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    known.sort();
    let programs: Vec<_> = known.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!((names("fuzz_targets"), names("corpus")), (programs, known.clone()));
    for target in known {
        assert!(seeds(&target).len() >= 4, "{target} has too few seeds");
    }
}

#[test]
fn seeds_and_what_is_like_them() {
    let seconds =
        std::env::var("PVFERRY_FUZZ_SECONDS").ok().map(|text| text.parse().expect("a number"));
    for (name, target) in TARGETS {
        let executions = match seconds {
            Some(seconds) => for_so_long(target, &seeds(name), Duration::from_secs(seconds)),
            None => {
                let session = matches!(name, "receiver" | "sender");
                so_often(target, &seeds(name), if session { CHANGES_OF_SESSIONS } else { CHANGES })
            }
        };
        println!("COUNT fuzz executions {name}: {executions}");
    }
}

fn so_often(target: Target, seeds: &[Vec<u8>], changes: u64) -> u64 {
    let mut executions = 0;
    for (seed, bytes) in seeds.iter().enumerate() {
        target(bytes);
        for change in 0..changes {
            target(&changed(seeds, bytes, change << 16 | seed as u64));
        }
        executions += 1 + changes;
    }
    executions
}

fn for_so_long(target: Target, seeds: &[Vec<u8>], patience: Duration) -> u64 {
    let begun = Instant::now();
    let mut executions = 0;
    while begun.elapsed() < patience {
        for bytes in seeds {
            target(&changed(seeds, bytes, executions));
            executions += 1;
        }
    }
    executions
}

/// `bytes` with a few changes that follow from `number`.
fn changed(seeds: &[Vec<u8>], bytes: &[u8], number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |below: usize| {
        // SplitMix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below.max(1) as u64) as usize
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..=next(4) {
        let at = next(bytes.len() + 1);
        let end = bytes.len().min(at + 1 + next(8));
        match next(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, next(256) as u8),
            2 => drop(bytes.drain(at..end)),
            3 => bytes[at..end].fill(next(256) as u8),
            4 => bytes[at..end].iter_mut().for_each(|byte| *byte ^= 1 << next(8)),
            _ => {
                let other = &seeds[next(seeds.len())];
                bytes.splice(at..end, other[next(other.len() + 1)..].iter().copied());
            }
        }
    }
    bytes.truncate(4096);
    bytes
}
