//! An inode that is held by a descriptor, whatever its kind, and the calls that read and change its
//! metadata.
//!
//! Files and directories are open. Everything else is held by an `O_PATH` descriptor, which wakes no
//! device and blocks on no FIFO. Calls that refuse such descriptors go through the link in
//! `/proc/self/fd`, which leads to the inode itself and through no name, so nothing can be put in its
//! place; that holds for symbolic links as well, which are not followed then.
//!
//! A mode that is too narrow to work with is widened by [`Held::widen`]. The guard that it returns puts the mode back.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::{
    fs::{self, AtFlags, IFlags, Mode, OFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
    process::{Gid, Uid},
};
use wire::{FileKind, Metadata, Name, Timestamp, Xattrs};

use crate::{
    Dir, Result,
    access::set_flags,
    stat::{self, ReadOptions},
    xattr::{self, XattrTarget},
};

/// What the owner of a file needs so as to patch it and to change its attributes.
pub(crate) const OWNER_FILE: u16 = 0o600;

/// What the owner of an entry needs so as to read its attributes.
const OWNER_READ: u16 = 0o400;

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
            Self::Entry(dir, name, fd) => XattrTarget::Held(dir, name, fd.as_fd()),
        }
    }

    /// Everything, extended attributes included.
    pub(crate) fn read(&self, selinux: bool) -> Result<Metadata, Errno> {
        let (mut meta, device) = self.read_inode()?;
        meta.xattrs = match self.read_xattrs(device, meta.kind, selinux) {
            // Reading attributes takes the permission to read the file, even for its owner.
            Err(Errno::ACCESS) => {
                let widened = self.widen(OWNER_READ)?;
                let xattrs = self.read_xattrs(device, meta.kind, selinux);
                widened.restore()?;
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
        Ok((stat::metadata(self.dir(), &stat)?, device))
    }

    /// `(device, inode)`.
    pub(crate) fn identity(&self) -> Result<(u64, u64), Errno> {
        let stat = fs::fstat(self.fd())?;
        Ok((stat.st_dev, stat.st_ino))
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

    /// Adds the permission bits `bits` to the mode for as long as the guard lives.
    pub(crate) fn widen(&self, bits: u16) -> Result<Widened<'_>, Errno> {
        let before = self.read_inode()?.0.mode;
        if before | bits == before {
            return Ok(Widened { held: self, before: None });
        }
        self.set_mode(before | bits)?;
        Ok(Widened { held: self, before: Some(before) })
    }

    /// Sets the modification time and leaves the access time alone.
    pub(crate) fn set_mtime(&self, mtime: Timestamp) -> Result<(), Errno> {
        self.set_times(&times(mtime)?)
    }

    /// Sets the modification time, and the access time to what it is. Some file systems in user space set both times
    /// or none.
    pub(crate) fn set_both_times(&self, mtime: Timestamp) -> Result<(), Errno> {
        let stat = fs::statx(self.fd(), c"", AtFlags::EMPTY_PATH, StatxFlags::ATIME)?;
        let last_access =
            Timespec { tv_sec: stat.stx_atime.tv_sec, tv_nsec: stat.stx_atime.tv_nsec.into() };
        self.set_times(&Timestamps { last_access, ..times(mtime)? })
    }

    fn set_times(&self, times: &Timestamps) -> Result<(), Errno> {
        self.dir().check_writable()?;
        match self {
            Self::Open(_, fd) => fs::futimens(fd, times),
            Self::Entry(..) => {
                fs::utimensat(fs::CWD, proc_path(self.fd()), times, AtFlags::empty())
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

    /// Makes `wanted` the only ones of the [`BLOCKING`](crate::access::BLOCKING) flags that are set. Answers whether that
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

/// A mode that was widened so that work can be done. Dropping the guard puts the mode back.
#[must_use]
pub(crate) struct Widened<'a> {
    held: &'a Held<'a>,
    before: Option<u16>,
}

impl Widened<'_> {
    /// Puts the mode back.
    pub(crate) fn restore(mut self) -> Result<(), Errno> {
        self.before.take().map_or(Ok(()), |mode| self.held.set_mode(mode))
    }

    /// Leaves it to the caller to put back the mode, which this is, where it was widened.
    pub(crate) fn hand_over(mut self) -> Option<u16> {
        self.before.take()
    }
}

impl Drop for Widened<'_> {
    fn drop(&mut self) {
        if let Some(mode) = self.before {
            // The caller has an error to report already.
            let _ = self.held.set_mode(mode);
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
