//! Taking out of the way what forbids a change: inode flags, and a mode without write permission.
//!
//! A volume may hold entries that are immutable, and directories that their own owner cannot write.
//! A change that is refused with `EPERM` or `EACCES` is tried once more after the flags were cleared,
//! or after the owner's own bits were added to the mode. Nothing is ever opened to group or others.
//!
//! What was taken away comes back when [`metadata::apply_dir`](crate::metadata::apply_dir) is called
//! for the directory, which whoever changed anything in it does anyway to set its times.

use std::os::fd::AsFd as _;

use rustix::{
    fs::{AtFlags, FileType, IFlags, Mode, OFlags, StatxAttributes, StatxFlags, statat, statx},
    io::Errno,
};
use wire::Name;

use crate::{
    Dir, Error, Result,
    held::{self, Held, OWNER_DIRECTORY},
};

/// Runs `change` of the entries of `dir`; where it is refused, clears the way in `dir` and of the
/// entry `name` and runs it once more.
///
/// # Errors
/// What `change` answers, at last.
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
    let mut cleared = false;
    if refused == Errno::ACCESS {
        cleared |= widen_dir(dir).is_ok_and(|before| before.is_some());
    } else {
        if let Ok(fd) = dir.descriptor() {
            cleared |= held::set_flags(fd.as_fd(), IFlags::empty()).unwrap_or(false);
        }
        if let Some(name) = name {
            cleared |= clear_blocking_flags(dir, name).unwrap_or(false);
        }
    }
    if cleared { change() } else { Err(refused) }
}

/// Runs `change`, which flags of the file `name` may forbid but which does not concern them: they are
/// cleared for it and set again, also where the file has lost that name.
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
    let flags = blocking_flags(dir, name).map_err(|e| e.errno)?;
    if flags.is_empty() {
        return Err(Errno::PERM);
    }
    let open = dir.open_at(name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty());
    let open = open.map_err(|e| e.errno)?;
    held::set_flags(open.as_fd(), IFlags::empty())?;
    let done = change();
    held::set_flags(open.as_fd(), flags)?;
    done
}

/// Clears the immutable and append-only flags of the entry `name`, so that it may be changed,
/// replaced or removed. Answers whether there was one.
///
/// # Errors
/// `EPERM` without the capability `LINUX_IMMUTABLE`; whatever the calls answer.
pub fn clear_blocking_flags(dir: &Dir, name: &Name) -> Result<bool> {
    if blocking_flags(dir, name)?.is_empty() {
        return Ok(false);
    }
    Held::entry(dir, name)?
        .set_flags(IFlags::empty())
        .map_err(|e| dir.error("clear inode flags", name, e))
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
            Held::entry(dir, name)?.widen(OWNER_DIRECTORY).map_err(refused)?;
            dir.open_child(name)
        }
        Err(error) => Err(error),
    }
}

/// Adds the owner's permissions to the mode of `dir`; the mode before where any was missing.
pub(crate) fn widen_dir(dir: &Dir) -> Result<Option<u16>, Errno> {
    let fd = dir.descriptor().map_err(|e| e.errno)?;
    Held::Open(dir, fd.as_fd()).widen(OWNER_DIRECTORY)
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
