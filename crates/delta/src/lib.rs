//! What one end of a transfer must compute so that only the difference between two files travels.
//!
//! The *basis* is the file that the receiver already has, the *new* file is the sender's. They are
//! compared in two ways:
//!
//! * **Aligned.** Both ends cut their file into [`Layout`] *segments* and hash them with a key of
//!   the session. Segment `i` is compared with segment `i`; where they differ, [`differing_leaves`]
//!   narrows the difference down to *leaves* of 4 KiB. No table, no rolling checksum: hash speed.
//! * **Search.** Where [`Aligned`] sees that content has moved, the receiver sends a [`Signature`]
//!   of the basis, the sender makes a [`SearchIndex`] of it, and a [`Matcher`] turns the new file
//!   into [`Op`]s: copies from the basis and literal bytes.
//!
//! Either way both ends fold the hashes of their segments into one [`ContentDigest`], which proves
//! that the rebuilt file is the sent one.
//!
//! ```
//! use delta::{HashKey, Matcher, Op, SearchIndex, Signature};
//!
//! let key = HashKey::new([7; 32]);
//! let basis: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
//! let new = [b"inserted in front".as_slice(), &basis].concat();
//!
//! let signature = Signature::compute(&key, 1024, &basis)?;
//! let index = SearchIndex::build(signature.blocks, 1024, 0..basis.len() as u64)?;
//! let (mut rebuilt, mut literal) = (Vec::new(), 0);
//! let mut sink = |op: Op<'_>| match op {
//!     Op::Copy { offset, len } => rebuilt.extend(&basis[offset as usize..][..len as usize]),
//!     Op::Literal(bytes) => {
//!         literal += bytes.len();
//!         rebuilt.extend(bytes);
//!     }
//! };
//! let mut matcher = Matcher::new(&index, &key);
//! matcher.push(&new, &mut sink);
//! matcher.finish(&mut sink);
//! assert_eq!((rebuilt, literal), (new, 17));
//! # Ok::<(), delta::Error>(())
//! ```
//!
//! Content that is sent whole has a [`Checksum`] instead, which finds accidents and is several times faster.
//!
//! Nothing here does I/O, waits, or panics on input: counts, lengths and offsets that come from a
//! peer are checked where they enter ([`SearchIndex::build`], [`Layout::from_wire`], [`apply`]).

mod aligned;
mod checksum;
mod content;
mod error;
mod hash;
mod index;
mod layout;
mod matcher;
mod patch;
mod rolling;
mod signature;
mod zero;

pub use aligned::{Aligned, Step, differing_leaves, leaf_hashes};
pub use checksum::Checksum;
pub use content::{
    ContentDigest, ContentFold, RangeFold, SEGMENTS_PER_RANGE, SegmentFold, SegmentHasher,
    digest_of,
};
pub use error::{Error, Result};
pub use hash::{HashKey, StrongHash};
pub use index::{MAX_BLOCKS, SearchIndex};
pub use layout::Layout;
pub use matcher::{MAX_COPY, MAX_LITERAL, Matcher};
pub use patch::{Op, apply};
pub use rolling::Rolling;
pub use signature::{
    MAX_BLOCK_LEN, MIN_BLOCK_LEN, Signature, SignatureBlock, SignatureBuilder, block_len_for,
};
pub use zero::is_zero;
