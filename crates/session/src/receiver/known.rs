//! What is known of the content of a file that is patched: the hashes of its segments, as long as what
//! they were made of stands, and where it has nothing but zeros.

use std::{collections::BTreeMap, ops::Range};

use delta::{HashKey, Layout, StrongHash};

/// Segments behind the basis whose hashes are kept; what a file grows by beyond is read again.
const MAX_SEGMENTS: usize = 1 << 20;

/// What a hash behind the basis takes, and a range, each with its share of the map that holds it.
const GROWN: usize = 64;
const RANGE: usize = 32;

/// The content of a file by segments. What is said of one by a later field holds before what an earlier one says.
pub(super) struct Known {
    layout: Layout,
    /// Hashes of the basis, from the first segment on, and of what took the place of its segments.
    hashes: Vec<StrongHash>,
    /// Where the last of these segments ends; it may be shorter than the others.
    len: u64,
    /// Hashes of segments behind the basis, each with the offset where it ends.
    grown: BTreeMap<u64, (StrongHash, u64)>,
    /// Whole segments of zeros.
    zeros: Ranges,
    /// Segments of which only a part was written.
    stale: Ranges,
    /// Every segment that something was written to.
    touched: Ranges,
}

impl Known {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            hashes: Vec::new(),
            len: 0,
            grown: BTreeMap::new(),
            zeros: Ranges::default(),
            stale: Ranges::default(),
            touched: Ranges::default(),
        }
    }

    /// The next segment of the basis, which ends at `end`.
    pub(super) fn push(&mut self, hash: StrongHash, end: u64) {
        self.hashes.push(hash);
        self.len = end;
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> u64 {
        let ranges = [&self.zeros, &self.stale, &self.touched].map(|ranges| ranges.0.len());
        let mapped = self.grown.len() * GROWN + ranges.iter().sum::<usize>() * RANGE;
        (self.hashes.len() * size_of::<StrongHash>() + mapped) as u64
    }

    fn segment_len(&self) -> u64 {
        self.layout.segment_len().into()
    }

    /// `data` is written at `at`. Segments that it fills are hashed here, while it is in the cache;
    /// others are read again in the end. `basis` is the number of segments that the basis has.
    pub(super) fn wrote(&mut self, key: &HashKey, basis: u64, at: u64, data: &[u8]) {
        let segment_len = self.segment_len();
        let range = self.whole_segments(at..at + data.len() as u64);
        self.touched.insert(range.clone());
        self.zeros.remove(range);
        let mut at = at;
        for piece in data.chunks(segment_len as usize) {
            let end = at + piece.len() as u64;
            let hash = at.is_multiple_of(segment_len).then(|| key.hash(piece));
            if !hash.is_some_and(|hash| self.replace(at / segment_len, hash, end, basis)) {
                self.stale.insert(self.whole_segments(at..end));
            }
            at = end;
        }
    }

    /// A hole is made of `range`, however long.
    pub(super) fn zeroed(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let segment_len = self.segment_len();
        self.touched.insert(self.whole_segments(range.clone()));
        let first = range.start.next_multiple_of(segment_len);
        let last = range.end / segment_len * segment_len;
        if first < last {
            self.zeros.insert(first..last);
        }
        // What is left at either end is a part of a segment.
        for part in [range.start..range.end.min(first), range.start.max(last)..range.end] {
            if !part.is_empty() {
                self.stale.insert(self.whole_segments(part));
            }
        }
    }

    /// The segments that hold something of `range`, as a range of bytes.
    fn whole_segments(&self, range: Range<u64>) -> Range<u64> {
        let segment = self.segment_len();
        range.start / segment * segment..range.end.next_multiple_of(segment)
    }

    /// False where the hash is not that of a whole segment, or comes before that of the one before.
    fn replace(&mut self, index: u64, hash: StrongHash, end: u64, basis: u64) -> bool {
        let count = self.hashes.len() as u64;
        let full = end == (index + 1) * self.segment_len();
        if index < count && (full || (index + 1 == count && end >= self.len)) {
            self.hashes[index as usize] = hash;
            self.len = self.len.max(end);
            return true;
        }
        if index < basis.max(count) || self.grown.len() >= MAX_SEGMENTS {
            return false;
        }
        self.grown.insert(index, (hash, end));
        true
    }

    /// Whether all that a file of `size` bytes has behind the `basis` segments of its basis was sent, at least
    /// a part of each segment.
    pub(super) fn reaches(&self, basis: u64, size: u64) -> bool {
        let start = basis.saturating_mul(self.segment_len());
        start >= size || self.touched.covers(&(start..size))
    }

    /// How many segments from `index` on are whole ones of zeros, in a file of `size` bytes.
    pub(super) fn zero_segments(&self, index: u64, size: u64) -> u64 {
        let segment_len = self.segment_len();
        let start = index * segment_len;
        let end = self.zeros.end_of(start).min(self.stale.start_behind(start)).min(size);
        end.saturating_sub(start) / segment_len
    }

    /// The hash of segment `index`, which is `range` of the file, where it holds.
    pub(super) fn get(&self, index: u64, range: &Range<u64>) -> Option<StrongHash> {
        if self.stale.touches(range) || self.zeros.touches(range) {
            return None;
        }
        if let Some((hash, end)) = self.grown.get(&index) {
            return (*end == range.end).then_some(*hash);
        }
        let whole = range.end - range.start == self.segment_len();
        let covers = range.end == self.len || (whole && range.end < self.len);
        let hash = self.hashes.get(usize::try_from(index).ok()?)?;
        covers.then_some(*hash)
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

    fn remove(&mut self, range: Range<u64>) {
        while let Some((&start, &end)) = self.0.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            self.0.remove(&start);
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if end > range.end {
                self.0.insert(range.end, end);
            }
        }
    }

    fn touches(&self, range: &Range<u64>) -> bool {
        self.0.range(..range.end).next_back().is_some_and(|(_, &end)| end > range.start)
    }

    fn covers(&self, range: &Range<u64>) -> bool {
        self.end_of(range.start) >= range.end
    }

    /// Where the range that holds `at` ends; `at` where none does.
    fn end_of(&self, at: u64) -> u64 {
        self.0.range(..=at).next_back().map_or(at, |(_, &end)| end.max(at))
    }

    /// Where the first range begins that ends behind `at`; the largest offset where there is none.
    fn start_behind(&self, at: u64) -> u64 {
        if self.end_of(at) > at {
            return at;
        }
        self.0.range(at..).next().map_or(u64::MAX, |(&start, _)| start)
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

    #[test]
    fn what_is_taken_out_of_ranges_leaves_both_ends() {
        let mut ranges = Ranges::default();
        ranges.insert(0..10);
        ranges.insert(20..40);
        ranges.remove(5..25);
        assert_eq!(ranges.0.iter().collect::<Vec<_>>(), [(&0, &5), (&25, &40)]);
        ranges.remove(30..35);
        assert_eq!(ranges.0.iter().collect::<Vec<_>>(), [(&0, &5), (&25, &30), (&35, &40)]);
        assert!(ranges.covers(&(26..30)) && !ranges.covers(&(26..31)));
        assert_eq!((ranges.end_of(35), ranges.end_of(33)), (40, 33));
        assert_eq!((ranges.start_behind(6), ranges.start_behind(28)), (25, 28));
        assert_eq!(ranges.start_behind(40), u64::MAX);
    }

    #[test]
    fn a_hole_of_any_length_is_known_at_once() {
        let mut known = Known::new(Layout::for_len(0));
        known.zeroed(100..1 << 46);
        assert!(known.reaches(0, 1 << 46) && !known.reaches(0, (1 << 46) + 1));
        assert_eq!(
            (known.zero_segments(0, 1 << 46), known.zero_segments(1, 1 << 46)),
            (0, (1 << 30) - 1)
        );
        known.wrote(&HashKey::new([1; 32]), 0, 5 * SEGMENT + 9, &[1]);
        assert_eq!((known.zero_segments(1, 1 << 46), known.zero_segments(5, 1 << 46)), (4, 0));
        assert_eq!(known.zero_segments(6, 8 * SEGMENT + 1), 2);
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
                    known.zeroed(at..end as u64);
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
                let zeros = known.zero_segments(index, new_len) * SEGMENT;
                let zeros = &content[range.start as usize..(range.start + zeros) as usize];
                prop_assert!(zeros.iter().all(|&byte| byte == 0), "segment {}", index);
            }
        }
    }
}
