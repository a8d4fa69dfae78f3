//! Comparing a file with the signature of the receiver's, and sending only what differs.
//!
//! ```text
//!   aligned pass:  own segment i  ==  basis segment i ?   ── yes ─► nothing to send
//!                         │ no
//!                         ├─► ask for its leaf hashes; when they come, send the leaves that differ
//!                         └─► many in a row: look for moved content (search.rs)
//! ```
//!
//! The receiver streams its segment hashes while this end reads and hashes, so both disks work at
//! the same time. A search begins with a probe: where its first stretch finds nothing of the basis,
//! the content has nothing in common with it, and the aligned pass goes on.

use std::{collections::HashMap, sync::Arc, sync::atomic::Ordering::Relaxed};

use bytes::Bytes;
use delta::{Aligned, Layout, RangeFold, SegmentFold, Step, StrongHash};
use volume::source::Stamp;
use wire::{ContentCheck, Entry, Hash, ToReceiver};

use super::{
    entry::{Content, FileRef},
    files::{self, Reading},
    state::{Answer, DeltaJob, Round, Shared},
};
use crate::control::Stopped;

/// Leaf requests that may be open for one file.
const MAX_OPEN: usize = 256;
/// Content that is held for them, in bytes, beyond one segment.
const MAX_OPEN_BYTES: usize = 16 << 20;
/// Segments without anything in common, one behind the other, after which no more leaves are asked for
/// but those of every so many segments.
const NOVEL: u32 = 16;
const NOVEL_SAMPLE: u64 = 32;
/// Segment hashes of the basis that are kept behind the comparison: content may have moved back.
const BASIS_KEPT: usize = 4096;

/// Takes files until there are no more.
pub(super) fn work(shared: &Arc<Shared>) -> Result<(), Stopped> {
    while let Ok(job) = shared.delta_jobs.recv() {
        shared.control.check()?;
        compare(shared, &job)?;
    }
    Ok(())
}

/// Nothing is compared any more: gives back what came for the file and was not used.
fn end(shared: &Shared, job: &DeltaJob) -> Result<(), Stopped> {
    shared.end_delta(job.file.id);
    while let Ok(answer) = job.answers.try_recv() {
        match answer {
            Answer::Signature(_, _, _, cost) => shared.grant_signatures(cost)?,
            Answer::Leaves(.., cost) | Answer::Blocks(.., cost) => shared.discharge(cost),
        }
    }
    Ok(())
}

fn compare(shared: &Arc<Shared>, job: &DeltaJob) -> Result<(), Stopped> {
    let file = &job.file;
    let opened = file.open().and_then(|content| {
        let mut entry = file.entry().clone();
        let (meta, stamp) = content.metadata(shared, &entry)?;
        entry.meta = meta;
        files::check_size(file, &entry.meta)?;
        Ok((content, stamp, entry))
    });
    let (content, stamp, entry) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            end(shared, job)?;
            return files::failed(shared, file, &error);
        }
    };
    let layout = job.layout;
    let comparison = Comparison {
        shared,
        job,
        file,
        content,
        stamp,
        entry,
        layout,
        fold: SegmentFold::new(&shared.key, layout),
        pieces: None,
        hole: 0..0,
        novel: 0,
        basis: Vec::new(),
        basis_first: 0,
        basis_ended: false,
        looked_at: 0,
        open: HashMap::new(),
        max_open: (MAX_OPEN_BYTES / layout.segment_len() as usize).clamp(1, MAX_OPEN),
        compared: 0,
        frames: 0,
        failed: false,
        searches: 0,
        search_from: 0,
    };
    comparison.run()
}

