//! A directory tree (or block device) held by descriptor.
//!
//! Nothing in this crate resolves a path of more than one component below the root: every call is
//! relative to the descriptor of a directory that was itself opened without following links, so an
//! entry that is swapped for a symbolic link while a transfer runs leads nowhere else.
//!
//! Everything here blocks; callers run it on threads of their own.

mod access;
mod acl;
pub mod basis;
mod calendar;
pub mod capability;
mod close;
pub mod compare;
pub mod create;
pub mod descriptors;
pub mod device;
pub mod digest;
pub mod dir;
mod error;
pub mod filter;
pub mod flush;
mod glob;
mod held;
pub mod in_place;
pub mod list;
mod listxattrat;
pub mod lock;
pub mod metadata;
mod metadata_problem;
pub mod narrow;
pub mod read_only;
pub mod remove;
pub mod settled;
pub mod small;
pub mod source;
pub mod staging;
pub mod stat;
pub mod target_device;
pub mod unlock;
pub mod unmapped;
pub mod walk;
pub mod writer;
pub mod xattr;

pub use dir::Dir;
pub use error::{Error, Result, reason};
pub use walk::is_lost_and_found;
