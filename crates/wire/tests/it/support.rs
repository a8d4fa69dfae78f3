//! A message of any kind, and its way to bytes and back.

use bytes::{Bytes, BytesMut};
use wire::{
    DecodeError, Encoder, Entry, Frame, Listed, Metadata, Opening, OutFrame, Reply, ToReceiver,
    ToSender, frame,
};

/// The four decoders of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Opening,
    Reply,
    ToReceiver,
    ToSender,
}

pub(crate) const SIDES: [Side; 4] = [Side::Opening, Side::Reply, Side::ToReceiver, Side::ToSender];

/// A message of any of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    Opening(Opening),
    Reply(Reply),
    ToReceiver(ToReceiver),
    ToSender(ToSender),
}

impl Message {
    pub(crate) fn side(&self) -> Side {
        match self {
            Self::Opening(_) => Side::Opening,
            Self::Reply(_) => Side::Reply,
            Self::ToReceiver(_) => Side::ToReceiver,
            Self::ToSender(_) => Side::ToSender,
        }
    }

    pub(crate) fn encode(&self) -> OutFrame {
        match self {
            Self::Opening(m) => m.encode(),
            Self::Reply(m) => m.encode(),
            Self::ToReceiver(m) => m.encode(),
            Self::ToSender(m) => m.encode(),
        }
    }

    /// The whole frame as it lies in the stream.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let out = self.encode();
        let bytes = [&out.head[..], &out.payload[..]].concat();
        assert_eq!(bytes.len(), out.wire_len());
        bytes
    }

    /// The frame that [`Message::bytes`] is read as.
    pub(crate) fn frame(&self) -> Frame {
        take_frame(&self.bytes())
    }
}

/// The one frame that `bytes` are.
pub(crate) fn take_frame(bytes: &[u8]) -> Frame {
    let mut buffer = BytesMut::from(bytes);
    let frame = Frame::take(&mut buffer, usize::MAX).unwrap().expect("a whole frame");
    assert!(buffer.is_empty(), "one frame only");
    frame
}

pub(crate) fn decode(side: Side, frame: Frame) -> Result<Message, DecodeError> {
    Ok(match side {
        Side::Opening => Message::Opening(Opening::decode(frame)?),
        Side::Reply => Message::Reply(Reply::decode(frame)?),
        Side::ToReceiver => Message::ToReceiver(ToReceiver::decode(frame)?),
        Side::ToSender => Message::ToSender(ToSender::decode(frame)?),
    })
}

/// A frame of type `kind`, its body written by hand.
pub(crate) fn by_hand(kind: u8, write: impl FnOnce(&mut Encoder<'_>)) -> Frame {
    let mut buffer = frame::open(kind, 0);
    write(&mut Encoder(&mut buffer));
    let out = frame::close(buffer, Bytes::new());
    take_frame(&out.head)
}

/// Bytes of memory that a message holds beside the frame that it shares.
pub(crate) fn footprint(message: &Message) -> usize {
    match message {
        Message::Opening(Opening::Hello(hello)) => {
            let filters = &hello.options.filters;
            let patterns: usize = filters.iter().map(|rule| rule.pattern.capacity()).sum();
            hello.volume.capacity() + vec_len(filters) + patterns
        }
        Message::Opening(Opening::Join(_)) => 0,
        Message::Reply(Reply::Welcome(welcome)) => {
            let texts: usize = welcome.losses.iter().map(|loss| loss.len()).sum();
            vec_len(&welcome.losses) + texts
        }
        Message::Reply(Reply::Refused(_, why)) => why.len(),
        Message::ToReceiver(message) => to_receiver(message),
        Message::ToSender(message) => to_sender(message),
    }
}

fn to_receiver(message: &ToReceiver) -> usize {
    match message {
        ToReceiver::Listing(listing) => {
            let entries: usize = listing.entries.iter().map(listed).sum();
            vec_len(&listing.entries) + entries
        }
        ToReceiver::SmallFiles(files) => {
            vec_len(files) + files.iter().map(|file| metadata(&file.meta)).sum::<usize>()
        }
        ToReceiver::Attributes(entries) => {
            vec_len(entries) + entries.iter().map(|(_, list)| xattrs(list)).sum::<usize>()
        }
        ToReceiver::Root(meta) | ToReceiver::EndOfListing(meta) => {
            size_of::<Metadata>() + metadata(meta)
        }
        ToReceiver::EndOfFile(_, _, wire::Ended::Whole(meta, _)) => {
            size_of::<Metadata>() + metadata(meta)
        }
        ToReceiver::Abort(_, why) => why.len(),
        ToReceiver::EndOfFile(..)
        | ToReceiver::Data(..)
        | ToReceiver::Patch(..)
        | ToReceiver::Hole(..)
        | ToReceiver::Rebuild(..)
        | ToReceiver::Copy(..)
        | ToReceiver::LeafRequest(..)
        | ToReceiver::BlockRequest(..)
        | ToReceiver::Credit(_)
        | ToReceiver::Blocked
        | ToReceiver::NoRemovals
        | ToReceiver::Ping
        | ToReceiver::Goodbye(_) => 0,
    }
}

fn to_sender(message: &ToSender) -> usize {
    match message {
        ToSender::Plan(plan) => {
            let lists = [&plan.new_directories, &plan.later, &plan.attributes];
            vec_len(&plan.wants) + lists.into_iter().map(vec_len).sum::<usize>()
        }
        ToSender::Wanted(wants) => vec_len(wants),
        ToSender::Signature(_, _, hashes, _) | ToSender::Leaves(_, _, hashes) => vec_len(hashes),
        ToSender::Blocks(_, blocks, _) => vec_len(blocks),
        ToSender::Problem(problem) => problem.name.len() + problem.what.len(),
        ToSender::Action(text) | ToSender::Abort(_, text) => text.len(),
        ToSender::Credit(_) | ToSender::Ping | ToSender::Commit(_) => 0,
    }
}

fn listed(listed: &Listed) -> usize {
    let Entry { name, meta, target } = &listed.entry;
    name.len() + metadata(meta) + target.len()
}

fn metadata(meta: &Metadata) -> usize {
    xattrs(&meta.xattrs)
}

fn xattrs(list: &Vec<wire::Xattr>) -> usize {
    let bytes: usize = list.iter().map(|x| x.name.len() + x.value.len()).sum();
    vec_len(list) + bytes
}

fn vec_len<T>(vec: &Vec<T>) -> usize {
    vec.capacity() * size_of::<T>()
}
