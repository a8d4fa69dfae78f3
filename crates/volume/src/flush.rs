//! Bringing what was written to stable storage.
//!
//! One [`file_system`] call before the commit record replaces a flush per file: it waits for the data
//! and the metadata of everything that was written. [`start_writeback`] lets the disk begin earlier,
//! so that there is little left to wait for.

use std::{num::NonZeroU64, os::fd::AsFd};

use rustix::{
    fs::{self, Advice},
    io::Errno,
};

use crate::{Dir, Error, Result};

/// Waits until everything on the file system of `root` is on stable storage.
///
/// The kernel reports a failed write-back to descriptors that were open when it failed: pass the
/// root of the volume, which is open from the beginning and is never given back.
///
/// # Errors
/// `EIO`, `ENOSPC` and `EDQUOT` where anything written since `root` was opened could not be kept.
pub fn file_system(root: &Dir) -> Result<()> {
    let fail = |errno| Error::new("flush", root.display(), errno);
    let fd = root.descriptor()?;
    fs::syncfs(&fd).map_err(fail)?;
    // Older kernels flush nothing, and say that all is well, once an ext4 has become read-only because of an error. Of a
    // single file or directory they tell the truth.
    match fs::fsync(&fd) {
        Err(Errno::INVAL) => Ok(()), // a file system that cannot do that
        other => other.map_err(fail),
    }
}

/// Starts writing a range of a file to the disk and does not wait for it. The kernel also forgets
/// cached data of the range that is on the disk already. Only advice: failing has no consequence
/// that [`file_system`] does not report.
pub fn start_writeback(file: impl AsFd, offset: u64, len: u64) {
    if let Some(len) = NonZeroU64::new(len) {
        let _ = fs::fadvise(file, offset, Some(len), Advice::DontNeed);
    }
}
