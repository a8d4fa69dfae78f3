//! Whatever is encoded is decoded to the same value, by its own decoder and by no other.

use bytes::BytesMut;
use proptest::prelude::*;
use wire::{DecodeError, EntryId, Frame, Listed, ListingBuilder, Opening, ToReceiver, limits};

use crate::{
    arbitrary,
    support::{Message, Side, decode},
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
        Ok::<_, ()>(())
    });
    assert_eq!((filled, builder.count()), (Ok(()), 1));
    let expected = Message::ToReceiver(ToReceiver::Listing(listing.clone())).encode();
    assert_eq!(builder.finish(false, true), expected);
}

#[test]
fn texts_are_cut_at_a_character_and_lose_their_control_characters() {
    let long = "ü".repeat(limits::MAX_TEXT);
    let sent = Message::ToReceiver(ToReceiver::Abort(1, format!("x{long}")));
    let Ok(Message::ToReceiver(ToReceiver::Abort(_, text))) = decode(sent.side(), sent.frame())
    else {
        panic!("an abort");
    };
    assert_eq!(text.len(), limits::MAX_TEXT - 1);
    let sent = Message::ToReceiver(ToReceiver::Abort(1, "a\x1b[0m\u{9b}\n".into()));
    let shown = Message::ToReceiver(ToReceiver::Abort(1, "a?[0m??".into()));
    assert_eq!(decode(sent.side(), sent.frame()), Ok(shown));
}

#[test]
fn the_magic_comes_first() {
    let join = Message::Opening(Opening::Join(wire::Join { session: [0; 16] }));
    assert_eq!(join.frame().body[..8], wire::MAGIC);
}
