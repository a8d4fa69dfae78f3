//! The messages from the sender to the receiver: what the source holds, and its content.
//!
//! A *small file* travels whole in a frame with others; any other file is a sequence of content
//! messages that ends with [`ToReceiver::EndOfFile`]. Which sequences are allowed is the session's
//! business: here each message is checked by itself.

use bytes::{BufMut as _, Bytes, BytesMut};
use text::Text;

use crate::{
    Content, ContentCheck, DecodeError, Decoder, Encoder, EntryId, Frame, Listed, Listing,
    ListingBuilder, Metadata, OutFrame, Xattr, Xattrs, frame, limits,
    message::{abort, credit, failure_code, kind, metadata, put, range, text},
    metadata::{decode_xattrs, encode_metadata, encode_xattrs},
};

/// A whole small file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallFile {
    /// Which.
    pub entry: EntryId,
    /// Metadata as of the reading.
    pub meta: Metadata,
    /// Content, `meta.size` bytes.
    pub content: Content,
}

/// How the sending of a file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Whole: metadata as of the end of the reading, and what proves the content.
    Whole(Box<Metadata>, ContentCheck),
    /// The file changed while it was read: ask again.
    Changed,
    /// It cannot be read: the sender names it.
    Failed,
}

/// Messages from the sender to the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToReceiver {
    /// The metadata of the root of a tree, before anything in it.
    Root(Box<Metadata>),
    /// Entries of a directory.
    Listing(Listing),
    /// An entry may have been moved past the listings: nothing may be removed.
    NoRemovals,
    /// Every directory is listed; the root's own metadata.
    EndOfListing(Box<Metadata>),
    /// Whole small files.
    SmallFiles(Vec<SmallFile>),
    /// A piece of a file that is sent whole. Between pieces lie holes.
    Data(EntryId, u64, Bytes),
    /// A piece of a file that is patched.
    Patch(EntryId, u64, Bytes),
    /// A range of a file that is patched becomes a hole, however long: offset, length.
    Hole(EntryId, u64, u64),
    /// From here on the file is built anew; this many bytes of what it has become stand.
    Rebuild(EntryId, u64),
    /// A range of the basis goes into the file built anew: offset, basis offset, length.
    Copy(EntryId, u64, u64, u64),
    /// A file ends: the number of its frames, and how it ended.
    EndOfFile(EntryId, u64, Ended),
    /// Asks for the leaf hashes of a segment.
    LeafRequest(EntryId, u32),
    /// Asks for the block hashes of a range of the basis: offset, length, block length.
    BlockRequest(EntryId, u64, u64, u32),
    /// Signatures were taken in: so many bytes more may come.
    Credit(u64),
    /// Extended attributes that were asked for.
    Attributes(Vec<(EntryId, Xattrs)>),
    /// The sender has no credit left.
    Blocked,
    /// Still here.
    Ping,
    /// The session is over, and why: an exit code, never 0, and a sentence.
    Abort(u8, Text),
    /// The sender's judgement of the commit record.
    Goodbye(Goodbye),
}

/// The last message of a session, from the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    /// The exit code of the sender.
    pub exit_code: u8,
    /// The sender reported no reason why what both ends hold should differ, and yet it differs.
    pub differs: bool,
}

/// Builds a frame of extended attributes.
pub struct AttributesBuilder {
    buffer: BytesMut,
    count: usize,
}

impl AttributesBuilder {
    /// Starts a frame.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { buffer: frame::open(kind::ATTRIBUTES, capacity), count: 0 }
    }

    /// Adds the attributes of an entry.
    pub fn push(&mut self, entry: EntryId, xattrs: &[Xattr]) {
        let mut e = Encoder(&mut self.buffer);
        e.varint(entry.0);
        encode_xattrs(&mut e, xattrs);
        self.count += 1;
    }

    /// Entries so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes so far.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.buffer.len()
    }

    /// Ends the frame.
    #[must_use]
    pub fn finish(self) -> OutFrame {
        frame::close(self.buffer, Bytes::new())
    }
}

/// Builds a frame of small files, reading content right into it.
pub struct SmallFilesBuilder {
    buffer: BytesMut,
    count: u32,
}

impl SmallFilesBuilder {
    /// Starts a frame.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { buffer: frame::open(kind::SMALL_FILES, capacity), count: 0 }
    }

    /// Adds a file: `fill` is given a buffer of `meta.size` bytes, and returns the checksum of what it put there.
    ///
    /// # Errors
    /// What `fill` answers; the frame is then as it was before.
    pub fn push<E>(
        &mut self,
        entry: EntryId,
        meta: &Metadata,
        fill: impl FnOnce(&mut [u8]) -> Result<u64, E>,
    ) -> Result<(), E> {
        let before = self.buffer.len();
        let mut e = Encoder(&mut self.buffer);
        e.varint(entry.0);
        encode_metadata(&mut e, meta, 0);
        let start = self.buffer.len();
        self.buffer.resize(start + meta.size as usize, 0);
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

    /// Files so far.
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
    pub fn finish(self) -> OutFrame {
        frame::close(self.buffer, Bytes::new())
    }
}

