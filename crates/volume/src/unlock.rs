//! Taking out of the way what forbids a change: inode flags, and a mode without write permission.
//!
//! A volume may hold entries that are immutable, and directories that their own owner cannot write.
//! A change that is refused with `EPERM` or `EACCES` is tried once more after the flags were cleared,
//! or after the owner's own bits were added to the mode. Nothing is ever opened to group or others.
//!
//! What was lifted is put back, and every path leads to that:
//! * A [`Dir`] remembers what it was. [`metadata::apply_dir`](crate::metadata::apply_dir) gives it its final metadata,
//!   [`restore`] puts back what it had, and dropping the last clone of the `Dir` does so at the latest.
//! * The flags of an entry are put back when the change is done, on the inode that had them: it may have lost the one
//!   name that was removed or replaced and have others.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::{
    fs::{
        AtFlags, FileType, IFlags, Mode, OFlags, StatxAttributes, StatxFlags, fstat, statat, statx,
    },
    io::Errno,
};
use wire::{Entry, Name};

use crate::{
    Dir, Error, Result,
    access::{self, Access},
    held::{Held, OWNER_DIRECTORY},
    stat::{self, Inode, ReadOptions},
};

/// Runs `change` of the entries of `dir`; where it is refused, clears the way in `dir` and of the
/// entry `name` and runs it once more. The flags of the entry are put back on what remains of it.
///
/// # Errors
/// What `change` answers, at last; what putting back the flags of the entry answers.
pub fn unlocking<T>(
    dir: &Dir,
    name: Option<&Name>,
    mut change: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    dir.check_writable()?;
    let refused = match change() {
        Err(errno @ (Errno::PERM | Errno::ACCESS)) => errno,
        other => return other,
    };
    // Where nothing is in the way now, another thread may have cleared it since: so the change is tried again in any case.
    if refused == Errno::ACCESS {
        let _ = widen_dir(dir);
        return change();
    }
    let _ = lift_flags_of_dir(dir);
    let entry = name.and_then(|name| LiftedFlags::of_entry(dir, name).ok().flatten());
    let done = change();
    entry.map_or(Ok(()), LiftedFlags::restore)?;
    done
}

/// Runs `change`, which flags of the file `name` may forbid but which does not concern them: they are
/// lifted for it and put back, also where the file has lost that name.
pub(crate) fn lifting<T>(
    dir: &Dir,
    name: &Name,
    mut change: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    dir.check_writable()?;
    match change() {
        Err(Errno::PERM) => {}
        other => return other,
    }
    // As above: another thread may have lifted them, through another name.
    let lifted = LiftedFlags::of_entry(dir, name).map_err(|e| e.errno)?;
    let done = change();
    lifted.map_or(Ok(()), LiftedFlags::restore)?;
    done
}

/// Flags of a file or directory that were lifted. Dropping this puts them back.
#[must_use]
pub(crate) struct LiftedFlags {
    fd: OwnedFd,
    flags: IFlags,
}

