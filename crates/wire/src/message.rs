//! What the messages of both directions share: their numbers, ids and hashes, and the fields that are
//! written and checked in one way wherever they stand.
//!
//! The messages themselves are in `handshake`, `to_receiver` and `to_sender`. Nothing here knows which
//! message may follow which; that is up to the session.

use bytes::{Bytes, BytesMut};
use text::Text;

use crate::{
    DecodeError, Decoder, Encoder, Metadata, OutFrame, frame, limits,
    metadata::{LISTING_FLAGS, decode_metadata},
};

/// Message numbers. They are never used again for anything else.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const JOIN: u8 = 2;
    pub(crate) const WELCOME: u8 = 3;
    pub(crate) const REFUSED: u8 = 4;
    pub(crate) const CREDIT: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const ABORT: u8 = 7;

    pub(crate) const LISTING: u8 = 16;
    pub(crate) const END_OF_LISTING: u8 = 17;
    pub(crate) const SMALL_FILES: u8 = 18;
    pub(crate) const DATA: u8 = 19;
    pub(crate) const PATCH: u8 = 20;
    pub(crate) const HOLE: u8 = 21;
    pub(crate) const REBUILD: u8 = 22;
    pub(crate) const COPY: u8 = 23;
    pub(crate) const END_OF_FILE: u8 = 24;
    pub(crate) const LEAF_REQUEST: u8 = 25;
    pub(crate) const BLOCK_REQUEST: u8 = 26;
    pub(crate) const GOODBYE: u8 = 27;
    pub(crate) const BLOCKED: u8 = 28;
    pub(crate) const ATTRIBUTES: u8 = 29;
    pub(crate) const ROOT: u8 = 30;
    pub(crate) const NO_REMOVALS: u8 = 31;

    pub(crate) const PLAN: u8 = 48;
    pub(crate) const WANTED: u8 = 49;
    pub(crate) const SIGNATURE: u8 = 50;
    pub(crate) const LEAVES: u8 = 51;
    pub(crate) const BLOCKS: u8 = 52;
    pub(crate) const PROBLEM: u8 = 53;
    pub(crate) const ACTION: u8 = 54;
    pub(crate) const COMMIT: u8 = 55;
}

/// Names an entry within one session. The sender counts them up; a directory is named by its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub u64);

impl EntryId {
    /// The root of the volume.
    pub const ROOT: Self = Self(0);
}

/// A keyed strong hash of 128 bits.
pub type Hash = [u8; 16];
/// The digest of a file's content under the session key.
pub type ContentDigest = [u8; 32];
/// What proves the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCheck {
    /// Content that travelled whole: its CRC-64/NVME, combined by exclusive or with the id of the entry, so that
    /// content of one entry can never pass for that of another.
    Checksum(u64),
    /// Content that was made from a basis, or compared with it: its digest under the session key.
    Digest(ContentDigest),
}

/// The whole content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its bytes.
    pub bytes: Bytes,
    /// As in [`ContentCheck::Checksum`].
    pub checksum: u64,
}

impl Content {
    pub(crate) fn decode(d: &mut Decoder, size: u64) -> Result<Self, DecodeError> {
        let len = usize::try_from(size).map_err(|_| DecodeError::Limit("content"))?;
        Ok(Self { bytes: d.raw(len)?, checksum: u64::from_le_bytes(d.array()?) })
    }
}

/// The digest of everything that one end holds at the end of a session.
pub type ManifestDigest = [u8; 32];

/// The weak and the strong hash of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeakStrong {
    /// Rolling checksum.
    pub weak: u32,
    /// Strong hash.
    pub strong: Hash,
}

/// How the receiver wants the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// All of it.
    Whole,
    /// The differences to what it has; the signature of that follows.
    Delta {
        /// Bytes that the receiver has.
        basis_len: u64,
        /// Base-2 logarithm of the segment length.
        segment_log2: u8,
    },
}

pub(crate) fn put(buffer: &mut BytesMut, values: &[u64]) {
    let mut e = Encoder(buffer);
    values.iter().for_each(|&v| e.varint(v));
}

pub(crate) fn put_want(e: &mut Encoder<'_>, want: Want) {
    match want {
        Want::Whole => e.u8(0),
        Want::Delta { basis_len, segment_log2 } => {
            e.u8(segment_log2);
            e.varint(basis_len);
        }
    }
}

pub(crate) fn take_want(d: &mut Decoder) -> Result<Want, DecodeError> {
    match d.u8()? {
        0 => Ok(Want::Whole),
        segment_log2 if limits::SEGMENT_LOG2.contains(&segment_log2) => {
            let basis_len = d.varint()?;
            range(basis_len, 0)?;
            Ok(Want::Delta { basis_len, segment_log2 })
        }
        _ => Err(DecodeError::Limit("segment length")),
    }
}

/// The exit code of a failure. 0 would make a failure pass for a success, so it is none.
pub(crate) fn failure_code(d: &mut Decoder) -> Result<u8, DecodeError> {
    match d.u8()? {
        0 => Err(DecodeError::Invalid("exit code")),
        code => Ok(code),
    }
}

/// A count of at most [`limits::MAX_ENTRIES`] items of at least `item_len` bytes.
pub(crate) fn take_count(
    d: &mut Decoder,
    item_len: usize,
    what: &'static str,
) -> Result<usize, DecodeError> {
    let count = d.count(item_len, what)?;
    if count > limits::MAX_ENTRIES { Err(DecodeError::Limit(what)) } else { Ok(count) }
}

pub(crate) fn take_hashes(d: &mut Decoder) -> Result<Vec<Hash>, DecodeError> {
    if d.remaining() / 16 > limits::MAX_HASHES {
        return Err(DecodeError::Limit("hashes"));
    }
    let mut hashes = Vec::with_capacity(d.remaining() / 16);
    while d.remaining() > 0 {
        hashes.push(d.array()?);
    }
    Ok(hashes)
}

/// Metadata outside a listing, where the flags of a listing's entry have no meaning.
pub(crate) fn metadata(d: &mut Decoder) -> Result<Metadata, DecodeError> {
    let (meta, flags) = decode_metadata(d)?;
    if flags & LISTING_FLAGS != 0 {
        return Err(DecodeError::Invalid("entry flags"));
    }
    Ok(meta)
}

/// Offsets stay within the largest file.
pub(crate) fn range(offset: u64, len: u64) -> Result<(), DecodeError> {
    match offset.checked_add(len) {
        Some(end) if end <= limits::MAX_FILE => Ok(()),
        _ => Err(DecodeError::Limit("file offset")),
    }
}

pub(crate) fn credit(bytes: u64) -> OutFrame {
    let mut b = frame::open(kind::CREDIT, 10);
    Encoder(&mut b).varint(bytes);
    frame::close(b, Bytes::new())
}

pub(crate) fn abort(code: u8, why: &str) -> OutFrame {
    let mut b = frame::open(kind::ABORT, why.len() + 4);
    let mut e = Encoder(&mut b);
    e.u8(code);
    e.bytes(clip(why).as_bytes());
    frame::close(b, Bytes::new())
}

/// Text of a peer, which is shown to people only.
pub(crate) fn text(d: &mut Decoder, limit: usize, what: &'static str) -> Result<Text, DecodeError> {
    let bytes = d.bytes(limit, what)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| DecodeError::Invalid(what))?;
    Ok(Text::within(text, limit))
}

/// `text`, cut at a character so that it fits into [`limits::MAX_TEXT`].
pub(crate) fn clip(text: &str) -> &str {
    let mut end = text.len().min(limits::MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