impl ToReceiver {
    /// Encodes into one frame. Listings and small files have builders of their own, which this
    /// uses; content is not copied.
    #[must_use]
    pub fn encode(&self) -> OutFrame {
        let mut payload = Bytes::new();
        let mut b;
        match self {
            Self::Listing(listing) => return encode_listing(listing),
            Self::SmallFiles(files) => return encode_small_files(files),
            Self::Attributes(entries) => {
                let mut builder = AttributesBuilder::new(1024);
                entries.iter().for_each(|(entry, xattrs)| builder.push(*entry, xattrs));
                return builder.finish();
            }
            Self::Root(meta) | Self::EndOfListing(meta) => {
                let root = matches!(self, Self::Root(_));
                b = frame::open(if root { kind::ROOT } else { kind::END_OF_LISTING }, 64);
                encode_metadata(&mut Encoder(&mut b), meta, 0);
            }
            Self::Data(entry, offset, data) | Self::Patch(entry, offset, data) => {
                let data_kind = matches!(self, Self::Data(..));
                b = frame::open(if data_kind { kind::DATA } else { kind::PATCH }, 20);
                put(&mut b, &[entry.0, *offset]);
                payload = data.clone();
            }
            Self::Hole(entry, offset, len) => {
                b = frame::open(kind::HOLE, 30);
                put(&mut b, &[entry.0, *offset, *len]);
            }
            Self::Rebuild(entry, keep) => {
                b = frame::open(kind::REBUILD, 20);
                put(&mut b, &[entry.0, *keep]);
            }
            Self::Copy(entry, offset, basis, len) => {
                b = frame::open(kind::COPY, 40);
                put(&mut b, &[entry.0, *offset, *basis, *len]);
            }
            Self::EndOfFile(entry, frames, ended) => {
                b = frame::open(kind::END_OF_FILE, 96);
                put(&mut b, &[entry.0, *frames]);
                let mut e = Encoder(&mut b);
                match ended {
                    Ended::Whole(meta, check) => {
                        e.u8(if matches!(check, ContentCheck::Checksum(_)) { 0 } else { 3 });
                        encode_metadata(&mut e, meta, 0);
                        match check {
                            ContentCheck::Checksum(checksum) => e.raw(&checksum.to_le_bytes()),
                            ContentCheck::Digest(digest) => e.raw(digest),
                        }
                    }
                    Ended::Changed => e.u8(1),
                    Ended::Failed => e.u8(2),
                }
            }
            Self::LeafRequest(entry, segment) => {
                b = frame::open(kind::LEAF_REQUEST, 16);
                put(&mut b, &[entry.0, u64::from(*segment)]);
            }
            Self::BlockRequest(entry, from, len, block_len) => {
                b = frame::open(kind::BLOCK_REQUEST, 32);
                put(&mut b, &[entry.0, *from, *len, u64::from(*block_len)]);
            }
            Self::Credit(bytes) => return credit(*bytes),
            Self::NoRemovals => return frame::close(frame::open(kind::NO_REMOVALS, 0), payload),
            Self::Blocked => return frame::close(frame::open(kind::BLOCKED, 0), payload),
            Self::Ping => return frame::close(frame::open(kind::PING, 0), payload),
            Self::Abort(code, why) => return abort(*code, why),
            Self::Goodbye(goodbye) => {
                b = frame::open(kind::GOODBYE, 2);
                let mut encoder = Encoder(&mut b);
                encoder.u8(goodbye.exit_code);
                encoder.u8(u8::from(goodbye.differs));
            }
        }
        frame::close(b, payload)
    }

