//! What the sender asks of a basis: its segment hashes, the leaves of a segment, the blocks of a range.

use delta::{SignatureBuilder, StrongHash};
use wire::{EntryId, ToSender, WeakStrong};

use super::{patch::Delta, state::Shared};
use crate::control::Stopped;

/// Block hashes in one frame.
const BLOCKS: usize = 8192;
/// Bytes read at once for block hashes.
const PIECE: usize = 256 << 10;

impl Delta {
    /// Hashes segment `index` of the basis; `None` where it cannot be read any more.
    pub(super) fn hash_segment(
        &self,
        shared: &Shared,
        index: u64,
        buffer: &mut Vec<u8>,
    ) -> Option<StrongHash> {
        let range = self.layout.segment_range(index, self.basis_len);
        let len = (range.end - range.start) as usize;
        let hash = if len as u64 == u64::from(self.layout.segment_len())
            && self.basis.is_hole(range.clone())
        {
            shared.key.zero_segment(self.layout)
        } else {
            buffer.resize(len, 0);
            if self.basis.read_at(range.start, buffer).ok()? < len {
                return None;
            }
            shared.key.hash(buffer)
        };
        self.inner.lock().known.push(hash, range.end);
        Some(hash)
    }

    pub(super) fn answer_leaves(
        &self,
        shared: &Shared,
        id: EntryId,
        segment: u32,
    ) -> Result<(), Stopped> {
        if u64::from(segment) >= self.segments() {
            return shared.broken("leaf request past the end of a file");
        }
        let range = self.layout.segment_range(u64::from(segment), self.basis_len);
        let mut buffer = vec![0; (range.end - range.start) as usize];
        // Leaves that cannot be read are leaves that differ.
        let len = self.basis.read_at(range.start, &mut buffer).unwrap_or(0);
        let hashes = delta::leaf_hashes(&shared.key, self.layout, &buffer[..len]);
        let hashes = hashes.into_iter().map(|hash| hash.0).collect();
        shared.send(&ToSender::Leaves(id, segment, hashes))
    }

    /// Sends the blocks of `len` bytes of the basis from `from` on.
    pub(super) fn answer_blocks(
        &self,
        shared: &Shared,
        id: EntryId,
        (from, len): (u64, u64),
        block_len: u32,
    ) -> Result<(), Stopped> {
        let end = from.saturating_add(len);
        let mut builder = match SignatureBuilder::new(&shared.key, block_len) {
            Ok(builder) if end <= self.basis_len => builder,
            _ => return shared.broken("block request past the end of a file"),
        };
        let mut blocks = Vec::new();
        let mut buffer = vec![0; PIECE.min(len as usize)];
        let mut at = from;
        while at < end {
            shared.control.check()?;
            let want = ((end - at) as usize).min(PIECE);
            let got = self.basis.read_at(at, &mut buffer[..want]).unwrap_or(0);
            builder.update(&buffer[..got], &mut |block| blocks.push(block));
            if got < want {
                break;
            }
            at += got as u64;
            while blocks.len() >= BLOCKS {
                let rest = blocks.split_off(BLOCKS);
                send_blocks(shared, id, &std::mem::replace(&mut blocks, rest), false)?;
            }
        }
        builder.finish(&mut |block| blocks.push(block));
        while blocks.len() > BLOCKS {
            let rest = blocks.split_off(BLOCKS);
            send_blocks(shared, id, &std::mem::replace(&mut blocks, rest), false)?;
        }
        send_blocks(shared, id, &blocks, true)
    }
}

fn send_blocks(
    shared: &Shared,
    id: EntryId,
    blocks: &[delta::SignatureBlock],
    last: bool,
) -> Result<(), Stopped> {
    let blocks = blocks.iter().map(|b| WeakStrong { weak: b.weak, strong: b.strong.0 }).collect();
    shared.send(&ToSender::Blocks(id, blocks, last))
}
