//! How content is divided among threads, the same at both ends.

/// Content that is sent whole is divided in ranges of so many bytes (as a power of two): no message crosses the end of one,
/// so that one worker takes each in, in order.
pub(crate) const RANGE_LOG2: u32 = 26;
