//! Directory listings, in frames of some hundred entries each.
//!
//! A listing frame may carry the content of small files right behind their metadata, where the
//! receiver is known to have nothing yet: then there is nothing to ask.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    DecodeError, Decoder, Encoder, Entry, EntryId, FileKind, Hash, Metadata, Name, OutFrame,
    Timestamp, Xattrs, frame, limits,
    message::{Content, kind},
    metadata::{
        HAS_CONTENT, HAS_LINK, HAS_XATTR_HASH, MOUNT, decode_metadata, decode_target,
        encode_metadata,
    },
};

const LAST: u8 = 1;
const COMPLETE: u8 = 2;
const UNASKED: u8 = 4;
const HAS_TIME: u8 = 8;
/// Bytes of the time behind the entries.
const TIME_LEN: usize = 12;

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
    /// The modification time of the directory when it was listed, where that is not the time that it had as an entry.
    pub mtime: Option<Timestamp>,
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
    /// The hash of the extended attributes, where it stands for them: `entry.meta.xattrs` is empty then.
    pub xattr_hash: Option<Hash>,
    /// The whole content of a regular file, where it travels with the listing.
    pub content: Option<Content>,
}

/// Builds a listing frame entry by entry.
pub struct ListingBuilder {
    buffer: BytesMut,
    count: u32,
    unasked: bool,
    mtime: Option<Timestamp>,
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
        Self { buffer, count: 0, unasked, mtime: None }
    }

    /// Adds an entry without content.
    pub fn push(&mut self, entry: &Entry, link: Option<EntryId>, mount: bool) {
        let flags = if mount { MOUNT } else { 0 };
        encode_entry(&mut Encoder(&mut self.buffer), entry, link, flags);
        self.count += 1;
    }

    /// As [`Self::push`], with a hash in place of the extended attributes of the entry.
    pub fn push_hashed(&mut self, entry: &Entry, link: Option<EntryId>, mount: bool, hash: &Hash) {
        let flags = if mount { MOUNT | HAS_XATTR_HASH } else { HAS_XATTR_HASH };
        let Metadata { kind, mode, uid, gid, size, mtime, rdev, attributes, .. } = entry.meta;
        let xattrs = Xattrs::new();
        let meta = Metadata { kind, mode, uid, gid, size, mtime, rdev, attributes, xattrs };
        let bare = Entry { name: entry.name.clone(), meta, target: entry.target.clone() };
        let mut e = Encoder(&mut self.buffer);
        encode_entry(&mut e, &bare, link, flags);
        e.raw(hash);
        self.count += 1;
    }

    /// Adds a regular file with its content: `fill` is given a buffer of `entry.meta.size` bytes, and returns the
    /// checksum of what it put there.
    ///
    /// # Errors
    /// What `fill` answers; the frame is then as it was before.
    pub fn push_content<E>(
        &mut self,
        entry: &Entry,
        link: Option<EntryId>,
        fill: impl FnOnce(&mut [u8]) -> Result<u64, E>,
    ) -> Result<(), E> {
        let before = self.buffer.len();
        encode_entry(&mut Encoder(&mut self.buffer), entry, link, HAS_CONTENT);
        let start = self.buffer.len();
        self.buffer.resize(start + entry.meta.size as usize, 0);
        let filled = fill(&mut self.buffer[start..]);
        match filled {
            Ok(checksum) => {
                self.buffer.put_u64_le(checksum);
                self.count += 1;
                Ok(())
            }
            Err(error) => {
                self.buffer.truncate(before);
                Err(error)
            }
        }
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

    /// The modification time that the directory had when it was listed. It goes with the last frame only.
    #[must_use]
    pub fn with_time(mut self, mtime: Option<Timestamp>) -> Self {
        self.mtime = mtime;
        self
    }

    /// Ends the frame.
    #[must_use]
    pub fn finish(mut self, last: bool, complete: bool) -> OutFrame {
        let mtime = self.mtime.filter(|_| last);
        if let Some(Timestamp { secs, nanos }) = mtime {
            self.buffer.put_i64_le(secs);
            self.buffer.put_u32_le(nanos);
        }
        let flags = [
            (last, LAST),
            (complete, COMPLETE),
            (self.unasked, UNASKED),
            (mtime.is_some(), HAS_TIME),
        ];
        self.buffer[frame::HEADER_LEN] =
            flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        frame::close(self.buffer, Bytes::new())
    }
}

impl Listing {
    pub(crate) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut d = Decoder::new(body);
        let flags = d.u8()?;
        let has_time = flags & HAS_TIME != 0;
        if flags & !(LAST | COMPLETE | UNASKED | HAS_TIME) != 0 || (has_time && flags & LAST == 0) {
            return Err(DecodeError::Invalid("listing flags"));
        }
        let directory = EntryId(d.varint()?);
        if has_time && directory == EntryId::ROOT {
            // The time of the root comes with the end of the listing.
            return Err(DecodeError::Invalid("listing flags"));
        }
        let first = EntryId(d.varint()?);
        let mut entries = Vec::new();
        let behind = if has_time { TIME_LEN } else { 0 };
        while d.remaining() > behind {
            if entries.len() == limits::MAX_ENTRIES {
                return Err(DecodeError::Limit("listing"));
            }
            let listed = decode_entry(&mut d)?;
            // No plan answers such a frame, so nobody could ask for the attributes.
            if flags & UNASKED != 0 && listed.xattr_hash.is_some() {
                return Err(DecodeError::Invalid("entry flags"));
            }
            entries.push(listed);
        }
        if first.0.checked_add(entries.len() as u64).is_none() || first == EntryId::ROOT {
            return Err(DecodeError::Limit("entry id"));
        }
        let mtime = if has_time { Some(decode_time(&mut d)?) } else { None };
        Ok(Self {
            directory,
            first,
            last: flags & LAST != 0,
            complete: flags & COMPLETE != 0,
            unasked: flags & UNASKED != 0,
            mtime,
            entries,
        })
    }
}

fn decode_time(d: &mut Decoder) -> Result<Timestamp, DecodeError> {
    let (secs, nanos) = (i64::from_le_bytes(d.array()?), u32::from_le_bytes(d.array()?));
    let mtime = Timestamp { secs, nanos };
    mtime.check()?;
    Ok(mtime)
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
    let target = decode_target(d, meta.kind)?;
    let mount = flags & MOUNT != 0;
    let has_content = flags & HAS_CONTENT != 0;
    let has_hash = flags & HAS_XATTR_HASH != 0;
    let is_dir = meta.kind == FileKind::Directory;
    if (mount && !is_dir)
        || (has_content && meta.kind != FileKind::File)
        || (is_dir && link.is_some())
        || (has_hash && (has_content || !meta.xattrs.is_empty()))
    {
        return Err(DecodeError::Invalid("entry flags"));
    }
    let xattr_hash = if has_hash { Some(d.array()?) } else { None };
    let content = if has_content { Some(Content::decode(d, meta.size)?) } else { None };
    Ok(Listed { entry: Entry { name, meta, target }, link, mount, xattr_hash, content })
}
