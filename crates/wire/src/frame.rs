//! Frames: how messages lie in a byte stream.
//!
//! ```text
//!   0        4        5
//!   ┌────────┬────────┬──────────────────────┐
//!   │ length │  type  │ body, `length` bytes │      length: u32, little endian
//!   └────────┴────────┴──────────────────────┘
//! ```
//!
//! The high bit of the type says that the body is compressed with Zstandard, behind the length of
//! what it unpacks to as a varint.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{DecodeError, limits::MAX_FRAME};

/// Bytes in front of every body.
pub const HEADER_LEN: usize = 5;
/// The bit of the type byte that marks a compressed body.
pub const COMPRESSED: u8 = 0x80;

/// A whole frame, body still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message type, without the compression bit.
    pub kind: u8,
    /// True where the body is compressed.
    pub compressed: bool,
    /// The body.
    pub body: Bytes,
}

impl Frame {
    /// Takes the next whole frame off the front of `buffer`; `None` where more bytes are needed.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] where the header announces more than `limit` bytes.
    pub fn take(buffer: &mut BytesMut, limit: usize) -> Result<Option<Self>, DecodeError> {
        let Some(header) = buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if len > limit.min(MAX_FRAME) {
            return Err(DecodeError::Limit("frame length"));
        }
        if buffer.len() < HEADER_LEN + len {
            return Ok(None);
        }
        let kind = header[4];
        buffer.advance(HEADER_LEN);
        let body = buffer.split_to(len).freeze();
        Ok(Some(Self { kind: kind & !COMPRESSED, compressed: kind & COMPRESSED != 0, body }))
    }
}

/// A frame on its way out: the header and small fields in `head`, file content in `payload`, so that
/// content is never copied into a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutFrame {
    /// Header and leading fields.
    pub head: Bytes,
    /// The rest of the body; may be empty.
    pub payload: Bytes,
}

impl OutFrame {
    /// Bytes that the frame takes on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// Starts a frame in an empty buffer: room for the header, to be closed by [`close`].
#[must_use]
pub fn open(kind: u8, capacity: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(HEADER_LEN + capacity);
    buffer.put_u32_le(0);
    buffer.put_u8(kind);
    buffer
}

/// Writes the body length into the header and ends the frame.
#[must_use]
pub fn close(mut buffer: BytesMut, payload: Bytes) -> OutFrame {
    let len = (buffer.len() - HEADER_LEN + payload.len()) as u32;
    buffer[..4].copy_from_slice(&len.to_le_bytes());
    OutFrame { head: buffer.freeze(), payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_whole_or_not_at_all() {
        let mut head = open(7, 3);
        head.put_slice(b"abc");
        let out = close(head, Bytes::from_static(b"de"));
        let wire = [&out.head[..], &out.payload[..]].concat();
        assert_eq!(wire, b"\x05\0\0\0\x07abcde");
        for cut in 0..wire.len() {
            let mut partial = BytesMut::from(&wire[..cut]);
            assert_eq!(Frame::take(&mut partial, 100), Ok(None));
            assert_eq!(partial.len(), cut);
        }
        let mut whole = BytesMut::from(&[&wire[..], b"x"].concat()[..]);
        let frame = Frame::take(&mut whole, 100).unwrap().unwrap();
        assert_eq!((frame.kind, &frame.body[..], &whole[..]), (7, &b"abcde"[..], &b"x"[..]));
    }

    #[test]
    fn an_oversized_frame_is_refused_by_its_header() {
        let mut buffer = BytesMut::from(&b"\xff\xff\xff\xff\x01"[..]);
        assert_eq!(Frame::take(&mut buffer, usize::MAX), Err(DecodeError::Limit("frame length")));
    }
}
