//! Metadata in a frame: their fields, and what they may hold.
//!
//! [`Entry::check`] decides for both ends. A sender asks it of everything that it has read, before it is sent, so that an
//! odd entry of the source is a problem of that entry; a decoder refuses what does not pass.

use bytes::Bytes;

use crate::{
    Attributes, DecodeError, Decoder, Encoder, Entry, FileKind, Metadata, Timestamp, Xattr, Xattrs,
    limits,
};

pub(crate) const HAS_LINK: u8 = 1;
pub(crate) const MOUNT: u8 = 2;
pub(crate) const HAS_CONTENT: u8 = 4;
const IMMUTABLE: u8 = 8;
const APPEND_ONLY: u8 = 16;
const HAS_XATTRS: u8 = 32;
pub(crate) const HAS_XATTR_HASH: u8 = 64;
/// Flags that say something of a listing's entry, not of its metadata.
pub(crate) const LISTING_FLAGS: u8 = HAS_LINK | MOUNT | HAS_CONTENT | HAS_XATTR_HASH;

const NANOS: u32 = 1_000_000_000;

impl Entry {
    /// Whether the entry can travel.
    ///
    /// # Errors
    /// What is wrong with it: the same that a decoder would say.
    pub fn check(&self) -> Result<(), DecodeError> {
        self.meta.check()?;
        let symlink = self.meta.kind == FileKind::Symlink;
        if symlink { check_target(&self.target) } else { Ok(()) }
    }
}

impl Metadata {
    /// Whether metadata can travel.
    ///
    /// # Errors
    /// As [`Entry::check`].
    pub fn check(&self) -> Result<(), DecodeError> {
        if self.mode > 0o7777 {
            return Err(DecodeError::Invalid("mode"));
        }
        // The largest id means "leave as it is" to chown, so it can own nothing.
        if self.uid == u32::MAX || self.gid == u32::MAX {
            return Err(DecodeError::Invalid("owner"));
        }
        self.mtime.check()?;
        if self.kind == FileKind::File && self.size > limits::MAX_FILE {
            return Err(DecodeError::Limit("file size"));
        }
        let mut total = 0;
        let mut last: Option<&[u8]> = None;
        for xattr in &self.xattrs {
            check_xattr(xattr, last, &mut total)?;
            last = Some(&xattr.name);
        }
        Ok(())
    }
}

impl Timestamp {
    /// Whether a time can travel.
    pub(crate) fn check(self) -> Result<(), DecodeError> {
        if self.nanos < NANOS { Ok(()) } else { Err(DecodeError::Invalid("mtime")) }
    }
}

fn check_target(target: &[u8]) -> Result<(), DecodeError> {
    if target.len() > limits::MAX_TARGET {
        return Err(DecodeError::Limit("link target"));
    }
    if target.is_empty() || target.contains(&0) {
        return Err(DecodeError::Invalid("link target"));
    }
    Ok(())
}

/// `last` is the name before it; `total` counts the bytes of all.
fn check_xattr(xattr: &Xattr, last: Option<&[u8]>, total: &mut usize) -> Result<(), DecodeError> {
    let (name, value) = (&xattr.name, &xattr.value);
    if name.len() > limits::MAX_XATTR_NAME {
        return Err(DecodeError::Limit("xattr name"));
    }
    if value.len() > limits::MAX_XATTR_VALUE {
        return Err(DecodeError::Limit("xattr value"));
    }
    *total += name.len() + value.len();
    if *total > limits::MAX_XATTRS {
        return Err(DecodeError::Limit("xattrs"));
    }
    if name.is_empty() || name.contains(&0) || last.is_some_and(|last| *last >= **name) {
        return Err(DecodeError::Invalid("xattr name"));
    }
    Ok(())
}

/// Reads the target of a symbolic link; nothing for any other kind.
pub(crate) fn decode_target(d: &mut Decoder, kind: FileKind) -> Result<Box<[u8]>, DecodeError> {
    if kind != FileKind::Symlink {
        return Ok(Box::default());
    }
    let target: Bytes = d.bytes(limits::MAX_TARGET, "link target")?;
    check_target(&target)?;
    Ok(target[..].into())
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
        encode_xattrs(e, &meta.xattrs);
    }
}

pub(crate) fn encode_xattrs(e: &mut Encoder<'_>, xattrs: &[Xattr]) {
    e.varint(xattrs.len() as u64);
    for xattr in xattrs {
        e.bytes(&xattr.name);
        e.bytes(&xattr.value);
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
    let mode = u16::try_from(d.varint()?).map_err(|_| DecodeError::Invalid("mode"))?;
    let (uid, gid) = (d.u32("uid")?, d.u32("gid")?);
    let mtime = Timestamp { secs: d.signed()?, nanos: d.u32("mtime")? };
    let mut size = 0;
    let mut rdev = (0, 0);
    match kind {
        FileKind::File => size = d.varint()?,
        FileKind::CharDevice | FileKind::BlockDevice => rdev = (d.u32("rdev")?, d.u32("rdev")?),
        _ => {}
    }
    let xattrs = if flags & HAS_XATTRS != 0 { decode_xattrs(d)? } else { Xattrs::new() };
    let attributes =
        Attributes { immutable: flags & IMMUTABLE != 0, append_only: flags & APPEND_ONLY != 0 };
    let meta = Metadata { kind, mode, uid, gid, size, mtime, rdev, attributes, xattrs };
    meta.check()?;
    Ok((meta, flags))
}

pub(crate) fn decode_xattrs(d: &mut Decoder) -> Result<Xattrs, DecodeError> {
    let count = d.count(2, "xattr count")?;
    let mut xattrs = Xattrs::with_capacity(count.min(64));
    let mut total = 0;
    for _ in 0..count {
        let name = d.bytes(limits::MAX_XATTR_NAME, "xattr name")?;
        let value = d.bytes(limits::MAX_XATTR_VALUE, "xattr value")?;
        let xattr = Xattr { name: name[..].into(), value: value[..].into() };
        check_xattr(&xattr, xattrs.last().map(|last: &Xattr| &*last.name), &mut total)?;
        xattrs.push(xattr);
    }
    Ok(xattrs)
}
