//! The sender's index of a basis signature: which block, if any, could start at this offset.
//!
//! A lookup has three stages, each far rarer and dearer than the one before:
//!
//! 1. the *filter*, a bitmap that stays in the cache, one load for each offset;
//! 2. the *directory*, which narrows the sorted weak values down to those with the same top bits;
//! 3. the strong hash of the window, compared with at most [`MAX_PROBES`] blocks.
//!
//! The signature comes from a peer. Blocks with the same content are collapsed to their first
//! occurrence, and of blocks that only share the weak value [`MAX_PROBES`] are kept, so neither a
//! basis of zeros nor a prepared signature makes building or looking up more than `n log n`.

use std::ops::Range;

use crate::hash::StrongHash;
use crate::rolling::Rolling;
use crate::signature::{SignatureBlock, check_block_len};
use crate::{Error, Result};

/// The most blocks that an index takes.
pub const MAX_BLOCKS: u64 = 1 << 20;

/// Different blocks of one weak value that a lookup may compare.
const MAX_PROBES: usize = 8;

/// An index of the blocks of a basis, or of a part of it.
#[derive(Debug, Clone)]
pub struct SearchIndex {
    blocks: Vec<SignatureBlock>,
    block_len: u32,
    basis: Range<u64>,
    filter: Filter,
    /// Full blocks without duplicates, ordered by weak value, then by position.
    sorted: Vec<Entry>,
    /// Entry `t` is where weak values with top bits `t` start in `sorted`.
    directory: Vec<u32>,
    directory_shift: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    weak: u32,
    block: u32,
}

impl SearchIndex {
    /// An index of `blocks`, which cover the bytes `basis` of the basis file in blocks of
    /// `block_len`; the last one may be short. Copies are given in offsets of the basis file.
    ///
    /// # Errors
    /// [`Error::BlockLen`], [`Error::BasisRange`], [`Error::BlockCount`] and
    /// [`Error::TooManyBlocks`] where the numbers are out of bounds or do not fit together.
    pub fn build(blocks: Vec<SignatureBlock>, block_len: u32, basis: Range<u64>) -> Result<Self> {
        check_block_len(block_len)?;
        let covered = basis.end.checked_sub(basis.start);
        let covered = covered.ok_or_else(|| Error::BasisRange(basis.clone()))?;
        let (got, expected) = (blocks.len() as u64, covered.div_ceil(u64::from(block_len)));
        if got != expected {
            return Err(Error::BlockCount { got, expected });
        }
        if got > MAX_BLOCKS {
            return Err(Error::TooManyBlocks(got));
        }

        let full = (covered / u64::from(block_len)) as usize;
        let sorted = sort_and_collapse(&blocks, full);
        let filter = Filter::new(&sorted);
        let (directory, directory_shift) = directory_of(&sorted);
        Ok(Self { blocks, block_len, basis, filter, sorted, directory, directory_shift })
    }

    /// The bytes of every block but the last.
    pub fn block_len(&self) -> u32 {
        self.block_len
    }

