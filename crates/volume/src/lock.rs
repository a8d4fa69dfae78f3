//! One transfer at a time writes to a volume.
//!
//! The lock is an advisory `flock` on the root directory. It belongs to an open file of its own, so the
//! kernel gives it up when the process ends, however it ends, and nothing needs to be cleaned up. It
//! holds between all processes that see the same file system on one node; on network file systems
//! a directory is locked for the node alone.
//!
//! A child process shares the open files of its parent until it runs its own program, and so would
//! hold the lock for that time. So the lock is given up explicitly, which counts for all who share it.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{self, FlockOperation, Mode, OFlags},
    io::Errno,
};

use crate::{Dir, Result, descriptors::opening};

/// Held as long as it lives.
#[derive(Debug)]
pub struct VolumeLock {
    held: OwnedFd,
}

impl VolumeLock {
    /// Takes the lock of the volume whose root is `root`; `None` where another transfer is writing
    /// to it.
    ///
    /// # Errors
    /// Where the root cannot be opened again or the file system has no locks.
    pub fn acquire(root: &Dir) -> Result<Option<Self>> {
        let fail = |errno| root.own_error("lock", errno);
        // A descriptor that shares its open file with the one of `root` would share its lock too.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = root.descriptor()?;
        let held = opening(|| fs::openat(&fd, c".", flags, Mode::empty())).map_err(fail)?;
        match fs::flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { held })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(fail(errno)),
        }
    }
}

impl Drop for VolumeLock {
    fn drop(&mut self) {
        // Where that fails, the end of the process gives it up.
        let _ = fs::flock(&self.held, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_lock_is_free_although_a_copy_of_its_descriptor_is_open() {
        let tmp = tempfile::tempdir().unwrap();
        let root = Dir::open_root(tmp.path()).unwrap();
        let lock = VolumeLock::acquire(&root).unwrap().unwrap();
        assert!(VolumeLock::acquire(&root).unwrap().is_none());
        // What a child has between fork and exec.
        let _inherited = lock.held.try_clone().unwrap();
        drop(lock);
        assert!(VolumeLock::acquire(&root).unwrap().is_some());
    }
}
