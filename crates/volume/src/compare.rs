//! Every difference between two trees, or two block devices.
//!
//! Both trees are walked at the same time, as a merge of their sorted listings, on the calling
//! thread and without recursion. What exists on one side only is named once, with all that is below
//! it. An entry that cannot be read, or that changes while it is, is a difference too: nobody has
//! seen that it is equal.
//!
//! The same is left out as from a [digest](crate::digest): inode numbers, allocation, `lost+found` at
//! the root, and what is mounted below.

mod difference;
mod extents;

use std::{cmp::Ordering, collections::HashMap, ops::Range, path::Path};

use rustix::io::Errno;
use wire::{Entry, FileKind, Metadata, Name, name::escape};

pub use self::difference::{Difference, Side, What};
use self::extents::DataOfEither;
use crate::{
    Dir, Error, Result,
    device::{self, BlockSource},
    digest::{changed, ends_early},
    source::SourceFile,
    stat::{self, Inode, ReadOptions},
    unmapped,
    walk::{self, Level},
};

/// One read of a file, in bytes.
const CHUNK: usize = 256 * 1024;

/// Mount points that are kept.
const MAX_MOUNT_POINTS: usize = 1000;

/// What two readers hold in the same range.
#[derive(PartialEq)]
enum Part {
    Equal,
    /// They disagree from this offset on.
    Differs(u64),
    /// Both end before the range does.
    Missing,
}

type SideResult<T> = std::result::Result<T, (Side, Error)>;

/// What a comparison has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Names that both trees have, with the root.
    pub entries: u64,
    /// Bytes of content compared, holes included.
    pub bytes: u64,
    /// Differences, of any kind.
    pub differences: u64,
    /// Of these, entries that could not be read.
    pub unreadable: u64,
    /// Mount points of either tree, which were not entered, escaped for display: the first 1,000.
    pub mount_points: Vec<String>,
}

impl Counts {
    /// True where the two are equal, and all of both was seen.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences == 0
    }
}

/// Compares the directory trees, or block devices, at `a` and `b`, and tells `sink` every difference
/// in the order of the walk.
///
/// # Errors
/// Where one of the roots cannot be opened or read, and `ENOTBLK` where only one is a device.
/// Failures on other entries are differences.
pub fn compare(
    a: &Path,
    b: &Path,
    options: &ReadOptions,
    sink: &mut dyn FnMut(Difference),
) -> Result<Counts> {
    let mut comparison = Comparison::new(*options, sink);
    match (device::is_block_device(a)?, device::is_block_device(b)?) {
        (false, false) => comparison.trees(&Dir::open_root(a)?, &Dir::open_root(b)?)?,
        (true, true) => comparison.devices(&BlockSource::open(a)?, &BlockSource::open(b)?)?,
        (a_is_device, _) => {
            let other = if a_is_device { b } else { a };
            let shown = escape(other.as_os_str().as_encoded_bytes());
            return Err(Error::new("compare with a block device", shown, Errno::NOTBLK));
        }
    }
    Ok(comparison.counts)
}

struct Comparison<'a> {
    options: ReadOptions,
    sink: &'a mut dyn FnMut(Difference),
    counts: Counts,
    /// Inodes with several names: the number of the first entry of both trees that led there.
    inodes_a: HashMap<(u64, u64), u64>,
    inodes_b: HashMap<(u64, u64), u64>,
    buffers: [Vec<u8>; 2],
}

/// The directory of the same name in both trees.
struct Pair {
    a: Level,
    b: Level,
}

impl<'a> Comparison<'a> {
    fn new(options: ReadOptions, sink: &'a mut dyn FnMut(Difference)) -> Self {
        Self {
            options,
            sink,
            counts: Counts::default(),
            inodes_a: HashMap::new(),
            inodes_b: HashMap::new(),
            buffers: [vec![0; CHUNK], vec![0; CHUNK]],
        }
    }

