//! Directory trees and block devices in and out of a repository in restic's format.
//!
//! ```text
//! backup    source (walk, read) ──► engine (chunk, pack, index) ──► proof (stored tree against manifest) ──► snapshot
//! restore   engine (trees, blobs) ──► target (create, write, metadata) ──► proof (volume against stored tree)
//! ```
//!
//! A [`Repository`] does both. Success is what the manifest of the end that was read and a second look at the end that was
//! written agree on. Everything else is a problem with the name of the entry.
//!
//! Format and crypto are those of `rustic_core`, wrapped in `engine`; requests to a directory or bucket are those of opendal,
//! wrapped in [`storage`]. Everything here blocks.
#![forbid(unsafe_code)]

mod backup;
mod credentials;
mod device;
mod engine;
mod error;
mod forget;
mod location;
mod lock;
mod manifest;
mod problems;
mod prune;
mod restore;
mod retention;
mod source;
pub mod storage;
mod stored;

use std::sync::Arc;

pub use backup::{BackupOptions, BackupSummary};
pub use credentials::Credentials;
pub use engine::Snapshot;
pub use error::{Error, Kind, Result};
pub use forget::{Forget, ForgetOptions, ForgetSummary, SnapshotFilter};
pub use location::Location;
pub use problems::{Found, Problem};
pub use prune::PruneSummary;
pub use restore::{RestoreOptions, RestoreSummary};
pub use retention::{Keep, Policy, TagList};

use engine::Engine;
use storage::Storage;

/// A repository that was opened with its password.
pub struct Repository {
    engine: Engine,
}

impl Repository {
    /// Creates an empty repository, and answers its id.
    ///
    /// # Errors
    /// [`Kind::Selection`] where one exists; those of the storage.
    pub fn init(location: &Location, credentials: &Credentials) -> Result<String> {
        let storage = Arc::new(Storage::open(location, credentials)?);
        Engine::init(storage, credentials.password()?)
    }

    /// Opens the repository at `location`.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a wrong password, [`Kind::Selection`] where there is no repository; those of the storage.
    pub fn open(location: &Location, credentials: &Credentials) -> Result<Self> {
        let password = credentials.password()?;
        let storage = Arc::new(Storage::open(location, credentials)?);
        Ok(Self { engine: Engine::open(storage, password)? })
    }

    /// All snapshots, the oldest first.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        self.engine.snapshots()
    }

    /// The snapshot `id`: its id, the beginning of it, or `latest`.
    ///
    /// # Errors
    /// [`Kind::Selection`] where there is none, or more than one.
    pub fn find(&self, id: &str) -> Result<Snapshot> {
        find_in(&self.snapshots()?, id).cloned()
    }

    /// Checks the repository: indexes, packs and trees, and with `read_data` the content of every pack. Answers whether it is
    /// sound, and what was found.
    ///
    /// # Errors
    /// Where the check itself cannot be made.
    pub fn check(&self, read_data: bool) -> Result<(bool, Vec<String>)> {
        let _lock = self.engine.lock(false)?;
        self.engine.check(read_data)
    }
}

/// The snapshot `id` of a list with the oldest first.
fn find_in<'a>(snapshots: &'a [Snapshot], id: &str) -> Result<&'a Snapshot> {
    let missing = |what: String| Err(Error::new(Kind::Selection, what));
    if id == "latest" {
        return snapshots.last().map_or_else(|| missing("no snapshot here".to_owned()), Ok);
    }
    let mut found = snapshots.iter().filter(|s| !id.is_empty() && s.id().starts_with(id));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => missing(format!("more than one snapshot starts with {id}")),
        (None, _) => missing(format!("snapshot {} not found", wire::name::escape(id.as_bytes()))),
    }
}
