//! What the sender knows of an entry: listing frames that wait for their plan, files that are to be
//! sent, and their content.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use rustix::io::Errno;
use volume::{
    Dir,
    device::BlockSource,
    in_place::is_in_place,
    source::{SourceFile, Stamp},
    stat::{self, DirectoryState, Inode, Lifetime},
};
use wire::{
    ContentCheck, Entry, EntryId, FileKind, Hash, ListingBuilder, Metadata, OutFrame, Timestamp,
};

use super::{small::ReadError, state::Shared};
use crate::{control::Credit, memory_budget::MemoryReservation};

/// Entries of one listing frame, kept until everything asked of them is done.
pub(super) struct Chunk {
    pub(super) dir: Dir,
    pub(super) directory: EntryId,
    pub(super) first: u64,
    pub(super) items: Vec<Item>,
    pub(super) weight: u64,
    pub(super) budget: Arc<Credit>,
}

/// What tells whether two names, or a name at two times, lead to one file of a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct InodeId {
    ino: u64,
    since: Lifetime,
    ctime: Timestamp,
}

impl From<&Inode> for InodeId {
    fn from(inode: &Inode) -> Self {
        Self { ino: inode.ino, since: inode.since, ctime: inode.ctime }
    }
}

impl From<Stamp> for InodeId {
    fn from(stamp: Stamp) -> Self {
        Self { ino: stamp.ino, since: stamp.since, ctime: stamp.ctime }
    }
}

impl InodeId {
    /// True where both are surely one file.
    fn is(&self, now: &Self) -> bool {
        (self.ino, self.since) == (now.ino, now.since)
    }

    /// True where a name that led to this file leads to `now`, and this one may have another name by now. A number that is
    /// used again was free. Some file systems give a file at rest another number.
    fn may_be_elsewhere(&self, now: &Self) -> bool {
        self.ino != now.ino && (self.since, self.ctime) != (now.since, now.ctime)
    }
}

pub(super) struct Item {
    pub(super) entry: Entry,
    pub(super) link: Option<EntryId>,
    pub(super) mount: bool,
    pub(super) inode: InodeId,
    /// Of a directory, as it was listed.
    pub(super) directory: Option<DirectoryState>,
    /// What stands for the extended attributes in the listing.
    pub(super) xattr_hash: Option<Hash>,
}

/// The end of a listing.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListingEnd {
    /// The directory was read to its end.
    pub(super) complete: bool,
    /// The modification time that belongs to the names, where it is not that of the entry of the directory.
    pub(super) mtime: Option<Timestamp>,
}

impl ListingEnd {
    /// Ends a frame; the directory ends with it where there is an `end`.
    pub(super) fn close(builder: ListingBuilder, end: Option<Self>) -> OutFrame {
        match end {
            Some(Self { complete, mtime }) => builder.with_time(mtime).finish(true, complete),
            None => builder.finish(false, true),
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.budget.grant(self.weight);
    }
}

impl Chunk {
    pub(super) fn id(&self, index: usize) -> EntryId {
        EntryId(self.first + index as u64)
    }

    pub(super) fn file(self: &Arc<Self>, index: usize) -> FileRef {
        let item = &self.items[index];
        FileRef {
            id: self.id(index),
            at: Location::Named(self.dir.clone(), item.entry.clone()),
            parent: self.directory,
            link: item.link,
            inode: Some(item.inode),
            tries: 0,
            held: Held::Walk(Arc::clone(self)),
            done: Arc::new(Done::new(item.entry.meta.size)),
        }
    }
}

impl Item {
    /// Bytes that an entry takes in a listing, at most.
    pub(super) fn wire_len(entry: &Entry) -> u64 {
        let xattrs: usize =
            entry.meta.xattrs.iter().map(|x| x.name.len() + x.value.len() + 8).sum();
        (entry.name.len() + entry.target.len() + xattrs + 80) as u64
    }

    /// Bytes that it takes in its listing, at most.
    pub(super) fn listed_len(&self) -> u64 {
        match self.xattr_hash {
            Some(_) => (self.entry.name.len() + self.entry.target.len() + 96) as u64,
            None => Self::wire_len(&self.entry),
        }
    }
}

/// How much of a file counts as done. A file that changes is read again, and may end with another
/// size than it was listed with; what watchers see neither goes back nor passes the total.
pub(super) struct Done {
    listed: u64,
    counted: AtomicU64,
}

impl Done {
    pub(super) fn new(listed: u64) -> Self {
        Self { listed, counted: AtomicU64::new(0) }
    }

