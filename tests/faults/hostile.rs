//! Peers that have the right keys and break every rule: a sender against the real `serve`, a receiver against the real
//! `sync`. Each message of the protocol is spoilt in each field, cut short, said twice and at the wrong time.
//!
//! A case is over when the other end has said that the protocol is broken (exit code 2); where what was said is only
//! nonsense, not wrong, it may say something else, but it never succeeds, never panics, and goes on with the next.

mod link;
mod messages;
mod receiver;
mod sender;