    fn trees(&mut self, a: &Dir, b: &Dir) -> Result<()> {
        let (meta_a, meta_b) =
            (stat::root_entry(a, &self.options)?, stat::root_entry(b, &self.options)?);
        self.counts.entries += 1;
        self.known(None, (a, &meta_a), (b, &meta_b));
        self.metadata(&|| ".".to_owned(), &meta_a, &meta_b);
        let mut pairs = Vec::new();
        let root = Pair { a: Level::read(a.clone())?, b: Level::read(b.clone())? };
        self.enter(&mut pairs, root);
        while let Some(pair) = pairs.last_mut() {
            let order = match (pair.a.peek(), pair.b.peek()) {
                (Some(a), Some(b)) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => {
                    pairs.pop();
                    continue;
                }
            };
            match order {
                Ordering::Less => self.only(&mut pair.a, &pair.b, What::OnlyInA),
                Ordering::Greater => self.only(&mut pair.b, &pair.a, What::OnlyInB),
                Ordering::Equal => {
                    pair.b.pop();
                    let Some(name) = pair.a.pop() else { continue };
                    let (a, b) = (pair.a.dir.clone(), pair.b.dir.clone());
                    if let Some(below) = self.both(&a, &b, &name) {
                        self.enter(&mut pairs, below);
                    }
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, pairs: &mut Vec<Pair>, pair: Pair) {
        for (side, level) in [(Side::A, &pair.a), (Side::B, &pair.b)] {
            if let Some(failure) = level.failure() {
                self.unreadable((side, failure.clone()));
            }
        }
        pairs.push(pair);
    }

    /// The next name of `side`, which `other` does not have.
    fn only(&mut self, side: &mut Level, other: &Level, what: What) {
        let Some(name) = side.pop() else { return };
        // A listing that broke off, or a file system's own directory, says nothing of the data.
        let dir = &side.dir;
        let skipped = other.failure().is_some()
            || (walk::is_lost_and_found(dir, &name) && is_directory(dir, &name));
        if !skipped {
            self.differ(dir.display_entry(&name), what);
        }
    }

    /// Compares the entries of one name; returns the pair to go on with where both are directories.
    fn both(&mut self, a: &Dir, b: &Dir, name: &Name) -> Option<Pair> {
        let read = |dir| stat::read_entry(dir, name, &self.options);
        let ((entry_a, inode_a), (entry_b, inode_b)) = match (read(a), read(b)) {
            (Ok(a), Ok(b)) => (a, b),
            (a, b) => {
                a.map_err(in_a).err().into_iter().for_each(|failure| self.unreadable(failure));
                b.map_err(in_b).err().into_iter().for_each(|failure| self.unreadable(failure));
                return None;
            }
        };
        let kinds = (entry_a.meta.kind, entry_b.meta.kind);
        if walk::is_lost_and_found(a, name) && kinds == (FileKind::Directory, FileKind::Directory) {
            return None;
        }
        self.counts.entries += 1;
        let shown = || a.display_entry(name);
        if kinds.0 != kinds.1 {
            self.differ(shown(), What::Kind(kinds.0, kinds.1));
            return None;
        }
        self.known(Some(name), (a, &entry_a.meta), (b, &entry_b.meta));
        self.metadata(&shown, &entry_a.meta, &entry_b.meta);
        if entry_a.target != entry_b.target {
            let (a, b) = (entry_a.target.clone(), entry_b.target.clone());
            self.differ(shown(), What::Target(a, b));
        }
        if kinds.0 == FileKind::Directory {
            return self.below(a, b, name, (inode_a, inode_b));
        }
        let is_new = self.links(&shown, &inode_a, &inode_b);
        if kinds.0 == FileKind::File && is_new {
            self.content(a, b, (&entry_a, &entry_b));
        }
        None
    }

    fn below(&mut self, a: &Dir, b: &Dir, name: &Name, inodes: (Inode, Inode)) -> Option<Pair> {
        let mounts = &mut self.counts.mount_points;
        if (inodes.0.mount_root || inodes.1.mount_root) && mounts.len() < MAX_MOUNT_POINTS {
            mounts.push(a.display_entry(name));
        }
        let open = |dir: &Dir, inode: Inode| {
            if inode.mount_root {
                Ok(Level::closed(dir.clone()))
            } else {
                dir.open_child(name).and_then(Level::read)
            }
        };
        match (open(a, inodes.0), open(b, inodes.1)) {
            (Ok(a), Ok(b)) => Some(Pair { a, b }),
            (a, b) => {
                a.map_err(in_a).err().into_iter().for_each(|failure| self.unreadable(failure));
                b.map_err(in_b).err().into_iter().for_each(|failure| self.unreadable(failure));
                None
            }
        }
    }

    /// What cannot be known is no difference that is seen, nor is it equal.
    fn known(&mut self, name: Option<&Name>, a: (&Dir, &Metadata), b: (&Dir, &Metadata)) {
        for (side, (dir, meta)) in [(Side::A, a), (Side::B, b)] {
            if let Some(reason) = unmapped::hides(dir, name, meta) {
                let shown = name.map_or_else(|| dir.display(), |name| dir.display_entry(name));
                self.unreadable((side, Error::new(reason, shown, Errno::OVERFLOW)));
            }
        }
    }

    fn metadata(&mut self, shown: &dyn Fn() -> String, a: &Metadata, b: &Metadata) {
        if a.mode != b.mode {
            self.differ(shown(), What::Mode(a.mode, b.mode));
        }
        if (a.uid, a.gid) != (b.uid, b.gid) {
            self.differ(shown(), What::Owner((a.uid, a.gid), (b.uid, b.gid)));
        }
        if a.mtime != b.mtime {
            self.differ(shown(), What::Mtime(a.mtime, b.mtime));
        }
        if a.size != b.size {
            self.differ(shown(), What::Size(a.size, b.size));
        }
        if a.rdev != b.rdev {
            self.differ(shown(), What::Device(a.rdev, b.rdev));
        }
        if a.attributes != b.attributes {
            self.differ(shown(), What::Attributes);
        }
        let lacks = |x: &Metadata, y: &Metadata| -> Vec<Box<[u8]>> {
            let missing = x.xattrs.iter().filter(|xattr| y.xattrs.binary_search(xattr).is_err());
            missing.map(|xattr| xattr.name.clone()).collect()
        };
        let (of_a, of_b) = (lacks(a, b), lacks(b, a));
        let mut names = [&of_a[..], &of_b[..]].concat();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let only = match (of_a.contains(&name), of_b.contains(&name)) {
                (true, false) => Some(Side::A),
                (false, true) => Some(Side::B),
                _ => None,
            };
            self.differ(shown(), What::Xattr(name, only));
        }
    }

    /// Compares which earlier entry has the same inode; true where none has, or not in both trees.
    fn links(&mut self, shown: &dyn Fn() -> String, a: &Inode, b: &Inode) -> bool {
        let this = self.counts.entries;
        let first = |known: &mut HashMap<(u64, u64), u64>, inode: &Inode| {
            if inode.nlink > 1 {
                *known.entry((inode.dev, inode.ino)).or_insert(this)
            } else {
                this
            }
        };
        let (first_a, first_b) = (first(&mut self.inodes_a, a), first(&mut self.inodes_b, b));
        if first_a != first_b {
            let only = match (first_a == this, first_b == this) {
                (false, true) => Some(Side::A),
                (true, false) => Some(Side::B),
                _ => None,
            };
            self.differ(shown(), What::HardLinks(only));
        }
        first_a != first_b || first_a == this
    }

    fn content(&mut self, a: &Dir, b: &Dir, (entry_a, entry_b): (&Entry, &Entry)) {
        let size = entry_a.meta.size;
        if size != entry_b.meta.size {
            return;
        }
        match self.first_difference(a, b, &entry_a.name, size) {
            Ok(None) => {}
            Ok(Some(offset)) => {
                self.differ(a.display_entry(&entry_a.name), What::Content(offset));
            }
            Err(failure) => self.unreadable(failure),
        }
    }

    fn first_difference(
        &mut self,
        a: &Dir,
        b: &Dir,
        name: &Name,
        size: u64,
    ) -> SideResult<Option<u64>> {
        let file_a = SourceFile::open(a, name).map_err(in_a)?;
        let file_b = SourceFile::open(b, name).map_err(in_b)?;
        let stamp_a = file_a.stamp().map_err(in_a)?;
        let stamp_b = file_b.stamp().map_err(in_b)?;
        let mut found = Part::Equal;
        for part in DataOfEither::new(&file_a, &file_b, size) {
            let read_a = |at, buffer: &mut [u8]| file_a.read_at(at, buffer);
            let read_b = |at, buffer: &mut [u8]| file_b.read_at(at, buffer);
            found = self.part(part?, read_a, read_b)?;
            if found != Part::Equal {
                break;
            }
        }
        if stamp_a.size != size || file_a.changed_since(&stamp_a).map_err(in_a)? {
            return Err((Side::A, changed(a, name)));
        }
        if stamp_b.size != size || file_b.changed_since(&stamp_b).map_err(in_b)? {
            return Err((Side::B, changed(b, name)));
        }
        self.counts.bytes += size;
        match found {
            Part::Equal => Ok(None),
            Part::Differs(offset) => Ok(Some(offset)),
            Part::Missing => Err((Side::A, ends_early(&file_a, &stamp_a))),
        }
    }

    fn devices(&mut self, a: &BlockSource, b: &BlockSource) -> Result<()> {
        self.counts.entries += 1;
        if a.size() != b.size() {
            self.differ(".".to_owned(), What::Size(a.size(), b.size()));
            return Ok(());
        }
        let whole = 0..a.size();
        let found = self
            .part(whole, |at, buffer| a.read_at(at, buffer), |at, buffer| b.read_at(at, buffer))
            .map_err(|(_, error)| error)?;
        self.counts.bytes += a.size();
        match found {
            Part::Equal => Ok(()),
            Part::Differs(offset) => {
                self.differ(".".to_owned(), What::Content(offset));
                Ok(())
            }
            Part::Missing => Err(Error::new("read", "block device", Errno::NODATA)),
        }
    }

    /// Compares what two readers hold in `range`.
    fn part(
        &mut self,
        range: Range<u64>,
        read_a: impl Fn(u64, &mut [u8]) -> Result<usize>,
        read_b: impl Fn(u64, &mut [u8]) -> Result<usize>,
    ) -> SideResult<Part> {
        let [buffer_a, buffer_b] = &mut self.buffers;
        let mut at = range.start;
        while at < range.end {
            let want = CHUNK.min(usize::try_from(range.end - at).unwrap_or(CHUNK));
            let a = read_a(at, &mut buffer_a[..want]).map_err(in_a)?;
            let b = read_b(at, &mut buffer_b[..want]).map_err(in_b)?;
            let (a, b) = (&buffer_a[..a], &buffer_b[..b]);
            if a != b {
                let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
                return Ok(Part::Differs(at + same as u64));
            }
            if a.is_empty() {
                return Ok(Part::Missing);
            }
            at += a.len() as u64;
        }
        Ok(Part::Equal)
    }

    fn unreadable(&mut self, (side, error): (Side, Error)) {
        self.counts.unreadable += 1;
        self.differ(error.name.clone(), What::Unreadable(side, error));
    }

    fn differ(&mut self, name: String, what: What) {
        self.counts.differences += 1;
        (self.sink)(Difference { name, what });
    }
}

fn in_a(error: Error) -> (Side, Error) {
    (Side::A, error)
}

fn in_b(error: Error) -> (Side, Error) {
    (Side::B, error)
}

fn is_directory(dir: &Dir, name: &Name) -> bool {
    let plain = ReadOptions { xattrs: false, selinux: false };
    stat::read_entry(dir, name, &plain)
        .is_ok_and(|(entry, _)| entry.meta.kind == FileKind::Directory)
}
