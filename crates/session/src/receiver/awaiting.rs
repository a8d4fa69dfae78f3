//! Entries whose extended attributes were asked for.
//!
//! A listing may carry a hash in place of the attributes. Where the volume has others, the values are asked for with the plan.
//! A directory is worked in meanwhile and gets them with its other metadata; any other entry that needs no content is put in
//! place when they come. The content of a file brings its metadata with it, so a file that is asked for never waits here.

use std::sync::Arc;

use wire::{EntryId, Listed, Xattrs};

use super::{
    dirs::{self, DirState},
    place::Placing,
    state::Shared,
};
use crate::{control::Stopped, memory_budget::MemoryReservation};

/// What waits for the attributes of one entry.
pub(super) enum Awaiting {
    /// The end of a directory.
    Directory(Arc<DirState>),
    /// An entry that is not in place.
    Entry(Box<Deferred>),
}

/// An entry that is put in place once its attributes are here.
pub(super) struct Deferred {
    pub(super) dir: Arc<DirState>,
    pub(super) listed: Listed,
    /// Something bore its name when the directory was listed.
    pub(super) exists: bool,
    pub(super) _memory: MemoryReservation,
}

/// Takes in the attributes of an entry.
pub(super) fn take(shared: &Arc<Shared>, id: EntryId, xattrs: Xattrs) -> Result<(), Stopped> {
    let Some(awaiting) = shared.awaiting.lock().remove(&id) else {
        return shared.broken("attributes that were not requested");
    };
    match awaiting {
        Awaiting::Directory(dir) => {
            dir.attributes_came(shared, xattrs);
            dirs::release(shared, &dir)?;
        }
        Awaiting::Entry(deferred) => {
            let Deferred { dir, mut listed, exists, _memory } = *deferred;
            listed.entry.meta.xattrs = xattrs;
            Placing::late(shared, &dir).place_late(&listed, id, exists)?;
            dirs::release(shared, &dir)?;
        }
    }
    shared.attributes_settled();
    Ok(())
}
