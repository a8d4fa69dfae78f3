//! Steps of migrations against API servers in memory: no root, no cluster, seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod calls;
mod kubelet;
mod selector;
mod server;
mod serving;
mod status_writes;
mod store;
mod watch;
mod world;

mod budget;
mod crashes;
mod cutovers;
mod freezes;
mod limits;
mod messages;
mod owners;
mod ownership;
mod proofs;
mod reach;
mod rollbacks;
mod runs;
mod shared_storage;
mod slots;
mod strangers;
mod target_use;
mod targets;
mod vanished;
mod waiting;
