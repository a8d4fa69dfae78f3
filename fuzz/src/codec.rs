//! The decoders: bytes are refused, or become what means the same when it is encoded and decoded again.

use bytes::{Bytes, BytesMut};
use wire::{
    FileKind, Frame, Listed, MAGIC, Metadata, Opening, OutFrame, Reply, ToReceiver, ToSender,
    frame::{self, HEADER_LEN},
    limits::{self, MAX_FRAME, MAX_HELLO},
};

/// A stream of bytes, cut into frames: each is refused or taken whole.
pub fn frame(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    let mut taken = 0;
    while let Ok(Some(frame)) = Frame::take(&mut buffer, MAX_FRAME) {
        taken += HEADER_LEN + frame.body.len();
        let out = frame::close(frame::open(frame.kind, 0), frame.body.clone());
        let expected = Frame { compressed: false, ..frame };
        assert_eq!(whole(&out, MAX_FRAME), expected);
    }
    assert_eq!(taken + buffer.len(), bytes.len());
    // What is not agreed on yet is held to a smaller limit.
    if let Ok(Some(frame)) = Frame::take(&mut BytesMut::from(bytes), 16) {
        assert!(frame.body.len() <= 16);
    }
}

/// The first frame of a stream, and the answer to one. The first byte is the type; the magic is put in front of the rest.
pub fn opening(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let body = Bytes::from([&MAGIC[..], rest].concat());
    let frame = Frame { kind, compressed: false, body };
    if let Ok(opening) = Opening::decode(frame.clone()) {
        if let Opening::Hello(hello) = &opening {
            assert!(limits::WINDOW.contains(&hello.window) && hello.volume.len() <= 3 * 253);
            assert!(hello.options.filters.len() <= limits::MAX_FILTERS);
        }
        assert_eq!(Opening::decode(whole(&opening.encode(), MAX_HELLO)), Ok(opening));
    }
    if let Ok(reply) = Reply::decode(frame) {
        if let Reply::Welcome(welcome) = &reply {
            assert!(limits::WINDOW.contains(&welcome.window));
            assert!((1..=limits::MAX_STREAMS as u32).contains(&welcome.streams));
        }
        assert_eq!(Reply::decode(whole(&reply.encode(), MAX_FRAME)), Ok(reply));
    }
}

/// What a sender says. The first byte is the type, the rest the body.
pub fn to_receiver(bytes: &[u8]) {
    let Some(frame) = message(bytes) else { return };
    if let Ok(message) = ToReceiver::decode(frame) {
        assert_eq!(ToReceiver::decode(whole(&message.encode(), MAX_FRAME)), Ok(message));
    }
}

/// What a receiver says. The first byte is the type, the rest the body.
pub fn to_sender(bytes: &[u8]) {
    let Some(frame) = message(bytes) else { return };
    if let Ok(message) = ToSender::decode(frame) {
        assert_eq!(ToSender::decode(whole(&message.encode(), MAX_FRAME)), Ok(message));
    }
}

/// Entries and their extended attributes: the bytes are the body of a listing. What passes keeps every rule of
/// docs/PROTOCOL.md, section 6.
pub fn entry(bytes: &[u8]) {
    let frame = Frame { kind: 16, compressed: false, body: Bytes::copy_from_slice(bytes) };
    let Ok(message) = ToReceiver::decode(frame) else { return };
    let ToReceiver::Listing(listing) = &message else { panic!("{message:?} is no listing") };
    assert!(listing.entries.len() <= limits::MAX_ENTRIES);
    listing.entries.iter().for_each(check_entry);
    assert_eq!(ToReceiver::decode(whole(&message.encode(), MAX_FRAME)), Ok(message));
}

fn check_entry(listed: &Listed) {
    let (meta, target) = (&listed.entry.meta, &listed.entry.target);
    let name = listed.entry.name.as_bytes();
    assert!((1..=255).contains(&name.len()) && name != b"." && name != b"..");
    assert!(!name.contains(&b'/') && !name.contains(&0));
    check_metadata(meta);
    match meta.kind {
        FileKind::Symlink => assert!((1..=4095).contains(&target.len()) && !target.contains(&0)),
        _ => assert!(target.is_empty()),
    }
    assert!(!listed.mount || meta.kind == FileKind::Directory);
    assert!(listed.link.is_none() || meta.kind != FileKind::Directory);
    if let Some(content) = &listed.content {
        assert_eq!((meta.kind, meta.size), (FileKind::File, content.bytes.len() as u64));
    }
}

fn check_metadata(meta: &Metadata) {
    assert!(meta.mode <= 0o7777 && meta.uid != u32::MAX && meta.gid != u32::MAX);
    assert!(meta.mtime.nanos < 1_000_000_000 && meta.size <= limits::MAX_FILE);
    assert!(meta.size == 0 || meta.kind == FileKind::File);
    let device = matches!(meta.kind, FileKind::CharDevice | FileKind::BlockDevice);
    assert!(meta.rdev == (0, 0) || device);
    assert!(meta.xattrs.is_sorted_by(|a, b| a.name < b.name), "each name once, and in order");
    let total: usize = meta.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
    assert!(total <= limits::MAX_XATTRS);
    for xattr in &meta.xattrs {
        assert!((1..=255).contains(&xattr.name.len()) && !xattr.name.contains(&0));
        assert!(xattr.value.len() <= limits::MAX_XATTR_VALUE);
    }
}

fn message(bytes: &[u8]) -> Option<Frame> {
    let (&kind, body) = bytes.split_first()?;
    Some(Frame { kind, compressed: false, body: Bytes::copy_from_slice(body) })
}

/// The one frame that `out` is.
fn whole(out: &OutFrame, limit: usize) -> Frame {
    let mut buffer = BytesMut::from(&[&out.head[..], &out.payload[..]].concat()[..]);
    let taken = Frame::take(&mut buffer, limit);
    assert!(buffer.is_empty());
    match taken {
        Ok(Some(frame)) => frame,
        other => panic!("what is encoded is a whole frame: {other:?}"),
    }
}
