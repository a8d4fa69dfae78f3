//! What two trees may differ in, and how that is shown.

use std::fmt;

use wire::{FileKind, Timestamp, name::escape};

use crate::{Error, acl, calendar::Shown};

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
    /// The value of the extended attribute of this name; with a side where it exists in that tree only.
    Xattr(Box<[u8]>, Option<Side>),
    /// Where a symbolic link points.
    Target(Box<[u8]>, Box<[u8]>),
    /// Device number of a device node.
    Device((u32, u32), (u32, u32)),
    /// Which earlier names, of those that both trees have, lead to the same inode; with a side where there are some in that
    /// tree only.
    HardLinks(Option<Side>),
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

impl Difference {
    /// The difference in words, in which `a` and `b` stand for the two trees.
    pub fn between(&self, a: &str, b: &str) -> impl fmt::Display {
        fmt::from_fn(move |f| write!(f, "{}: {}", self.name, self.what.between(a, b)))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.between("A", "B").fmt(f)
    }
}

impl What {
    /// The same without the name of the entry.
    pub fn between(&self, a: &str, b: &str) -> impl fmt::Display {
        fmt::from_fn(move |f| self.write(f, a, b))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, in_a: &str, in_b: &str) -> fmt::Result {
        let mut pair = |what: &str, a: &dyn fmt::Display, b: &dyn fmt::Display| {
            write!(f, "{what} {a} in {in_a}, {b} in {in_b}")
        };
        match self {
            Self::OnlyInA => write!(f, "only in {in_a}"),
            Self::OnlyInB => write!(f, "only in {in_b}"),
            Self::Kind(a, b) => pair("type", &kind(*a), &kind(*b)),
            Self::Mode(a, b) => pair("mode", &format_args!("{a:04o}"), &format_args!("{b:04o}")),
            Self::Owner(a, b) => {
                pair("owner", &format_args!("{}:{}", a.0, a.1), &format_args!("{}:{}", b.0, b.1))
            }
            Self::Mtime(a, b) => {
                let [a, b] = Shown::pair(*a, *b);
                pair("mtime", &a, &b)
            }
            Self::Size(a, b) => pair("size", a, b),
            Self::Content(offset) => write!(f, "content differs from byte {offset}"),
            Self::Attributes => write!(f, "immutable or append-only flag differs"),
            Self::Xattr(name, only) => {
                match &**name {
                    acl::ACCESS => f.write_str("ACL")?,
                    acl::DEFAULT => f.write_str("default ACL")?,
                    name => write!(f, "extended attribute {}", escape(name))?,
                }
                match only {
                    None => f.write_str(" differs"),
                    Some(Side::A) => write!(f, " only in {in_a}"),
                    Some(Side::B) => write!(f, " only in {in_b}"),
                }
            }
            Self::Target(a, b) => pair("link target", &escape(a), &escape(b)),
            Self::Device(a, b) => {
                pair("device", &format_args!("{}:{}", a.0, a.1), &format_args!("{}:{}", b.0, b.1))
            }
            Self::HardLinks(None) => {
                write!(f, "hard links to different files in {in_a} and {in_b}")
            }
            Self::HardLinks(Some(Side::A)) => {
                write!(f, "hard link to another name in {in_a}, not in {in_b}")
            }
            Self::HardLinks(Some(Side::B)) => {
                write!(f, "hard link to another name in {in_b}, not in {in_a}")
            }
            Self::Unreadable(side, error) => {
                let side = if *side == Side::A { in_a } else { in_b };
                write!(f, "not compared, {side}: {}", error.what())
            }
        }
    }
}

/// The name of a type of entries.
fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::Fifo => "FIFO",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
    }
}
