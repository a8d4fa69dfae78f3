//! Bytes that are no message, or nearly one: whatever they are, decoding ends with a message or an
//! error, and holds no more memory than a small multiple of the frame.

use bytes::{Bytes, BytesMut};
use proptest::{prelude::*, sample::Index};
use wire::{Frame, frame::HEADER_LEN, limits::MAX_FRAME};

use crate::{
    arbitrary,
    support::{Message, SIDES, decode, footprint, take_frame},
};

/// Bytes of memory that one byte of a frame may cost: two bytes are the shortest want, which is
/// kept in 24, and a vector that grows holds twice what is in it.
const PER_BYTE: usize = 64;
/// What a vector of a few elements takes, however few.
const AT_LEAST: usize = 2048;

/// Decodes a body as every type in every direction.
fn decode_as_anything(kind: u8, compressed: bool, body: &Bytes) -> Result<(), TestCaseError> {
    for side in SIDES {
        let frame = Frame { kind, compressed, body: body.clone() };
        if let Ok(message) = decode(side, frame) {
            check(&message, body.len())?;
        }
    }
    Ok(())
}

/// What was decoded is small, and means the same when it is sent on.
fn check(message: &Message, body_len: usize) -> Result<(), TestCaseError> {
    prop_assert!(footprint(message) <= PER_BYTE * body_len + AT_LEAST, "{message:?}");
    let again = decode(message.side(), message.frame());
    prop_assert_eq!(again.as_ref(), Ok(message));
    Ok(())
}

/// One change to a frame.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Truncate(Index),
    Kind(u8),
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..12),
        // Varints of every length, up to those that are too long.
        (1usize..12).prop_map(|len| vec![0xff; len]),
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, 1 << bit)),
        (any::<Index>(), bytes).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 1usize..20).prop_map(|(at, len)| Change::Remove(at, len)),
        any::<Index>().prop_map(Change::Truncate),
        (0u8..64).prop_map(Change::Kind),
    ]
}

fn apply(kind: &mut u8, body: &mut Vec<u8>, change: Change) {
    match change {
        Change::Kind(new) => *kind = new,
        Change::Insert(at, bytes) => {
            let at = at.index(body.len() + 1);
            body.splice(at..at, bytes);
        }
        _ if body.is_empty() => {}
        Change::Set(at, byte) => *at.get_mut(body) = byte,
        Change::Flip(at, bit) => *at.get_mut(body) ^= bit,
        Change::Remove(at, len) => {
            let at = at.index(body.len());
            body.drain(at..(at + len).min(body.len()));
        }
        Change::Truncate(at) => body.truncate(at.index(body.len())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn any_body_is_answered(
        kind in 0u8..64,
        compressed in prop::bool::weighted(0.1),
        body in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        decode_as_anything(kind, compressed, &Bytes::from(body))?;
    }

    /// Bodies of small numbers get further than bodies of noise.
    #[test]
    fn any_body_of_small_numbers_is_answered(
        kind in 0u8..64,
        body in prop::collection::vec(0u8..8, 0..400),
    ) {
        decode_as_anything(kind, false, &Bytes::from(body))?;
    }

    #[test]
    fn a_changed_message_is_answered(
        message in arbitrary::message(),
        changes in prop::collection::vec(change(), 1..5),
    ) {
        let Frame { mut kind, body, .. } = message.frame();
        let mut body = body.to_vec();
        for change in changes {
            apply(&mut kind, &mut body, change);
        }
        decode_as_anything(kind, false, &Bytes::from(body))?;
    }

    #[test]
    fn a_message_cut_short_is_never_the_same_message(message in arbitrary::message()) {
        let frame = message.frame();
        for len in 0..frame.body.len() {
            let cut = Frame { body: frame.body.slice(..len), ..frame.clone() };
            if let Ok(other) = decode(message.side(), cut) {
                prop_assert_ne!(&other, &message);
                check(&other, len)?;
            }
        }
    }

    #[test]
    fn any_stream_is_taken_apart_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        limit in 0usize..500,
    ) {
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut taken = 0;
        loop {
            let before = buffer.len();
            match Frame::take(&mut buffer, limit) {
                Ok(Some(frame)) => {
                    prop_assert!(frame.body.len() <= limit);
                    taken += HEADER_LEN + frame.body.len();
                }
                Ok(None) => break,
                Err(_) => {
                    prop_assert_eq!(buffer.len(), before, "nothing is taken off");
                    break;
                }
            }
        }
        prop_assert_eq!(taken + buffer.len(), bytes.len());
    }
}

/// The largest frame of the densest messages stays within the bound too.
#[test]
fn the_largest_frames_are_answered() {
    for kind in 0..64 {
        for byte in [0, 1, 2, 16, 0x7f, 0xff] {
            let mut bytes = vec![byte; HEADER_LEN + MAX_FRAME];
            bytes[..4].copy_from_slice(&(MAX_FRAME as u32).to_le_bytes());
            bytes[4] = kind;
            let frame = take_frame(&bytes);
            for side in SIDES {
                if let Ok(message) = decode(side, frame.clone()) {
                    assert!(footprint(&message) <= PER_BYTE * MAX_FRAME);
                }
            }
        }
    }
}
