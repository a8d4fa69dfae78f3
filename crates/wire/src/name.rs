//! One component of a path, checked once where it enters the program.

use std::{borrow::Borrow, fmt, ops::Deref};

pub use text::escape;

/// The longest name that Linux file systems hold, in bytes.
pub const MAX_NAME: usize = 255;

/// A single file name: 1 to 255 raw bytes, not `.` or `..`, without `/` and NUL.
///
/// Ordered by bytes, which is the order of listings on the wire. `Display` escapes control bytes
/// and bytes that are not UTF-8, so that a name can never write to a terminal what it likes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// Why bytes are no [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No byte at all.
    #[error("empty name")]
    Empty,
    /// `.` or `..`.
    #[error("name is a dot entry")]
    Dot,
    /// Holds `/` or NUL.
    #[error("name holds a separator or NUL")]
    Separator,
    /// More than [`MAX_NAME`] bytes.
    #[error("name is longer than 255 bytes")]
    TooLong,
}

impl Name {
    /// Checks `bytes` and takes a copy of them.
    ///
    /// # Errors
    /// [`NameError`] where the bytes could mean anything else than an entry of one directory.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dot),
            _ if bytes.len() > MAX_NAME => Err(NameError::TooLong),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(NameError::Separator),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for Name {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_components_are_names() {
        for (bytes, why) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Dot),
            (b"..", NameError::Dot),
            (b"a/b", NameError::Separator),
            (b"/", NameError::Separator),
            (b"a\0", NameError::Separator),
            (&[b'x'; 256], NameError::TooLong),
        ] {
            assert_eq!(Name::new(bytes), Err(why));
        }
        for ok in [&b"..."[..], b".a", b"\n", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(Name::new(ok).unwrap().as_bytes(), ok);
        }
    }

    #[test]
    fn display_never_passes_control_bytes() {
        let shown = Name::new(b"a\x1b[31m\n\xff\\\xc2\x9b").unwrap().to_string();
        assert_eq!(shown, r"a\x1b[31m\x0a\xff\x5c\xc2\x9b");
    }
}
