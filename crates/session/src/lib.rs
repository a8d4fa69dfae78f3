//! Sender and receiver of one volume, over any byte streams.
//!
//! * The *sender* holds the source. It walks, lists, reads and sends; it writes nothing.
//! * The *receiver* holds the volume that becomes like the source. It walks its own tree at the same
//!   time, merges each listing with its own, asks for what it lacks and applies what comes.
//! * A *session* is one run of the two over one or more streams, from [`handshake`] to the commit
//!   record that proves by a manifest digest that both ends hold the same.
//!
//! ```text
//!   sender                                        receiver
//!   walker ── listings ─────────────────────────► merge workers ──► volume
//!     ▲                                              │
//!     └── budget ◄── data workers ◄── plans ─────────┘
//!                      │    ▲
//!                      │    └──── signatures, leaves ◄── signature thread
//!                      └── content ────────────────► apply workers ──► volume
//! ```
//!
//! Sockets and timers belong to tokio, one task a stream; disk and hashing belong to a few threads of
//! this crate. A task that reads a stream never blocks: what may arrive is bounded by credit that the
//! consumer grants, so every queue is bounded by configuration and not by the tree.
//!
//! Nothing here knows TLS or a command line; the streams are whatever implements
//! [`tokio::io::AsyncRead`] and [`tokio::io::AsyncWrite`].
#![forbid(unsafe_code)]

mod compress;
mod control;
mod error;
mod fault;
pub mod handshake;
mod layout;
mod manifest;
mod memory_budget;
pub mod monitor;
mod no_owner;
mod pace;
mod policy;
mod pump;
mod receiver;
mod sender;
pub mod server;
mod summary;
mod verify;
mod xattr_hash;

pub use error::{Error, Result};
pub use monitor::{Monitor, Phase, Progress, Snapshot};
pub use pace::slowest as slowest_rate;
pub use policy::Policy;
pub use receiver::{Received, Target, receive};
pub use sender::{Source, send};
pub use summary::{Problem, Summary};

/// Largest file that is moved, in bytes: 64 TiB. Tables that grow with a file stay small up to there.
pub(crate) use wire::limits::MAX_FILE;

/// What one end of a session keeps for entries that wait for something, in bytes, where nothing else is asked for.
pub const MEMORY_BUDGET: u64 = 512 << 20;

/// What both ends of a session are given.
#[derive(Clone)]
pub struct Context {
    /// Counters that watchers poll.
    pub progress: std::sync::Arc<Progress>,
    /// Told of phases, problems and actions.
    pub monitor: std::sync::Arc<dyn Monitor>,
    /// Bytes that this end lets the other send ahead.
    pub window: u64,
    /// Bytes that this end keeps for entries that wait for something; more ends the session. See [`MEMORY_BUDGET`].
    pub memory_budget: u64,
    /// Threads for disk and hashing.
    pub workers: usize,
    /// Seconds of silence of the peer that end the session.
    pub io_timeout: u32,
    /// Bytes a second that this end sends at most, over all streams together.
    pub bandwidth_limit: Option<u64>,
    /// Whether this end compresses what it sends.
    pub compress: Compression,
    /// What the streams of a sender lead to is a relay on this machine, which brings the last words to the
    /// receiver when this end is gone.
    pub relayed: bool,
    /// Set from outside to end the session early in a state that resumes.
    pub cancel: Cancel,
}

pub use compress::Compression;
pub use control::Cancel;
