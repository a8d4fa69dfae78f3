//! Whole sessions under faults that all follow from one number, the seed: trees, options, streams, what breaks and
//! where. Each ends in equal trees or in an error; after an error nothing wrong bears a final name, and the next run
//! converges.
//!
//! ```text
//! PVFERRY_SEEDS=10000 cargo test -p pvferry-session --test simulation -- --nocapture
//! PVFERRY_SEED=17     cargo test -p pvferry-session --test simulation      this one alone
//! ```
//!
//! Time is virtual: it moves on only where nothing moves any more, so a silence of minutes takes milliseconds. What a
//! seed does not hold is the order in which the threads of both ends come to run; with both variables a seed is run so
//! many times.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::expect_used, reason = "as above")]
#![allow(clippy::panic, reason = "as above")]

mod simulation {
    pub(crate) mod attempt;
    pub(crate) mod clock;
    pub(crate) mod judge;
    pub(crate) mod world;
}

use std::{
    panic,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use simulation::{
    attempt::Attempt,
    judge::{Verdict, judge},
    world::World,
};
use testkit::{Rng, Snapshot};

/// Seeds of an ordinary run.
const FEW: u64 = 300;
/// Attempts with faults before the one without.
const ATTEMPTS: u64 = 3;

/// How many seeds ended in which way.
#[derive(Default)]
struct Tally {
    seeds: AtomicU64,
    sessions: AtomicU64,
    /// Their first attempt was a success, whatever was done to it.
    converged: AtomicU64,
    failed_honestly: AtomicU64,
}

#[test]
fn faults_end_in_equal_trees_or_in_an_honest_error() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (one, many) = (number("PVFERRY_SEED"), number("PVFERRY_SEEDS"));
    let count = many.unwrap_or(if one.is_some() { 1 } else { FEW });
    let (next, tally) = (AtomicU64::new(0), Tally::default());
    let failed = AtomicU64::new(u64::MAX);
    thread::scope(|scope| {
        for _ in 0..2 * thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while failed.load(Relaxed) == u64::MAX {
                    let turn = next.fetch_add(1, Relaxed);
                    if turn >= count {
                        break;
                    }
                    let seed = one.unwrap_or(turn);
                    if panic::catch_unwind(|| simulate(seed, &tally)).is_err() {
                        failed.store(seed, Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(
        failed == u64::MAX,
        "seed {failed} failed, for the reason above; this one alone, if need be often:\n  \
         PVFERRY_SEED={failed} PVFERRY_SEEDS=100 cargo test -p pvferry-session --test simulation"
    );
    println!(
        "COUNT simulated seeds: {} ({} converged, {} failed honestly and converged when tried again; {} sessions)",
        tally.seeds.into_inner(),
        tally.converged.into_inner(),
        tally.failed_honestly.into_inner(),
        tally.sessions.into_inner()
    );
}

fn simulate(seed: u64, tally: &Tally) {
    let mut rng = Rng::new(seed);
    let world = World::new(&mut rng);
    let mut spoilt = false;
    let mut first = None;
    let mut told = String::new();
    for _ in 0..=rng.below(ATTEMPTS) {
        let attempt = Attempt::with_faults(&mut rng, &world, spoilt);
        let before = Snapshot::of(world.to.path());
        let ended = attempt.run(&world);
        tally.sessions.fetch_add(1, Relaxed);
        let verdict = judge(seed, &world, &attempt, &before, &ended);
        told += &format!("{attempt:?}\n  {ended:?}\n");
        spoilt |= attempt.spoils_content();
        first.get_or_insert(verdict);
    }
    let clean = Attempt::clean(&mut rng, spoilt);
    let before = Snapshot::of(world.to.path());
    let ended = clean.run(&world);
    tally.sessions.fetch_add(1, Relaxed);
    let verdict = judge(seed, &world, &clean, &before, &ended);
    assert_eq!(
        verdict,
        Verdict::Converged,
        "seed {seed}, without faults: {ended:?}\nafter\n{told}"
    );
    tally.seeds.fetch_add(1, Relaxed);
    match first {
        Some(Verdict::Failed) => tally.failed_honestly.fetch_add(1, Relaxed),
        _ => tally.converged.fetch_add(1, Relaxed),
    };
}