pub(super) struct Comparison<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) job: &'a DeltaJob,
    pub(super) file: &'a Arc<FileRef>,
    pub(super) content: Content,
    pub(super) stamp: Option<Stamp>,
    pub(super) entry: Entry,
    pub(super) layout: Layout,
    pub(super) fold: SegmentFold,
    /// The hashes of what follows those segments, where the file is built anew.
    pub(super) pieces: Option<RangeFold>,
    /// A hole that is still to be sent: it may go on.
    hole: std::ops::Range<u64>,
    /// Segments in a row of which no leaf was in the basis.
    novel: u32,
    /// Hashes of the basis from segment `basis_first` on, as far as they came.
    pub(super) basis: Vec<Hash>,
    pub(super) basis_first: u64,
    pub(super) basis_ended: bool,
    /// The segment of the basis that was asked for last.
    looked_at: u64,
    /// Own content of the segments whose leaf hashes were asked for.
    pub(super) open: HashMap<u32, Bytes>,
    pub(super) max_open: usize,
    /// Bytes that are known to be equal at both ends, or sent.
    pub(super) compared: u64,
    pub(super) frames: u64,
    pub(super) failed: bool,
    /// Searches that found nothing to build on, and the offset before which none is tried again.
    pub(super) searches: u32,
    pub(super) search_from: u64,
}

