//! The limits of the protocol: no length, count or index of a peer is believed beyond them.

/// Longest frame body, in bytes.
pub const MAX_FRAME: usize = 2 << 20;
/// Longest frame body before the session is agreed on, in bytes.
pub const MAX_HELLO: usize = 256 << 10;
/// Longest piece of file content in one frame, in bytes.
pub const MAX_DATA: usize = 1 << 20;
/// Longest copy that is not made of whole segments of the basis, which is hashed at once though it does not travel. In
/// bytes.
pub const MAX_PIECE: u64 = 256 << 10;
/// Largest file that is moved, in bytes.
pub const MAX_FILE: u64 = 1 << 46;
/// Longest symbolic link target, in bytes: what Linux stores.
pub const MAX_TARGET: usize = 4095;
/// Longest name of an extended attribute, in bytes: what Linux stores.
pub const MAX_XATTR_NAME: usize = 255;
/// Longest value of an extended attribute, in bytes: what Linux stores.
pub const MAX_XATTR_VALUE: usize = 64 << 10;
/// All extended attributes of one entry, names and values together, in bytes.
pub const MAX_XATTRS: usize = 1 << 20;
/// Longest text that is shown to a person, in bytes.
pub const MAX_TEXT: usize = 8 << 10;
/// Filter rules of one session.
pub const MAX_FILTERS: usize = 4096;
/// Longest pattern of a filter rule, in bytes.
pub const MAX_PATTERN: usize = 4096;
/// What a filter rule takes beside its pattern, in bytes.
pub const RULE: usize = 4;
/// All filter rules of one session, in bytes: what leaves room for the other fields of an opening message.
pub const MAX_RULES: usize = MAX_HELLO - (4 << 10);
/// Streams of one session.
pub const MAX_STREAMS: usize = 16;
/// Smallest and largest flow-control window, in bytes.
pub const WINDOW: std::ops::RangeInclusive<u64> = (MAX_FRAME as u64 * 2)..=(1 << 30);
/// Sentences in a welcome about what the receiver cannot keep.
pub const MAX_LOSSES: usize = 32;
/// Entries of one listing frame, files of one frame of small files, items of each list of a plan.
pub const MAX_ENTRIES: usize = 4096;
/// Hashes of one signature frame.
pub const MAX_HASHES: usize = 32 << 10;
/// Smallest and largest base-2 logarithm of a segment length.
pub const SEGMENT_LOG2: std::ops::RangeInclusive<u8> = 16..=30;
/// Smallest and largest block length of the shift search, in bytes; a power of two.
pub const BLOCK_LEN: std::ops::RangeInclusive<u32> = 512..=(1 << 20);
