//! A stream of bytes, cut into frames: each is refused or taken whole, and a frame that was written
//! is read as it was.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wire::{
    Frame,
    frame::{self, HEADER_LEN},
    limits::MAX_FRAME,
};

fuzz_target!(|bytes: &[u8]| {
    let mut buffer = BytesMut::from(bytes);
    let mut taken = 0;
    while let Ok(Some(frame)) = Frame::take(&mut buffer, MAX_FRAME) {
        taken += HEADER_LEN + frame.body.len();
        let out = frame::close(frame::open(frame.kind, 0), frame.body.clone());
        let mut again = BytesMut::from(&[&out.head[..], &out.payload[..]].concat()[..]);
        let expected = Frame { compressed: false, ..frame };
        assert_eq!(Frame::take(&mut again, MAX_FRAME), Ok(Some(expected)));
    }
    assert_eq!(taken + buffer.len(), bytes.len());
    // What is not agreed on yet is held to a smaller limit.
    if let Ok(Some(frame)) = Frame::take(&mut BytesMut::from(bytes), 16) {
        assert!(frame.body.len() <= 16);
    }
});
