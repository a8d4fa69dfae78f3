//! A file whose content has moved: from some point on it is built anew, out of what the basis has and
//! what it has not.
//!
//! ```text
//!   own       ───┬──────────┬────────┬───────┬──────
//!   basis      ──┼────────┬─┼──────┬─┼─────┬─┼────       shifted: own offset − basis offset
//!                segment     segment   ▲
//!                                      └ differs: look around here for blocks of the basis at any
//!                                        offset; where they are found the shift is another one
//! ```
//!
//! As long as nothing changes but the shift, own content is compared with the segment hashes that came
//! for the aligned pass, so that it runs at hash speed and costs the receiver nothing. Blocks are
//! asked for only around the places where it does not.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use delta::{Matcher, Op, RangeFold, SearchIndex};
use wire::ToReceiver;

use super::{
    delta::{Comparison, Own},
    files::PIECE,
};
use crate::control::Stopped;

/// How far before and behind the expected place content is looked for, in bytes, and the length of the
/// blocks that are compared there: at first near and fine, then farther and coarser. What was inserted
/// or cut out leaves nothing to be found before that place, so most of the time one looks ahead.
const REACHES: [(u64, u64, u32); 2] = [(0, 256 << 10, 2 << 10), (8 << 20, 8 << 20, 8 << 10)];
/// Longest copy in one message, in bytes, so that a long one is under way before it ends.
const MAX_COPY: u64 = 4 << 20;
/// Places where a shift changes before the rest of the file is searched in one go: each costs a round
/// trip.
const MAX_PLACES: u32 = 128;
/// Content that is sent without looking for it after a place where nothing was found: at first, and at
/// most.
const MIN_LOST: u64 = 1 << 20;
const MAX_LOST: u64 = 64 << 20;
/// A hole that is not searched for content of the basis.
const LONG_HOLE: u64 = 1 << 20;

/// Where content of the file stands in the basis.
pub(super) struct Found {
    /// Ranges of the file that are in the basis, ascending: start, offset in the basis, length.
    copies: Vec<(u64, u64, u64)>,
    /// Up to where that decides the file; a segment of the basis ends at the same place.
    until: u64,
    /// Own offset minus basis offset from there on.
    pub(super) shift: i64,
}

/// The part of a file that is built anew.
struct Rebuild<'a, 'b> {
    comparison: &'b mut Comparison<'a>,
    /// Nothing of the basis before this is looked at: it was patched.
    keep: u64,
    at: u64,
    shift: i64,
    /// A copy that may still grow: start, offset in the basis, length.
    copy: (u64, u64, u64),
    places: u32,
    /// After a place where nothing was found: how much is sent next time, and up to where.
    lost: (u64, u64),
}

