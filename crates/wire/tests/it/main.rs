//! The wire from outside: bytes that never change, values that come back, peers that lie.
//!
//! * [`golden`]: the exact bytes of every message, kept for ever.
//! * [`round_trip`]: whatever is encoded is decoded to the same value.
//! * [`noise`]: bytes that are no message, or nearly one.
//! * [`hostile`], [`openings`]: each rule of the protocol, broken by hand.
//! * [`arbitrary`], [`support`]: strategies for every message, and what all of the above share.
//! * [`samples`]: one fixed message for every variant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod arbitrary;
mod golden;
mod hostile;
mod noise;
mod openings;
mod round_trip;
mod samples;
mod support;
