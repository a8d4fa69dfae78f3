//! What a receiver says: the first byte is the type, the rest the body. Whatever decodes means the same when it
//! is encoded and decoded again.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use wire::{Frame, ToSender, limits::MAX_FRAME};

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, body)) = bytes.split_first() else { return };
    let frame = Frame { kind, compressed: false, body: Bytes::copy_from_slice(body) };
    let Ok(message) = ToSender::decode(frame) else { return };
    let out = message.encode();
    let mut buffer = BytesMut::from(&[&out.head[..], &out.payload[..]].concat()[..]);
    let Ok(Some(again)) = Frame::take(&mut buffer, MAX_FRAME) else {
        panic!("an encoded message is a whole frame");
    };
    assert_eq!(ToSender::decode(again), Ok(message));
});
