//! What one directory entry is: a listing line, and the inode behind it.
//!
//! One `statx` and, where they are wanted, one call for the names of extended attributes; entries
//! are never opened. [`Inode`] is what a walk needs to know and what never travels: hard links,
//! mount points and change detection go by it.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    mem::MaybeUninit,
    os::fd::AsFd,
    sync::atomic::Ordering,
};

use rustix::{
    fs::{self, AtFlags, FileType, Statx, StatxAttributes, StatxFlags, StatxTimestamp},
    io::Errno,
};
use wire::{Attributes, Entry, FileKind, Metadata, Name, Timestamp, Xattrs};

use crate::{
    Dir, Result,
    xattr::{self, XattrTarget},
};

/// What to read of an entry besides the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// Read extended attributes and ACLs.
    pub xattrs: bool,
    /// Read `security.selinux` too; it says more about the host than about the data.
    pub selinux: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { xattrs: true, selinux: false }
    }
}

/// The inode of an entry, as this machine sees it. Nothing of it is the same elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    /// Device that the inode lies on.
    pub dev: u64,
    /// Number of the inode on its device.
    pub ino: u64,
    /// Since when it is this inode.
    pub since: Lifetime,
    /// Number of names that the inode has, in this tree or outside.
    pub nlink: u32,
    /// Bytes of the content, or whatever the kind calls its size.
    pub size: u64,
    /// Allocated units of 512 bytes.
    pub blocks: u64,
    /// Last change of content or metadata.
    pub ctime: Timestamp,
    /// The entry is the root of another mount. A subvolume of btrfs is none, although it has a device number of its own.
    pub mount_root: bool,
    /// It stands in a snapshot of Btrfs for a subvolume whose content the snapshot does not hold.
    pub subvolume_stub: bool,
}

/// What tells an inode from an earlier one of the same number: file systems give the number of an inode that is gone to the
/// next that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// When it was made.
    Born(Timestamp),
    /// When it last changed, where the file system does not keep when it was made: of two that differ, nobody knows
    /// whether they are one.
    Changed(Timestamp),
}

impl Lifetime {
    pub(crate) fn of(stat: &Statx) -> Self {
        if stat.stx_mask & StatxFlags::BTIME.bits() != 0 {
            Self::Born(timestamp(stat.stx_btime))
        } else {
            Self::Changed(timestamp(stat.stx_ctime))
        }
    }
}

/// What a directory was when its entry was read: which one, and who may do what in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryState {
    inode: (u64, u64),
    since: Lifetime,
    access: (u16, u32, u32),
    /// Its time of change.
    changed: Timestamp,
    /// A hash of its flags and extended attributes, which hold its ACLs.
    attributes: u64,
}

/// How a directory differs from what was listed under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryChange {
    /// It is another directory, perhaps of another file system that was mounted there.
    Replaced,
    /// Its mode, owner, ACL or another attribute is another.
    Access,
}

impl DirectoryState {
    /// Of an entry that was read. `None` where that says nothing about the directory itself: see
    /// [`Inode::subvolume_stub`].
    #[must_use]
    pub fn of(meta: &Metadata, inode: &Inode) -> Option<Self> {
        let state = Self {
            inode: (inode.dev, inode.ino),
            since: inode.since,
            access: (meta.mode, meta.uid, meta.gid),
            changed: inode.ctime,
            attributes: attributes_hash(meta),
        };
        (!inode.subvolume_stub).then_some(state)
    }

    /// True where `dir`, whose names were read when it had `changed` as its time of change, still has the mode, owner and
    /// attributes of its entry. It is read again only where that time is another.
    ///
    /// # Errors
    /// As [`root_entry`].
    pub fn has_its_metadata(
        &self,
        dir: &Dir,
        changed: Timestamp,
        options: &ReadOptions,
    ) -> Result<bool> {
        if changed == self.changed {
            return Ok(true);
        }
        let now = root_entry(dir, options)?;
        let access = (now.mode, now.uid, now.gid);
        Ok((access, attributes_hash(&now)) == (self.access, self.attributes))
    }

    /// How `dir`, which was opened by that name, differs.
    ///
    /// # Errors
    /// Whatever `fstat(2)` answers.
    pub fn change(&self, dir: &Dir) -> Result<Option<DirectoryChange>> {
        let stat = fs::fstat(dir.descriptor()?).map_err(|errno| dir.own_error("stat", errno))?;
        let access = ((stat.st_mode & 0o7777) as u16, stat.st_uid, stat.st_gid);
        let same = (stat.st_dev, stat.st_ino) == self.inode
            || (stat.st_dev == self.inode.0 && self.has_another_number(dir)?);
        Ok(if same {
            (access != self.access).then_some(DirectoryChange::Access)
        } else {
            Some(DirectoryChange::Replaced)
        })
    }