    /// This try has come to `bytes`; what that is beyond earlier tries is added to `total`.
    pub(super) fn reach(&self, bytes: u64, total: &AtomicU64) {
        let bytes = bytes.min(self.listed);
        let before = self.counted.fetch_max(bytes, Relaxed);
        total.fetch_add(bytes.saturating_sub(before), Relaxed);
    }

    /// The file is settled.
    pub(super) fn finish(&self, total: &AtomicU64) {
        self.reach(self.listed, total);
    }
}

/// What the memory of a file that is to be sent comes out of.
#[derive(Clone)]
pub(super) enum Held {
    /// The budget of the walk.
    Walk(#[expect(dead_code, reason = "held, not read")] Arc<Chunk>),
    /// The memory budget.
    Memory(#[expect(dead_code, reason = "held, not read")] Arc<MemoryReservation>),
    /// Nothing: there is one of it.
    Device,
}

/// A file that is to be sent.
#[derive(Clone)]
pub(super) struct FileRef {
    pub(super) id: EntryId,
    pub(super) at: Location,
    pub(super) parent: EntryId,
    pub(super) link: Option<EntryId>,
    /// The inode that was listed. Where that has further names, it must be this one: they are linked to what is read here.
    pub(super) inode: Option<InodeId>,
    /// How often it changed while it was read.
    pub(super) tries: u32,
    pub(super) held: Held,
    /// Shared by all tries.
    pub(super) done: Arc<Done>,
}

#[derive(Clone)]
pub(super) enum Location {
    Named(Dir, Entry),
    Device(Arc<BlockSource>, Entry),
}

impl FileRef {
    pub(super) fn entry(&self) -> &Entry {
        match &self.at {
            Location::Named(_, entry) | Location::Device(_, entry) => entry,
        }
    }

    pub(super) fn display(&self) -> String {
        match &self.at {
            Location::Named(dir, entry) => dir.display_entry(&entry.name),
            Location::Device(..) => "block device".into(),
        }
    }

    pub(super) fn open(&self) -> Result<Content, OpenError> {
        match &self.at {
            Location::Named(dir, entry) => {
                let file = match SourceFile::open(dir, &entry.name) {
                    Ok(file) => file,
                    Err(error) => return Err(OpenError::of_file(dir, entry, error)),
                };
                let stamp = file.stamp()?;
                let mut content = Content::of(Medium::File(file));
                if let Some(listed) = self.inode {
                    let now = InodeId::from(stamp);
                    if self.link.is_some() && !listed.is(&now) {
                        return Err(OpenError::Replaced);
                    }
                    content.replaces_listed = listed.may_be_elsewhere(&now);
                }
                content.opened = Some(stamp);
                Ok(content)
            }
            Location::Device(device, _) => Ok(Content::of(Medium::Device(Arc::clone(device)))),
        }
    }

    /// True where the file is not as it was listed: its content and its metadata have to be taken together again.
    pub(super) fn has_changed(&self, listed: &Entry, now: &Stamp) -> bool {
        (now.size, now.mtime) != (listed.meta.size, listed.meta.mtime)
            || self.inode.is_some_and(|inode| inode.ctime != now.ctime)
    }

    /// All of `content` was sent. Where it is that of another file than the one that was listed, that one may stand under a
    /// name that is in no listing.
    pub(super) fn sent(&self, shared: &Shared, content: &Content) {
        self.done.finish(&shared.context.progress.bytes_done);
        if content.replaces_listed {
            let what = "was replaced after it was listed: the file that was listed may be missing";
            shared.source_changed(&self.display(), what);
        }
    }
}

/// What is said of entries whose directory was moved out of the source.
pub(super) const MOVED_AWAY: &str = "its directory was moved out of the source";

/// Why a file that was listed cannot be opened.
pub(super) enum OpenError {
    /// Its name leads to something else by now: another inode than that of its hard links, or no regular file.
    Replaced,
    /// Its directory was moved out of the source. The sandbox denies access to what lies elsewhere.
    MovedAway,
    Failed(volume::Error),
}

impl OpenError {
    fn of_file(dir: &Dir, entry: &Entry, error: volume::Error) -> Self {
        match stat::kind(dir, &entry.name) {
            Ok(kind) if kind != FileKind::File => Self::Replaced,
            _ if error.errno == Errno::ACCESS && !is_in_place(dir) => Self::MovedAway,
            _ => Self::Failed(error),
        }
    }
}

impl From<volume::Error> for OpenError {
    fn from(error: volume::Error) -> Self {
        Self::Failed(error)
    }
}

/// Content that can be read at any offset.
pub(super) struct Content {
    medium: Medium,
    /// Taken when it was opened. `None` of a device.
    opened: Option<Stamp>,
    /// It is not the file that was listed under its name.
    replaces_listed: bool,
    /// Why it could not be read, the first time.
    failure: OnceLock<volume::Error>,
}

enum Medium {
    File(SourceFile),
    Device(Arc<BlockSource>),
}

/// An entry for the manifest.
pub(super) struct FileRecord<'a> {
    pub(super) parent: EntryId,
    pub(super) id: EntryId,
    pub(super) link: Option<EntryId>,
    pub(super) entry: &'a Entry,
    pub(super) content: Option<ContentCheck>,
}

impl Content {
    fn of(medium: Medium) -> Self {
        Self { medium, opened: None, replaces_listed: false, failure: OnceLock::new() }
    }