impl LiftedFlags {
    /// Lifts the blocking flags of the entry `name`; `None` where it has none.
    pub(crate) fn of_entry(dir: &Dir, name: &Name) -> Result<Option<Self>> {
        let refused = |errno| dir.error("clear inode flags", name, errno);
        dir.check_writable().map_err(refused)?;
        let flags = blocking_flags(dir, name)?;
        if flags.is_empty() {
            return Ok(None);
        }
        let fd = dir.open_at(name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        // Those of the inode that was opened, whatever the name stood for before.
        let flags = Access::of(fd.as_fd()).map_err(refused)?.flags;
        access::set_flags(fd.as_fd(), IFlags::empty()).map_err(refused)?;
        Ok(Some(Self { fd, flags }))
    }

    /// Puts the flags back, unless the inode has lost its last name.
    pub(crate) fn restore(mut self) -> Result<(), Errno> {
        let flags = std::mem::replace(&mut self.flags, IFlags::empty());
        if fstat(&self.fd)?.st_nlink == 0 {
            return Ok(());
        }
        access::set_flags(self.fd.as_fd(), flags).map(drop)
    }

    /// The inode has its final flags.
    pub(crate) fn settle(mut self) {
        self.flags = IFlags::empty();
    }
}

impl Drop for LiftedFlags {
    fn drop(&mut self) {
        if !self.flags.is_empty() {
            // The caller has an error to report already.
            let _ = access::set_flags(self.fd.as_fd(), self.flags);
        }
    }
}

/// Clears the immutable and append-only flags of the entry `name`, so that it may be changed,
/// replaced or removed. Answers whether there was one.
///
/// # Errors
/// `EPERM` without the capability `LINUX_IMMUTABLE`; whatever the calls answer.
pub fn clear_blocking_flags(dir: &Dir, name: &Name) -> Result<bool> {
    Ok(LiftedFlags::of_entry(dir, name)?.map(LiftedFlags::settle).is_some())
}

/// Opens the directory `name` so that its entries can be listed and reached, after adding its owner's
/// permissions where they are missing.
///
/// # Errors
/// As [`Dir::open_child`].
pub fn open_dir(dir: &Dir, name: &Name) -> Result<Dir> {
    let refused = |errno| dir.error("open", name, errno);
    match dir.open_child(name) {
        Ok(child) => {
            // Reading a directory and passing through it are two permissions.
            let pass = || statat(child.descriptor().map_err(|e| e.errno)?, c".", AtFlags::empty());
            unlocking(&child, None, pass).map_err(refused)?;
            Ok(child)
        }
        Err(Error { errno: Errno::ACCESS, .. }) => {
            let held = Held::entry(dir, name)?;
            let widened = held.widen(OWNER_DIRECTORY).map_err(refused)?;
            let child = dir.open_child(name)?;
            if held.identity().map_err(refused)? != child.identity() {
                return Err(refused(Errno::STALE));
            }
            if let Some(mode) = widened.hand_over() {
                remember(&child, |before| Access { mode, ..before }).map_err(refused)?;
            }
            Ok(child)
        }
        Err(error) => Err(error),
    }
}

/// Opens a directory that was just made, although what it inherited may close it to its owner. Its mode is not put back:
/// the final one is still to come.
///
/// # Errors
/// As [`open_dir`].
pub(crate) fn open_new_dir(dir: &Dir, name: &Name) -> Result<Dir> {
    let made = open_dir(dir, name)?;
    settle(&made);
    Ok(made)
}

/// As [`stat::read_entry`], also where attributes are closed to their own owner: they are read with a wider mode.
///
/// # Errors
/// As [`stat::read_entry`]; what putting back the mode answers.
pub fn read_entry(dir: &Dir, name: &Name, options: &ReadOptions) -> Result<(Entry, Inode)> {
    let closed = match stat::read_entry(dir, name, options) {
        Err(error) if error.errno == Errno::ACCESS => error,
        other => return other,
    };
    let held = Held::entry(dir, name)?;
    let Ok(read) = held.read(options.selinux) else { return Err(closed) };
    let plain = ReadOptions { xattrs: false, ..*options };
    let (mut entry, inode) = stat::read_entry(dir, name, &plain)?;
    let refused = |errno| dir.error("read extended attributes", name, errno);
    if held.identity().map_err(refused)? != (inode.dev, inode.ino) {
        return Err(refused(Errno::STALE));
    }
    entry.meta.xattrs = read.xattrs;
    Ok((entry, inode))
}

/// Puts back what was lifted of `dir`, and reads it back. Answers whether anything was.
///
/// # Errors
/// Where it cannot be put back.
pub fn restore(dir: &Dir) -> Result<bool> {
    let Some(before) = *dir.lifted().lock() else { return Ok(false) };
    let fd = dir.descriptor()?;
    before.restore(fd.as_fd()).map_err(|e| dir.own_error("restore mode", e))?;
    settle(dir);
    Ok(true)
}

/// `dir` has its final mode and flags: nothing is to be put back.
pub(crate) fn settle(dir: &Dir) {
    *dir.lifted().lock() = None;
}

/// Adds the owner's permissions to the mode of `dir`. Answers whether any was missing.
pub(crate) fn widen_dir(dir: &Dir) -> Result<bool, Errno> {
    let fd = dir.descriptor().map_err(|e| e.errno)?;
    let before = remember(dir, |before| before)?;
    let mode = before.mode | OWNER_DIRECTORY;
    if mode == before.mode {
        return Ok(false);
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode.into()))?;
    Ok(true)
}

fn lift_flags_of_dir(dir: &Dir) -> Result<bool, Errno> {
    let fd = dir.descriptor().map_err(|e| e.errno)?;
    remember(dir, |before| before)?;
    access::set_flags(fd.as_fd(), IFlags::empty())
}

/// Remembers what `dir` is, or what `was` makes of that, unless something was lifted before. Answers what it is.
fn remember(dir: &Dir, was: impl FnOnce(Access) -> Access) -> Result<Access, Errno> {
    dir.check_writable()?;
    let fd = dir.descriptor().map_err(|e| e.errno)?;
    let mut lifted = dir.lifted().lock();
    let now = Access::of(fd.as_fd())?;
    lifted.get_or_insert_with(|| was(now));
    Ok(now)
}

/// The flags of the entry `name` that forbid changes, told without opening it.
fn blocking_flags(dir: &Dir, name: &Name) -> Result<IFlags> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = statx(dir.descriptor()?, name.as_bytes(), flags, StatxFlags::BASIC_STATS)
        .map_err(|e| dir.error("stat", name, e))?;
    let mut found = IFlags::empty();
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    if matches!(kind, FileType::RegularFile | FileType::Directory) {
        let has = |attribute| stat.stx_attributes.contains(attribute);
        found.set(IFlags::IMMUTABLE, has(StatxAttributes::IMMUTABLE));
        found.set(IFlags::APPEND, has(StatxAttributes::APPEND));
    }
    Ok(found)
}