    /// True where `dir` is the directory that was listed, under another inode number: an overlay of several file systems
    /// and some by FUSE give a number that holds only as long as the kernel keeps the entry in its cache.
    fn has_another_number(&self, dir: &Dir) -> Result<bool> {
        let fd = dir.descriptor()?;
        let stat = fs::statx(&fd, c"", AtFlags::EMPTY_PATH | UNCACHED, INODE)
            .map_err(|errno| dir.own_error("stat", errno))?;
        Ok(Lifetime::of(&stat) == self.since)
    }
}

/// A hash of flags and extended attributes.
fn attributes_hash(meta: &Metadata) -> u64 {
    let mut hasher = DefaultHasher::new();
    (meta.attributes.immutable, meta.attributes.append_only).hash(&mut hasher);
    for xattr in &meta.xattrs {
        (&xattr.name, &xattr.value).hash(&mut hasher);
    }
    hasher.finish()
}

/// What is asked of an inode.
pub(crate) const INODE: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Asks the file system itself, and not what this machine has cached of it. A network file system answers from its cache for
/// up to a minute: a change by the application on another node would be missed. Local file systems ignore the flag.
pub(crate) const UNCACHED: AtFlags = AtFlags::STATX_FORCE_SYNC;

/// Clocks of two file systems, and the coarse times of some, are not further apart than this, in seconds.
const SLACK: u64 = 2;

impl Inode {
    /// True where `mtime`, the time at which the content of this inode changed, is also the time at which the inode
    /// itself changed last: nobody has set a time since the content was written.
    #[must_use]
    pub fn changed_with(&self, mtime: Timestamp) -> bool {
        self.ctime.secs.abs_diff(mtime.secs) <= SLACK
    }
}

/// The number of the empty directory that stands in a snapshot of Btrfs for a subvolume in it.
const SUBVOLUME_STUB: u64 = 2;
const BTRFS_MAGIC: u64 = 0x9123_683E;

fn on_btrfs(dir: &impl AsFd) -> bool {
    fs::fstatfs(dir).is_ok_and(|stat| stat.f_type as u64 == BTRFS_MAGIC)
}

/// The modification time of the directory that a stub lies in. Its own is that of each look.
fn time_of(parent: &impl AsFd) -> Result<Timestamp, Errno> {
    let stat = fs::statx(parent, c"", AtFlags::EMPTY_PATH | UNCACHED, StatxFlags::MTIME)?;
    Ok(timestamp(stat.stx_mtime))
}

/// How often an entry that changes its kind between two calls is read afresh.
const ATTEMPTS: usize = 4;

/// Reads the entry `name` of `dir`, without following it where it is a link.
///
/// # Errors
/// Whatever `statx(2)`, `readlink(2)` and the calls for extended attributes answer.
pub fn read_entry(dir: &Dir, name: &Name, options: &ReadOptions) -> Result<(Entry, Inode)> {
    let fd = dir.descriptor()?;
    let mut attempt = 1;
    loop {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | UNCACHED;
        let stat = fs::statx(&fd, name.as_bytes(), flags, INODE)
            .map_err(|e| dir.error("stat", name, e))?;
        let mut meta = metadata(dir, &stat).map_err(|e| dir.error("stat", name, e))?;
        let mut inode = inode(&stat, dir.root_device());
        if inode.ino == SUBVOLUME_STUB && meta.kind == FileKind::Directory && on_btrfs(&fd) {
            inode.subvolume_stub = true;
            meta.mtime = time_of(&fd).map_err(|e| dir.error("stat", name, e))?;
        }
        let target = match read_target(&fd, name, meta.kind) {
            // No longer the link that it was a moment ago.
            Err(Errno::INVAL) if attempt < ATTEMPTS => {
                attempt += 1;
                continue;
            }
            other => other.map_err(|e| dir.error("read link", name, e))?,
        };
        if options.xattrs {
            meta.xattrs =
                read_xattrs(dir, XattrTarget::At(dir, name), inode.dev, meta.kind, options)
                    .map_err(|e| dir.error("read extended attributes", name, e))?;
        }
        return Ok((Entry { name: name.clone(), meta, target }, inode));
    }
}

/// The kind of the entry `name` of `dir`, for directories that record none. Reads nothing else of it.
///
/// # Errors
/// Whatever `statx(2)` answers.
pub fn kind(dir: &Dir, name: &Name) -> Result<FileKind> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | UNCACHED;
    let stat = fs::statx(dir.descriptor()?, name.as_bytes(), flags, StatxFlags::TYPE)
        .map_err(|e| dir.error("stat", name, e))?;
    kind_in(&stat).map_err(|e| dir.error("stat", name, e))
}

/// Reads `dir` itself, by its descriptor. For the root of a volume, which has no entry.
///
/// # Errors
/// Whatever `statx(2)` and the calls for extended attributes answer.
pub fn root_entry(dir: &Dir, options: &ReadOptions) -> Result<Metadata> {
    root(dir, options).map(|(meta, _)| meta)
}