    pub(super) fn is_device(&self) -> bool {
        matches!(self.medium, Medium::Device(_))
    }

    /// What reading it first failed with.
    pub(super) fn failure(&self) -> Option<&volume::Error> {
        self.failure.get()
    }

    /// Taken when it was opened. `None` of a device.
    pub(super) fn opened(&self) -> Option<Stamp> {
        self.opened
    }

    pub(super) fn changed_since(&self, stamp: Option<Stamp>) -> volume::Result<bool> {
        match (&self.medium, stamp) {
            (Medium::File(file), Some(stamp)) => file.changed_since(&stamp),
            _ => Ok(false),
        }
    }

    /// The metadata as they are now, and the stamp of the same look.
    pub(super) fn metadata(
        &self,
        shared: &Shared,
        entry: &Entry,
    ) -> volume::Result<(Metadata, Option<Stamp>)> {
        match &self.medium {
            Medium::File(file) => {
                let (mut meta, stamp) = file.metadata(&shared.read_options)?;
                meta.check().map_err(|_| {
                    let what = "read metadata that can be sent";
                    volume::Error::new(what, file.display(), Errno::NOTSUP)
                })?;
                // What cannot be known was reported when it was listed.
                let _ = shared.keep(file.dir(), Some(&entry.name), &mut meta);
                Ok((meta, Some(stamp)))
            }
            Medium::Device(_) => Ok((entry.meta.clone(), None)),
        }
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> volume::Result<usize> {
        let read = match &self.medium {
            Medium::File(file) => file.read_at(offset, buffer),
            Medium::Device(device) => device.read_at(offset, buffer),
        };
        read.inspect_err(|error| _ = self.failure.set(error.clone()))
    }

    /// True where all of `range` is a hole.
    pub(super) fn is_hole(&self, range: std::ops::Range<u64>) -> bool {
        match &self.medium {
            Medium::File(file) => file.is_hole(range),
            Medium::Device(_) => false,
        }
    }

    /// Where a hole that begins at `from` ends, in a file of `size` bytes. `None` where there is data, or nothing is known.
    pub(super) fn hole_end(&self, from: u64, size: u64) -> Option<u64> {
        match &self.medium {
            Medium::File(file) => file.hole_end(from, size),
            Medium::Device(_) => None,
        }
    }

    /// Reads all of `range`; `None` where it is nothing but zeros.
    ///
    /// # Errors
    /// Where reading fails, or comes short because the file shrank.
    pub(super) fn read_piece(
        &self,
        range: std::ops::Range<u64>,
    ) -> Result<Option<Bytes>, ReadError> {
        if self.is_hole(range.clone()) {
            return Ok(None);
        }
        let mut buffer = vec![0; (range.end - range.start) as usize];
        let count = self.read_at(range.start, &mut buffer).map_err(|_| ReadError::Volume)?;
        if count < buffer.len() {
            return Err(ReadError::Changed);
        }
        Ok(if delta::is_zero(&buffer) { None } else { Some(Bytes::from(buffer)) })
    }
}
