//! One file while its content comes.
//!
//! ```text
//!   Whole:  Data*  EndOfFile          written in the staging directory, then renamed
//!   Delta:  (Patch | Hole)*           onto the file itself, a clone of it, or a part of earlier
//!           [Rebuild (Patch | Hole | Copy)*]   from here on into a new file
//!           EndOfFile
//! ```
//!
//! A file ends when as many frames came as the sender says it sent, whatever stream they took. It
//! gets its name only when the digest of what was written equals the sender's.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use delta::Checksum;
use parking_lot::Mutex;
use rustix::io::Errno;
use volume::{basis::BasisFile, staging::Place, stat, writer::FileWriter};
use wire::{ContentCheck, Ended, Entry, EntryId, FileKind, Metadata, SmallFile, ToReceiver, Want};

use super::{
    basis::{Basis, Output},
    dirs::{self, DirState, DisplayPath},
    links,
    merge::{self, Settled},
    patch::Delta,
    room,
    state::{Shared, TargetKindRef},
    whole::Whole,
};
use crate::{
    MAX_FILE,
    control::Stopped,
    manifest,
    memory_budget::{self, MemoryReservation},
    no_owner,
    sender::SMALL,
};

/// What is reported of content that is not what its checksum or digest says.
pub(super) const NOT_WHAT_WAS_SENT: &str =
    "the received content does not match its checksum: the file was not replaced";

/// What bears the name of a file that is to be written.
#[derive(Clone)]
pub(super) struct Existing {
    /// `(device, inode)`.
    pub(super) identity: (u64, u64),
    /// It has no further names.
    pub(super) alone: bool,
    /// It has further names that the source's has not, and must not keep them.
    pub(super) detach: bool,
    pub(super) meta: Metadata,
}

/// What is here of a file.
pub(super) struct Here {
    /// The file that bears its name.
    pub(super) existing: Option<Existing>,
    /// Something bears its name, of whatever kind.
    pub(super) occupied: bool,
    /// An earlier attempt may have left a part of it.
    pub(super) part: bool,
}

/// A file that content is expected for.
pub(super) struct FileState {
    pub(super) id: EntryId,
    /// `None` for a device.
    dir: Option<Arc<DirState>>,
    entry: Entry,
    link: Option<EntryId>,
    existing: Option<Existing>,
    occupied: bool,
    frames: AtomicU64,
    end: Mutex<Option<(u64, Ended)>>,
    /// Something failed and was named: what still comes is passed over.
    dead: AtomicBool,
    body: Body,
    _memory: Option<MemoryReservation>,
    /// For hashes, checksums and ranges of its content.
    content_memory: Mutex<MemoryReservation>,
}

enum Body {
    Whole(Whole),
    Delta(Box<Delta>),
    /// A dry run only asks whether the file can be read.
    Announced,
    /// The file cannot be made.
    Lost,
}

impl FileState {
    /// A file `entry` of `dir`.
    pub(super) fn new(
        shared: &Shared,
        dir: &Arc<DirState>,
        id: EntryId,
        entry: &Entry,
        link: Option<EntryId>,
        here: Here,
    ) -> volume::Result<Self> {
        let body = choose(shared, dir, entry, &here)?;
        Ok(Self::with(shared, dir, id, entry, link, here, body))
    }

    /// A file that the run after a dry run would ask for.
    pub(super) fn announced(
        shared: &Shared,
        dir: &Arc<DirState>,
        id: EntryId,
        entry: &Entry,
        link: Option<EntryId>,
        here: Here,
    ) -> Self {
        Self::with(shared, dir, id, entry, link, here, Body::Announced)
    }

    fn with(
        shared: &Shared,
        dir: &Arc<DirState>,
        id: EntryId,
        entry: &Entry,
        link: Option<EntryId>,
        here: Here,
        body: Body,
    ) -> Self {
        let Here { existing, occupied, .. } = here;
        let of_existing = existing.as_ref().map_or(0, |old| memory_budget::of_metadata(&old.meta));
        let memory = shared.reserve(memory_budget::of_entry(entry) + of_existing);
        Self {
            id,
            dir: Some(Arc::clone(dir)),
            entry: entry.clone(),
            link,
            existing,
            occupied,
            frames: AtomicU64::new(0),
            end: Mutex::default(),
            dead: AtomicBool::new(false),
            body,
            _memory: Some(memory),
            content_memory: Mutex::new(shared.reserve(0)),
        }
    }

