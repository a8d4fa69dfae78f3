//! Faults and attackers, on the built program: every point of a grid, not some of them.
//!
//! `tests/run --faults` runs these, for minutes. Each test prints how much it tried (`counts::tell`), and fails at the
//! first false success, panic, escape or tree that does not converge. What decides is `testkit`, which shares no code
//! with the product.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test, too; clippy knows only functions marked as tests"
)]

mod counts;
mod crowd;
mod disk;
mod flip;
mod flood;
mod hostile;
mod identity;
mod judge;
mod kill;
mod plain;
#[path = "../pod.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which use more of it")]
mod pod;
mod power;
mod resume;
#[path = "../support.rs"]
#[allow(dead_code, reason = "as above")]
mod support;
mod wire;