impl Comparison<'_> {
    pub(super) fn run(mut self) -> Result<(), Stopped> {
        let size = self.entry.meta.size;
        let segments = self.layout.segments(size);
        let segment_len = u64::from(self.layout.segment_len());
        let mut aligned = Aligned::new(self.layout, size, self.job.basis_len);
        let mut index = 0;
        while index < segments && !self.failed {
            self.shared.control.check()?;
            let range = self.layout.segment_range(index, size);
            if aligned.is_appended(index) {
                let holes = self.hole_segments(range.start);
                if holes > 0 {
                    self.send_hole(range.start..range.start + holes * segment_len)?;
                    self.fold.push_zeros(holes);
                    index += holes;
                    continue;
                }
            }
            let own = self.read(range.clone())?;
            let hash = self.hash(&own, range.end - range.start);
            let Some(hash) = hash else { break };
            let basis = self.basis_hash(index)?;
            let equal = basis == Some(hash.0) && self.same_length(index, &range);
            if equal {
                self.novel = 0;
                self.fold.push(hash);
                self.settled(range.end - range.start);
            } else {
                match (own, basis.is_some()) {
                    (Own::Hole, _) => self.send_hole(range.clone())?,
                    (Own::Data(bytes), true) if self.is_sampled(index) => {
                        self.ask_leaves(index, bytes)?;
                    }
                    (Own::Data(bytes), _) => self.send_patch(range.start, bytes)?,
                }
                self.fold.push(hash);
            }
            if let Step::Search { .. } = aligned.observe(index, equal) {
                if self.search(range.end)? {
                    return self.finish();
                }
                aligned = Aligned::new(self.layout, size, self.job.basis_len);
            }
            index += 1;
        }
        self.take_leaves_until(0)?;
        self.drain_signature()?;
        self.finish()
    }

    /// How many whole segments from `start` on are holes.
    fn hole_segments(&self, start: u64) -> u64 {
        let end = self.content.hole_end(start, self.entry.meta.size).unwrap_or(start);
        end.saturating_sub(start) / u64::from(self.layout.segment_len())
    }

    /// Whether the leaves of a segment are worth a question: where content is new throughout, they
    /// are not.
    fn is_sampled(&self, index: u64) -> bool {
        self.novel < NOVEL || index.is_multiple_of(NOVEL_SAMPLE)
    }

    /// Reads a segment. A failure is remembered, and named at the end.
    pub(super) fn read(&mut self, range: std::ops::Range<u64>) -> Result<Own, Stopped> {
        match self.content.read_piece(range) {
            Ok(Some(bytes)) => Ok(Own::Data(bytes)),
            Ok(None) => Ok(Own::Hole),
            Err(_) => {
                self.failed = true;
                Ok(Own::Hole)
            }
        }
    }

    pub(super) fn hash(&self, own: &Own, len: u64) -> Option<StrongHash> {
        if self.failed {
            return None;
        }
        Some(match own {
            Own::Data(bytes) => self.shared.key.hash(bytes),
            Own::Hole if len == u64::from(self.layout.segment_len()) => {
                self.shared.key.zero_segment(self.layout)
            }
            Own::Hole => self.shared.key.hash(&vec![0; len as usize]),
        })
    }

    /// The last segment of either file may be short; equal hashes then mean equal lengths too.
    pub(super) fn same_length(&self, index: u64, own: &std::ops::Range<u64>) -> bool {
        self.layout.segment_range(index, self.job.basis_len) == *own
    }

    /// The receiver's hash of a segment, waiting for it; `None` past the end of its file.
    pub(super) fn basis_hash(&mut self, index: u64) -> Result<Option<Hash>, Stopped> {
        self.looked_at = index;
        loop {
            if index < self.basis_first {
                return Ok(None);
            }
            if let Some(hash) = self.basis.get((index - self.basis_first) as usize) {
                return Ok(Some(*hash));
            }
            if self.basis_ended {
                return Ok(None);
            }
            let answer = self.job.answers.recv().map_err(|_| Stopped)?;
            self.take(answer)?;
        }
    }

    pub(super) fn take(&mut self, answer: Answer) -> Result<(), Stopped> {
        match answer {
            Answer::Signature(first, hashes, last, cost) => {
                if u64::from(first) != self.basis_first + self.basis.len() as u64 {
                    return self.broken("signature out of order");
                }
                let end = u64::from(first) + hashes.len() as u64;
                if end > self.layout.segments(self.job.basis_len) {
                    return self.broken("signature of more than the basis holds");
                }
                let behind = self.looked_at.saturating_sub(self.basis_first) as usize;
                if (2 * BASIS_KEPT..=self.basis.len()).contains(&behind) {
                    self.basis.drain(..behind - BASIS_KEPT);
                    self.basis_first += (behind - BASIS_KEPT) as u64;
                }
                self.basis.extend(hashes);
                self.basis_ended = last;
                self.shared.grant_signatures(cost)
            }
            Answer::Leaves(segment, hashes, cost) => {
                self.shared.discharge(cost);
                self.send_leaves(segment, &hashes)
            }
            Answer::Blocks(..) => self.broken("blocks that were not requested"),
        }
    }

    pub(super) fn broken<T>(&self, why: &'static str) -> Result<T, Stopped> {
        self.shared.broken(why)
    }

    pub(super) fn ask_leaves(&mut self, index: u64, own: Bytes) -> Result<(), Stopped> {
        self.take_leaves_until(self.max_open - 1)?;
        let segment = index as u32;
        self.open.insert(segment, own);
        self.shared.round(Round::Leaves);
        let request = ToReceiver::LeafRequest(self.file.id, segment);
        self.shared.send_charged(self.file.id.0, request.encode())
    }

    /// Takes in answers until no more than `limit` leaf requests are open.
    pub(super) fn take_leaves_until(&mut self, limit: usize) -> Result<(), Stopped> {
        while self.open.len() > limit {
            let answer = self.job.answers.recv().map_err(|_| Stopped)?;
            self.take(answer)?;
        }
        while let Ok(answer) = self.job.answers.try_recv() {
            self.take(answer)?;
        }
        Ok(())
    }

    pub(super) fn send_leaves(&mut self, segment: u32, hashes: &[Hash]) -> Result<(), Stopped> {
        let Some(own) = self.open.remove(&segment) else {
            return self.broken("hashes that were not requested");
        };
        let basis: Vec<_> = hashes.iter().map(|&hash| StrongHash(hash)).collect();
        let start = u64::from(segment) * u64::from(self.layout.segment_len());
        let mut literal = 0;
        for range in delta::differing_leaves(&own, &basis, &self.shared.key, self.layout) {
            literal += range.len() as u64;
            self.send_patch(start + range.start as u64, own.slice(range))?;
        }
        self.novel = if literal < own.len() as u64 { 0 } else { self.novel + 1 };
        self.settled(own.len() as u64 - literal);
        Ok(())
    }

    /// Sends what differs; where the source has a hole there, the receiver gets one too.
    pub(super) fn send_patch(&mut self, offset: u64, bytes: Bytes) -> Result<(), Stopped> {
        let leaf = self.layout.leaf_len() as usize;
        let mut sent = 0;
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + leaf).min(bytes.len());
            let range = offset + at as u64..offset + end as u64;
            if delta::is_zero(&bytes[at..end]) && self.content.is_hole(range.clone()) {
                if sent < at {
                    self.send_data(offset + sent as u64, bytes.slice(sent..at))?;
                }
                self.send_hole(range)?;
                sent = end;
            }
            at = end;
        }
        if sent < at { self.send_data(offset + sent as u64, bytes.slice(sent..)) } else { Ok(()) }
    }

    pub(super) fn send_data(&mut self, offset: u64, bytes: Bytes) -> Result<(), Stopped> {
        self.flush_hole()?;
        let progress = &self.shared.context.progress;
        progress.bytes_literal.fetch_add(bytes.len() as u64, Relaxed);
        self.settled(bytes.len() as u64);
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + files::PIECE).min(bytes.len());
            self.frames += 1;
            let piece = bytes.slice(at..end);
            if self.pieces.is_some() {
                let hash = self.shared.key.hash(&piece);
                self.push_piece(hash)?;
            }
            let message = ToReceiver::Patch(self.file.id, offset + at as u64, piece);
            self.shared.send_charged(self.file.id.0, message.encode())?;
            at = end;
        }
        Ok(())
    }

    /// Sends a hole, in one message with what joins it.
    pub(super) fn send_hole(&mut self, range: std::ops::Range<u64>) -> Result<(), Stopped> {
        let len = range.end - range.start;
        let progress = &self.shared.context.progress;
        progress.bytes_hole.fetch_add(len, Relaxed);
        self.settled(len);
        if self.hole.end != range.start || self.hole.is_empty() {
            self.flush_hole()?;
            self.hole.start = range.start;
        }
        self.hole.end = range.end;
        Ok(())
    }

    /// Sends the hole that was kept to grow. To be called before anything else is sent of the file that has a place in it.
    pub(super) fn flush_hole(&mut self) -> Result<(), Stopped> {
        let range = std::mem::take(&mut self.hole);
        if range.is_empty() {
            return Ok(());
        }
        let len = range.end - range.start;
        if let Some(pieces) = &mut self.pieces {
            pieces.push_hole(&self.shared.key, len);
        }
        self.frames += 1;
        let message = ToReceiver::Hole(self.file.id, range.start, len);
        self.shared.send_charged(self.file.id.0, message.encode())
    }

    /// The next piece of a file that is built anew.
    pub(super) fn push_piece(&mut self, hash: StrongHash) -> Result<(), Stopped> {
        self.flush_hole()?;
        self.pieces.iter_mut().for_each(|pieces| pieces.push(hash));
        Ok(())
    }

    pub(super) fn settled(&mut self, bytes: u64) {
        self.compared += bytes;
        self.file.done.reach(self.compared, &self.shared.context.progress.bytes_done);
    }

    /// Reads what is left of the signature, so that its credit goes back.
    pub(super) fn drain_signature(&mut self) -> Result<(), Stopped> {
        while !self.basis_ended {
            let answer = self.job.answers.recv().map_err(|_| Stopped)?;
            self.take(answer)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), Stopped> {
        self.flush_hole()?;
        end(self.shared, self.job)?;
        let check = ContentCheck::Digest(self.fold.finish(self.entry.meta.size).0);
        let read = Reading { content: &self.content, stamp: self.stamp, entry: &self.entry };
        files::end_of_file(self.shared, self.file, read, !self.failed, self.frames, check)
    }
}

pub(super) enum Own {
    Data(Bytes),
    Hole,
}