    /// The block device that is written to.
    pub(super) fn device(shared: &Shared, id: EntryId, entry: Entry) -> Option<Self> {
        let (basis, output, size) = match shared.target_kind() {
            TargetKindRef::Device(device) => {
                let output = Some(Output::Device(Arc::clone(device)));
                (Basis::Device(Arc::clone(device)), output, device.size())
            }
            TargetKindRef::ReadOnlyDevice(device) => {
                (Basis::ReadOnlyDevice(Arc::clone(device)), None, device.size())
            }
            TargetKindRef::Tree(_) => return None,
        };
        let dry = output.is_none();
        let len = size.min(entry.meta.size);
        Some(Self {
            id,
            dir: None,
            entry,
            link: None,
            existing: None,
            occupied: false,
            frames: AtomicU64::new(0),
            end: Mutex::default(),
            dead: AtomicBool::new(false),
            body: Body::Delta(Box::new(Delta::new(basis, output, len, dry))),
            _memory: None,
            content_memory: Mutex::new(shared.reserve(0)),
        })
    }

    /// A file whose content is passed over.
    pub(super) fn lost(shared: &Shared, id: EntryId) -> Arc<Self> {
        let name = crate::sender::device_entry(0);
        Arc::new(Self {
            id,
            dir: None,
            entry: name,
            link: None,
            existing: None,
            occupied: false,
            frames: AtomicU64::new(0),
            end: Mutex::default(),
            dead: AtomicBool::new(true),
            body: Body::Lost,
            _memory: Some(shared.reserve(memory_budget::ENTRY)),
            content_memory: Mutex::new(shared.reserve(0)),
        })
    }

    /// What the listing said of it.
    pub(super) fn listed(&self) -> &Metadata {
        &self.entry.meta
    }

