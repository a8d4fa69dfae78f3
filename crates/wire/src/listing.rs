//! Directory listings, in frames of some hundred entries each.
//!
//! A listing frame may carry the content of small files right behind their metadata, where the
//! receiver is known to have nothing yet: then there is nothing to ask.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    Attributes, DecodeError, Decoder, Encoder, Entry, EntryId, FileKind, Metadata, Name, OutFrame,
    Timestamp, Xattr, Xattrs, frame, limits, message::kind,
};

const LAST: u8 = 1;
const COMPLETE: u8 = 2;
const UNASKED: u8 = 4;

const HAS_LINK: u8 = 1;
const MOUNT: u8 = 2;
const HAS_CONTENT: u8 = 4;
const IMMUTABLE: u8 = 8;
const APPEND_ONLY: u8 = 16;
const HAS_XATTRS: u8 = 32;
/// Flags that say something of a listing's entry, not of its metadata.
pub(crate) const LISTING_FLAGS: u8 = HAS_LINK | MOUNT | HAS_CONTENT;

/// A frame of a directory listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The directory; [`EntryId::ROOT`] for the root of the volume.
    pub directory: EntryId,
    /// The id of the first entry; the others count up from it.
    pub first: EntryId,
    /// True for the last frame of this directory.
    pub last: bool,
    /// False where the directory could not be read to its end: nothing in it may be deleted.
    pub complete: bool,
    /// True where the sender knows the directory to be new: it waits for no plan, and sends small
    /// files with the listing.
    pub unasked: bool,
    /// Entries, sorted by name across all frames of the directory.
    pub entries: Vec<Listed>,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Name and metadata.
    pub entry: Entry,
    /// For an inode of several names: the id of the first entry that named it, which may be its own.
    pub link: Option<EntryId>,
    /// The directory is the root of another mount: it is made, and left alone.
    pub mount: bool,
    /// The whole content of a regular file, where it travels with the listing.
    pub content: Option<Bytes>,
}

/// Builds a listing frame entry by entry.
pub struct ListingBuilder {
    buffer: BytesMut,
    count: u32,
    unasked: bool,
}

impl ListingBuilder {
    /// Starts a frame for `directory`; its entries get the ids from `first` on.
    #[must_use]
    pub fn new(directory: EntryId, first: EntryId, unasked: bool, capacity: usize) -> Self {
        let mut buffer = frame::open(kind::LISTING, capacity);
        buffer.put_u8(0);
        let mut e = Encoder(&mut buffer);
        e.varint(directory.0);
        e.varint(first.0);
        Self { buffer, count: 0, unasked }
    }

    /// Adds an entry without content.
    pub fn push(&mut self, entry: &Entry, link: Option<EntryId>, mount: bool) {
        let flags = if mount { MOUNT } else { 0 };
        encode_entry(&mut Encoder(&mut self.buffer), entry, link, flags);
        self.count += 1;
    }

    /// Adds a regular file with its content: `fill` is given a buffer of `entry.meta.size` bytes.
    ///
    /// # Errors
    /// What `fill` answers; the frame is then as it was before.
    pub fn push_content<E>(
        &mut self,
        entry: &Entry,
        link: Option<EntryId>,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.buffer.len();
        encode_entry(&mut Encoder(&mut self.buffer), entry, link, HAS_CONTENT);
        let start = self.buffer.len();
        self.buffer.resize(start + entry.meta.size as usize, 0);
        let filled = fill(&mut self.buffer[start..]);
        match filled {
            Ok(()) => self.count += 1,
            Err(_) => self.buffer.truncate(before),
        }
        filled
    }

    /// Entries so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.buffer.len()
    }

    /// Ends the frame.
    #[must_use]
    pub fn finish(mut self, last: bool, complete: bool) -> OutFrame {
        let flags = [(last, LAST), (complete, COMPLETE), (self.unasked, UNASKED)];
        self.buffer[frame::HEADER_LEN] =
            flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        frame::close(self.buffer, Bytes::new())
    }
}

impl Listing {
    pub(crate) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut d = Decoder::new(body);
        let flags = d.u8()?;
        if flags & !(LAST | COMPLETE | UNASKED) != 0 {
            return Err(DecodeError::Invalid("listing flags"));
        }
        let directory = EntryId(d.varint()?);
        let first = EntryId(d.varint()?);
        let mut entries = Vec::new();
        while d.remaining() > 0 {
            if entries.len() == limits::MAX_ENTRIES {
                return Err(DecodeError::Limit("listing"));
            }
            entries.push(decode_entry(&mut d)?);
        }
        if first.0.checked_add(entries.len() as u64).is_none() || first == EntryId::ROOT {
            return Err(DecodeError::Limit("entry id"));
        }
        Ok(Self {
            directory,
            first,
            last: flags & LAST != 0,
            complete: flags & COMPLETE != 0,
            unasked: flags & UNASKED != 0,
            entries,
        })
    }
}

fn encode_entry(e: &mut Encoder<'_>, entry: &Entry, link: Option<EntryId>, flags: u8) {
    e.bytes(&entry.name);
    let link_flag = if link.is_some() { HAS_LINK } else { 0 };
    encode_metadata(e, &entry.meta, flags | link_flag);
    if let Some(link) = link {
        e.varint(link.0);
    }
    if entry.meta.kind == FileKind::Symlink {
        e.bytes(&entry.target);
    }
}

