//! Whether content has moved, and whereto: first near where it was, then, where the length of the file
//! changed, in all of the basis.

use std::{ops::Range, sync::Arc};

use delta::{Matcher, Op, SearchIndex, SignatureBlock, StrongHash};
use wire::ToReceiver;

use super::{
    delta::{Comparison, Own},
    files,
    state::{Answer, Round},
};
use crate::{Error, control::Stopped};

/// Content that a search of all of the basis must find something in before the file is built anew.
const PROBE: u64 = 8 << 20;
/// Content after a search in vain before the next, at first; then twice as much each time.
const AGAIN: u64 = 32 << 20;

impl Comparison<'_> {
    /// Looks in the rest of the basis for the content from `from` on. True where that settled the
    /// file; false where nothing was found, or all in its place, and the aligned pass should go on.
    /// It asks again when it fails for long, but less and less often.
    pub(super) fn search(&mut self, from: u64) -> Result<bool, Stopped> {
        let (size, basis_len) = (self.entry.meta.size, self.job.basis_len);
        let device = self.content.is_device();
        if device || from < self.search_from || from >= basis_len.min(size) {
            return Ok(false);
        }
        self.search_from = from.saturating_add(AGAIN << self.searches.min(32));
        self.searches += 1;
        // Everything before `from` must be patched before the receiver builds on it.
        self.take_leaves_until(0)?;
        let grown = size.wrapping_sub(basis_len) as i64;
        let mut found = self.look_around(from, from, 0)?;
        if found.is_none() && grown != 0 {
            // One insertion or one cut leaves the end where it was, seen from the end.
            found = self.look_around(from, from, grown)?;
        }
        if found.as_ref().is_some_and(|found| found.shift == 0) {
            // Many pages were rewritten, and nothing has moved.
            return Ok(false);
        }
        if found.is_some() {
            self.rebuild(from, found, None)?;
            return Ok(true);
        }
        if grown == 0 || self.searches > 1 || self.failed {
            return Ok(false);
        }
        let Some(index) = self.index_of_rest(from)? else { return Ok(false) };
        if !self.probe(&index, from)? {
            return Ok(false);
        }
        self.rebuild(from, None, Some(index))?;
        Ok(true)
    }

    /// The index of all of the basis from `from` on; `None` where it would be too large.
    pub(super) fn index_of_rest(&mut self, from: u64) -> Result<Option<SearchIndex>, Stopped> {
        let basis = from.min(self.job.basis_len)..self.job.basis_len;
        let mut block_len = delta::block_len_for(basis.end - basis.start);
        while (basis.end - basis.start).div_ceil(u64::from(block_len)) > delta::MAX_BLOCKS {
            block_len *= 2;
            if !wire::limits::BLOCK_LEN.contains(&block_len) {
                return Ok(None);
            }
        }
        self.index_of(basis, block_len)
    }

    /// Asks for the blocks of a range of the basis; `None` where it is empty.
    pub(super) fn index_of(
        &mut self,
        basis: Range<u64>,
        block_len: u32,
    ) -> Result<Option<SearchIndex>, Stopped> {
        if basis.is_empty() {
            return Ok(None);
        }
        self.shared.round(Round::Blocks);
        let len = basis.end - basis.start;
        let request = ToReceiver::BlockRequest(self.file.id, basis.start, len, block_len);
        self.shared.send_charged(self.file.id.0, request.encode())?;
        let blocks = self.receive_blocks(&basis, block_len)?;
        match SearchIndex::build(blocks, block_len, basis) {
            Ok(index) => Ok(Some(index)),
            // Not all of the basis can be read there: that is no place to look.
            Err(delta::Error::BlockCount { got, expected }) if got < expected => Ok(None),
            Err(error) => {
                self.shared.control.fail(Error::Delta(error));
                Err(Stopped)
            }
        }
    }

    fn receive_blocks(
        &mut self,
        basis: &Range<u64>,
        block_len: u32,
    ) -> Result<Vec<SignatureBlock>, Stopped> {
        let expected = (basis.end - basis.start).div_ceil(u64::from(block_len));
        let mut blocks = Vec::new();
        loop {
            match self.job.answers.recv().map_err(|_| Stopped)? {
                Answer::Blocks(more, last, cost) => {
                    self.shared.discharge(cost);
                    blocks.extend(
                        more.iter()
                            .map(|b| SignatureBlock { weak: b.weak, strong: StrongHash(b.strong) }),
                    );
                    if blocks.len() as u64 > expected {
                        return self.broken("more blocks than the basis holds");
                    }
                    if last {
                        return Ok(blocks);
                    }
                }
                other => self.take(other)?,
            }
        }
    }

    fn probe(&mut self, index: &SearchIndex, from: u64) -> Result<bool, Stopped> {
        let mut found = false;
        let end = (from + PROBE).min(self.entry.meta.size);
        self.find_in(index, from..end, &mut |op| found |= matches!(op, Op::Copy { .. }))?;
        Ok(found)
    }

    /// Searches `own` content for what `index` has.
    pub(super) fn find_in(
        &mut self,
        index: &SearchIndex,
        own: Range<u64>,
        sink: &mut impl FnMut(Op<'_>),
    ) -> Result<(), Stopped> {
        let shared = Arc::clone(self.shared);
        let mut matcher = Matcher::new(index, &shared.key);
        let mut at = own.start;
        while at < own.end && !self.failed {
            let stop = (at + files::PIECE as u64).min(own.end);
            match self.read(at..stop)? {
                Own::Data(bytes) => matcher.push(&bytes, sink),
                Own::Hole => matcher.push(&vec![0; (stop - at) as usize], sink),
            }
            at = stop;
        }
        matcher.finish(sink);
        Ok(())
    }
}
