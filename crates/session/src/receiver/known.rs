//! What is known of the content of a file that is patched: the hashes of its segments, as long as what
//! they were made of stands.

use std::{collections::BTreeMap, ops::Range};

use delta::{HashKey, Layout, StrongHash};

/// Segments whose hashes are kept; no basis has more, and what a file grows by beyond is read again.
const MAX_SEGMENTS: u64 = 1 << 20;

/// Hashes of the segments from the first on, and the ranges for which they do not hold any more.
pub(super) struct Known {
    layout: Layout,
    hashes: Vec<StrongHash>,
    /// Where the last of these segments ends; it may be shorter than the others.
    len: u64,
    stale: Ranges,
}

impl Known {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, hashes: Vec::new(), len: 0, stale: Ranges::default() }
    }

    /// The next segment of the basis, which ends at `end`.
    pub(super) fn push(&mut self, hash: StrongHash, end: u64) {
        self.hashes.push(hash);
        self.len = end;
    }

    /// `data` is written at `at`. Segments that it fills are hashed here, while it is in the cache;
    /// others are read again in the end. `basis` is the number of segments that the basis has.
    pub(super) fn wrote(&mut self, key: &HashKey, basis: u64, at: u64, data: &[u8]) {
        let segment_len = u64::from(self.layout.segment_len());
        let mut at = at;
        for piece in data.chunks(segment_len as usize) {
            let end = at + piece.len() as u64;
            let hash = at.is_multiple_of(segment_len).then(|| key.hash(piece));
            if !hash.is_some_and(|hash| self.replace(at / segment_len, hash, end, basis)) {
                self.make_stale(at..end);
            }
            at = end;
        }
    }

    /// A hole is made of `range`.
    pub(super) fn zeroed(&mut self, key: &HashKey, basis: u64, range: Range<u64>) {
        let segment_len = u64::from(self.layout.segment_len());
        let whole =
            range.start.is_multiple_of(segment_len) && range.end - range.start == segment_len;
        let index = range.start / segment_len;
        if !whole || !self.replace(index, key.zero_segment(self.layout), range.end, basis) {
            self.make_stale(range);
        }
    }

    /// Whole segments, so that there are never more ranges than segments.
    fn make_stale(&mut self, range: Range<u64>) {
        let segment = u64::from(self.layout.segment_len());
        let start = range.start / segment * segment;
        self.stale.insert(start..range.end.next_multiple_of(segment));
    }

    /// False where the hash is not that of a whole segment, or comes before that of the one before.
    fn replace(&mut self, index: u64, hash: StrongHash, end: u64, basis: u64) -> bool {
        let count = self.hashes.len() as u64;
        let full = end == (index + 1) * u64::from(self.layout.segment_len());
        if index < count && (full || (index + 1 == count && end >= self.len)) {
            self.hashes[index as usize] = hash;
            self.len = self.len.max(end);
        } else if index == count && index >= basis && count < MAX_SEGMENTS {
            if !self.len.is_multiple_of(u64::from(self.layout.segment_len())) {
                // What was the short end of the file is in the middle now, and longer.
                self.stale.insert(self.len - 1..self.len);
            }
            self.push(hash, end);
        } else {
            return false;
        }
        true
    }

    /// Whether all that a file of `size` bytes has behind the `basis` segments of its basis was sent, at least
    /// a part of each segment.
    pub(super) fn reaches(&self, basis: u64, size: u64) -> bool {
        let sent = |index| self.stale.touches(&self.layout.segment_range(index, size));
        (basis.max(self.hashes.len() as u64)..self.layout.segments(size)).all(sent)
    }

    /// The hash of segment `index`, which is `range` of the file, where it holds.
    pub(super) fn get(&self, index: u64, range: &Range<u64>) -> Option<StrongHash> {
        let whole = range.end - range.start == u64::from(self.layout.segment_len());
        let covers = range.end == self.len || (whole && range.end < self.len);
        let hash = self.hashes.get(usize::try_from(index).ok()?)?;
        (covers && !self.stale.touches(range)).then_some(*hash)
    }
}

/// Ranges of a file, merged where they touch.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn insert(&mut self, mut range: Range<u64>) {
        while let Some((&start, &end)) = self.0.range(..=range.end).next_back() {
            if end < range.start {
                break;
            }
            self.0.remove(&start);
            range = range.start.min(start)..range.end.max(end);
        }
        self.0.insert(range.start, range.end);
    }

    fn touches(&self, range: &Range<u64>) -> bool {
        self.0.range(..range.end).next_back().is_some_and(|(_, &end)| end > range.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_merge_and_are_found() {
        let mut ranges = Ranges::default();
        ranges.insert(10..20);
        ranges.insert(30..40);
        assert!(
            !ranges.touches(&(20..30)) && ranges.touches(&(19..20)) && !ranges.touches(&(0..10))
        );
        ranges.insert(20..30);
        assert_eq!(ranges.0.len(), 1);
        ranges.insert(5..50);
        ranges.insert(7..8);
        assert_eq!(ranges.0.iter().next(), Some((&5, &50)));
        assert!(ranges.touches(&(49..u64::MAX)) && !ranges.touches(&(50..u64::MAX)));
    }

    const SEGMENT: u64 = 64 << 10;

    fn hash_of(key: &HashKey, content: &[u8], range: &Range<u64>) -> StrongHash {
        key.hash(&content[range.start as usize..range.end as usize])
    }

    proptest! {
        /// Whatever is written or zeroed, a hash that is known is that of the content.
        #[test]
        fn a_hash_that_is_known_holds(
            basis_len in 0..5 * SEGMENT,
            hashed in 0..6u64,
            steps in prop::collection::vec(
                (0..8u64, prop_oneof![Just(0), 0..SEGMENT], prop_oneof![Just(SEGMENT), 1..2 * SEGMENT], any::<u8>()),
                0..12,
            ),
            new_len in 0..8 * SEGMENT,
        ) {
            let key = HashKey::new([1; 32]);
            let layout = Layout::for_len(0);
            let mut content: Vec<u8> = (0..basis_len).map(|n| (n / 7) as u8).collect();
            let mut known = Known::new(layout);
            let basis = layout.segments(basis_len);
            for index in 0..hashed.min(basis) {
                let range = layout.segment_range(index, basis_len);
                known.push(hash_of(&key, &content, &range), range.end);
            }
            for (segment, within, len, byte) in steps {
                let at = segment * SEGMENT + within;
                let end = (at + len) as usize;
                content.resize(content.len().max(end), 0);
                content[at as usize..end].fill(byte);
                if byte == 0 {
                    known.zeroed(&key, basis, at..end as u64);
                } else {
                    known.wrote(&key, basis, at, &content[at as usize..end]);
                }
            }
            content.resize(new_len as usize, 0);
            for index in 0..layout.segments(new_len) {
                let range = layout.segment_range(index, new_len);
                if let Some(hash) = known.get(index, &range) {
                    prop_assert_eq!(hash, hash_of(&key, &content, &range), "segment {}", index);
                }
            }
        }
    }
}
