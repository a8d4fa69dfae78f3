//! What decides whether an inode may be changed: its permission bits, and the inode flags that forbid changes.
//!
//! Both are lifted where they stand in the way of a change, and put back afterwards. Works on open files and
//! directories alone.

use std::os::fd::BorrowedFd;

use rustix::{
    fs::{self, IFlags, Mode},
    io::Errno,
};

/// The inode flags that forbid changes.
pub(crate) const BLOCKING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// Permission bits and blocking flags of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    /// Permission bits, setuid, setgid, sticky.
    pub(crate) mode: u16,
    /// Those of the [`BLOCKING`] flags that are set.
    pub(crate) flags: IFlags,
}

impl Access {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mode = Mode::from_raw_mode(fs::fstat(fd)?.st_mode);
        // The permission bits of any mode are 12.
        let mode = u16::try_from(mode.as_raw_mode() & 0o7777).unwrap_or_default();
        Ok(Self { mode, flags: flags(fd)?.intersection(BLOCKING) })
    }

    /// Gives the inode this mode and these flags, and reads them back.
    ///
    /// # Errors
    /// `ERANGE` where the file system accepted them and shows others.
    pub(crate) fn restore(self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let now = Self::of(fd)?;
        if now.mode != self.mode {
            fs::fchmod(fd, Mode::from_raw_mode(self.mode.into()))?;
        }
        if now.flags != self.flags {
            set_flags(fd, self.flags)?;
        }
        if now == self || Self::of(fd)? == self { Ok(()) } else { Err(Errno::RANGE) }
    }
}

/// The flags of an inode; none on a file system that has no such flags.
fn flags(fd: BorrowedFd<'_>) -> Result<IFlags, Errno> {
    match fs::ioctl_getflags(fd) {
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(IFlags::empty()),
        other => other,
    }
}

/// Makes `wanted` the only ones of the [`BLOCKING`] flags that are set. Answers whether that changed anything.
pub(crate) fn set_flags(fd: BorrowedFd<'_>, wanted: IFlags) -> Result<bool, Errno> {
    let have = if wanted.is_empty() { flags(fd)? } else { fs::ioctl_getflags(fd)? };
    let new = have.difference(BLOCKING).union(wanted);
    if new == have {
        return Ok(false);
    }
    fs::ioctl_setflags(fd, new)?;
    Ok(true)
}
