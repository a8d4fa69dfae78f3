//! Integers and byte strings in a frame body: the primitives that messages are made of.
//!
//! Unsigned integers are LEB128 varints, signed ones are zigzag varints, byte strings carry their
//! length first. Every read checks what is left, so a hostile length costs nothing.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why bytes are no message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body ends inside a field.
    #[error("message ends inside a field")]
    Truncated,
    /// A varint is longer than 64 bits.
    #[error("integer is longer than 64 bits")]
    Varint,
    /// A length, count or index is larger than the protocol allows.
    #[error("{0} is over its limit")]
    Limit(&'static str),
    /// A field holds a value that has no meaning.
    #[error("{0} is not valid")]
    Invalid(&'static str),
    /// Bytes are left over behind the last field.
    #[error("message has bytes behind its last field")]
    Trailing,
    /// No message has this number, or not in this direction.
    #[error("unknown message type {0}")]
    UnknownType(u8),
}

/// Writes the fields of a message.
pub struct Encoder<'a>(pub &'a mut BytesMut);

impl Encoder<'_> {
    /// One byte.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    /// LEB128: seven bits a byte, low bits first, the high bit says that more follow.
    #[inline]
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }

    /// Zigzag: small magnitudes of either sign stay short.
    pub fn signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// A length and that many bytes.
    #[inline]
    pub fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.0.put_slice(value);
    }

    /// Bytes whose length both sides know.
    #[inline]
    pub fn raw(&mut self, value: &[u8]) {
        self.0.put_slice(value);
    }
}

/// Reads the fields of a message.
pub struct Decoder(Bytes);

impl Decoder {
    /// Reads from `body`.
    #[must_use]
    pub fn new(body: Bytes) -> Self {
        Self(body)
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.0.len()
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end of the body, as for every reader below.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        if self.0.is_empty() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.0.get_u8())
    }

    /// A flag: 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for every other byte.
    pub fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("flag")),
        }
    }

    /// A LEB128 varint.
    ///
    /// # Errors
    /// [`DecodeError::Varint`] past 64 bits.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Varint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A varint that fits 32 bits.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] with `what` where it does not.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).map_err(|_| DecodeError::Limit(what))
    }

    /// A zigzag varint.
    ///
    /// # Errors
    /// As [`Decoder::varint`].
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A count of items that follow, each of at least `item_len` bytes: it is refused where it
    /// could not fit into the rest of the body, so memory can be reserved for it.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] with `what`.
    pub fn count(&mut self, item_len: usize, what: &'static str) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::Limit(what))?;
        if count > self.0.len() / item_len.max(1) {
            return Err(DecodeError::Limit(what));
        }
        Ok(count)
    }

    /// A length of at most `limit` and that many bytes, shared with the frame.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] with `what`.
    pub fn bytes(&mut self, limit: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        let len = self.varint()?;
        if len > limit as u64 {
            return Err(DecodeError::Limit(what));
        }
        self.raw(len as usize)
    }

    /// `len` bytes, shared with the frame.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn raw(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.0.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.0.split_to(len))
    }

    /// Exactly `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        if N > self.0.len() {
            return Err(DecodeError::Truncated);
        }
        self.0.copy_to_slice(&mut out);
        Ok(out)
    }

    /// Everything that is left.
    #[must_use]
    pub fn rest(&mut self) -> Bytes {
        self.0.split_off(0)
    }

    /// Says that the message ends here.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] where it does not.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_come_back(unsigned: u64, signed: i64) {
            let mut buf = BytesMut::new();
            let mut e = Encoder(&mut buf);
            e.varint(unsigned);
            e.signed(signed);
            let mut d = Decoder::new(buf.freeze());
            prop_assert_eq!(d.varint().unwrap(), unsigned);
            prop_assert_eq!(d.signed().unwrap(), signed);
            d.finish().unwrap();
        }
    }

    #[test]
    fn hostile_lengths_are_refused() {
        let d = |bytes: &'static [u8]| Decoder::new(Bytes::from_static(bytes));
        assert_eq!(d(&[0xff; 11]).varint(), Err(DecodeError::Varint));
        assert_eq!(d(&[0xff; 9]).varint(), Err(DecodeError::Truncated));
        assert_eq!(d(&[0xff; 10]).count(1, "n"), Err(DecodeError::Varint));
        assert_eq!(d(&[5, 1, 2]).count(1, "n"), Err(DecodeError::Limit("n")));
        assert_eq!(d(&[5, 1, 2]).bytes(9, "b"), Err(DecodeError::Truncated));
        assert_eq!(d(&[5, 1, 2]).bytes(4, "b"), Err(DecodeError::Limit("b")));
        assert_eq!(d(&[2]).flag(), Err(DecodeError::Invalid("flag")));
    }
}
