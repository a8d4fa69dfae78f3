//! The digest of a file's content, folded from the hashes of its segments.
//!
//! ```text
//!   bytes     | segment | segment | ...            | short |
//!   hashes       h0        h1      ...  h1023         h1024
//!               └─────── range hash 0 ───────┘   └ range hash 1 ┘
//!   digest      H(range hash 0, range hash 1, ..., file length, segment length)
//! ```
//!
//! Both ends compute the segment hashes anyway, so the digest costs no second reading. Ranges of
//! [`SEGMENTS_PER_RANGE`] segments are hashed on their own, so that threads that work on different
//! parts of a file need to exchange nothing but 16 bytes. The digest depends on content, length and
//! layout only, never on how the bytes arrived.

use crate::hash::{HashKey, StrongHash};
use crate::layout::Layout;

/// Segments whose hashes make one range hash.
pub const SEGMENTS_PER_RANGE: u64 = 1024;

/// The digest of a whole file under the key of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentDigest(pub [u8; 32]);

/// Folds the segment hashes of one range, in order. The caller gives it exactly the segments of
/// that range: [`SEGMENTS_PER_RANGE`], fewer only in the last range of a file.
#[derive(Debug, Clone)]
pub struct RangeFold(blake3::Hasher);

/// Folds the range hashes of a file, in order.
#[derive(Debug, Clone)]
pub struct ContentFold {
    hasher: blake3::Hasher,
    layout: Layout,
}

/// Folds the segment hashes of a whole file, in order, for one thread that sees them all.
#[derive(Debug, Clone)]
pub struct SegmentFold {
    key: HashKey,
    content: ContentFold,
    range: RangeFold,
    in_range: u64,
}

/// Hashes a stream of bytes, cut anyhow, into segment hashes and the digest.
#[derive(Debug, Clone)]
pub struct SegmentHasher {
    key: HashKey,
    layout: Layout,
    fold: SegmentFold,
    partial: blake3::Hasher,
    in_segment: usize,
    len: u64,
}

/// The digest of content that is at hand as a whole.
pub fn digest_of(key: &HashKey, layout: Layout, content: &[u8]) -> ContentDigest {
    let mut hasher = SegmentHasher::new(key, layout);
    hasher.update(content, &mut |_, _| ());
    hasher.finish(&mut |_, _| ())
}

impl RangeFold {
    /// An empty range.
    pub fn new(key: &HashKey) -> Self {
        Self(key.range_hasher())
    }

    /// Adds the hash of the next segment.
    pub fn push(&mut self, segment: StrongHash) {
        self.0.update(&segment.0);
    }

    /// Adds `count` whole segments of zeros.
    pub fn push_zeros(&mut self, key: &HashKey, layout: Layout, count: u64) {
        let zeros = key.zero_segment(layout);
        for _ in 0..count {
            self.push(zeros);
        }
    }

    /// Adds a hole as one piece, whatever its length: the hash of the length takes the place of that of a segment.
    pub fn push_hole(&mut self, key: &HashKey, len: u64) {
        self.push(key.hole(len));
    }

    /// The range hash.
    pub fn finish(self) -> StrongHash {
        StrongHash::truncate(&self.0.finalize())
    }
}

impl ContentFold {
    /// A file without ranges so far.
    pub fn new(key: &HashKey, layout: Layout) -> Self {
        Self { hasher: key.digest_hasher(), layout }
    }

    /// Adds the hash of the next range.
    pub fn push_range(&mut self, range: StrongHash) {
        self.hasher.update(&range.0);
    }

    /// The digest of a file of `len` bytes.
    pub fn finish(mut self, len: u64) -> ContentDigest {
        self.hasher.update(&len.to_le_bytes());
        self.hasher.update(&self.layout.segment_len().to_le_bytes());
        ContentDigest(*self.hasher.finalize().as_bytes())
    }
}

impl SegmentFold {
    /// A file without segments so far.
    pub fn new(key: &HashKey, layout: Layout) -> Self {
        Self {
            key: key.clone(),
            content: ContentFold::new(key, layout),
            range: RangeFold::new(key),
            in_range: 0,
        }
    }

    /// Adds the hash of the next segment.
    pub fn push(&mut self, segment: StrongHash) {
        self.range.push(segment);
        self.in_range += 1;
        if self.in_range == SEGMENTS_PER_RANGE {
            self.close_range();
        }
    }

