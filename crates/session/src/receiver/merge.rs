//! One directory's listing against what is there.
//!
//! Both are sorted by name, so one pass over both finds what is missing, what differs and what is
//! too much. Directories, links and special files are made at once; files are asked for, with what
//! is here as the basis; what is too much waits for the end of the session.

use std::{collections::hash_map::Entry as Slot, sync::Arc, sync::atomic::Ordering::Relaxed};

use volume::list::NameList;
use wire::{ContentCheck, Entry, EntryId, FileKind, Listing, Metadata, Name, Plan, ToSender};

use super::{
    deletions,
    dirs::{self, DirState},
    file::FileState,
    place::Placing,
    state::Shared,
    work::Worker,
};
use crate::{
    Error,
    control::Stopped,
    manifest::Record,
    memory_budget::{self, MemoryReservation},
};

/// A directory that is being merged.
#[derive(Default)]
pub(super) struct Merge {
    local: Option<NameList>,
    _memory: Option<MemoryReservation>,
    at: usize,
    last_name: Option<Name>,
    /// Where the names that the source does not have lie in `local`.
    extraneous: Vec<usize>,
    entries: u64,
}

/// A group of names that share an inode.
#[derive(Default)]
pub(super) struct LinkGroup {
    /// The first name, once it is what it should be.
    pub(super) leader: Option<Leader>,
    /// In a dry run: the run would make the inode of the first name anew, so that no other name leads to it.
    pub(super) anew: bool,
    pub(super) followers: Vec<Follower>,
}

/// The first name of a group.
pub(super) struct Leader {
    pub(super) dir: Arc<DirState>,
    pub(super) name: Name,
    _memory: MemoryReservation,
}

/// A further name of a group.
pub(super) struct Follower {
    pub(super) dir: Arc<DirState>,
    pub(super) id: EntryId,
    pub(super) entry: Entry,
    pub(super) exists: bool,
    pub(super) _memory: MemoryReservation,
}

impl Worker {
    /// Merges one frame of the listing of `dir`.
    pub(super) fn merge(
        &mut self,
        shared: &Arc<Shared>,
        dir: &Arc<DirState>,
        listing: Listing,
    ) -> Result<(), Stopped> {
        let merge = match self.merges.entry(dir.id) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => slot.insert(Merge::begin(shared, dir)?),
        };
        let mut placing = Placing {
            shared,
            dir,
            unasked: listing.unasked,
            plan: Plan { first: listing.first.0, ..Plan::default() },
            wanted: Vec::new(),
            signatures: Vec::new(),
            entries: listing.entries.len(),
        };
        for (index, listed) in listing.entries.into_iter().enumerate() {
            let id = EntryId(listing.first.0 + index as u64);
            let exists = merge.advance(shared, &listed.entry.name)?;
            placing.place(listed, id, index as u32, exists)?;
        }
        placing.answer()?;
        if listing.last {
            let empty = dir.parent.is_none() && listing.complete && merge.entries == 0;
            if empty && !shared.options().allow_empty {
                // The sender refuses this itself, unless it was taken over.
                shared.control.fail(Error::EmptySource);
                return Err(Stopped);
            }
            shared.listing_ended(listing.directory, listing.complete);
            if let Some(merge) = self.merges.remove(&dir.id) {
                merge.end(shared, dir, listing.complete)?;
            }
            shared.forget_directory(dir.id);
            if let Some(mtime) = listing.mtime {
                dir.listed_at(mtime);
            }
            dirs::release(shared, dir)?;
        }
        Ok(())
    }
}

/// Takes in the listing of a directory that cannot be worked in.
pub(super) fn pass_over(shared: &Arc<Shared>, listing: &Listing) -> Result<(), Stopped> {
    for (index, listed) in listing.entries.iter().enumerate() {
        let id = EntryId(listing.first.0 + index as u64);
        let kind = listed.entry.meta.kind;
        if kind == FileKind::Directory && !listed.mount {
            shared.register_directory(id, shared.lost_directory());
        }
        let leads = listed.link.is_none_or(|link| link == id);
        let progress = &shared.context.progress;
        progress.entries_total.fetch_add(1, Relaxed);
        if kind == FileKind::File && leads {
            progress.bytes_total.fetch_add(listed.entry.meta.size, Relaxed);
        }
        if kind == FileKind::File
            && leads
            && listed.content.is_none()
            && comes_unasked(shared, listing)
        {
            shared.register_file(&FileState::lost(shared, id), true);
        }
    }
    if !listing.unasked && !listing.entries.is_empty() {
        shared.send(&ToSender::Plan(Plan { first: listing.first.0, ..Plan::default() }))?;
    }
    if listing.last {
        shared.listing_ended(listing.directory, listing.complete);
        shared.forget_directory(listing.directory);
    }
    Ok(())
}

