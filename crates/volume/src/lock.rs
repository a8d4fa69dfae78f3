//! One transfer at a time writes to a volume.
//!
//! The lock is an advisory `flock` on the root directory. It belongs to a descriptor of its own, so the
//! kernel gives it up when the process ends, however it ends, and nothing needs to be cleaned up. It
//! holds between all processes that see the same file system on one node; on network file systems
//! a directory is locked for the node alone.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{self, FlockOperation, Mode, OFlags},
    io::Errno,
};

use crate::{Dir, Error, Result};

/// Held as long as it lives.
#[derive(Debug)]
pub struct VolumeLock {
    _held: OwnedFd,
}

impl VolumeLock {
    /// Takes the lock of the volume whose root is `root`; `None` where another transfer is writing
    /// to it.
    ///
    /// # Errors
    /// Where the root cannot be opened again or the file system has no locks.
    pub fn acquire(root: &Dir) -> Result<Option<Self>> {
        let fail = |errno| Error::new("lock", root.display(), errno);
        // A descriptor that shares its open file with the one of `root` would share its lock too.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::openat(root.descriptor()?, c".", flags, Mode::empty()).map_err(fail)?;
        match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _held: fd })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(fail(errno)),
        }
    }
}
