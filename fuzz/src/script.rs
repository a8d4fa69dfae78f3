//! Numbers and bytes out of the input of a target, so that small inputs say much.

use arbitrary::Unstructured;

/// The next byte; 0 where there is none left.
pub(crate) fn byte(u: &mut Unstructured<'_>) -> u8 {
    u.arbitrary().unwrap_or(0)
}

/// A number of any size: small ones and those around the edges of integers are likelier than others.
pub(crate) fn number(u: &mut Unstructured<'_>) -> u64 {
    let (kind, low) = (byte(u), u64::from(byte(u)));
    match kind % 8 {
        0..4 => low,
        4 => low << 12,
        5 => (1 << (low % 64)) - u64::from(kind >> 7),
        6 => u64::MAX - low,
        _ => u.arbitrary().unwrap_or(0),
    }
}

/// Up to `most` bytes.
pub(crate) fn some_bytes(u: &mut Unstructured<'_>, most: usize) -> Vec<u8> {
    let len = usize::from(byte(u)).min(most).min(u.len());
    u.bytes(len).map(<[u8]>::to_vec).unwrap_or_default()
}

/// One of `choices`.
pub(crate) fn pick<T: Copy>(u: &mut Unstructured<'_>, choices: &[T]) -> T {
    choices[usize::from(byte(u)) % choices.len()]
}

/// True in `part` of 256 cases.
pub(crate) fn rarely(u: &mut Unstructured<'_>, part: u8) -> bool {
    byte(u) > u8::MAX - part
}