fn decode_entry(d: &mut Decoder) -> Result<Listed, DecodeError> {
    let name = d.bytes(limits::MAX_FRAME, "name")?;
    let name = Name::new(&name).map_err(|_| DecodeError::Invalid("name"))?;
    let (meta, flags) = decode_metadata(d)?;
    let link = if flags & HAS_LINK != 0 { Some(EntryId(d.varint()?)) } else { None };
    let target = match meta.kind {
        FileKind::Symlink => d.bytes(limits::MAX_TARGET, "link target")?,
        _ => Bytes::new(),
    };
    if meta.kind == FileKind::Symlink && (target.is_empty() || target.contains(&0)) {
        return Err(DecodeError::Invalid("link target"));
    }
    let mount = flags & MOUNT != 0;
    let has_content = flags & HAS_CONTENT != 0;
    let is_dir = meta.kind == FileKind::Directory;
    if (mount && !is_dir)
        || (has_content && meta.kind != FileKind::File)
        || (is_dir && link.is_some())
    {
        return Err(DecodeError::Invalid("entry flags"));
    }
    let content = if has_content {
        let len = usize::try_from(meta.size).map_err(|_| DecodeError::Limit("content"))?;
        Some(d.raw(len)?)
    } else {
        None
    };
    Ok(Listed { entry: Entry { name, meta, target: target[..].into() }, link, mount, content })
}

/// Writes metadata; `flags` are the caller's own bits of the flag byte.
pub(crate) fn encode_metadata(e: &mut Encoder<'_>, meta: &Metadata, flags: u8) {
    e.u8(meta.kind as u8);
    let mut flags = flags;
    for (set, bit) in [
        (meta.attributes.immutable, IMMUTABLE),
        (meta.attributes.append_only, APPEND_ONLY),
        (!meta.xattrs.is_empty(), HAS_XATTRS),
    ] {
        flags |= if set { bit } else { 0 };
    }
    e.u8(flags);
    e.varint(u64::from(meta.mode));
    e.varint(u64::from(meta.uid));
    e.varint(u64::from(meta.gid));
    e.signed(meta.mtime.secs);
    e.varint(u64::from(meta.mtime.nanos));
    match meta.kind {
        FileKind::File => e.varint(meta.size),
        FileKind::CharDevice | FileKind::BlockDevice => {
            e.varint(u64::from(meta.rdev.0));
            e.varint(u64::from(meta.rdev.1));
        }
        _ => {}
    }
    if !meta.xattrs.is_empty() {
        e.varint(meta.xattrs.len() as u64);
        for xattr in &meta.xattrs {
            e.bytes(&xattr.name);
            e.bytes(&xattr.value);
        }
    }
}

/// Reads metadata and the flag byte.
pub(crate) fn decode_metadata(d: &mut Decoder) -> Result<(Metadata, u8), DecodeError> {
    let kind = match d.u8()? {
        1 => FileKind::File,
        2 => FileKind::Directory,
        3 => FileKind::Symlink,
        4 => FileKind::Fifo,
        5 => FileKind::Socket,
        6 => FileKind::CharDevice,
        7 => FileKind::BlockDevice,
        _ => return Err(DecodeError::Invalid("file kind")),
    };
    let flags = d.u8()?;
    if flags & !(LISTING_FLAGS | IMMUTABLE | APPEND_ONLY | HAS_XATTRS) != 0 {
        return Err(DecodeError::Invalid("entry flags"));
    }
    let mode = d.varint()?;
    if mode > 0o7777 {
        return Err(DecodeError::Invalid("mode"));
    }
    let uid = d.u32("uid")?;
    let gid = d.u32("gid")?;
    // The largest id means "leave as it is" to chown, so it can own nothing.
    if uid == u32::MAX || gid == u32::MAX {
        return Err(DecodeError::Invalid("owner"));
    }
    let mtime = Timestamp { secs: d.signed()?, nanos: d.u32("mtime")? };
    if mtime.nanos >= 1_000_000_000 {
        return Err(DecodeError::Invalid("mtime"));
    }
    let mut size = 0;
    let mut rdev = (0, 0);
    match kind {
        FileKind::File => size = d.varint()?,
        FileKind::CharDevice | FileKind::BlockDevice => rdev = (d.u32("rdev")?, d.u32("rdev")?),
        _ => {}
    }
    if size > i64::MAX as u64 {
        return Err(DecodeError::Limit("file size"));
    }
    let xattrs = if flags & HAS_XATTRS != 0 { decode_xattrs(d)? } else { Xattrs::new() };
    let attributes =
        Attributes { immutable: flags & IMMUTABLE != 0, append_only: flags & APPEND_ONLY != 0 };
    let meta =
        Metadata { kind, mode: mode as u16, uid, gid, size, mtime, rdev, attributes, xattrs };
    Ok((meta, flags))
}

fn decode_xattrs(d: &mut Decoder) -> Result<Xattrs, DecodeError> {
    let count = d.count(2, "xattr count")?;
    let mut xattrs = Xattrs::with_capacity(count.min(64));
    let mut total = 0;
    for _ in 0..count {
        let name = d.bytes(limits::MAX_XATTR_NAME, "xattr name")?;
        let value = d.bytes(limits::MAX_XATTR_VALUE, "xattr value")?;
        total += name.len() + value.len();
        if total > limits::MAX_XATTRS {
            return Err(DecodeError::Limit("xattrs"));
        }
        let sorted = xattrs.last().is_none_or(|last: &Xattr| *last.name < *name);
        if name.is_empty() || name.contains(&0) || !sorted {
            return Err(DecodeError::Invalid("xattr name"));
        }
        xattrs.push(Xattr { name: name[..].into(), value: value[..].into() });
    }
    Ok(xattrs)
}
