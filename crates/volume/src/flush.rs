//! Bringing what was written to stable storage.
//!
//! One [`file_system`] call before the commit record replaces a flush per file: it waits for the data
//! and the metadata of everything that was written. [`start_writeback`] lets the disk begin earlier,
//! so that there is little left to wait for.

use std::{
    num::NonZeroU64,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{self, Advice},
    io::Errno,
};

use crate::{Dir, Result, close::close_duplicate};

/// Waits until everything on the file system of `root` is on stable storage.
///
/// The kernel reports a failed write-back to descriptors that were open when it failed: pass the
/// root of the volume, which is open from the beginning and is never given back.
///
/// # Errors
/// `EIO`, `ENOSPC` and `EDQUOT` where anything written since `root` was opened could not be kept.
pub fn file_system(root: &Dir) -> Result<()> {
    let fail = |errno| root.own_error("flush", errno);
    let fd = root.descriptor()?;
    fs::syncfs(&fd).map_err(fail)?;
    // Older kernels flush nothing, and say that all is well, once an ext4 has become read-only because of an error. Of a
    // single file or directory they tell the truth.
    match fs::fsync(&fd) {
        Err(Errno::INVAL) => Ok(()), // a file system that cannot do that
        other => other.map_err(fail),
    }
}

/// When a file system says whether it could keep what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// By `syncfs`: [`file_system`] waits for all content, and hears of errors.
    Sync,
    /// When a file is closed: file systems on a network, and all that are not known.
    Close,
    /// When a file is flushed or closed: the kernel sends a FUSE file system no `syncfs`.
    Flush,
}

impl Keeps {
    fn of(file: BorrowedFd<'_>) -> Self {
        const FUSE: u64 = 0x6573_5546;
        // ext2 to ext4, XFS, Btrfs, tmpfs, overlay, F2FS.
        const LOCAL: [u64; 6] =
            [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0xf2f5_2010];
        // The width and sign of the type differ between architectures.
        match fs::fstatfs(file).map(|stat| (stat.f_type as u64) & 0xffff_ffff) {
            Ok(FUSE) => Self::Flush,
            Ok(kind) if LOCAL.contains(&kind) => Self::Sync,
            _ => Self::Close,
        }
    }
}

/// True where the volume of `dir` is on one of the file systems whose answers are known: those on local disks and in
/// memory.
pub(crate) fn is_local(dir: &Dir) -> Result<bool> {
    if let Some(keeps) = dir.hints().keeps.get() {
        return Ok(*keeps == Keeps::Sync);
    }
    let fd = dir.descriptor()?;
    Ok(*dir.hints().keeps.get_or_init(|| Keeps::of(fd.as_fd())) == Keeps::Sync)
}

/// Waits until `file` of the volume of `dir` is kept as far as [`file_system`] would not hear of it. Comes before the
/// file gets its name. On local file systems it does nothing.
pub(crate) fn confirm(dir: &Dir, file: BorrowedFd<'_>) -> Result<(), Errno> {
    let keeps = *dir.hints().keeps.get_or_init(|| Keeps::of(file));
    if keeps == Keeps::Flush {
        match fs::fsync(file) {
            Ok(()) | Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    if keeps == Keeps::Sync { Ok(()) } else { close_duplicate(file) }
}

/// Starts writing a range of a file to the disk and does not wait for it. The kernel also forgets
/// cached data of the range that is on the disk already. Only advice: failing has no consequence
/// that [`file_system`] does not report.
pub fn start_writeback(file: impl AsFd, offset: u64, len: u64) {
    if let Some(len) = NonZeroU64::new(len) {
        let _ = fs::fadvise(file, offset, Some(len), Advice::DontNeed);
    }
}