    pub(super) fn dir(&self) -> Option<&Arc<DirState>> {
        self.dir.as_ref()
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    pub(super) fn link(&self) -> Option<EntryId> {
        self.link
    }

    /// How its content is wanted.
    pub(super) fn want(&self) -> Want {
        match &self.body {
            Body::Delta(delta) => delta.want(),
            Body::Whole(_) | Body::Announced | Body::Lost => Want::Whole,
        }
    }

    pub(super) fn delta(&self) -> Option<&Delta> {
        match &self.body {
            Body::Delta(delta) => Some(delta),
            _ => None,
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub(super) fn display(&self) -> DisplayPath<'_> {
        match &self.dir {
            Some(dir) => dir.display_entry(&self.entry.name),
            None => DisplayPath::DEVICE,
        }
    }

    /// Takes in a message about the file. Messages of one stretch come in order.
    pub(super) fn take(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        message: ToReceiver,
    ) -> Result<(), Stopped> {
        match message {
            ToReceiver::EndOfFile(_, frames, ended) => {
                *self.end.lock() = Some((frames, ended));
                return self.end_if_complete(shared);
            }
            ToReceiver::LeafRequest(_, segment) => {
                return match &self.body {
                    Body::Delta(delta) => delta.answer_leaves(shared, self.id, segment),
                    _ => shared.broken("leaf request for a file without a signature"),
                };
            }
            ToReceiver::BlockRequest(_, from, len, block_len) => {
                return match &self.body {
                    Body::Delta(delta) => {
                        delta.answer_blocks(shared, self.id, (from, len), block_len)
                    }
                    _ => shared.broken("block request for a file without a signature"),
                };
            }
            content => {
                if !self.is_dead() {
                    self.apply(shared, content)?;
                }
                self.frames.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.end_if_complete(shared)
    }

    fn apply(self: &Arc<Self>, shared: &Arc<Shared>, content: ToReceiver) -> Result<(), Stopped> {
        let applied = match (&self.body, content) {
            (Body::Whole(whole), ToReceiver::Data(_, offset, data)) => {
                let literal = &shared.context.progress.bytes_literal;
                literal.fetch_add(data.len() as u64, Ordering::Relaxed);
                whole.write(shared, self, offset, &data)
            }
            (Body::Delta(delta), message) => delta.apply(shared, self, message),
            _ => return shared.broken("content of a type that was not requested"),
        };
        self.charge_content(shared);
        applied.or_else(|fault| {
            fault.settle(|error| {
                self.dead.store(true, Ordering::Relaxed);
                shared.failed_on(&self.display(), error)
            })
        })
    }

    /// Charges what is kept of its content until it ends, which a sender may put off.
    pub(super) fn charge_content(&self, shared: &Shared) {
        let bytes = match &self.body {
            Body::Whole(whole) => whole.memory(),
            Body::Delta(delta) => delta.memory(),
            Body::Announced | Body::Lost => 0,
        };
        self.content_memory.lock().resize(&shared.control, bytes);
    }

    fn end_if_complete(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<(), Stopped> {
        let mut end = self.end.lock();
        let frames = self.frames.load(Ordering::Acquire);
        let ended = match end.take() {
            Some((expected, ended)) if expected == frames => ended,
            Some((expected, _)) if expected < frames => {
                return shared.broken("more content than was announced");
            }
            other => {
                *end = other;
                return Ok(());
            }
        };
        drop(end);
        match ended {
            Ended::Whole(..) | Ended::Changed if self.is_dead() => self.give_up(shared),
            Ended::Whole(meta, check) => self.complete(shared, *meta, check),
            Ended::Changed => self.again(shared),
            Ended::Failed => {
                shared.sender_failed.store(true, Ordering::Relaxed);
                self.give_up(shared)
            }
        }
    }

    /// The file is not to be had: what stands under its name stays.
    fn give_up(&self, shared: &Shared) -> Result<(), Stopped> {
        self.abandon(shared, false);
        shared.forget_file(self.id);
        match &self.dir {
            Some(dir) => dirs::release(shared, dir),
            None => Ok(()),
        }
    }

    /// Lets go of what was written; `keep` leaves it for the next run.
    pub(super) fn abandon(&self, shared: &Shared, keep: bool) {
        let writer = match &self.body {
            Body::Whole(whole) => whole.writer.lock().take(),
            Body::Delta(delta) => delta.take_writer(shared, self),
            Body::Announced | Body::Lost => None,
        };
        if let Some(writer) = writer.and_then(Arc::into_inner)
            && keep
        {
            writer.keep();
        }
        if let Body::Delta(delta) = &self.body {
            delta.basis.close();
        }
    }

    /// The source changed while it was read: what came is the basis of the next try.
    fn again(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<(), Stopped> {
        self.abandon(shared, true);
        let Some(dir) = &self.dir else { return self.give_up(shared) };
        // What stands there may have been patched, and be longer now.
        let existing = self.existing.clone().and_then(|mut existing| {
            let (entry, inode) =
                stat::read_entry(dir.dir().ok()?, &self.entry.name, &shared.read_options).ok()?;
            existing.meta = entry.meta;
            ((inode.dev, inode.ino) == existing.identity).then_some(existing)
        });
        // A dry run leaves nothing, and goes on with nothing that another left.
        let part = !shared.dry_run();
        let here = Here { existing, occupied: self.occupied, part };
        let next = Self::new(shared, dir, self.id, &self.entry, self.link, here);
        let next = match next {
            Ok(next) => Arc::new(next),
            Err(error) => {
                shared.failed_on(&self.display(), &error)?;
                return self.give_up(shared);
            }
        };
        let want = next.want();
        if shared.dry_run() && matches!(want, Want::Whole) {
            return self.give_up(shared);
        }
        shared.files.lock().insert(self.id, Arc::clone(&next));
        shared.ask(vec![(self.id, want)])?;
        if matches!(want, Want::Delta { .. }) {
            shared.queue_signature(&next);
        }
        Ok(())
    }

    /// All content is here.
    fn complete(
        &self,
        shared: &Shared,
        meta: Metadata,
        check: ContentCheck,
    ) -> Result<(), Stopped> {
        if meta.kind != FileKind::File {
            return shared.broken("end of a file that was not open");
        }
        let mut entry = Entry { meta, ..self.entry.clone() };
        if shared.options().no_owner {
            no_owner::drop_what_needs_it(&mut entry.meta);
            (entry.meta.uid, entry.meta.gid) = (self.entry.meta.uid, self.entry.meta.gid);
        }
        let finished = match (&self.body, &check) {
            (Body::Whole(whole), ContentCheck::Checksum(checksum)) => {
                whole.finish(shared, self, &entry.meta, *checksum)
            }
            (Body::Delta(delta), ContentCheck::Digest(digest)) => {
                delta.finish(shared, self, &entry.meta, digest)
            }
            (Body::Announced, _) => {
                self.announce(shared)?;
                return self.give_up(shared);
            }
            (Body::Lost, _) => return self.give_up(shared),
            _ => return shared.broken("file that is checked by what it is not made of"),
        };
        match finished {
            Ok(Finished::Written(applied)) => {
                shared.count_written();
                links::would_make_anew(shared, self.link, self.id);
                let verb = if self.existing.is_some() { "update" } else { "create" };
                shared.action(verb, &self.display())?;
                shared.report(&self.display(), &applied)?;
                self.count_matched(shared, entry.meta.size);
                self.settle(shared, &entry, applied.actual, check)
            }
            Ok(Finished::Unchanged(applied)) => {
                if applied.changed {
                    shared.action("metadata", &self.display())?;
                }
                shared.report(&self.display(), &applied)?;
                self.count_matched(shared, entry.meta.size);
                self.settle(shared, &entry, applied.actual, check)
            }
            Ok(Finished::Differs) => {
                shared.problem(&self.display(), NOT_WHAT_WAS_SENT, 23)?;
                self.give_up(shared)
            }
            Err(error) => {
                shared.failed_on(&self.display(), &error)?;
                self.give_up(shared)
            }
        }
    }

    /// Tells, in a dry run, that the run would write it.
    fn announce(&self, shared: &Shared) -> Result<(), Stopped> {
        if let Some(dir) = &self.dir {
            dir.touch();
        }
        shared.count_written();
        links::would_make_anew(shared, self.link, self.id);
        let verb = if self.existing.is_some() { "update" } else { "create" };
        shared.action(verb, &self.display())
    }

    /// What did not travel, and is no hole that did not have to, was here.
    fn count_matched(&self, shared: &Shared, size: u64) {
        if let Body::Delta(delta) = &self.body {
            shared.count_matched(size.saturating_sub(delta.written()));
        }
    }

    fn settle(
        &self,
        shared: &Shared,
        entry: &Entry,
        actual: Metadata,
        check: ContentCheck,
    ) -> Result<(), Stopped> {
        let Some(dir) = &self.dir else {
            // A device has no name: its content alone is the manifest.
            shared.record(&crate::manifest::Record {
                parent: EntryId::ROOT,
                id: self.id,
                name: Some(&entry.name),
                meta: &entry.meta,
                target: &[],
                link: None,
                content: Some(check),
            });
            shared.forget_file(self.id);
            return Ok(());
        };
        shared.half_patched.lock().remove(&self.id);
        dir.touch();
        let settled = Settled {
            entry,
            listed: self.entry.meta.size,
            id: self.id,
            link: self.link,
            actual: &actual,
            content: Some(check),
        };
        merge::settle(shared, dir, &settled);
        shared.forget_file(self.id);
        dirs::release(shared, dir)
    }

    /// A small file came whole.
    pub(super) fn take_whole(&self, shared: &Shared, small: SmallFile) -> Result<(), Stopped> {
        let Some(dir) = &self.dir else { return shared.broken("content that was not requested") };
        if !matches!(self.body, Body::Whole(_)) || small.meta.kind != FileKind::File {
            return shared.broken("content of a type that was not requested");
        }
        let content = &small.content;
        let checksum = manifest::checksum(self.id, Checksum::of(&content.bytes));
        if checksum != content.checksum {
            shared.problem(&self.display(), NOT_WHAT_WAS_SENT, 23)?;
            return self.give_up(shared);
        }
        shared
            .context
            .progress
            .bytes_literal
            .fetch_add(content.bytes.len() as u64, Ordering::Relaxed);
        let mut entry = Entry { meta: small.meta, ..self.entry.clone() };
        if shared.options().no_owner {
            no_owner::drop_what_needs_it(&mut entry.meta);
            (entry.meta.uid, entry.meta.gid) = (self.entry.meta.uid, self.entry.meta.gid);
        }
        let written = room::with_room(shared, || {
            shared.before_content()?;
            dir.write_small(shared, &entry, &content.bytes, self.occupied)
        });
        match written {
            Ok(applied) => {
                shared.count_written();
                let verb = if self.existing.is_some() { "update" } else { "create" };
                shared.action(verb, &self.display())?;
                shared.report(&self.display(), &applied)?;
                self.settle(shared, &entry, applied.actual, ContentCheck::Checksum(checksum))
            }
            Err(fault) => {
                fault.settle(|error| shared.failed_on(&self.display(), error))?;
                self.give_up(shared)
            }
        }
    }

    pub(super) fn existing(&self) -> Option<&Existing> {
        self.existing.as_ref()
    }

    /// Where the file goes.
    pub(super) fn place<'a>(&'a self, shared: &'a Shared) -> volume::Result<Place<'a>> {
        let invalid = || volume::Error::new("create", self.display(), Errno::INVAL);
        let dir = self.dir.as_ref().ok_or_else(invalid)?;
        dir.place(shared, &self.entry.name, self.occupied)
    }

    /// Begins the file in the staging directory.
    pub(super) fn stage(&self, shared: &Shared) -> volume::Result<FileWriter> {
        shared.before_content()?;
        if let Some(dir) = &self.dir {
            dir.touch();
        }
        FileWriter::staged(self.place(shared)?)
    }
}

/// How a file ended.
pub(super) enum Finished {
    /// Its content was written.
    Written(volume::metadata::Applied),
    /// Its content was right already.
    Unchanged(volume::metadata::Applied),
    /// What was written is not what was sent.
    Differs,
}

/// What the content is to be sent against: a part of an earlier run, the file that bears the name,
/// or nothing.
fn choose(
    shared: &Shared,
    dir: &Arc<DirState>,
    entry: &Entry,
    here: &Here,
) -> volume::Result<Body> {
    if !shared.may_compare() {
        return Ok(Body::Whole(Whole::default()));
    }
    let size = entry.meta.size;
    if here.part
        && size > SMALL
        && let Some((writer, len)) =
            FileWriter::open_part(dir.place(shared, &entry.name, here.occupied)?)?
        && (SMALL + 1..=MAX_FILE).contains(&len)
    {
        // It is opened for writing again when the first difference comes, or the end: many may wait.
        let basis = writer.as_basis()?;
        writer.keep();
        return Ok(Body::Delta(Box::new(Delta::new(Basis::Part(basis), None, len, false))));
    }
    let Some(existing) = &here.existing else { return Ok(Body::Whole(Whole::default())) };
    let have = existing.meta.size;
    // To compare content is to compare hashes, however small the file.
    let compared = shared.by_content() && have == size;
    if have <= MAX_FILE && (compared || (have > SMALL && size > SMALL)) {
        match BasisFile::open(dir.dir()?, &entry.name, existing.identity) {
            Ok(file) => {
                let dry = shared.dry_run();
                return Ok(Body::Delta(Box::new(Delta::new(Basis::File(file), None, have, dry))));
            }
            // To ask for the whole is to write it.
            Err(error) if shared.dry_run() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(Body::Whole(Whole::default()))
}
