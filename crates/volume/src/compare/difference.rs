//! What two trees may differ in, and how that is shown.

use std::fmt;

use wire::{FileKind, Timestamp, name::escape};

use crate::Error;

/// One way in which an entry differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The entry below both roots, escaped for display; `.` is the roots themselves.
    pub name: String,
    /// What differs.
    pub what: What,
}

/// What differs; pairs are the first tree's and the second's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// Exists in the first tree only, with all that is below.
    OnlyInA,
    /// Exists in the second tree only, with all that is below.
    OnlyInB,
    /// The kind of the entry; nothing else of it is compared then.
    Kind(FileKind, FileKind),
    /// Permission bits.
    Mode(u16, u16),
    /// Numeric owner and group.
    Owner((u32, u32), (u32, u32)),
    /// Last modification.
    Mtime(Timestamp, Timestamp),
    /// Bytes of a file or device; the content is not compared then.
    Size(u64, u64),
    /// The content, first at this offset.
    Content(u64),
    /// Immutable or append-only flag.
    Attributes,
    /// The extended attribute of this name: its value, or that it exists.
    Xattr(Box<[u8]>),
    /// Where a symbolic link points.
    Target(Box<[u8]>, Box<[u8]>),
    /// Device number of a device node.
    Device((u32, u32), (u32, u32)),
    /// Which earlier names, of those that both trees have, lead to the same inode.
    HardLinks,
    /// Not compared, because reading it failed in this tree.
    Unreadable(Side, Error),
}

/// One of the two trees or devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyInA => write!(f, "only in A"),
            Self::OnlyInB => write!(f, "only in B"),
            Self::Kind(a, b) => write!(f, "kind {a:?} / {b:?}"),
            Self::Mode(a, b) => write!(f, "mode {a:04o} / {b:04o}"),
            Self::Owner(a, b) => write!(f, "owner {}:{} / {}:{}", a.0, a.1, b.0, b.1),
            Self::Mtime(a, b) => {
                write!(f, "mtime {}.{:09} / {}.{:09}", a.secs, a.nanos, b.secs, b.nanos)
            }
            Self::Size(a, b) => write!(f, "size {a} / {b}"),
            Self::Content(offset) => write!(f, "content from byte {offset}"),
            Self::Attributes => write!(f, "immutable or append-only flag"),
            Self::Xattr(name) => write!(f, "extended attribute {}", escape(name)),
            Self::Target(a, b) => write!(f, "link target {} / {}", escape(a), escape(b)),
            Self::Device(a, b) => write!(f, "device {}:{} / {}:{}", a.0, a.1, b.0, b.1),
            Self::HardLinks => write!(f, "hard links"),
            Self::Unreadable(side, error) => {
                write!(f, "not compared, {side:?}: {}", error.what())
            }
        }
    }
}
