//! What a listing says of one directory entry.

use crate::Name;

/// The kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FileKind {
    /// Regular file.
    File = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link.
    Symlink = 3,
    /// Named pipe.
    Fifo = 4,
    /// Unix socket.
    Socket = 5,
    /// Character device.
    CharDevice = 6,
    /// Block device.
    BlockDevice = 7,
}

/// A point in time: seconds since the epoch, which may be negative, and nanoseconds in `0..1e9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    pub secs: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// Inode flags that a volume may carry beyond the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Attributes {
    /// `chattr +i`.
    pub immutable: bool,
    /// `chattr +a`.
    pub append_only: bool,
}

/// One extended attribute; POSIX ACLs are the `system.posix_acl_*` ones, as raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xattr {
    /// Full name with its namespace, such as `user.note`: 1 to 255 bytes without NUL.
    pub name: Box<[u8]>,
    /// Raw value, at most 64 KiB.
    pub value: Box<[u8]>,
}

/// All extended attributes of an entry, sorted by name, each name once.
pub type Xattrs = Vec<Xattr>;

/// What an inode is, apart from its name and content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The kind of the entry.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: `0..=0o7777`.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Bytes of a regular file; 0 for every other kind.
    pub size: u64,
    /// Last modification of the content.
    pub mtime: Timestamp,
    /// Device number `(major, minor)` of a device node; `(0, 0)` for every other kind.
    pub rdev: (u32, u32),
    /// Immutable and append-only flags.
    pub attributes: Attributes,
    /// Extended attributes, sorted by name.
    pub xattrs: Xattrs,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name within its directory.
    pub name: Name,
    /// What the inode is.
    pub meta: Metadata,
    /// Where a symbolic link points, verbatim: 1 to 4095 bytes. Empty for every other kind.
    pub target: Box<[u8]>,
}
