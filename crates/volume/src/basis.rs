//! An existing file that a new version is made from.
//!
//! Many files wait for their turn at a time: for their signature to be computed, for the sender's
//! answer. So a [`BasisFile`] keeps its descriptor in the [cache](crate::descriptors) and opens the file
//! again when it is read. Opening again checks that device and inode are still the same: another file
//! under that name is no basis.

use std::{
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use rustix::{
    fs::{self, SeekFrom},
    io::Errno,
};
use wire::Name;

use crate::{
    Dir, Error, Result,
    descriptors::{Loan, Slot},
    source::{SourceFile, read_full},
};

/// A regular file that is read at any offset, and open only while it is.
pub struct BasisFile {
    dir: Dir,
    name: Name,
    /// `(device, inode)`.
    identity: (u64, u64),
    slot: Arc<Slot>,
    /// Kept open whatever the cache does.
    pinned: Mutex<Option<Loan>>,
    closed: AtomicBool,
}

impl BasisFile {
    /// Opens the regular file `name` of `dir`; `identity` is the `(device, inode)` that its listing gave.
    ///
    /// # Errors
    /// `ESTALE` where it is another file by now; whatever [`SourceFile::open`] answers.
    pub fn open(dir: &Dir, name: &Name, identity: (u64, u64)) -> Result<Self> {
        let basis = Self {
            dir: dir.clone(),
            name: name.clone(),
            identity,
            slot: Arc::default(),
            pinned: Mutex::default(),
            closed: AtomicBool::new(false),
        };
        basis.descriptor()?;
        Ok(basis)
    }

    /// The descriptor, opened again where it was closed meanwhile.
    ///
    /// # Errors
    /// `ESTALE` where the name leads to another file now, and after [`BasisFile::close`].
    pub fn descriptor(&self) -> Result<Loan> {
        if let Some(fd) = self.slot.get().or_else(|| self.pinned.lock().clone()) {
            return Ok(fd);
        }
        let fd: OwnedFd = SourceFile::open(&self.dir, &self.name)?.into();
        self.expect(&fd)?;
        if self.closed.load(Relaxed) {
            return Err(self.error("open again", Errno::STALE));
        }
        Ok(self.slot.put(fd))
    }

    /// Fills `buffer` from `offset` and returns how many bytes there were: fewer than asked for only
    /// at the end of the file.
    ///
    /// # Errors
    /// As [`BasisFile::descriptor`]; whatever `pread(2)` answers.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_full(self.descriptor()?, offset, buffer).map_err(|e| self.error("read", e))
    }

    /// True where all of `range` is known to be a hole, or to lie behind the end of the file.
    #[must_use]
    pub fn is_hole(&self, range: Range<u64>) -> bool {
        let Ok(fd) = self.descriptor() else { return false };
        match fs::seek(fd, SeekFrom::Data(range.start)) {
            Ok(data) => data >= range.end,
            Err(errno) => errno == Errno::NXIO,
        }
    }

    /// Keeps the file open from now on: its name is about to lead to another.
    ///
    /// # Errors
    /// As [`BasisFile::descriptor`].
    pub fn pin(&self) -> Result<Loan> {
        let fd = self.descriptor()?;
        *self.pinned.lock() = Some(fd.clone());
        Ok(fd)
    }

    /// Fails unless `fd` is this very file.
    ///
    /// # Errors
    /// `ESTALE` where it is another; whatever `fstat(2)` answers.
    pub fn expect(&self, fd: impl AsFd) -> Result<()> {
        let stat = fs::fstat(fd).map_err(|e| self.error("stat", e))?;
        if (stat.st_dev, stat.st_ino) == self.identity {
            Ok(())
        } else {
            Err(self.error("open again", Errno::STALE))
        }
    }

    /// Closes the file for good. Comes before its directory is finished: some file systems keep a file
    /// that was replaced under a hidden name in the directory while it is open.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.pinned.lock().take();
        self.slot.close();
    }

    fn error(&self, operation: &'static str, errno: Errno) -> Error {
        self.dir.error(operation, &self.name, errno)
    }
}
