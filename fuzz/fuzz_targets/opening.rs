//! The first frames of a stream, in both directions: all that a peer can say before it is believed.
//! The first byte is the type, the magic is put in front of the rest.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use wire::{Frame, MAGIC, Opening, OutFrame, Reply, limits::MAX_HELLO};

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let body = Bytes::from([&MAGIC[..], rest].concat());
    let frame = Frame { kind, compressed: false, body };
    if let Ok(opening) = Opening::decode(frame.clone()) {
        assert_eq!(Opening::decode(again(&opening.encode())), Ok(opening));
    }
    if let Ok(reply) = Reply::decode(frame) {
        assert_eq!(Reply::decode(again(&reply.encode())), Ok(reply));
    }
});

fn again(out: &OutFrame) -> Frame {
    let mut buffer = BytesMut::from(&out.head[..]);
    match Frame::take(&mut buffer, MAX_HELLO) {
        Ok(Some(frame)) => frame,
        _ => panic!("an encoded opening is a whole frame"),
    }
}
