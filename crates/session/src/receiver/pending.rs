//! Memory of what the sender has announced and not brought to its end: directories whose listing is not complete,
//! files whose content has not come, further names of inodes. A tree may have many of them, a hostile sender any number.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use wire::Metadata;

use super::state::Shared;
use crate::Error;

/// All of it, in bytes. More ends the session, before the system ends the process and with it all other sessions.
const MAX: u64 = 512 << 20;
/// What an entry takes beside its attributes, in bytes, as measured with names of ten bytes.
const ENTRY: u64 = 300;

/// The share of one entry, until it is dropped.
pub(super) struct Pending {
    total: Arc<AtomicU64>,
    bytes: u64,
}

impl Shared {
    /// Counts an entry that is to be kept in mind with these metadata.
    pub(super) fn pend(&self, meta: &Metadata) -> Pending {
        let attributes = meta.xattrs.iter().map(|x| x.name.len() as u64 + x.value.len() as u64);
        let pending =
            Pending { total: Arc::clone(&self.pending), bytes: ENTRY + attributes.sum::<u64>() };
        if self.pending.fetch_add(pending.bytes, Relaxed) + pending.bytes > MAX {
            self.control.fail(Error::Protocol(
                "more hard links and unfinished entries than a receiver keeps in mind",
            ));
        }
        pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Relaxed);
    }
}
