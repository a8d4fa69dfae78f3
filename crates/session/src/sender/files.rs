//! The data workers: they send what was asked for, large files in ranges that several workers share.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use delta::Checksum;
use parking_lot::Mutex;
use volume::source::Stamp;
use wire::{ContentCheck, Ended, Entry, Metadata, ToReceiver};

use super::{
    entry::{Chunk, Content, FileRecord, FileRef, Location, MOVED_AWAY, OpenError},
    small,
    state::Shared,
};
use crate::{MAX_FILE, control::Stopped, layout::RANGE_LOG2, manifest};

/// Content in one frame of a large file, in bytes.
pub(super) const PIECE: usize = wire::limits::MAX_PIECE as usize;
/// Bytes that one worker sends at a time, in order.
const RANGE: u64 = 1 << RANGE_LOG2;
/// How often a file that changed while it was read is tried.
pub(super) const TRIES: u32 = 4;

/// Work for a data worker.
pub(super) enum Job {
    /// Settles what the receiver did not ask for and sends the whole files it did.
    Planned { chunk: Arc<Chunk>, asked: Vec<bool>, whole: Vec<usize>, attributes: Vec<usize> },
    /// Sends a file whole.
    Whole(Arc<FileRef>),
    /// Sends further ranges of a large file. Where all of them are sent already, it is closed and gone.
    Ranges(Weak<LargeFile>),
    /// Grants the receiver signature bytes.
    Return(u64),
}

/// Takes jobs until there are no more.
pub(super) fn work(shared: &Arc<Shared>) -> Result<(), Stopped> {
    while let Ok(job) = shared.jobs.recv() {
        shared.control.check()?;
        match job {
            Job::Planned { chunk, asked, whole, attributes } => {
                small::planned(shared, &chunk, &asked, &whole)?;
                small::attributes(shared, &chunk, &attributes)?;
            }
            Job::Whole(file) => whole(shared, &file)?,
            Job::Ranges(file) => {
                if let Some(file) = file.upgrade() {
                    send_ranges(shared, &file)?;
                }
            }
            Job::Return(bytes) => shared.grant_signatures(bytes)?,
        }
    }
    Ok(())
}

/// A large file on its way, shared by the workers that send its ranges.
pub(super) struct LargeFile {
    file: Arc<FileRef>,
    content: Content,
    stamp: Option<Stamp>,
    entry: Entry,
    ranges: u64,
    next: AtomicU64,
    /// Ranges that are sent.
    done: AtomicU64,
    /// Bytes that are sent or known to be zeros.
    bytes: AtomicU64,
    frames: AtomicU64,
    checksums: Mutex<Vec<Option<Checksum>>>,
}

fn whole(shared: &Arc<Shared>, file: &Arc<FileRef>) -> Result<(), Stopped> {
    let opened = file.open().and_then(|content| {
        let mut entry = file.entry().clone();
        let (meta, stamp) = content.metadata(shared, &entry)?;
        entry.meta = meta;
        check_size(file, &entry.meta)?;
        Ok((content, stamp, entry))
    });
    let (content, stamp, entry) = match opened {
        Ok(opened) => opened,
        Err(error) => return failed(shared, file, &error),
    };
    let ranges = entry.meta.size.div_ceil(RANGE);
    let large = Arc::new(LargeFile {
        file: Arc::clone(file),
        content,
        stamp,
        entry,
        ranges,
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        frames: AtomicU64::new(0),
        checksums: Mutex::new(vec![None; ranges as usize]),
    });
    if ranges == 0 {
        return large.finish(shared);
    }
    send_ranges(shared, &large)
}

/// Sends ranges until none is left; idle workers join in as long as there are some.
fn send_ranges(shared: &Arc<Shared>, large: &Arc<LargeFile>) -> Result<(), Stopped> {
    loop {
        let range = large.next.fetch_add(1, Relaxed);
        if range >= large.ranges {
            return Ok(());
        }
        if range + 1 < large.ranges {
            shared.queue(Job::Ranges(Arc::downgrade(large)))?;
        }
        large.send_range(shared, range)?;
        if large.done.fetch_add(1, std::sync::atomic::Ordering::AcqRel) + 1 == large.ranges {
            return large.finish(shared);
        }
    }
}