    /// Decodes a frame of this direction.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none.
    pub fn decode(frame: Frame) -> Result<Self, DecodeError> {
        if frame.kind == kind::LISTING {
            return Listing::decode(frame.body).map(Self::Listing);
        }
        let mut d = Decoder::new(frame.body);
        let message = match frame.kind {
            kind::ROOT => Self::Root(Box::new(metadata(&mut d)?)),
            kind::END_OF_LISTING => Self::EndOfListing(Box::new(metadata(&mut d)?)),
            kind::SMALL_FILES => {
                let mut files = Vec::new();
                while d.remaining() > 0 {
                    if files.len() == limits::MAX_ENTRIES {
                        return Err(DecodeError::Limit("small files"));
                    }
                    let entry = EntryId(d.varint()?);
                    let meta = metadata(&mut d)?;
                    let content = Content::decode(&mut d, meta.size)?;
                    files.push(SmallFile { entry, meta, content });
                }
                Self::SmallFiles(files)
            }
            kind::ATTRIBUTES => {
                let mut entries = Vec::new();
                while d.remaining() > 0 {
                    if entries.len() == limits::MAX_ENTRIES {
                        return Err(DecodeError::Limit("attributes"));
                    }
                    entries.push((EntryId(d.varint()?), decode_xattrs(&mut d)?));
                }
                Self::Attributes(entries)
            }
            kind::DATA | kind::PATCH => {
                let (entry, offset) = (EntryId(d.varint()?), d.varint()?);
                let data = d.rest();
                range(offset, data.len() as u64)?;
                if data.is_empty() || data.len() > limits::MAX_DATA {
                    return Err(DecodeError::Limit("data"));
                }
                match frame.kind {
                    kind::DATA => Self::Data(entry, offset, data),
                    _ => Self::Patch(entry, offset, data),
                }
            }
            kind::HOLE => {
                let (entry, offset, len) = (EntryId(d.varint()?), d.varint()?, d.varint()?);
                range(offset, len)?;
                Self::Hole(entry, offset, len)
            }
            kind::REBUILD => {
                let (entry, keep) = (EntryId(d.varint()?), d.varint()?);
                range(keep, 0)?;
                Self::Rebuild(entry, keep)
            }
            kind::COPY => {
                let entry = EntryId(d.varint()?);
                let (offset, basis, len) = (d.varint()?, d.varint()?, d.varint()?);
                range(offset, len)?;
                range(basis, len)?;
                Self::Copy(entry, offset, basis, len)
            }
            kind::END_OF_FILE => {
                let (entry, frames) = (EntryId(d.varint()?), d.varint()?);
                let ended = match d.u8()? {
                    how @ (0 | 3) => {
                        let meta = Box::new(metadata(&mut d)?);
                        let check = match how {
                            0 => ContentCheck::Checksum(u64::from_le_bytes(d.array()?)),
                            _ => ContentCheck::Digest(d.array()?),
                        };
                        Ended::Whole(meta, check)
                    }
                    1 => Ended::Changed,
                    2 => Ended::Failed,
                    _ => return Err(DecodeError::Invalid("end of file")),
                };
                Self::EndOfFile(entry, frames, ended)
            }
            kind::LEAF_REQUEST => Self::LeafRequest(EntryId(d.varint()?), d.u32("segment")?),
            kind::BLOCK_REQUEST => {
                let entry = EntryId(d.varint()?);
                let (from, len) = (d.varint()?, d.varint()?);
                let block_len = d.u32("block length")?;
                range(from, len)?;
                if !limits::BLOCK_LEN.contains(&block_len) || !block_len.is_power_of_two() {
                    return Err(DecodeError::Limit("block length"));
                }
                Self::BlockRequest(entry, from, len, block_len)
            }
            kind::CREDIT => Self::Credit(d.varint()?),
            kind::NO_REMOVALS => Self::NoRemovals,
            kind::BLOCKED => Self::Blocked,
            kind::PING => Self::Ping,
            kind::ABORT => {
                let code = failure_code(&mut d)?;
                Self::Abort(code, text(&mut d, limits::MAX_TEXT, "abort")?)
            }
            kind::GOODBYE => Self::Goodbye(Goodbye { exit_code: d.u8()?, differs: d.flag()? }),
            other => return Err(DecodeError::UnknownType(other)),
        };
        d.finish()?;
        Ok(message)
    }
}

fn encode_listing(listing: &Listing) -> OutFrame {
    let Listing { directory, first, unasked, mtime, .. } = *listing;
    let mut builder = ListingBuilder::new(directory, first, unasked, 1024).with_time(mtime);
    for listed in &listing.entries {
        match &listed.content {
            None => push_bare(&mut builder, listed),
            Some(content) => {
                let copied = builder.push_content(&listed.entry, listed.link, |buffer| {
                    if buffer.len() == content.bytes.len() {
                        buffer.copy_from_slice(&content.bytes);
                    }
                    Ok::<_, std::convert::Infallible>(content.checksum)
                });
                let Ok(()) = copied;
            }
        }
    }
    builder.finish(listing.last, listing.complete)
}

fn push_bare(builder: &mut ListingBuilder, listed: &Listed) {
    let Listed { entry, link, mount, .. } = listed;
    match &listed.xattr_hash {
        None => builder.push(entry, *link, *mount),
        Some(hash) => builder.push_hashed(entry, *link, *mount, hash),
    }
}

fn encode_small_files(files: &[SmallFile]) -> OutFrame {
    let mut builder = SmallFilesBuilder::new(1024);
    for file in files {
        let copied = builder.push(file.entry, &file.meta, |buffer| {
            if buffer.len() == file.content.bytes.len() {
                buffer.copy_from_slice(&file.content.bytes);
            }
            Ok::<_, std::convert::Infallible>(file.content.checksum)
        });
        let Ok(()) = copied;
    }
    builder.finish()
}