    /// The number of blocks, duplicates included.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// The full blocks whose weak value is `weak`, at most [`MAX_PROBES`], all of different content.
    pub(crate) fn candidates(&self, weak: u32) -> impl Iterator<Item = (usize, StrongHash)> + '_ {
        let top = (u64::from(weak) >> self.directory_shift) as usize;
        let group = &self.sorted[self.directory[top] as usize..self.directory[top + 1] as usize];
        let first = group.partition_point(|entry| entry.weak < weak);
        let same = group[first..].iter().take_while(move |entry| entry.weak == weak);
        same.map(|entry| (entry.block as usize, self.blocks[entry.block as usize].strong))
    }

    /// Rolls on, `out` leaving and `into` joining the window, until a block has the weak value of
    /// the window; gives the number of steps, or `None` when the input ends without one.
    pub(crate) fn roll(&self, rolling: &mut Rolling, out: &[u8], into: &[u8]) -> Option<usize> {
        let mut steps = 0;
        loop {
            let (out, into) = (&out[steps..], &into[steps..]);
            steps += match &self.filter {
                Filter::Small(bits) => bits.roll(rolling, out, into),
                Filter::Medium(bits) => bits.roll(rolling, out, into),
                Filter::Large(bits) => bits.roll(rolling, out, into),
            }?;
            if self.candidates(rolling.value()).next().is_some() {
                return Some(steps);
            }
        }
    }

    /// The strong hash and the length of block `block`, if there is one.
    pub(crate) fn block(&self, block: usize) -> Option<(StrongHash, usize)> {
        let strong = self.blocks.get(block)?.strong;
        let rest = self.basis.end - self.block_offset(block);
        Some((strong, rest.min(u64::from(self.block_len)) as usize))
    }

    /// Where block `block` starts in the basis file.
    pub(crate) fn block_offset(&self, block: usize) -> u64 {
        self.basis.start + block as u64 * u64::from(self.block_len)
    }

    /// The block that starts at `offset` of the basis file, if one does.
    pub(crate) fn block_at(&self, offset: u64) -> Option<usize> {
        let into = offset.checked_sub(self.basis.start)?;
        let block = into / u64::from(self.block_len);
        (into.is_multiple_of(u64::from(self.block_len)) && block < self.blocks.len() as u64)
            .then_some(block as usize)
    }

    /// The last block, if it is shorter than the others.
    pub(crate) fn short_block(&self) -> Option<usize> {
        let last = self.blocks.len().checked_sub(1)?;
        self.block(last).filter(|&(_, len)| len < self.block_len as usize).map(|_| last)
    }

    /// Where the covered part of the basis starts.
    pub(crate) fn basis_start(&self) -> u64 {
        self.basis.start
    }
}

fn sort_and_collapse(blocks: &[SignatureBlock], full: usize) -> Vec<Entry> {
    let entry = |(block, hashes): (usize, &SignatureBlock)| Entry {
        weak: hashes.weak,
        block: block as u32,
    };
    let mut sorted: Vec<Entry> = blocks[..full].iter().enumerate().map(entry).collect();
    sorted.sort_unstable();

    // `group` is where the kept entries of the current weak value start.
    let (mut kept, mut group) = (0, 0);
    for at in 0..sorted.len() {
        let entry = sorted[at];
        if kept > group && sorted[group].weak != entry.weak {
            group = kept;
        }
        let strong = |entry: &Entry| blocks[entry.block as usize].strong;
        let known = &sorted[group..kept];
        let duplicate = known.iter().any(|other| strong(other) == strong(&entry));
        if known.len() < MAX_PROBES && !duplicate {
            sorted[kept] = entry;
            kept += 1;
        }
    }
    sorted.truncate(kept);
    sorted.shrink_to_fit();
    sorted
}

/// About one entry in each slot of the directory; the last slot is the end of the last group.
fn directory_of(sorted: &[Entry]) -> (Vec<u32>, u32) {
    let bits = sorted.len().max(1).next_power_of_two().ilog2();
    let shift = 32 - bits;
    let mut directory = vec![0u32; (1 << bits) + 1];
    for entry in sorted {
        directory[(u64::from(entry.weak) >> shift) as usize + 1] += 1;
    }
    let mut start = 0;
    for slot in &mut directory {
        start += *slot;
        *slot = start;
    }
    (directory, shift)
}

/// One bit for each weak value modulo the filter's size. A clear bit proves that no block has the
/// value. Fixed sizes let the compiler drop the bounds check of a load that happens at every byte.
///
/// A false hit costs some 40 ns, so a filter that is a little slower but sparse wins: with 65,536
/// blocks, 512 KiB took 2.7 ns for each byte of new content, 64 KiB took 6.9.
#[derive(Debug, Clone)]
enum Filter {
    /// 16 KiB, next to the data in the first-level cache, for up to 1024 blocks.
    Small(Box<Bits<4096>>),
    /// 64 KiB, for up to 4096 blocks.
    Medium(Box<Bits<16384>>),
    /// 512 KiB, half of a second-level cache, for more.
    Large(Box<Bits<131072>>),
}