/// As [`root_entry`], with the inode.
///
/// # Errors
/// As [`root_entry`].
pub fn root(dir: &Dir, options: &ReadOptions) -> Result<(Metadata, Inode)> {
    let fd = dir.descriptor()?;
    let fail = |operation| move |errno| dir.own_error(operation, errno);
    let stat = fs::statx(&fd, c"", AtFlags::EMPTY_PATH | UNCACHED, INODE).map_err(fail("stat"))?;
    let mut meta = metadata(dir, &stat).map_err(fail("stat"))?;
    let inode = inode(&stat, dir.root_device());
    if options.xattrs {
        meta.xattrs = read_xattrs(dir, XattrTarget::Fd(fd.as_fd()), inode.dev, meta.kind, options)
            .map_err(fail("read extended attributes"))?;
    }
    Ok((meta, inode))
}

/// Reads the extended attributes, unless the device is known to have none.
pub(crate) fn read_xattrs(
    dir: &Dir,
    target: XattrTarget<'_>,
    device: u64,
    kind: FileKind,
    options: &ReadOptions,
) -> Result<Xattrs, Errno> {
    let known = &dir.hints().no_xattrs;
    let on_root_device = device == dir.root_device();
    if on_root_device && known.load(Ordering::Relaxed) {
        return Ok(Xattrs::new());
    }
    match xattr::read(target, options.selinux) {
        Err(Errno::OPNOTSUPP) => {
            // Some file systems keep them for files and directories only, so nothing but one of
            // these may speak for the device.
            if on_root_device && matches!(kind, FileKind::File | FileKind::Directory) {
                known.store(true, Ordering::Relaxed);
            }
            Ok(Xattrs::new())
        }
        other => other,
    }
}

/// The kind in `stat`. `EOPNOTSUPP` for a kind of inode that Linux does not have.
fn kind_in(stat: &Statx) -> Result<FileKind, Errno> {
    Ok(match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Unknown => return Err(Errno::OPNOTSUPP),
    })
}

/// The metadata in `stat`, which was read in `dir`, with extended attributes left empty. `EOPNOTSUPP` for a kind of inode
/// that Linux does not have.
pub(crate) fn metadata(dir: &Dir, stat: &Statx) -> Result<Metadata, Errno> {
    let kind = kind_in(stat)?;
    let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
    Ok(Metadata {
        kind,
        mode: stat.stx_mode & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size: if kind == FileKind::File { stat.stx_size } else { 0 },
        mtime: timestamp(stat.stx_mtime),
        rdev: if is_device { (stat.stx_rdev_major, stat.stx_rdev_minor) } else { (0, 0) },
        attributes: attributes(dir, stat),
        xattrs: Xattrs::new(),
    })
}

fn attributes(dir: &Dir, stat: &Statx) -> Attributes {
    let read = Attributes {
        immutable: stat.stx_attributes.contains(StatxAttributes::IMMUTABLE),
        append_only: stat.stx_attributes.contains(StatxAttributes::APPEND),
    };
    if read != Attributes::default() && has_no_flags(dir) { Attributes::default() } else { read }
}

/// True on EROFS, which calls everything immutable since it is never written to. It keeps no flags.
fn has_no_flags(dir: &Dir) -> bool {
    const EROFS: u64 = 0xe0f5_e1e2;
    let ask = || {
        let stat = dir.descriptor().ok().and_then(|fd| fs::fstatfs(fd).ok());
        stat.is_some_and(|stat| stat.f_type as u64 == EROFS)
    };
    *dir.hints().no_flags.get_or_init(ask)
}

/// The inode in `stat`, seen from a volume whose root lies on `root_device`.
pub(crate) fn inode(stat: &Statx, root_device: u64) -> Inode {
    let dev = fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    let mount_root = if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    } else {
        // Before Linux 5.8 only the device tells. On overlay, files may report the device of a layer.
        let is_directory = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
        is_directory && dev != root_device
    };
    Inode {
        since: Lifetime::of(stat),
        subvolume_stub: false,
        dev,
        ino: stat.stx_ino,
        nlink: stat.stx_nlink,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        ctime: timestamp(stat.stx_ctime),
        mount_root,
    }
}

pub(crate) fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp { secs: time.tv_sec, nanos: time.tv_nsec }
}

fn read_target(fd: impl AsFd, name: &Name, kind: FileKind) -> Result<Box<[u8]>, Errno> {
    if kind != FileKind::Symlink {
        return Ok(Box::default());
    }
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let (target, rest) = fs::readlinkat_raw(fd, name.as_bytes(), &mut buffer)?;
    // A full buffer may be a part of something longer, which Linux itself never has.
    if rest.is_empty() { Err(Errno::NAMETOOLONG) } else { Ok((&*target).into()) }
}
