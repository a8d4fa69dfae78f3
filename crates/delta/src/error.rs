//! The one error type of the crate. Every case is a value that a peer or a caller gave and that no
//! second try would change, so none of them is retryable.

use std::ops::Range;

/// What was wrong with the numbers of a peer or a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The segment length of a layout is outside 2^16 to 2^30 bytes.
    #[error("segment length 2^{0} is outside 2^16 to 2^30")]
    SegmentLen(u8),
    /// The block length of a signature is no power of two, or out of bounds.
    #[error("block length {0} is not a power of two between {min} and {max}",
        min = crate::MIN_BLOCK_LEN, max = crate::MAX_BLOCK_LEN)]
    BlockLen(u32),
    /// The range of the basis that a signature is said to cover ends before it starts.
    #[error("basis range {}..{} ends before it starts", .0.start, .0.end)]
    BasisRange(Range<u64>),
    /// A signature has another number of blocks than its range of the basis.
    #[error("signature of {got} blocks, where its basis has {expected}")]
    BlockCount {
        /// Blocks in the signature.
        got: u64,
        /// Blocks that the range of the basis has at this block length.
        expected: u64,
    },
    /// A signature has more blocks than an index takes.
    #[error("signature of {0} blocks, more than {max}", max = crate::MAX_BLOCKS)]
    TooManyBlocks(u64),
    /// A copy reads outside the basis.
    #[error("copy of {len} bytes at {offset} from a basis of {basis_len}")]
    CopyOutside {
        /// First byte that is read.
        offset: u64,
        /// Bytes that are read.
        len: u64,
        /// Length of the basis.
        basis_len: u64,
    },
    /// The operations produce more than the caller allows.
    #[error("patch output grows past its limit of {limit} bytes")]
    OutputTooLong {
        /// The limit that the caller set.
        limit: u64,
    },
}

impl Error {
    /// Whether the same call could succeed later: never, because all of them depend on the
    /// arguments alone. A session that meets one has a faulty peer.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
