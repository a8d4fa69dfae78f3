//! The strong hash: BLAKE3 keyed for the session, truncated to 128 bits.
//!
//! A fresh key for each session makes prepared collisions useless and hashes of one session
//! meaningless in another. Content, the fold of hashes and the final digest use keys of their own,
//! derived from the session key, so that the hash of a list of hashes can never be passed off as
//! the hash of content.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::layout::{Layout, MAX_SEGMENT_LOG2, MIN_SEGMENT_LOG2};

const LAYOUTS: usize = (MAX_SEGMENT_LOG2 - MIN_SEGMENT_LOG2 + 1) as usize;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The hash key of one session. Cheap to clone; its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct HashKey(Arc<Keys>);

struct Keys {
    content: [u8; 32],
    range: [u8; 32],
    digest: [u8; 32],
    zero_segments: [OnceLock<StrongHash>; LAYOUTS],
}

/// 128 bits of keyed BLAKE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StrongHash(pub [u8; 16]);

impl HashKey {
    /// A key from 32 secret random bytes that both ends of the session share.
    pub fn new(session_key: [u8; 32]) -> Self {
        let derive = |context| blake3::derive_key(context, &session_key);
        Self(Arc::new(Keys {
            content: derive("pvferry delta v1 content"),
            range: derive("pvferry delta v1 range of segment hashes"),
            digest: derive("pvferry delta v1 content digest"),
            zero_segments: Default::default(),
        }))
    }

    /// The hash of `bytes`.
    pub fn hash(&self, bytes: &[u8]) -> StrongHash {
        StrongHash::truncate(&blake3::keyed_hash(&self.0.content, bytes))
    }

    /// The hash of a full segment of zeros, computed once for each layout: what a hole hashes to
    /// without being read.
    pub fn zero_segment(&self, layout: Layout) -> StrongHash {
        let compute = || {
            let mut hasher = self.content_hasher();
            for _ in 0..layout.segment_len() as usize / ZEROS.len() {
                hasher.update(&ZEROS);
            }
            StrongHash::truncate(&hasher.finalize())
        };
        let slot = usize::from(layout.segment_log2() - MIN_SEGMENT_LOG2);
        *self.0.zero_segments[slot].get_or_init(compute)
    }

    /// The hash of a hole of `len` bytes among the pieces of a file that is built anew. Eight bytes under the key of
    /// lists of hashes, each of which has sixteen: it is the hash of nothing else.
    pub(crate) fn hole(&self, len: u64) -> StrongHash {
        StrongHash::truncate(&blake3::keyed_hash(&self.0.range, &len.to_le_bytes()))
    }

    pub(crate) fn content_hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0.content)
    }

    pub(crate) fn range_hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0.range)
    }

    pub(crate) fn digest_hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0.digest)
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}

impl StrongHash {
    pub(crate) fn truncate(hash: &blake3::Hash) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        Self(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", HashKey::new([0xab; 32])), "HashKey(..)");
    }

    #[test]
    fn hash_depends_on_key_and_content() {
        let (a, b) = (HashKey::new([1; 32]), HashKey::new([2; 32]));
        assert_ne!(a.hash(b"x"), b.hash(b"x"));
        assert_ne!(a.hash(b"x"), a.hash(b"y"));
        assert_eq!(a.hash(b"x"), a.clone().hash(b"x"));
    }

    #[test]
    fn zero_segment_is_the_hash_of_zeros() {
        let key = HashKey::new([3; 32]);
        for log2 in [16, 17, 20] {
            let layout = Layout::from_wire(log2).unwrap();
            let zeros = vec![0; 1 << log2];
            assert_eq!(key.zero_segment(layout), key.hash(&zeros));
            assert_eq!(key.zero_segment(layout), key.hash(&zeros), "cached");
        }
    }
}