impl<'a> Comparison<'a> {
    /// Looks for own content from `at` on in the basis around where `shift` leads.
    pub(super) fn look_around(
        &mut self,
        keep: u64,
        at: u64,
        shift: i64,
    ) -> Result<Option<Found>, Stopped> {
        for (before, behind, block_len) in REACHES {
            let Some(around) = at.checked_add_signed(-shift) else { return Ok(None) };
            let segment = u64::from(self.layout.segment_len());
            let start = (around.saturating_sub(before).max(keep) / segment) * segment;
            let end = around.saturating_add(behind).next_multiple_of(segment);
            let basis = start..end.min(self.job.basis_len);
            let own = at..at.saturating_add(behind).min(self.entry.meta.size);
            if basis.is_empty() || own.is_empty() {
                return Ok(None);
            }
            let Some(index) = self.index_of(basis, block_len)? else { return Ok(None) };
            let found = self.find(&index, own)?;
            if found.is_some() || self.failed {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn find(&mut self, index: &SearchIndex, own: Range<u64>) -> Result<Option<Found>, Stopped> {
        let mut copies = Vec::new();
        let mut next = own.start;
        let mut sink = |op: Op<'_>| match op {
            Op::Copy { offset, len } => {
                copies.push((next, offset, len));
                next += len;
            }
            Op::Literal(bytes) => next += bytes.len() as u64,
        };
        self.find_in(index, own, &mut sink)?;
        // The last place where the end of a segment of the basis was found.
        let segment = u64::from(self.layout.segment_len());
        let basis_len = self.job.basis_len;
        let boundary = |&(at, from, len): &(u64, u64, u64)| {
            let end = from + len;
            let boundary = if end == basis_len { end } else { end / segment * segment };
            (boundary > from).then(|| (at + (boundary - from), boundary))
        };
        let last = copies.iter().enumerate().rev().find_map(|(n, copy)| Some((n, boundary(copy)?)));
        Ok(last.map(|(n, (until, boundary))| {
            copies.truncate(n + 1);
            Found { copies, until, shift: until.wrapping_sub(boundary) as i64 }
        }))
    }

    /// Builds the file anew from `keep` on, where `found` is what its content begins with; without
    /// that, `index` is that of the rest of the basis.
    pub(super) fn rebuild(
        &mut self,
        keep: u64,
        found: Option<Found>,
        index: Option<SearchIndex>,
    ) -> Result<(), Stopped> {
        self.flush_hole()?;
        self.frames += 1;
        let id = self.file.id;
        self.shared.send_charged(id.0, ToReceiver::Rebuild(id, keep).encode())?;
        self.pieces = Some(RangeFold::new(&self.shared.key));
        let mut rebuild = Rebuild {
            comparison: self,
            keep,
            at: keep,
            shift: 0,
            copy: (0, 0, 0),
            places: 0,
            lost: (MIN_LOST, 0),
        };
        if let Some(found) = found {
            rebuild.take(&found)?;
            rebuild.follow()?;
        }
        if let Some(index) = index {
            rebuild.search_rest(&index)?;
        }
        rebuild.flush_copy()?;
        self.flush_hole()?;
        self.drain_signature()?;
        let pieces = self.pieces.take().map(RangeFold::finish);
        pieces.into_iter().for_each(|hash| self.fold.push(hash));
        Ok(())
    }
}

impl Rebuild<'_, '_> {
    /// Follows the shift through the file, and its changes.
    fn follow(&mut self) -> Result<(), Stopped> {
        let size = self.comparison.entry.meta.size;
        while self.at < size && !self.comparison.failed {
            self.comparison.shared.control.check()?;
            if self.step()? {
                continue;
            }
            if self.at < self.lost.1 {
                // Nothing was found here a moment ago.
                self.literal(u64::from(self.comparison.layout.segment_len()))?;
                continue;
            }
            self.places += 1;
            if self.places > MAX_PLACES {
                let from = self.at.saturating_add_signed(-self.shift).saturating_sub(MIN_LOST);
                let segment = u64::from(self.comparison.layout.segment_len());
                let from = (from / segment * segment).max(self.keep);
                return match self.comparison.index_of_rest(from)? {
                    Some(index) => self.search_rest(&index),
                    None => self.literal(size),
                };
            }
            match self.comparison.look_around(self.keep, self.at, self.shift)? {
                Some(found) => {
                    self.take(&found)?;
                    self.lost = (MIN_LOST, 0);
                }
                None => {
                    let (step, _) = self.lost;
                    self.lost = ((step * 2).min(MAX_LOST), self.at.saturating_add(step));
                }
            }
        }
        Ok(())
    }

    /// Compares one segment of the basis with own content where the shift says. True where they are
    /// equal, or the basis is at its end and the rest was sent.
    fn step(&mut self) -> Result<bool, Stopped> {
        let comparison = &mut *self.comparison;
        let basis_len = comparison.job.basis_len;
        let size = comparison.entry.meta.size;
        let Some(from) = self.at.checked_add_signed(-self.shift) else { return Ok(false) };
        if from >= basis_len {
            self.literal(size)?;
            return Ok(true);
        }
        let index = comparison.layout.segment_at(from);
        let segment = comparison.layout.segment_range(index, basis_len);
        let len = segment.end - segment.start;
        if segment.start != from || self.at + len > size {
            return Ok(false);
        }
        let Some(basis) = comparison.basis_hash(index)? else { return Ok(false) };
        let own = comparison.read(self.at..self.at + len)?;
        let Some(hash) = comparison.hash(&own, len) else { return Ok(false) };
        if hash.0 != basis {
            return Ok(false);
        }
        comparison.push_piece(hash)?;
        self.grow_copy(from, len)?;
        Ok(true)
    }

    /// Sends what was found: copies, and what lies between them.
    fn take(&mut self, found: &Found) -> Result<(), Stopped> {
        for &(start, from, len) in &found.copies {
            if start > self.at {
                self.literal(start - self.at)?;
            }
            let end = (start + len).min(found.until);
            self.copy_blocks(from, end - start)?;
        }
        self.shift = found.shift;
        Ok(())
    }

    /// Copies a range that was found by its blocks. The receiver hashes it as one piece, unless it
    /// is made of whole segments, whose hashes it has.
    fn copy_blocks(&mut self, mut from: u64, mut len: u64) -> Result<(), Stopped> {
        let layout = self.comparison.layout;
        let basis_len = self.comparison.job.basis_len;
        while len > 0 && !self.comparison.failed {
            let range = layout.segment_range(layout.segment_at(from), basis_len);
            // Up to the end of a segment: then what follows may be copied in whole ones.
            let step = (range.end - from).min(len).min(PIECE as u64);
            let own = self.comparison.read(self.at..self.at + step)?;
            let Some(hash) = self.comparison.hash(&own, step) else { break };
            self.comparison.push_piece(hash)?;
            if layout.is_of_segments(from, step, basis_len) {
                self.grow_copy(from, step)?;
            } else {
                self.flush_copy()?;
                self.grow_copy(from, step)?;
                self.flush_copy()?;
            }
            (from, len) = (from + step, len - step);
        }
        Ok(())
    }

    fn grow_copy(&mut self, from: u64, len: u64) -> Result<(), Stopped> {
        let (_, start, grown) = self.copy;
        if from != start + grown || grown + len > MAX_COPY {
            self.flush_copy()?;
        }
        if self.copy.2 == 0 {
            self.copy = (self.at, from, 0);
        }
        self.copy.2 += len;
        self.at += len;
        Ok(())
    }

    fn flush_copy(&mut self) -> Result<(), Stopped> {
        let (at, from, len) = std::mem::take(&mut self.copy);
        if len == 0 {
            return Ok(());
        }
        let comparison = &mut *self.comparison;
        comparison.settled(len);
        comparison.frames += 1;
        let id = comparison.file.id;
        comparison.shared.send_charged(id.0, ToReceiver::Copy(id, at, from, len).encode())
    }

    /// Sends `len` bytes of own content, or what there is.
    fn literal(&mut self, len: u64) -> Result<(), Stopped> {
        self.flush_copy()?;
        let comparison = &mut *self.comparison;
        let end = self.at.saturating_add(len).min(comparison.entry.meta.size);
        while self.at < end && !comparison.failed {
            comparison.shared.control.check()?;
            let hole = comparison.content.hole_end(self.at, end).unwrap_or(0);
            let stop = (self.at + PIECE as u64).max(hole).min(end);
            match comparison.read(self.at..stop)? {
                Own::Data(bytes) => comparison.send_patch(self.at, bytes)?,
                Own::Hole => comparison.send_hole(self.at..stop)?,
            }
            self.at = stop;
        }
        Ok(())
    }

    /// Searches the rest of the file for what `index` has, at every offset.
    fn search_rest(&mut self, index: &SearchIndex) -> Result<(), Stopped> {
        self.flush_copy()?;
        let size = self.comparison.entry.meta.size;
        let shared = Arc::clone(self.comparison.shared);
        let mut matcher = Matcher::new(index, &shared.key);
        let mut found = Vec::new();
        let mut at = self.at;
        while at < size && !self.comparison.failed {
            shared.control.check()?;
            let hole = self.comparison.content.hole_end(at, size).unwrap_or(at);
            if hole - at >= LONG_HOLE {
                // Not searched, or it would take as long as if it were data.
                let rest = std::mem::replace(&mut matcher, Matcher::new(index, &shared.key));
                rest.finish(&mut |op| found.push(Piece::of(op)));
                self.send_found(&mut found)?;
                self.literal(hole - at)?;
                at = hole;
                continue;
            }
            let stop = (at + PIECE as u64).min(size);
            match self.comparison.read(at..stop)? {
                Own::Data(bytes) => matcher.push(&bytes, &mut |op| found.push(Piece::of(op))),
                Own::Hole => {
                    let zeros = vec![0; (stop - at) as usize];
                    matcher.push(&zeros, &mut |op| found.push(Piece::of(op)));
                }
            }
            self.send_found(&mut found)?;
            at = stop;
        }
        matcher.finish(&mut |op| found.push(Piece::of(op)));
        self.send_found(&mut found)
    }

    fn send_found(&mut self, found: &mut Vec<Piece>) -> Result<(), Stopped> {
        for piece in found.drain(..) {
            match piece {
                Piece::Literal(bytes) => {
                    self.flush_copy()?;
                    let at = self.at;
                    self.at += bytes.len() as u64;
                    self.comparison.send_patch(at, bytes)?;
                }
                Piece::Copy(from, len) => self.copy_blocks(from, len)?,
            }
        }
        Ok(())
    }
}

/// What a search finds, in the order of the file.
enum Piece {
    Literal(Bytes),
    Copy(u64, u64),
}

impl Piece {
    fn of(op: Op<'_>) -> Self {
        match op {
            Op::Copy { offset, len } => Self::Copy(offset, len),
            Op::Literal(bytes) => Self::Literal(Bytes::copy_from_slice(bytes)),
        }
    }
}
