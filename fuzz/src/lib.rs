//! What each fuzz target does with its bytes, so that libFuzzer and an ordinary test can do the same.
//!
//! A target never only "does not panic". It says what must hold whatever the bytes are, and breaks where it does
//! not: what decodes means the same when it is sent on, nothing outside a volume is touched, nobody takes a failed
//! session for a success.
//!
//! * the decoders: [`frame`], [`opening`], [`to_receiver`], [`to_sender`], [`entry`];
//! * the search, and what comes of its operations: [`signature`], [`patch`];
//! * one whole end of a session against a script of frames: [`receiver`], [`sender`];
//! * what containers of a pod leave for each other: [`marker`], [`report`];
//! * patterns: [`filter`].

mod codec;
mod difference;
mod filters;
mod heard;
mod pods;
mod receiver;
mod script;
mod sender;
mod stage;

pub use codec::{entry, frame, opening, to_receiver, to_sender};
pub use difference::{patch, signature};
pub use filters::filter;
pub use pods::{marker, report};
pub use receiver::receiver;
pub use sender::sender;

/// A target.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 12] = [
    ("frame", frame),
    ("opening", opening),
    ("to_receiver", to_receiver),
    ("to_sender", to_sender),
    ("entry", entry),
    ("signature", signature),
    ("patch", patch),
    ("marker", marker),
    ("report", report),
    ("filter", filter),
    ("receiver", receiver),
    ("sender", sender),
];