#[derive(Debug, Clone)]
struct Bits<const WORDS: usize>([u32; WORDS]);

impl Filter {
    fn new(entries: &[Entry]) -> Self {
        if entries.len() <= 1024 {
            Self::Small(Bits::new(entries))
        } else if entries.len() <= 4096 {
            Self::Medium(Bits::new(entries))
        } else {
            Self::Large(Bits::new(entries))
        }
    }
}

impl<const WORDS: usize> Bits<WORDS> {
    fn new(entries: &[Entry]) -> Box<Self> {
        let mut bits = Box::new(Self([0; WORDS]));
        for entry in entries {
            bits.0[Self::word(entry.weak)] |= 1 << (entry.weak & 31);
        }
        bits
    }

    /// Rolls on until a block may have the weak value of the window; gives the number of steps.
    ///
    /// This is the loop that new content costs: whatever is added to it is paid for at every byte.
    #[inline(never)]
    fn roll(&self, rolling: &mut Rolling, out: &[u8], into: &[u8]) -> Option<usize> {
        let mut here = *rolling;
        let mut steps = 0;
        let len = out.len().min(into.len());
        let (out, into) = (&out[..len], &into[..len]);
        let (out, out_rest) = out.as_chunks::<8>();
        let (into, into_rest) = into.as_chunks::<8>();
        for (out, into) in out.iter().zip(into) {
            for i in 0..8 {
                here.roll(out[i], into[i]);
                if self.may_contain(here.value()) {
                    *rolling = here;
                    return Some(steps + i + 1);
                }
            }
            steps += 8;
        }
        for (out, into) in out_rest.iter().zip(into_rest) {
            here.roll(*out, *into);
            steps += 1;
            if self.may_contain(here.value()) {
                *rolling = here;
                return Some(steps);
            }
        }
        *rolling = here;
        None
    }

    #[inline(always)]
    fn may_contain(&self, weak: u32) -> bool {
        (self.0[Self::word(weak)] >> (weak & 31)) & 1 != 0
    }

    /// The top bits pick the word, the low bits the bit.
    #[inline(always)]
    fn word(weak: u32) -> usize {
        (weak >> (32 - WORDS.trailing_zeros())) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(weak: u32, content: u32) -> SignatureBlock {
        let mut strong = [0; 16];
        strong[..4].copy_from_slice(&content.to_le_bytes());
        SignatureBlock { weak, strong: StrongHash(strong) }
    }

    fn candidates(blocks: Vec<SignatureBlock>, weak: u32) -> Vec<usize> {
        let covered = blocks.len() as u64 * 64;
        let index = SearchIndex::build(blocks, 64, 0..covered).unwrap();
        index.candidates(weak).map(|(block, _)| block).collect()
    }

    #[test]
    fn blocks_of_one_weak_value_are_bounded() {
        let blocks = (0..1000).map(|i| block(7, i)).chain([block(6, 0), block(8, 0)]).collect();
        assert_eq!(candidates(blocks, 7), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn duplicates_are_collapsed_to_the_first_and_hide_no_other() {
        let mut blocks = vec![block(7, 0); 1000];
        blocks.extend([block(7, 1), block(9, 0), block(7, 1)]);
        assert_eq!(candidates(blocks.clone(), 7), [0, 1000]);
        assert_eq!(candidates(blocks, 9), [1001]);
    }

    #[test]
    fn every_block_is_found_by_its_weak_value_alone() {
        for count in [1, 2, 1000, 1025, 5000] {
            let weak = |i: u32| i.wrapping_mul(0x85eb_ca6b);
            let blocks: Vec<_> = (0..count).map(|i| block(weak(i), i)).collect();
            let index = SearchIndex::build(blocks, 64, 0..u64::from(count) * 64).unwrap();
            for i in 0..2 * count {
                let found: Vec<_> = index.candidates(weak(i)).map(|(block, _)| block).collect();
                let expected = (i < count).then_some(i as usize);
                assert_eq!(found, Vec::from_iter(expected));
            }
        }
    }
}
