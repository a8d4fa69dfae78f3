//! The rules of the first frames of a stream, broken by hand.

use bytes::BytesMut;
use wire::{
    DecodeError::{self, Invalid, Limit},
    Encoder, Frame, Opening, Reply, limits,
};

use crate::{
    samples::samples,
    support::{Message, Side, decode},
};

/// A golden frame with `change` made to its body.
fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<Message, DecodeError> {
    let all = samples();
    let (_, message) = all.iter().find(|(n, _)| n == name).expect("a sample");
    let frame = message.frame();
    let mut body = frame.body.to_vec();
    change(&mut body);
    decode(message.side(), Frame { body: body.into(), ..frame })
}

/// Replaces the only place where `from` occurs.
fn replace(body: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    let places: Vec<_> = (0..body.len()).filter(|&at| body[at..].starts_with(from)).collect();
    let [at] = places[..] else { panic!("{from:?} is at {places:?}") };
    body.splice(at..at + from.len(), to.iter().copied());
}

#[test]
fn openings_are_checked_before_anything_is_believed() {
    for name in ["hello", "join", "welcome", "refusal-busy"] {
        let wrong = changed(name, |body| body[7] = b'\r');
        assert_eq!(wrong, Err(Invalid("magic")), "{name}");
    }
    let hello = |from: &[u8], to: &[u8]| changed("hello", |body| replace(body, from, to)).err();
    let window = [0x80, 0x80, 0x80, 0x20];
    assert_eq!(hello(&window, &[0x80, 0x80, 0x80, 2]), None, "4 MiB");
    assert_eq!(hello(&window, &[0xff, 0xff, 0xff, 1]), Some(Limit("window")), "less");
    assert_eq!(hello(&window, &[0x80, 0x80, 0x80, 0x80, 4]), None, "1 GiB");
    assert_eq!(hello(&window, &[0x81, 0x80, 0x80, 0x80, 4]), Some(Limit("window")), "more");
    let volume = |len: usize| [&[len as u8 | 0x80, 1][..], &vec![b'v'; len]].concat();
    assert_eq!(hello(b"\x06data-0", &volume(253)), None);
    assert_eq!(hello(b"\x06data-0", &volume(254)), Some(Limit("volume name")));
    assert_eq!(hello(b"\x06data-0", b"\x01\xff"), Some(Invalid("volume name")));
    assert_eq!(hello(b"data-0\0\0", b"data-0\x02\0"), Some(Invalid("root kind")));
    assert_eq!(hello(b"data-0\0\0", b"data-0\0\x02"), Some(Invalid("flag")), "probe");
    assert_eq!(hello(b"keep/\0", b"keep/\x02"), Some(Invalid("flag")), "filter action");
    assert_eq!(hello(b"\n\x01\x03\x01", b"\n\x01\x80\x80\x80\x80\x10\x01"), Some(Limit("version")));
    let filters = |count: usize| {
        changed("hello-delete", |body| {
            body.pop();
            let mut tail = BytesMut::new();
            Encoder(&mut tail).varint(count as u64);
            body.extend_from_slice(&tail);
            body.extend(vec![0; 2 * count]);
        })
    };
    assert!(filters(limits::MAX_FILTERS).is_ok());
    assert_eq!(filters(limits::MAX_FILTERS + 1), Err(Limit("filter count")));
    let long = [&b"\x81\x20"[..], &[b'*'; 4097]].concat();
    assert_eq!(hello(b"\x05*.tmp", &long), Some(Limit("filter")));

    let welcome = |from: &[u8], to: &[u8]| changed("welcome", |body| replace(body, from, to)).err();
    let before = [0x80, 0x80, 0x80, 0x10];
    let streams = |n: u8| welcome(&[&before[..], &[2]].concat(), &[&before[..], &[n]].concat());
    assert_eq!((streams(1), streams(16)), (None, None));
    assert_eq!((streams(0), streams(17)), (Some(Limit("streams")), Some(Limit("streams"))));
    let losses = |count: u8| {
        changed("welcome", |body| {
            body.truncate(body.len() - 39);
            body.push(count);
            body.extend(vec![0; count.into()]);
        })
    };
    assert!(losses(limits::MAX_LOSSES as u8).is_ok());
    assert_eq!(losses(limits::MAX_LOSSES as u8 + 1), Err(Limit("losses")));
    for code in [0, 9, 255] {
        let refused = changed("refusal-version", |body| body[8] = code);
        assert_eq!(refused, Err(Invalid("refusal")));
    }
}

#[test]
fn a_compressed_opening_is_none() {
    for (name, message) in samples() {
        let frame = Frame { compressed: true, ..message.frame() };
        match message.side() {
            Side::Opening => assert_eq!(Opening::decode(frame), Err(Invalid("magic")), "{name}"),
            Side::Reply => assert_eq!(Reply::decode(frame), Err(Invalid("magic")), "{name}"),
            Side::ToReceiver | Side::ToSender => {}
        }
    }
}
