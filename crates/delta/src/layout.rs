//! How a file is cut for aligned comparison: *segments* of 64 KiB or more, each of *leaves* of
//! 4 KiB. Both ends derive the layout from one number on the wire. Pure arithmetic, total for every
//! `u64`: an index past the end gives an empty range at the end.

use std::ops::Range;

use crate::{Error, Result};

pub(crate) const MIN_SEGMENT_LOG2: u8 = 16;
pub(crate) const MAX_SEGMENT_LOG2: u8 = 30;
const MAX_SEGMENTS: u64 = 1 << 20;
const LEAF_LEN: u32 = 4096;

/// The lengths of segments and leaves. Segments are a power of two from 64 KiB to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    segment_log2: u8,
}

impl Layout {
    /// The layout for a file of `len` bytes: segments of 64 KiB, doubled until there are at most
    /// 2^20 of them (64 KiB up to 64 GiB) or they have reached 1 GiB (at 1 PiB).
    pub fn for_len(len: u64) -> Self {
        let mut segment_log2 = MIN_SEGMENT_LOG2;
        while segment_log2 < MAX_SEGMENT_LOG2 && len.div_ceil(1 << segment_log2) > MAX_SEGMENTS {
            segment_log2 += 1;
        }
        Self { segment_log2 }
    }

    /// The layout that a peer named by the binary logarithm of its segment length.
    ///
    /// # Errors
    /// [`Error::SegmentLen`] outside 16 to 30.
    pub fn from_wire(segment_log2: u8) -> Result<Self> {
        if (MIN_SEGMENT_LOG2..=MAX_SEGMENT_LOG2).contains(&segment_log2) {
            Ok(Self { segment_log2 })
        } else {
            Err(Error::SegmentLen(segment_log2))
        }
    }

    /// The binary logarithm of the segment length, as it goes on the wire.
    pub fn segment_log2(self) -> u8 {
        self.segment_log2
    }

    /// Bytes of a full segment.
    pub fn segment_len(self) -> u32 {
        1 << self.segment_log2
    }

    /// Bytes of a full leaf.
    pub fn leaf_len(self) -> u32 {
        LEAF_LEN
    }

    /// The number of segments of a file of `len` bytes; the last one may be short.
    pub fn segments(self, len: u64) -> u64 {
        len.div_ceil(u64::from(self.segment_len()))
    }

    /// The bytes of segment `index` in a file of `len` bytes.
    pub fn segment_range(self, index: u64, len: u64) -> Range<u64> {
        range_of(index, self.segment_len(), len)
    }

    /// The segment that byte `offset` lies in.
    pub fn segment_at(self, offset: u64) -> u64 {
        offset >> self.segment_log2
    }

    /// True where `len` bytes from `offset` on are whole segments of a file of `file_len` bytes, of
    /// which the last may be short.
    pub fn is_of_segments(self, offset: u64, len: u64, file_len: u64) -> bool {
        let segment = u64::from(self.segment_len());
        let ends = len.is_multiple_of(segment) || offset.checked_add(len) == Some(file_len);
        len > 0 && offset.is_multiple_of(segment) && ends
    }

    /// The number of leaves of a segment of `segment_len` bytes (short for a last segment).
    pub fn leaves(self, segment_len: u32) -> u32 {
        segment_len.div_ceil(LEAF_LEN)
    }

    /// The bytes of leaf `index`, relative to its segment of `segment_len` bytes.
    pub fn leaf_range(self, index: u32, segment_len: u32) -> Range<u32> {
        let start = index.saturating_mul(LEAF_LEN).min(segment_len);
        start..start.saturating_add(LEAF_LEN).min(segment_len)
    }
}

fn range_of(index: u64, piece: u32, len: u64) -> Range<u64> {
    let piece = u64::from(piece);
    let start = index.saturating_mul(piece).min(len);
    start..start.saturating_add(piece).min(len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn segment_length_follows_the_file() {
        let log2 = |len| Layout::for_len(len).segment_log2();
        assert_eq!(log2(0), 16);
        assert_eq!(log2(64 << 30), 16);
        assert_eq!(log2((64 << 30) + 1), 17);
        assert_eq!(log2(128 << 30), 17);
        assert_eq!(log2(1 << 50), 30);
        assert_eq!(log2(u64::MAX), 30);
    }

    #[test]
    fn wire_accepts_only_its_bounds() {
        for log2 in 0..=u8::MAX {
            let layout = Layout::from_wire(log2);
            assert_eq!(layout.is_ok(), (16..=30).contains(&log2));
            if let Ok(layout) = layout {
                assert_eq!(layout.segment_len(), 1 << log2);
            }
        }
    }

    proptest! {
        #[test]
        fn segments_tile_the_file(len: u64, log2 in 16u8..=30, pick: u64) {
            let layout = Layout::from_wire(log2).unwrap();
            let count = layout.segments(len);
            let index = if count == 0 { 0 } else { pick % count };
            let range = layout.segment_range(index, len);
            if count > 0 {
                prop_assert!(!range.is_empty());
                prop_assert_eq!(layout.segment_at(range.start), index);
                prop_assert_eq!(layout.segment_at(range.end - 1), index);
                prop_assert_eq!(range.end == len, index + 1 == count);
            }
            prop_assert_eq!(layout.segment_range(count, len), len..len);
            prop_assert!(layout.segment_range(pick, len).end <= len);
        }

        #[test]
        fn leaves_tile_the_segment(len in 0u32..=1 << 20, index: u32) {
            let layout = Layout::for_len(0);
            let mut at = 0;
            for leaf in 0..layout.leaves(len) {
                let range = layout.leaf_range(leaf, len);
                prop_assert_eq!(range.start, at);
                prop_assert!(range.end > at && range.end - at <= 4096);
                at = range.end;
            }
            prop_assert_eq!(at, len);
            prop_assert!(layout.leaf_range(index, len).end <= len);
        }
    }
}
