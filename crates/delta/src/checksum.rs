//! The checksum of content that travels whole: CRC-64/NVME, with the length of what it covers.
//!
//! It finds what happens to content by accident, in memory or on its way to the kernel: every burst of up to 64 bits, and
//! all but one in 2^64 of anything else. Nobody's intent is held off by it; that is what TLS and the keyed manifest are for.
//!
//! A checksum of consecutive ranges is put together from theirs ([`Checksum::append`]), so that threads may compute
//! them apart, and zeros cost the logarithm of their length.

use crc_fast::{CrcAlgorithm::Crc64Nvme, Digest};

/// The polynomial, the bit for x^63 lowest.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;
/// `x^(8 * 2^n)`: what `2^n` bytes of zeros multiply a remainder by.
const ZEROS: [u64; 64] = powers();

/// The checksum of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksum {
    crc: u64,
    len: u64,
}

impl Checksum {
    /// Of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { crc: crc_fast::checksum(Crc64Nvme, bytes), len: bytes.len() as u64 }
    }

    /// Of `len` zeros.
    #[must_use]
    pub fn of_zeros(len: u64) -> Self {
        Self { crc: !shift(!0, len), len }
    }

    /// Takes in the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut digest = Digest::new_with_init_state(Crc64Nvme, !self.crc);
        digest.update(bytes);
        *self = Self { crc: digest.finalize(), len: self.len.saturating_add(bytes.len() as u64) };
    }

    /// Takes in what `next` covers, which follows.
    pub fn append(&mut self, next: Self) {
        *self = Self {
            crc: shift(self.crc, next.len) ^ next.crc,
            len: self.len.saturating_add(next.len),
        };
    }

    /// The CRC.
    #[must_use]
    pub fn crc(&self) -> u64 {
        self.crc
    }

    /// How many bytes it covers.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it covers nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What `remainder` becomes by `len` bytes of zeros.
fn shift(remainder: u64, len: u64) -> u64 {
    let bits = (0..64).filter(|bit| len >> bit & 1 == 1);
    bits.fold(remainder, |remainder, bit| multiply(remainder, ZEROS[bit]))
}

const fn powers() -> [u64; 64] {
    // x^8: the coefficient of x^0 is the highest bit.
    let mut powers = [1 << 55; 64];
    let mut n = 1;
    while n < 64 {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
}

/// The product of two polynomials, modulo [`POLYNOMIAL`].
const fn multiply(a: u64, b: u64) -> u64 {
    let (mut product, mut b, mut bit) = (0, b, 64);
    while bit > 0 {
        bit -= 1;
        product ^= b & (a >> bit & 1).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bit by bit, as the definition has it.
    fn by_definition(bytes: &[u8]) -> u64 {
        let mut state = !0u64;
        for byte in bytes {
            state ^= u64::from(*byte);
            for _ in 0..8 {
                state = if state & 1 == 1 { (state >> 1) ^ POLYNOMIAL } else { state >> 1 };
            }
        }
        !state
    }

    #[test]
    fn the_check_value_is_that_of_the_catalogue() {
        let checksum = Checksum::of(b"123456789");
        assert_eq!((checksum.crc(), checksum.len()), (0xae8b_1486_0a79_9888, 9));
        assert_eq!(Checksum::of(b""), Checksum::default());
    }

    #[test]
    fn zeros_of_any_length_cost_nothing() {
        let mut halves = Checksum::of_zeros(1 << 62);
        halves.append(Checksum::of_zeros(1 << 62));
        assert_eq!(halves, Checksum::of_zeros(1 << 63));
    }

    proptest! {
        #[test]
        fn ranges_and_updates_and_zeros_give_the_checksum_of_all(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..600),
                    (0..5000usize).prop_map(|len| vec![0; len]),
                ],
                0..6,
            ),
            ways in prop::collection::vec(0..3u8, 6),
        ) {
            let whole = pieces.concat();
            let mut checksum = Checksum::default();
            for (piece, way) in pieces.iter().zip(ways) {
                match way {
                    0 => checksum.update(piece),
                    1 if piece.iter().all(|&byte| byte == 0) => {
                        checksum.append(Checksum::of_zeros(piece.len() as u64));
                    }
                    _ => checksum.append(Checksum::of(piece)),
                }
            }
            prop_assert_eq!(checksum, Checksum::of(&whole));
            prop_assert_eq!(checksum.crc(), by_definition(&whole));
        }
    }
}
