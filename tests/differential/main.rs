//! A machine that looks for defects nobody has thought of: random trees, random options, odd file systems, kills at
//! random moments, live writers, and rsync as a second opinion.
//!
//! It drives the built program only, and owes nothing to its code: the trees, the model of what a run must leave, and the
//! comparison are its own or `testkit`'s. `tests/run --faults` runs it, for minutes. Everything follows from seeds:
//!
//! * `PVFERRY_SEEDS=N` tries N seeds of each test in place of its usual number;
//! * `PVFERRY_SEED=S` starts with seed S, and tries it alone where `PVFERRY_SEEDS` is not set;
//! * `PVFERRY_FIRST_SEED=S` starts with seed S and tries as many as usual. `tests/run` takes S from the week, so that
//!   the grid rotates and a failure can be repeated.
//!
//! Each failure prints its seed. `PVFERRY_KEEP=DIR` leaves copies of the trees of a case in DIR/s and DIR/d. What was
//! tried is printed by `counts::tell`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test, too; clippy knows only functions marked as tests"
)]

mod attributes;
#[path = "../faults/counts.rs"]
#[allow(dead_code, reason = "shared with the faults, which use more of it")]
mod counts;
mod devices;
mod expected;
mod findings;
mod grow;
mod kills;
mod live;
mod mutate;
mod options;
#[path = "../pod.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which use more of it")]
mod pod;
mod route;
mod rules;
mod stage;
#[path = "../support.rs"]
#[allow(dead_code, reason = "as above")]
mod support;
mod systems;
mod trees;
