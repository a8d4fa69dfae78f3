//! The aligned pass: segment `i` of the new file against segment `i` of the basis.
//!
//! [`Aligned`] takes no bytes. The session tells it, segment by segment, whether the hashes agreed,
//! and it says when comparing in place has stopped to pay because content has moved:
//!
//! * after 8 misses in a row where both files have the same length: rewritten pages and moved
//!   content look alike at first, and an in-place rewrite is the likelier;
//! * after 3 where the length changed, which an insertion or a deletion always does.
//!
//! A segment that lies wholly past the end of the basis is *appended*: it is literal, counts for
//! nothing, and never starts a search; a log that grew is not searched for. Nor is a search started
//! for a basis shorter than [`MIN_SEARCHED_BASIS`], whose whole content costs less than the round
//! trip for its signature. The advice comes once.

use std::ops::Range;

use crate::hash::{HashKey, StrongHash};
use crate::layout::Layout;

const MISSES_SAME_LEN: u64 = 8;
const MISSES_OTHER_LEN: u64 = 3;
const MIN_SEARCHED_BASIS: u64 = 256 << 10;

/// Decides between the aligned pass and the search for one file.
#[derive(Debug, Clone)]
pub struct Aligned {
    layout: Layout,
    basis_len: u64,
    /// Misses that start a search; `None` where none ever will.
    limit: Option<u64>,
    /// The segments that missed in a row, up to the last one observed.
    misses: Range<u64>,
}

/// What to do after a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Compare the next segment.
    Continue,
    /// Search the rest of the file. `first_miss` is where the misses began: from there on the
    /// search finds what comparing in place did not, as far as it has not been sent yet.
    Search {
        /// Index of the first segment in the row of misses.
        first_miss: u64,
    },
}

impl Aligned {
    /// For a new file of `new_len` bytes and a basis of `basis_len`.
    pub fn new(layout: Layout, new_len: u64, basis_len: u64) -> Self {
        let limit = if new_len == basis_len { MISSES_SAME_LEN } else { MISSES_OTHER_LEN };
        let limit = (basis_len >= MIN_SEARCHED_BASIS).then_some(limit);
        Self { layout, basis_len, limit, misses: 0..0 }
    }

    /// Whether segment `index` has no counterpart in the basis, so that it is literal unseen.
    pub fn is_appended(&self, index: u64) -> bool {
        index >= self.layout.segments(self.basis_len)
    }

    /// Takes the outcome of segment `index`. A gap in the indices ends a row of misses.
    pub fn observe(&mut self, index: u64, equal: bool) -> Step {
        if equal || self.is_appended(index) {
            self.misses = 0..0;
            return Step::Continue;
        }
        if self.misses.is_empty() || self.misses.end != index {
            self.misses.start = index;
        }
        self.misses.end = index.saturating_add(1);
        match self.limit {
            Some(limit) if self.misses.end - self.misses.start >= limit => {
                self.limit = None;
                Step::Search { first_miss: self.misses.start }
            }
            _ => Step::Continue,
        }
    }
}

/// The hashes of the leaves of one segment, in order.
pub fn leaf_hashes(key: &HashKey, layout: Layout, segment: &[u8]) -> Vec<StrongHash> {
    segment.chunks(layout.leaf_len() as usize).map(|leaf| key.hash(leaf)).collect()
}

/// The bytes of the sender's `own` segment that its counterpart has not, given the leaf hashes of
/// that: ranges within the segment, ascending, neighbours merged. A missing hash is a difference;
/// hashes past the end of `own` mean nothing.
pub fn differing_leaves(
    own: &[u8],
    basis_leaf_hashes: &[StrongHash],
    key: &HashKey,
    layout: Layout,
) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for (index, leaf) in own.chunks(layout.leaf_len() as usize).enumerate() {
        let end = start + leaf.len();
        if basis_leaf_hashes.get(index) != Some(&key.hash(leaf)) {
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        start = end;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: u64 = 64 << 10;

    fn aligned(new_segments: u64, basis_segments: u64) -> Aligned {
        Aligned::new(Layout::for_len(0), new_segments * SEGMENT, basis_segments * SEGMENT)
    }

    /// The index of the first segment after which a search is advised.
    fn advised(mut aligned: Aligned, equal: impl Fn(u64) -> bool) -> Option<(u64, u64)> {
        (0..1000).find_map(|index| match aligned.observe(index, equal(index)) {
            Step::Continue => None,
            Step::Search { first_miss } => Some((index, first_miss)),
        })
    }

    #[test]
    fn eight_misses_at_the_same_length_three_at_another() {
        assert_eq!(advised(aligned(900, 900), |i| i < 10), Some((17, 10)));
        assert_eq!(advised(aligned(901, 900), |i| i < 10), Some((12, 10)));
        assert_eq!(advised(aligned(900, 900), |i| i % 8 == 0), None);
        assert_eq!(advised(aligned(899, 900), |i| i % 3 == 0), None);
    }

    #[test]
    fn a_gap_ends_a_row() {
        let mut aligned = aligned(901, 900);
        for index in [0, 1, 3, 4, 6] {
            assert_eq!(aligned.observe(index, false), Step::Continue);
        }
        assert_eq!(aligned.observe(7, false), Step::Continue);
        assert_eq!(aligned.observe(8, false), Step::Search { first_miss: 6 });
    }

    #[test]
    fn appended_segments_are_literal() {
        let grown = aligned(900, 100);
        assert!(!grown.is_appended(99) && grown.is_appended(100));
        assert_eq!(advised(grown, |i| i < 98), None);
        // A basis that ends within a segment still has a counterpart for it.
        let partial = Aligned::new(Layout::for_len(0), 900 * SEGMENT, 100 * SEGMENT + 1);
        assert!(!partial.is_appended(100) && partial.is_appended(101));
    }

    #[test]
    fn a_small_basis_is_not_searched_and_advice_comes_once() {
        assert_eq!(advised(aligned(900, 3), |_| false), None);
        let mut aligned = aligned(900, 400);
        let advice = (0..900).filter(|&i| aligned.observe(i, false) != Step::Continue);
        assert_eq!(advice.count(), 1);
    }

    proptest! {
        #[test]
        fn differing_leaves_are_those_of_a_naive_comparison(
            own in prop::collection::vec(0u8..2, 0..40_000),
            edits in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let (key, layout) = (HashKey::new([9; 32]), Layout::for_len(0));
            let mut basis = own.clone();
            for edit in edits.iter().filter(|_| !own.is_empty()) {
                basis[edit.index(own.len())] ^= 0x80;
            }
            basis.truncate(cut.index(2 * own.len() + 1).max(own.len() / 2));

            let hashes = leaf_hashes(&key, layout, &basis);
            let ranges = differing_leaves(&own, &hashes, &key, layout);
            let mut differs = vec![false; own.len()];
            for range in &ranges {
                prop_assert!(!range.is_empty());
                differs[range.clone()].fill(true);
            }
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "merged");
            for (index, leaf) in own.chunks(4096).enumerate() {
                let other = basis.chunks(4096).nth(index);
                let expected = other != Some(leaf);
                prop_assert!(differs[index * 4096..][..leaf.len()].iter().all(|&d| d == expected));
            }
        }

        #[test]
        fn any_input_is_answered(new: u64, basis: u64, log2 in 16u8..=30, indices: Vec<u64>) {
            let mut aligned = Aligned::new(Layout::from_wire(log2).unwrap(), new, basis);
            for index in indices {
                aligned.observe(index, false);
            }
        }
    }
}
