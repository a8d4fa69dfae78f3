//! The signature of a basis: weak and strong hash of each of its blocks.
//!
//! All blocks have the same power-of-two length but the last, which may be short. Blocks are for
//! searching and have nothing to do with segments.

use crate::hash::{HashKey, StrongHash};
use crate::rolling::Rolling;
use crate::{Error, MAX_BLOCKS, Result};

/// The shortest block.
pub const MIN_BLOCK_LEN: u32 = 64;
/// The longest block. [`block_len_for`] gives more than 64 KiB only past 64 GiB. A matcher holds up
/// to three blocks, so who indexes the signature of a peer should insist on that length.
pub const MAX_BLOCK_LEN: u32 = 16 << 20;

/// The two hashes of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignatureBlock {
    /// The rolling checksum, [`Rolling::value`].
    pub weak: u32,
    /// The hash that decides.
    pub strong: StrongHash,
}

/// A signature and the block length that it was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Bytes of every block but the last.
    pub block_len: u32,
    /// One entry for each block, in order.
    pub blocks: Vec<SignatureBlock>,
}

/// Makes a signature from a stream of bytes, cut anyhow.
#[derive(Debug, Clone)]
pub struct SignatureBuilder {
    key: HashKey,
    block_len: usize,
    partial: Vec<u8>,
}

/// The block length for a basis of `basis_len` bytes: `b = √(h · N / E)` rounded to a power of two
/// and kept within 1 KiB and 64 KiB.
///
/// A signature costs `h = 20` bytes for each of its `N / b` blocks, and each of `E` edits costs
/// about one block of literal data; the sum is least at this `b`. `E` is taken as 4, low on purpose:
/// BLAKE3 reaches its full speed at 16 KiB. Past 64 GiB the length doubles with the basis, so
/// that an index has at most [`MAX_BLOCKS`] blocks (up to 16 TiB, where [`MAX_BLOCK_LEN`] ends it).
pub fn block_len_for(basis_len: u64) -> u32 {
    let best = (basis_len / 4).saturating_mul(20).isqrt().clamp(1 << 10, 64 << 10);
    // √2 either way of a power of two.
    let mut log2 = best.saturating_mul(best).ilog2().div_ceil(2).clamp(10, 16);
    while basis_len.div_ceil(1 << log2) > MAX_BLOCKS && log2 < MAX_BLOCK_LEN.ilog2() {
        log2 += 1;
    }
    1 << log2
}

impl SignatureBlock {
    /// The hashes of one block.
    pub fn of(key: &HashKey, block: &[u8]) -> Self {
        // The strong hash first: it hides the wait for memory behind its work, and leaves the
        // block in the cache for the weak one, which would not.
        let strong = key.hash(block);
        Self { weak: Rolling::new(block).value(), strong }
    }
}

impl Signature {
    /// The signature of content that is at hand as a whole.
    ///
    /// # Errors
    /// [`Error::BlockLen`] for a block length that is no power of two or out of bounds.
    pub fn compute(key: &HashKey, block_len: u32, basis: &[u8]) -> Result<Self> {
        check_block_len(block_len)?;
        let blocks = basis.chunks(block_len as usize).map(|b| SignatureBlock::of(key, b)).collect();
        Ok(Self { block_len, blocks })
    }
}

impl SignatureBuilder {
    /// An empty basis.
    ///
    /// # Errors
    /// As [`Signature::compute`].
    pub fn new(key: &HashKey, block_len: u32) -> Result<Self> {
        check_block_len(block_len)?;
        Ok(Self { key: key.clone(), block_len: block_len as usize, partial: Vec::new() })
    }

    /// Takes the next bytes and gives each block that they complete.
    pub fn update(&mut self, mut bytes: &[u8], on_block: &mut impl FnMut(SignatureBlock)) {
        if !self.partial.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(self.block_len - self.partial.len()));
            self.partial.extend_from_slice(head);
            bytes = rest;
            if self.partial.len() < self.block_len {
                return;
            }
            on_block(SignatureBlock::of(&self.key, &self.partial));
            self.partial.clear();
        }
        let mut blocks = bytes.chunks_exact(self.block_len);
        for block in &mut blocks {
            on_block(SignatureBlock::of(&self.key, block));
        }
        self.partial.extend_from_slice(blocks.remainder());
    }

    /// Gives the short last block, if there is one.
    pub fn finish(self, on_block: &mut impl FnMut(SignatureBlock)) {
        if !self.partial.is_empty() {
            on_block(SignatureBlock::of(&self.key, &self.partial));
        }
    }
}

pub(crate) fn check_block_len(block_len: u32) -> Result<()> {
    if block_len.is_power_of_two() && (MIN_BLOCK_LEN..=MAX_BLOCK_LEN).contains(&block_len) {
        Ok(())
    } else {
        Err(Error::BlockLen(block_len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn block_length_grows_with_the_basis_and_stays_in_bounds() {
        assert_eq!(block_len_for(0), 1 << 10);
        assert_eq!(block_len_for(1 << 20), 2 << 10);
        assert_eq!(block_len_for(64 << 20), 16 << 10);
        assert_eq!(block_len_for(4 << 30), 64 << 10);
        assert_eq!(block_len_for(64 << 30), 64 << 10);
        assert_eq!(block_len_for(65 << 30), 128 << 10);
        assert_eq!(block_len_for(u64::MAX), MAX_BLOCK_LEN);
        for log2 in 0..63 {
            let len = 1u64 << log2;
            let block = block_len_for(len);
            assert!(check_block_len(block).is_ok());
            assert!(block <= block_len_for(len * 2 - 1));
            assert!(log2 > 44 || len.div_ceil(u64::from(block)) <= MAX_BLOCKS);
        }
    }

    #[test]
    fn bad_block_lengths_are_refused() {
        let key = HashKey::new([0; 32]);
        for bad in [0, 1, 63, 65, 1000, MAX_BLOCK_LEN + 1, 32 << 20, u32::MAX] {
            assert_eq!(Signature::compute(&key, bad, b"x"), Err(Error::BlockLen(bad)));
            assert!(SignatureBuilder::new(&key, bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn streamed_is_computed(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            log2 in 6u32..10,
        ) {
            let key = HashKey::new([1; 32]);
            let mut streamed = Vec::new();
            let mut builder = SignatureBuilder::new(&key, 1 << log2).unwrap();
            for piece in &pieces {
                builder.update(piece, &mut |block| streamed.push(block));
            }
            builder.finish(&mut |block| streamed.push(block));
            let whole = Signature::compute(&key, 1 << log2, &pieces.concat()).unwrap();
            prop_assert_eq!(streamed, whole.blocks);
        }
    }
}
