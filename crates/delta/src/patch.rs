//! Operations that rebuild a file from its basis, and the plain way to carry them out in memory.

use crate::{Error, Result};

/// One step in the making of a new file, from its front to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Take `len` bytes of the basis from `offset` on.
    Copy {
        /// First byte in the basis file.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Take these bytes.
    Literal(&'a [u8]),
}

/// Rebuilds a whole file, of at most `max_len` bytes, from `basis`.
///
/// # Errors
/// [`Error::CopyOutside`] for a copy that is not within the basis, [`Error::OutputTooLong`] as soon
/// as the output would pass `max_len`.
pub fn apply<'a>(
    ops: impl IntoIterator<Item = Op<'a>>,
    basis: &[u8],
    max_len: u64,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for op in ops {
        let bytes = match op {
            Op::Copy { offset, len } => slice_of(basis, offset, len)?,
            Op::Literal(bytes) => bytes,
        };
        if bytes.len() as u64 > max_len.saturating_sub(out.len() as u64) {
            return Err(Error::OutputTooLong { limit: max_len });
        }
        out.extend_from_slice(bytes);
    }
    Ok(out)
}

fn slice_of(basis: &[u8], offset: u64, len: u64) -> Result<&[u8]> {
    let start = usize::try_from(offset).ok();
    let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
    let range = start.zip(end).and_then(|(start, end)| basis.get(start..end));
    range.ok_or(Error::CopyOutside { offset, len, basis_len: basis.len() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_literals_in_order() {
        let ops =
            [Op::Copy { offset: 2, len: 2 }, Op::Literal(b"-"), Op::Copy { offset: 0, len: 4 }];
        assert_eq!(apply(ops, b"abcd", 7).unwrap(), b"cd-abcd");
        assert_eq!(apply(ops, b"abcd", 6), Err(Error::OutputTooLong { limit: 6 }));
    }

    #[test]
    fn copies_outside_the_basis_are_refused() {
        for (offset, len) in [(0, 5), (4, 1), (5, 0), (u64::MAX, 2), (1, u64::MAX)] {
            let op = Op::Copy { offset, len };
            let expected = Err(Error::CopyOutside { offset, len, basis_len: 4 });
            assert_eq!(apply([op], b"abcd", u64::MAX), expected);
        }
        assert_eq!(apply([Op::Copy { offset: 4, len: 0 }], b"abcd", 0).unwrap(), b"");
    }
}