    /// Adds `count` whole segments of zeros. Whole ranges of them cost one hash each.
    pub fn push_zeros(&mut self, mut count: u64) {
        let mut whole_range = None;
        while count > 0 {
            let some = count.min(SEGMENTS_PER_RANGE - self.in_range);
            if some == SEGMENTS_PER_RANGE {
                let hash = *whole_range.get_or_insert_with(|| {
                    let mut range = RangeFold::new(&self.key);
                    range.push_zeros(&self.key, self.content.layout, SEGMENTS_PER_RANGE);
                    range.finish()
                });
                self.content.push_range(hash);
            } else {
                self.range.push_zeros(&self.key, self.content.layout, some);
                self.in_range += some;
                if self.in_range == SEGMENTS_PER_RANGE {
                    self.close_range();
                }
            }
            count -= some;
        }
    }

    /// The digest of a file of `len` bytes.
    pub fn finish(mut self, len: u64) -> ContentDigest {
        if self.in_range > 0 {
            self.close_range();
        }
        self.content.finish(len)
    }

    fn close_range(&mut self) {
        let range = std::mem::replace(&mut self.range, RangeFold::new(&self.key));
        self.content.push_range(range.finish());
        self.in_range = 0;
    }
}

impl SegmentHasher {
    /// An empty file.
    pub fn new(key: &HashKey, layout: Layout) -> Self {
        Self {
            key: key.clone(),
            layout,
            fold: SegmentFold::new(key, layout),
            partial: key.content_hasher(),
            in_segment: 0,
            len: 0,
        }
    }

    /// Takes the next bytes, and gives index and hash of each segment that they complete.
    pub fn update(&mut self, mut bytes: &[u8], on_segment: &mut impl FnMut(u64, StrongHash)) {
        let full = self.layout.segment_len() as usize;
        while !bytes.is_empty() {
            if self.in_segment == 0 && bytes.len() >= full {
                // A whole segment at once needs no state and keeps the hash's lanes full.
                let (segment, rest) = bytes.split_at(full);
                bytes = rest;
                self.whole_segment(self.key.hash(segment), on_segment);
            } else {
                let (piece, rest) = bytes.split_at(bytes.len().min(full - self.in_segment));
                bytes = rest;
                self.partial.update(piece);
                self.in_segment += piece.len();
                self.len = self.len.saturating_add(piece.len() as u64);
                if self.in_segment == full {
                    self.close_segment(on_segment);
                }
            }
        }
    }

    /// Takes `len` zeros, the content of a hole, and computes nothing for whole segments of them.
    pub fn update_zeros(&mut self, mut len: u64, on_segment: &mut impl FnMut(u64, StrongHash)) {
        const ZEROS: [u8; 4096] = [0; 4096];
        let full = u64::from(self.layout.segment_len());
        while len > 0 {
            if self.in_segment == 0 && len >= full {
                len -= full;
                self.whole_segment(self.key.zero_segment(self.layout), on_segment);
            } else {
                let to_boundary = full - self.in_segment as u64;
                let piece = len.min(to_boundary).min(ZEROS.len() as u64);
                len -= piece;
                self.update(&ZEROS[..piece as usize], on_segment);
            }
        }
    }

    /// Closes a short last segment and gives the digest.
    pub fn finish(mut self, on_segment: &mut impl FnMut(u64, StrongHash)) -> ContentDigest {
        if self.in_segment > 0 {
            self.close_segment(on_segment);
        }
        self.fold.finish(self.len)
    }

    fn whole_segment(&mut self, hash: StrongHash, on_segment: &mut impl FnMut(u64, StrongHash)) {
        on_segment(self.layout.segment_at(self.len), hash);
        self.fold.push(hash);
        self.len = self.len.saturating_add(u64::from(self.layout.segment_len()));
    }

    fn close_segment(&mut self, on_segment: &mut impl FnMut(u64, StrongHash)) {
        let hash = StrongHash::truncate(&self.partial.finalize());
        self.partial.reset();
        self.in_segment = 0;
        on_segment(self.layout.segment_at(self.len.saturating_sub(1)), hash);
        self.fold.push(hash);
    }
}
