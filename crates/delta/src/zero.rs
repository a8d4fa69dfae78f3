//! Finding zeros, so that holes are neither sent nor written.

/// Whether all of `bytes` are zero; true for none. Stops soon after the first byte that is not.
pub fn is_zero(bytes: &[u8]) -> bool {
    // A fold over a whole piece has no branch in it and so becomes vector code; between pieces the
    // search can stop.
    bytes.chunks(256).all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_one_byte_wherever_it_is() {
        let mut bytes = vec![0; 1000];
        assert!(is_zero(&[]) && is_zero(&bytes));
        for at in 0..bytes.len() {
            bytes[at] = 1 << (at % 8);
            assert!(!is_zero(&bytes), "{at}");
            assert!(is_zero(&bytes[..at]) && is_zero(&bytes[at + 1..]));
            bytes[at] = 0;
        }
    }
}
