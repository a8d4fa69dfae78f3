//! Entries of a volume as nodes of restic's format, and back.
//!
//! The format holds less than a volume does. What it has no field for is stored as an extended attribute in the namespace
//! `pvferry.`, which no kernel accepts: other programs cannot set it, and ignore that.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use rustic_core::{
    jiff,
    repofile::{Metadata as NodeMetadata, Node, NodeType},
};
use rustix::fs;
use serde_json::json;
use volume::stat::Inode;
use wire::{Attributes, Entry, FileKind, Metadata, Name, Timestamp, Xattr};

use super::{DataId, TreeId};

/// Inode flags, as the letters of `chattr`.
const FLAGS: &str = "pvferry.flags";

/// Type and mode bits of Go's `os.FileMode`, which the format stores.
mod go {
    pub(super) const DIR: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const FIFO: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHAR_DEVICE: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
}

/// The inode of an entry as a repository knows it. Entries of one snapshot with the same one are hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId {
    /// Device number.
    pub(crate) device: u64,
    /// Inode number.
    pub(crate) inode: u64,
}

/// One entry of a stored tree.
#[derive(Debug, Clone)]
pub(crate) struct StoredEntry {
    pub(crate) entry: Entry,
    /// Set where the inode had several names.
    pub(crate) link: Option<LinkId>,
    /// Blobs of a regular file, in order.
    pub(crate) content: Vec<DataId>,
    /// The tree of a directory.
    pub(crate) subtree: Option<TreeId>,
}

