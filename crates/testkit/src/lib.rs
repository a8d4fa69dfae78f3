//! What tests lean on: real trees, an independent comparison of trees, streams and networks that
//! misbehave on command, file systems to fill, processes that do not outlive their test.
//!
//! * [`TempTree`], [`Content`], [`Rng`]: build a tree entry by entry, or a random one from a seed.
//! * [`Snapshot`], [`Aspects`], [`assert_same`]: what a tree is, and every way in which two differ. This
//!   is the reference for the `volume` crate's own comparison and shares no code with it.
//! * [`interrupted`]: whether anything in a tree passes for finished and is not.
//! * [`Watch`]: whether anything below a directory was opened, read or changed.
//! * [`FaultyStream`], [`Faults`], [`Relay`], [`pass_between`]: cut, flip, stall and crumble bytes in flight.
//! * [`Mount`], [`Disk`]: a small file system of a given kind, gone when dropped; what a power cut leaves of it.
//! * [`OddMount`], [`Quirks`]: a file system that ignores case, loses entries, hides open files, or whatever a test asks for.
//! * [`Process`], [`Finished`]: a child process, killed when dropped.
//! * [`syscalls`]: a child killed at a system call of choice.
//! * [`pki`], [`net`], [`lock`]: throw-away certificates, free ports, volumes that are free again.
//! * [`skip`]: says loudly that a test cannot run here.
//!
//! A failed set-up is a failed test, so everything here panics where a library would return an error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "used by tests only; a set-up that fails must fail the test"
)]

mod compare;
mod content;
mod fault;
pub mod interrupted;
pub mod lock;
mod mount;
pub mod net;
mod odd;
pub mod pki;
mod process;
mod random;
mod relay;
pub mod skip;
mod snapshot;
pub mod syscalls;
mod tree;
mod watch;

pub use compare::{Aspects, assert_same, differences};
pub use content::{Content, Rng};
pub use fault::{Faults, FaultyStream};
pub use mount::{Disk, Mount};
pub use odd::{OddMount, Place, Quirks};
pub use process::{Finished, Process};
pub use relay::{Relay, pass_between};
pub use snapshot::{Kind, Node, Snapshot};
pub use tree::TempTree;
pub use watch::Watch;

pub use rustix::io::Errno;
