//! An inode that is held by a descriptor, whatever its kind, and the calls that read and change its
//! metadata.
//!
//! Files and directories are open. Everything else is held by an `O_PATH` descriptor, which wakes no
//! device and blocks on no FIFO. Calls that refuse such descriptors go through the link in
//! `/proc/self/fd`, which leads to the inode itself and through no name, so nothing can be put in its
//! place; that holds for symbolic links as well, which are not followed then.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::{
    fs::{self, AtFlags, IFlags, Mode, OFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
    process::{Gid, Uid},
};
use wire::{FileKind, Metadata, Name, Timestamp, Xattrs};

use crate::{
    Dir, Result,
    stat::{self, ReadOptions},
    xattr::{self, XattrTarget},
};

/// The inode flags that forbid changes.
pub(crate) const BLOCKING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// What the owner of a file needs so as to patch it and to change its attributes.
pub(crate) const OWNER_FILE: u16 = 0o600;

/// What the owner of a directory needs so as to list and change it.
pub(crate) const OWNER_DIRECTORY: u16 = 0o700;

/// How an inode is held.
pub(crate) enum Held<'a> {
    /// A file or directory of the volume of the `Dir` that is open.
    Open(&'a Dir, BorrowedFd<'a>),
    /// An entry of the directory, held by an `O_PATH` descriptor.
    Entry(&'a Dir, &'a Name, OwnedFd),
}

impl<'a> Held<'a> {
    /// Holds the entry `name` of `dir`, whatever it is.
    pub(crate) fn entry(dir: &'a Dir, name: &'a Name) -> Result<Self> {
        Ok(Self::Entry(dir, name, dir.open_at(name, OFlags::PATH, Mode::empty())?))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(_, fd) => *fd,
            Self::Entry(_, _, fd) => fd.as_fd(),
        }
    }

    fn dir(&self) -> &Dir {
        match self {
            Self::Open(dir, _) | Self::Entry(dir, _, _) => dir,
        }
    }

    fn xattrs(&self) -> XattrTarget<'_> {
        match self {
            Self::Open(_, fd) => XattrTarget::Fd(*fd),
            Self::Entry(dir, name, _) => XattrTarget::At(dir, name),
        }
    }

    /// Everything, extended attributes included.
    pub(crate) fn read(&self, selinux: bool) -> Result<Metadata, Errno> {
        let (mut meta, device) = self.read_inode()?;
        meta.xattrs = match self.read_xattrs(device, meta.kind, selinux) {
            // Reading attributes takes the permission to read the file, even for its owner.
            Err(Errno::ACCESS) => {
                self.widen(OWNER_FILE)?;
                let xattrs = self.read_xattrs(device, meta.kind, selinux);
                self.set_mode(meta.mode)?;
                xattrs?
            }
            other => other?,
        };
        Ok(meta)
    }

    /// Everything but the extended attributes, and the device.
    pub(crate) fn read_inode(&self) -> Result<(Metadata, u64), Errno> {
        let stat = fs::statx(self.fd(), c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let device = fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        Ok((stat::metadata(&stat)?, device))
    }

    fn read_xattrs(&self, device: u64, kind: FileKind, selinux: bool) -> Result<Xattrs, Errno> {
        let options = ReadOptions { xattrs: true, selinux };
        stat::read_xattrs(self.dir(), self.xattrs(), device, kind, &options)
    }

    /// Sets owner and group; `None` leaves one alone.
    pub(crate) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        self.dir().check_writable()?;
        // All ones means "leave it" to the kernel and is nobody's number.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        fs::chownat(self.fd(), c"", uid, gid, AtFlags::EMPTY_PATH)
    }

    /// Sets permission bits, setuid, setgid and sticky.
    pub(crate) fn set_mode(&self, mode: u16) -> Result<(), Errno> {
        self.dir().check_writable()?;
        let mode = Mode::from_raw_mode(mode.into());
        match self {
            Self::Open(_, fd) => fs::fchmod(fd, mode),
            Self::Entry(..) => fs::chmod(proc_path(self.fd()), mode),
        }
    }

    /// Adds the permission bits `bits` to the mode; the mode before where one of them was missing.
    pub(crate) fn widen(&self, bits: u16) -> Result<Option<u16>, Errno> {
        let before = self.read_inode()?.0.mode;
        if before | bits == before {
            return Ok(None);
        }
        self.set_mode(before | bits)?;
        Ok(Some(before))
    }

    /// Sets the modification time and leaves the access time alone.
    pub(crate) fn set_mtime(&self, mtime: Timestamp) -> Result<(), Errno> {
        self.dir().check_writable()?;
        let times = times(mtime)?;
        match self {
            Self::Open(_, fd) => fs::futimens(fd, &times),
            Self::Entry(..) => {
                fs::utimensat(fs::CWD, proc_path(self.fd()), &times, AtFlags::empty())
            }
        }
    }

    pub(crate) fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        self.dir().check_writable()?;
        xattr::set(self.xattrs(), name, value)
    }

    /// Removes an attribute, which may be gone already.
    pub(crate) fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        self.dir().check_writable()?;
        match xattr::remove(self.xattrs(), name) {
            Err(Errno::NODATA) => Ok(()),
            other => other,
        }
    }

    /// Makes `wanted` the only ones of the [`BLOCKING`] flags that are set. Answers whether that
    /// changed anything.
    pub(crate) fn set_flags(&self, wanted: IFlags) -> Result<bool, Errno> {
        self.dir().check_writable()?;
        match self {
            Self::Open(_, fd) => set_flags(*fd, wanted),
            Self::Entry(dir, name, held) => {
                set_flags(open_for_flags(dir, name, held.as_fd())?.as_fd(), wanted)
            }
        }
    }
}

/// Flags are set through an open file, and only files and directories may be opened.
fn open_for_flags(dir: &Dir, name: &Name, held: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let held = fs::fstat(held)?;
    let kind = fs::FileType::from_raw_mode(held.st_mode);
    if !matches!(kind, fs::FileType::RegularFile | fs::FileType::Directory) {
        return Err(Errno::OPNOTSUPP);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fd = dir.open_at(name, flags, Mode::empty()).map_err(|e| e.errno)?;
    let opened = fs::fstat(&fd)?;
    let same = (opened.st_dev, opened.st_ino) == (held.st_dev, held.st_ino);
    if same { Ok(fd) } else { Err(Errno::STALE) }
}

/// As [`Held::set_flags`], for an open file or directory.
pub(crate) fn set_flags(fd: BorrowedFd<'_>, wanted: IFlags) -> Result<bool, Errno> {
    let flags = match fs::ioctl_getflags(fd) {
        // A file system without such flags.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) if wanted.is_empty() => {
            return Ok(false);
        }
        other => other?,
    };
    let new = flags.difference(BLOCKING).union(wanted);
    if new == flags {
        return Ok(false);
    }
    fs::ioctl_setflags(fd, new)?;
    Ok(true)
}

/// The modification time in the form of `utimensat(2)`, leaving the access time alone.
pub(crate) fn times(mtime: Timestamp) -> Result<Timestamps, Errno> {
    // Larger values mean "now" and "leave it" to the kernel.
    if mtime.nanos >= 1_000_000_000 {
        return Err(Errno::INVAL);
    }
    Ok(Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() },
    })
}

fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
