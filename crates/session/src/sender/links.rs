//! The names of files that have several: which one the content goes under, and whether all of them were listed.

use std::{collections::HashMap, sync::Arc};

use volume::{
    settled::Since,
    stat::{Inode, Lifetime},
};
use wire::{Entry, EntryId, FileKind};

use super::state::Shared;
use crate::memory_budget::MemoryReservation;

/// What an inode takes of which further names may come, in bytes.
const LINK: u64 = 80;

/// The inodes that have several names, until all of them were listed.
pub(super) struct Links<'a> {
    shared: &'a Arc<Shared>,
    inodes: HashMap<(u64, u64, FileKind), Names>,
    /// When the run began, where that can be compared with times of files.
    began: Option<Since>,
    memory: MemoryReservation,
}

/// The names of an inode that were listed.
struct Names {
    first: EntryId,
    since: Lifetime,
    count: u32,
    /// As many as it had each time, of which none came, went or changed since the run began.
    all: Option<u32>,
}

impl<'a> Links<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, began: Option<Since>) -> Self {
        Self { shared, inodes: HashMap::new(), began, memory: shared.reserve(0) }
    }

    /// The first name of the inode that `entry` leads to, which may be this one, and whether all its names are listed now. The
    /// number of an inode that is gone may be given to another, also to one of the same kind.
    pub(super) fn first_name(
        &mut self,
        id: EntryId,
        entry: &Entry,
        inode: &Inode,
        shown: impl Fn() -> String,
    ) -> (EntryId, bool) {
        // A name that comes or goes changes the time of change.
        let unchanged = self.began.is_some_and(|began| began.is_surely_after(inode.ctime));
        let names = unchanged.then_some(inode.nlink);
        let inode_id = (inode.dev, inode.ino, entry.meta.kind);
        let seen = self.inodes.entry(inode_id).or_insert_with(|| {
            self.memory.grow(&self.shared.control, LINK);
            Names { first: id, since: inode.since, count: 0, all: names }
        });
        if seen.since != inode.since {
            if matches!(inode.since, Lifetime::Changed(_)) {
                let what = "changed after another hard link of the same file was listed";
                self.shared.source_changed(&shown(), what);
            }
            *seen = Names { first: id, since: inode.since, count: 0, all: names };
        }
        seen.count += 1;
        seen.all = seen.all.filter(|_| seen.all == names);
        let first = (seen.first, seen.all == Some(seen.count));
        if seen.count >= inode.nlink {
            self.inodes.remove(&inode_id);
            self.memory.shrink(LINK);
        }
        first
    }
}
