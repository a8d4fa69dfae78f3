//! Whatever is encoded is decoded to the same value, by its own decoder and by no other.

use bytes::BytesMut;
use proptest::prelude::*;
use wire::{
    DecodeError, Entry, EntryId, FileKind, Frame, Listed, Listing, ListingBuilder, Name, Opening,
    ToReceiver, Xattr, limits,
};

use crate::{
    arbitrary,
    support::{Message, Side, by_hand, decode},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn every_message_comes_back(message in arbitrary::message()) {
        prop_assert_eq!(decode(message.side(), message.frame()), Ok(message));
    }

    #[test]
    fn a_stream_of_messages_comes_back_however_it_is_cut(
        messages in prop::collection::vec(arbitrary::message(), 0..6),
        cut in 1usize..64,
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(Message::bytes).collect();
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for piece in bytes.chunks(cut) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = Frame::take(&mut buffer, usize::MAX).unwrap() {
                let side = messages[taken.len()].side();
                taken.push(decode(side, frame).unwrap());
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(taken, messages);
    }

    /// The numbers of the two directions overlap in credit, ping and abort alone, which mean the
    /// same in both.
    #[test]
    fn a_message_of_the_other_direction_is_refused(message in arbitrary::message()) {
        let frame = message.frame();
        let other = match message.side() {
            Side::ToReceiver => Side::ToSender,
            Side::ToSender => Side::ToReceiver,
            Side::Opening => Side::Reply,
            Side::Reply => Side::Opening,
        };
        if (5..=7).contains(&frame.kind) {
            prop_assert!(decode(other, frame).is_ok());
        } else {
            let kind = frame.kind;
            prop_assert_eq!(decode(other, frame), Err(DecodeError::UnknownType(kind)));
        }
    }
}

#[test]
fn an_entry_whose_content_cannot_be_read_leaves_no_trace() {
    let Some((_, Message::ToReceiver(ToReceiver::Listing(listing)))) =
        crate::samples::samples().into_iter().find(|(name, _)| name == "listing-unasked")
    else {
        panic!("the sample is a listing");
    };
    let Listed { entry, link, .. } = &listing.entries[0];
    let mut builder = ListingBuilder::new(EntryId(1), EntryId(2), true, 0);
    let before = builder.wire_len();
    assert_eq!(builder.push_content(entry, *link, |_| Err("unreadable")), Err("unreadable"));
    assert_eq!((builder.wire_len(), builder.count()), (before, 0));
    let filled = builder.push_content(entry, *link, |buffer| {
        buffer.copy_from_slice(b"abc");
        Ok::<_, ()>(0x2122_2324_2526_2728)
    });
    assert_eq!((filled, builder.count()), (Ok(()), 1));
    let expected = Message::ToReceiver(ToReceiver::Listing(listing.clone())).encode();
    assert_eq!(builder.finish(false, true), expected);
}

#[test]
fn texts_are_cut_at_a_character_and_arrive_with_what_is_hidden_in_them_escaped() {
    let long = "ü".repeat(limits::MAX_TEXT);
    let sent = Message::ToReceiver(ToReceiver::Abort(1, format!("x{long}").into()));
    let Ok(Message::ToReceiver(ToReceiver::Abort(_, text))) = decode(sent.side(), sent.frame())
    else {
        panic!("an abort");
    };
    assert!(limits::MAX_TEXT - text.len() < 3 && text.ends_with("ü…"), "{}", text.len());
    // As a peer sends it that escapes nothing.
    let kind = sent.frame().kind;
    let raw = by_hand(kind, |e| {
        e.u8(1);
        e.bytes("a\x1b[0m\u{9b}\n\u{202e}\u{2028}é\\x41".as_bytes());
    });
    let text = r"a\x1b[0m\xc2\x9b\x0a\xe2\x80\xae\xe2\x80\xa8é\x41";
    let shown = Message::ToReceiver(ToReceiver::Abort(1, text.into()));
    assert_eq!(decode(sent.side(), raw), Ok(shown));
}

#[test]
fn the_magic_comes_first() {
    let join = Message::Opening(Opening::Join(wire::Join { session: [0; 16] }));
    assert_eq!(join.frame().body[..8], wire::MAGIC);
}

/// An entry as a file system may hand it out, whatever Linux itself allows.
fn any_entry() -> impl Strategy<Value = Entry> {
    let near = |limit: usize| prop_oneof![Just(0), 0..8usize, limit - 1..limit + 2];
    let byte = prop_oneof![20 => 1..=u8::MAX, 1 => Just(0)];
    let target = (near(limits::MAX_TARGET), byte).prop_map(|(len, byte)| vec![byte; len]);
    let xattr = (near(limits::MAX_XATTR_NAME), near(limits::MAX_XATTR_VALUE), any::<u8>());
    let numbers = (0..=0o20000u16, any::<[u8; 2]>(), 999_999_990..1_000_000_010u32);
    let size = prop_oneof![any::<u64>(), limits::MAX_FILE - 1..limits::MAX_FILE + 2, 0..10u64];
    (arbitrary::metadata(), target, proptest::collection::vec(xattr, 0..20), numbers, size)
        .prop_map(|(mut meta, target, xattrs, (mode, ids, nanos), size)| {
            (meta.mode, meta.mtime.nanos, meta.size) = (mode, nanos, size);
            if meta.kind != FileKind::File {
                meta.size = 0;
            }
            (meta.uid, meta.gid) = (u32::MAX - u32::from(ids[0] % 4), u32::from(ids[1]));
            let make = |(name, value, byte)| Xattr {
                name: vec![byte; name].into(),
                value: vec![byte; value].into(),
            };
            meta.xattrs = xattrs.into_iter().map(make).collect();
            if ids[1] % 2 == 0 {
                meta.xattrs.sort();
            }
            let target = if meta.kind == FileKind::Symlink { target } else { Vec::new() };
            Entry { name: Name::new(b"a").unwrap(), meta, target: target.into() }
        })
}

proptest! {
    #[test]
    fn whatever_an_entry_holds_it_is_refused_or_comes_back(entry in any_entry()) {
        let listed = Listed { entry: entry.clone(), link: None, mount: false, xattr_hash: None, content: None };
        let (directory, first) = (EntryId(0), EntryId(1));
        let listing =
            Listing { directory, first, last: true, complete: true, unasked: false, mtime: None, entries: vec![listed] };
        let sent = Message::ToReceiver(ToReceiver::Listing(listing));
        let came = decode(sent.side(), sent.frame());
        match entry.check() {
            Ok(()) => prop_assert_eq!(came, Ok(sent)),
            Err(why) => prop_assert!(came.is_err(), "{}", why),
        }
    }
}