fn comes_unasked(shared: &Shared, listing: &Listing) -> bool {
    listing.unasked && shared.target.fresh
}

impl Merge {
    fn begin(shared: &Shared, dir: &DirState) -> Result<Self, Stopped> {
        let local = match &dir.dir {
            Some(on_disk) if !dir.new => NameList::read(on_disk),
            _ => return Ok(Self::default()),
        };
        match local {
            Ok(local) => {
                if let Some(error) = local.failure() {
                    shared.failed(error)?;
                }
                let _memory = Some(shared.reserve(local.memory()));
                Ok(Self { local: Some(local), _memory, ..Self::default() })
            }
            Err(error) => {
                shared.failed(&error)?;
                Ok(Self::default())
            }
        }
    }

    /// Goes on to `name`; true where it exists here.
    fn advance(&mut self, shared: &Shared, name: &Name) -> Result<bool, Stopped> {
        if self.last_name.as_ref().is_some_and(|last| last >= name) {
            return shared.broken("listing out of order");
        }
        self.last_name = Some(name.clone());
        self.entries += 1;
        let Some(local) = &self.local else { return Ok(false) };
        while let Some(own) = local.name(self.at) {
            if own < *name {
                self.extraneous.push(self.at);
            } else {
                let same = own == *name;
                self.at += usize::from(same);
                return Ok(same);
            }
            self.at += 1;
        }
        Ok(false)
    }

    /// The listing is complete: what is left here is what the source does not have.
    fn end(mut self, shared: &Shared, dir: &Arc<DirState>, complete: bool) -> Result<(), Stopped> {
        let Some(local) = &self.local else { return Ok(()) };
        self.extraneous.extend(self.at..local.len());
        let staging = shared.target.staging.as_ref().filter(|_| dir.parent.is_none());
        let extraneous = self
            .extraneous
            .into_iter()
            .filter_map(|index| Some((local.name(index)?, local.kind_hint(index))))
            .filter(|(name, _)| staging.is_none_or(|staging| !staging.is_own(name)));
        let options = shared.options();
        let matters = options.verify || shared.crash_marker.untrusted_reason().is_some();
        if matters && !options.delete && complete {
            return deletions::note_kept(shared, dir, extraneous);
        }
        if !options.delete || !complete {
            return Ok(());
        }
        deletions::add_extraneous(shared, dir, extraneous)
    }
}

/// An entry that is as it should be.
pub(super) struct Settled<'a> {
    pub(super) entry: &'a Entry,
    /// Bytes that it was listed with.
    pub(super) listed: u64,
    pub(super) id: EntryId,
    pub(super) link: Option<EntryId>,
    pub(super) actual: &'a Metadata,
    pub(super) content: Option<ContentCheck>,
}

/// Folds a finished entry into the manifest, and offers it to the further names of its inode.
pub(super) fn settle(shared: &Shared, dir: &Arc<DirState>, settled: &Settled<'_>) {
    shared.record(&Record {
        parent: dir.id,
        id: settled.id,
        name: Some(&settled.entry.name),
        meta: settled.actual,
        target: &settled.entry.target,
        link: settled.link,
        content: settled.content,
    });
    if settled.entry.meta.kind == FileKind::File && settled.link.is_none_or(|l| l == settled.id) {
        shared.context.progress.bytes_done.fetch_add(settled.listed, Relaxed);
    }
    if settled.link == Some(settled.id) {
        let leader = Leader {
            dir: Arc::clone(dir),
            name: settled.entry.name.clone(),
            _memory: shared.reserve(memory_budget::ENTRY),
        };
        shared.links.lock().entry(settled.id).or_default().leader = Some(leader);
    }
}
