//! Looking for moved content: the rest of the basis at every offset, and the file built anew from what
//! was found.

use std::sync::Arc;

use bytes::Bytes;
use delta::{Matcher, Op, SearchIndex, SignatureBlock, StrongHash};
use wire::ToReceiver;

use super::{
    delta::{Comparison, Own},
    files,
    state::{Answer, Round},
};
use crate::{Error, control::Stopped};

/// Content that a search must find something in before the file is built anew.
const PROBE: u64 = 8 << 20;

impl Comparison<'_> {
    /// Searches the rest of the basis for the content from `from` on. True where that settled the
    /// file; false where a probe found nothing, and the aligned pass should go on. A file is
    /// searched once.
    pub(super) fn search(&mut self, from: u64) -> Result<bool, Stopped> {
        let basis = from.min(self.job.basis_len)..self.job.basis_len;
        if self.requested || basis.is_empty() || from >= self.entry.meta.size {
            return Ok(false);
        }
        self.requested = true;
        // Everything before `from` must be patched before the receiver builds on it.
        self.take_leaves_until(0)?;
        self.shared.round(Round::Blocks);
        let mut block_len = delta::block_len_for(basis.end - basis.start);
        while (basis.end - basis.start).div_ceil(u64::from(block_len)) > delta::MAX_BLOCKS {
            block_len *= 2;
            if !wire::limits::BLOCK_LEN.contains(&block_len) {
                return Ok(false);
            }
        }
        let request = ToReceiver::BlockRequest(self.file.id, basis.start, block_len);
        self.shared.send_charged(self.file.id.0, request.encode())?;
        let blocks = self.receive_blocks(&basis, block_len)?;
        let index = match SearchIndex::build(blocks, block_len, basis) {
            Ok(index) => index,
            Err(error) => {
                self.shared.control.fail(Error::Delta(error));
                return Err(Stopped);
            }
        };
        if !self.probe(&index, from)? {
            return Ok(false);
        }
        self.rebuild(&index, from)?;
        Ok(true)
    }

    fn receive_blocks(
        &mut self,
        basis: &std::ops::Range<u64>,
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
                other => self.buffer_or_take(other)?,
            }
        }
    }

    fn probe(&mut self, index: &SearchIndex, from: u64) -> Result<bool, Stopped> {
        let mut found = false;
        let shared = Arc::clone(self.shared);
        let mut matcher = Matcher::new(index, &shared.key);
        let mut sink = |op: Op<'_>| found |= matches!(op, Op::Copy { .. });
        let end = (from + PROBE).min(self.entry.meta.size);
        let mut at = from;
        while at < end && !self.failed {
            let stop = (at + files::PIECE as u64).min(end);
            match self.read(at..stop)? {
                Own::Data(bytes) => matcher.push(&bytes, &mut sink),
                Own::Hole => matcher.push(&vec![0; (stop - at) as usize], &mut sink),
            }
            at = stop;
        }
        matcher.finish(&mut sink);
        Ok(found)
    }

    /// The file is built anew from `from` on: copies from the basis, and what is in none.
    fn rebuild(&mut self, index: &SearchIndex, from: u64) -> Result<(), Stopped> {
        self.drain_signature()?;
        self.frames += 1;
        let id = self.file.id;
        let lane = id.0;
        let message = ToReceiver::Rebuild(id, from);
        self.shared.send_charged(lane, message.encode())?;
        let size = self.entry.meta.size;
        let shared = Arc::clone(self.shared);
        let mut matcher = Matcher::new(index, &shared.key);
        let mut output = Rebuilt { at: from, messages: Vec::new() };
        let segment_len = u64::from(self.layout.segment_len());
        let mut at = from;
        while at < size && !self.failed {
            self.shared.control.check()?;
            // Whole segments, so that each read feeds the digest of the file as well.
            let stop = (at + segment_len).min(size);
            let own = self.read(at..stop)?;
            if let Some(hash) = self.hash(&own, stop - at) {
                self.fold.push(hash);
            }
            match own {
                Own::Data(bytes) => matcher.push(&bytes, &mut |op| output.take(op)),
                Own::Hole => {
                    matcher.push(&vec![0; (stop - at) as usize], &mut |op| output.take(op));
                }
            }
            self.send_rebuilt(&mut output)?;
            at = stop;
        }
        matcher.finish(&mut |op| output.take(op));
        self.send_rebuilt(&mut output)
    }

    fn send_rebuilt(&mut self, output: &mut Rebuilt) -> Result<(), Stopped> {
        for (at, piece) in output.messages.drain(..) {
            match piece {
                Piece::Literal(bytes) if delta::is_zero(&bytes) => {
                    let end = at + bytes.len() as u64;
                    self.send_hole(at..end)?;
                }
                Piece::Literal(bytes) => self.send_patch(at, bytes)?,
                Piece::Copy(from, len) => {
                    self.count_matched(len);
                    self.frames += 1;
                    let message = ToReceiver::Copy(self.file.id, at, from, len);
                    self.shared.send_charged(self.file.id.0, message.encode())?;
                }
            }
        }
        Ok(())
    }
}

/// What a search finds, in the order of the new file.
struct Rebuilt {
    at: u64,
    messages: Vec<(u64, Piece)>,
}

enum Piece {
    Literal(Bytes),
    Copy(u64, u64),
}

impl Rebuilt {
    fn take(&mut self, op: Op<'_>) {
        let (piece, len) = match op {
            Op::Copy { offset, len } => (Piece::Copy(offset, len), len),
            Op::Literal(bytes) => {
                (Piece::Literal(Bytes::copy_from_slice(bytes)), bytes.len() as u64)
            }
        };
        self.messages.push((self.at, piece));
        self.at += len;
    }
}