/// The node of `entry`. The error says what the format cannot hold.
pub(super) fn encode(
    name: &[u8],
    meta: &Metadata,
    target: &[u8],
    inode: &Inode,
) -> Result<Node, String> {
    let device = fs::makedev(meta.rdev.0, meta.rdev.1);
    let node_type = match meta.kind {
        FileKind::File => NodeType::File,
        FileKind::Directory => NodeType::Dir,
        FileKind::Symlink => NodeType::from_link(std::path::Path::new(OsStr::from_bytes(target))),
        FileKind::Fifo => NodeType::Fifo,
        FileKind::Socket => NodeType::Socket,
        FileKind::CharDevice => NodeType::Chardev { device },
        FileKind::BlockDevice => NodeType::Dev { device },
    };
    let mtime = encode_time(meta.mtime)?;
    let mut node = NodeMetadata {
        mode: Some(encode_mode(meta)),
        mtime: Some(mtime),
        // The time of the last access says nothing about the data, and differs after each backup.
        atime: Some(mtime),
        ctime: Some(encode_time(inode.ctime)?),
        uid: Some(meta.uid),
        gid: Some(meta.gid),
        inode: inode.ino,
        device_id: inode.dev,
        size: meta.size,
        links: if meta.kind == FileKind::Directory { 0 } else { u64::from(inode.nlink) },
        ..NodeMetadata::default()
    };
    let mut attributes = Vec::with_capacity(meta.xattrs.len());
    for xattr in &meta.xattrs {
        let name = std::str::from_utf8(&xattr.name)
            .map_err(|_| "the name of an extended attribute is not UTF-8".to_owned())?;
        attributes.push(json!({ "name": name, "value": base64(&xattr.value) }));
    }
    if meta.attributes != Attributes::default() {
        let mut flags = Vec::new();
        flags.extend(meta.attributes.immutable.then_some(b'i'));
        flags.extend(meta.attributes.append_only.then_some(b'a'));
        attributes.push(json!({ "name": FLAGS, "value": base64(&flags) }));
    }
    if !attributes.is_empty() {
        // The type of an attribute has no public name.
        node.extended_attributes =
            serde_json::from_value(attributes.into()).map_err(|error| error.to_string())?;
    }
    Ok(Node::new_node(OsStr::from_bytes(name), node_type, node))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

/// The entry that `node` stands for. The error says why it cannot be one.
pub(super) fn decode(node: Node) -> Result<StoredEntry, String> {
    let name =
        Name::new(node.name().as_bytes()).map_err(|error| format!("{}: {error}", shown(&node)))?;
    let fail = |what: &str| format!("{name}: {what}");
    let stored = &node.meta;
    let (kind, target, device) = match &node.node_type {
        NodeType::File => (FileKind::File, Vec::new(), 0),
        NodeType::Dir => (FileKind::Directory, Vec::new(), 0),
        link @ NodeType::Symlink { .. } => {
            (FileKind::Symlink, link.to_link().as_os_str().as_bytes().to_vec(), 0)
        }
        NodeType::Fifo => (FileKind::Fifo, Vec::new(), 0),
        NodeType::Socket => (FileKind::Socket, Vec::new(), 0),
        NodeType::Chardev { device } => (FileKind::CharDevice, Vec::new(), *device),
        NodeType::Dev { device } => (FileKind::BlockDevice, Vec::new(), *device),
    };
    if kind == FileKind::Symlink
        && (target.is_empty() || target.len() > 4095 || target.contains(&0))
    {
        return Err(fail("symbolic link without a valid target"));
    }
    if (kind == FileKind::Directory) != node.subtree.is_some() {
        return Err(fail("directory without a tree"));
    }
    let mut attributes = Attributes::default();
    let mut xattrs = Vec::with_capacity(stored.extended_attributes.len());
    for xattr in &stored.extended_attributes {
        let value = xattr.value.clone().unwrap_or_default();
        if xattr.name == FLAGS {
            attributes.immutable = value.contains(&b'i');
            attributes.append_only = value.contains(&b'a');
        } else if xattr.name.is_empty() || xattr.name.len() > 255 || xattr.name.contains('\0') {
            return Err(fail("extended attribute without a valid name"));
        } else {
            let name = xattr.name.as_bytes().into();
            xattrs.push(Xattr { name, value: value.into() });
        }
    }
    xattrs.sort();
    let links = stored.links > 1 && kind != FileKind::Directory;
    let meta = Metadata {
        kind,
        mode: decode_mode(stored.mode.unwrap_or(0)),
        uid: stored.uid.unwrap_or(0),
        gid: stored.gid.unwrap_or(0),
        size: if kind == FileKind::File { stored.size } else { 0 },
        mtime: stored.mtime.map_or_else(Timestamp::default, decode_time),
        rdev: if device == 0 { (0, 0) } else { (fs::major(device), fs::minor(device)) },
        attributes,
        xattrs,
    };
    Ok(StoredEntry {
        entry: Entry { name: name.clone(), meta, target: target.into() },
        link: links.then_some(LinkId { device: stored.device_id, inode: stored.inode }),
        content: node.content.unwrap_or_default(),
        subtree: node.subtree,
    })
}

fn shown(node: &Node) -> String {
    wire::name::escape(node.name().as_bytes()).to_string()
}

fn encode_mode(meta: &Metadata) -> u32 {
    let kind = match meta.kind {
        FileKind::File => 0,
        FileKind::Directory => go::DIR,
        FileKind::Symlink => go::SYMLINK,
        FileKind::Fifo => go::FIFO,
        FileKind::Socket => go::SOCKET,
        FileKind::CharDevice => go::DEVICE | go::CHAR_DEVICE,
        FileKind::BlockDevice => go::DEVICE,
    };
    let bit = |posix: u16, go: u32| if meta.mode & posix != 0 { go } else { 0 };
    let special = bit(0o4000, go::SETUID) | bit(0o2000, go::SETGID) | bit(0o1000, go::STICKY);
    kind | special | u32::from(meta.mode & 0o777)
}

fn decode_mode(mode: u32) -> u16 {
    let bit = |go: u32, posix: u16| if mode & go != 0 { posix } else { 0 };
    let special = bit(go::SETUID, 0o4000) | bit(go::SETGID, 0o2000) | bit(go::STICKY, 0o1000);
    special | (mode & 0o777) as u16
}

fn encode_time(time: Timestamp) -> Result<jiff::Timestamp, String> {
    let nanos = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    jiff::Timestamp::from_nanosecond(nanos)
        .map_err(|_| format!("the time {} s is outside of what the format holds", time.secs))
}

fn decode_time(time: jiff::Timestamp) -> Timestamp {
    let nanos = time.as_nanosecond();
    let secs = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(0);
    Timestamp { secs, nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode() -> Inode {
        Inode {
            dev: 7,
            ino: 9,
            since: volume::stat::Lifetime::Changed(Timestamp::default()),
            nlink: 2,
            size: 0,
            blocks: 0,
            ctime: Timestamp { secs: 1, nanos: 2 },
            mount_root: false,
            subvolume_stub: false,
        }
    }

    fn meta(kind: FileKind) -> Metadata {
        Metadata {
            kind,
            mode: 0o6751,
            uid: 70_000,
            gid: 0,
            size: 0,
            mtime: Timestamp { secs: -5, nanos: 999_999_999 },
            rdev: (0, 0),
            attributes: Attributes { immutable: true, append_only: true },
            xattrs: vec![Xattr { name: b"user.b"[..].into(), value: b"\xff\0"[..].into() }],
        }
    }

    #[test]
    fn every_kind_survives_a_round_trip_with_its_metadata() {
        let kinds = [
            FileKind::File,
            FileKind::Symlink,
            FileKind::Fifo,
            FileKind::Socket,
            FileKind::CharDevice,
            FileKind::BlockDevice,
        ];
        for kind in kinds {
            let mut meta = meta(kind);
            if kind == FileKind::File {
                meta.size = 1 << 40;
            }
            if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) {
                meta.rdev = (4095, 1_000_000);
            }
            let target: &[u8] = if kind == FileKind::Symlink { b"\xff/x" } else { b"" };
            for name in [&b"a\\x\"'\n\x01"[..], b"\xff\xfe", "ä\u{200b}".as_bytes()] {
                let node = encode(name, &meta, target, &inode()).unwrap();
                let json = serde_json::to_vec(&node).unwrap();
                let stored = decode(serde_json::from_slice(&json).unwrap()).unwrap();
                assert_eq!(stored.entry.name.as_bytes(), name);
                assert_eq!(stored.entry.meta, meta);
                assert_eq!(&*stored.entry.target, target);
                assert_eq!(stored.link, Some(LinkId { device: 7, inode: 9 }));
            }
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["..", ".", "", "a/b", "a\\x00b"] {
            let mut node = encode(b"x", &meta(FileKind::File), b"", &inode()).unwrap();
            name.clone_into(&mut node.name);
            assert!(decode(node).is_err(), "{name}");
        }
    }

    #[test]
    fn times_that_the_format_cannot_hold_are_refused() {
        let mut meta = meta(FileKind::File);
        meta.mtime.secs = 1 << 40;
        assert!(encode(b"x", &meta, b"", &inode()).is_err());
    }
}
