//! Tests of the writing side, through the public interface and real file systems.
//!
//! They run as root: owners, device nodes, mounts and other users are what they are about. Other
//! users and smaller sets of capabilities are threads of this process, since Linux keeps both per thread.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod write {
    mod create;
    mod device;
    mod flush;
    mod link;
    mod metadata;
    mod part;
    mod patch;
    mod permissions;
    mod read_only;
    mod remove;
    mod small;
    mod staging;
    mod support;
}
