//! The tunnel from the outside: real sockets on loopback, real peers where the machine has them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests stand outside of #[test] functions"
)]

mod handshake;
mod interop;
mod relay;
mod rotation;
mod support;