impl LargeFile {
    fn send_range(&self, shared: &Shared, range: u64) -> Result<(), Stopped> {
        let start = range * RANGE;
        let end = (start + RANGE).min(self.entry.meta.size);
        let mut checksum = Checksum::default();
        let mut at = start;
        let progress = &shared.context.progress;
        while at < end {
            // A hole goes in one step, however large.
            let hole = self.content.is_hole(at..end);
            let stop = if hole { end } else { (at + PIECE as u64).min(end) };
            // A read that fails or comes short leaves a hole here; the end of the file tells why.
            let Ok(piece) = self.content.read_piece(at..stop) else { break };
            match piece {
                Some(piece) => {
                    checksum.update(&piece);
                    progress.bytes_literal.fetch_add(piece.len() as u64, Relaxed);
                    self.frames.fetch_add(1, Relaxed);
                    let message = ToReceiver::Data(self.file.id, at, piece);
                    shared.send_charged(range, message.encode())?;
                }
                None => {
                    checksum.append(Checksum::of_zeros(stop - at));
                    progress.bytes_hole.fetch_add(stop - at, Relaxed);
                }
            }
            let bytes = self.bytes.fetch_add(stop - at, Relaxed) + (stop - at);
            self.file.done.reach(bytes, &progress.bytes_done);
            at = stop;
        }
        if at == end {
            self.checksums.lock()[range as usize] = Some(checksum);
        }
        Ok(())
    }

    fn finish(&self, shared: &Shared) -> Result<(), Stopped> {
        let frames = self.frames.load(Relaxed);
        let checksums = self.checksums.lock();
        let complete = checksums.iter().all(Option::is_some);
        let mut whole = Checksum::default();
        checksums.iter().flatten().for_each(|&range| whole.append(range));
        let check = ContentCheck::Checksum(manifest::checksum(self.file.id, whole));
        let read = Reading { content: &self.content, stamp: self.stamp, entry: &self.entry };
        end_of_file(shared, &self.file, read, complete, frames, check)
    }
}

/// What was read of a file, to be checked at its end.
pub(super) struct Reading<'a> {
    pub(super) content: &'a Content,
    pub(super) stamp: Option<Stamp>,
    pub(super) entry: &'a Entry,
}

/// Ends a file: whole if nothing changed meanwhile, to be tried again if something did.
pub(super) fn end_of_file(
    shared: &Shared,
    file: &FileRef,
    read: Reading<'_>,
    complete: bool,
    frames: u64,
    check: ContentCheck,
) -> Result<(), Stopped> {
    let changed = read.content.changed_since(read.stamp);
    let ended = match changed {
        Ok(false) if complete => {
            shared.settle_as(&FileRecord {
                parent: file.parent,
                id: file.id,
                link: file.link,
                entry: read.entry,
                content: Some(check),
            });
            file.sent(shared, read.content);
            Ended::Whole(Box::new(read.entry.meta.clone()), check)
        }
        Ok(true) if file.tries + 1 < TRIES => {
            let mut again = file.clone();
            again.tries += 1;
            if let Location::Named(_, entry) = &mut again.at {
                let fresh = read.content.metadata(shared, read.entry);
                entry.meta = fresh.map_or_else(|_| read.entry.meta.clone(), |(meta, _)| meta);
            }
            shared.remember_file(again);
            Ended::Changed
        }
        Ok(true) => {
            shared.source_changed(&file.display(), "changed every time it was read");
            Ended::Failed
        }
        Ok(false) => {
            match read.content.failure() {
                Some(error) => shared.volume_problem(error),
                None => shared.problem(&file.display(), "cannot be read completely", 23),
            }
            Ended::Failed
        }
        Err(error) => {
            shared.volume_problem(&error);
            Ended::Failed
        }
    };
    if matches!(ended, Ended::Failed) {
        shared.given_up(file);
    }
    shared.send_charged(0, ToReceiver::EndOfFile(file.id, frames, ended).encode())
}

/// A file of an absurd size would take absurd tables.
pub(super) fn check_size(file: &FileRef, meta: &Metadata) -> volume::Result<()> {
    if meta.size <= MAX_FILE {
        return Ok(());
    }
    Err(volume::Error::new("send", file.display(), rustix::io::Errno::FBIG))
}

/// Ends a file that cannot be opened.
pub(super) fn failed(shared: &Shared, file: &FileRef, error: &OpenError) -> Result<(), Stopped> {
    match error {
        OpenError::Replaced => {
            shared.source_changed(&file.display(), "was replaced during the transfer");
        }
        OpenError::MovedAway => shared.source_changed(&file.display(), MOVED_AWAY),
        OpenError::Failed(error) => shared.volume_problem(error),
    }
    shared.given_up(file);
    shared.send_charged(0, ToReceiver::EndOfFile(file.id, 0, Ended::Failed).encode())
}
