//! A raw block device as a target.
//!
//! It is opened exclusively: a device that is mounted, or is part of something that is, refuses, and
//! so does one that another transfer is writing to.

use std::{os::fd::AsFd as _, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{self, Advice, FallocateFlags, FileType, Mode, OFlags, SeekFrom},
    io::Errno,
};

use crate::{Error, Result, descriptors::opening, source::read_full, writer::write_full};

/// Holes are made in units of this many bytes, which every device's block size divides.
const ALIGNMENT: u64 = 4096;

/// Zeros are written by hand in pieces of this size, in bytes.
const PIECE: usize = 256 * 1024;

/// A block device that is open for reading and writing.
pub struct TargetDevice {
    fd: OwnedFd,
    shown: String,
    size: u64,
}

impl TargetDevice {
    /// Opens the device at `path`, which comes from the command line: links in it are followed.
    ///
    /// # Errors
    /// `ENOTBLK` where it is something else, `EBUSY` where it is in use; whatever `open(2)` answers.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = wire::name::escape(path.as_os_str().as_encoded_bytes());
        let fail = |operation, errno| Error::new(operation, shown.clone(), errno);
        let kind = |mode| FileType::from_raw_mode(mode);
        // Looked at before it is opened: opening some devices for writing already does something.
        let seen = fs::stat(path).map_err(|e| fail("stat", e))?;
        if kind(seen.st_mode) != FileType::BlockDevice {
            return Err(fail("open as a block device", Errno::NOTBLK));
        }
        let flags = OFlags::RDWR | OFlags::EXCL | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = opening(|| fs::open(path, flags, Mode::empty()))
            .map_err(|e| fail("open exclusively", e))?;
        let stat = fs::fstat(&fd).map_err(|e| fail("stat", e))?;
        if kind(stat.st_mode) != FileType::BlockDevice || stat.st_rdev != seen.st_rdev {
            return Err(fail("open as a block device", Errno::STALE));
        }
        let size = fs::seek(&fd, SeekFrom::End(0)).map_err(|e| fail("read size", e))?;
        Ok(Self { fd, shown, size })
    }

    /// Bytes that the device holds.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from `offset` and returns how many bytes there were: fewer than asked for only
    /// at the end of the device.
    ///
    /// # Errors
    /// Whatever `pread(2)` answers.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_full(&self.fd, offset, buffer).map_err(|e| self.error("read", e))
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `ENOSPC` beyond the end of the device; whatever `pwrite(2)` answers.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        write_full(self.fd.as_fd(), offset, data).map_err(|e| self.error("write", e))
    }

    /// Makes `len` bytes at `offset` zero, without writing them where the device can do so itself.
    ///
    /// # Errors
    /// `ENOSPC` beyond the end of the device; whatever `fallocate(2)` and `pwrite(2)` answer.
    pub fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len).filter(|&end| end <= self.size);
        let Some(end) = end else { return Err(self.error("zero", Errno::NOSPC)) };
        let first = offset.next_multiple_of(ALIGNMENT).min(end);
        let last = (end - end % ALIGNMENT).max(first);
        self.write_zeros(offset, first - offset)?;
        self.write_zeros(last, end - last)?;
        if first == last {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fs::fallocate(&self.fd, flags, first, last - first) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => {
                self.write_zeros(first, last - first)
            }
            other => other.map_err(|e| self.error("zero", e)),
        }
    }

    /// Waits until everything is on stable storage.
    ///
    /// # Errors
    /// Whatever `fsync(2)` answers.
    pub fn flush(&self) -> Result<()> {
        fs::fsync(&self.fd).map_err(|e| self.error("flush", e))
    }

    /// Lets later reads come from the device and not from memory, where the device can do so. Flush first: what is not on
    /// stable storage stays in memory.
    pub fn drop_cache(&self) {
        let _ = fs::fadvise(&self.fd, 0, None, Advice::DontNeed);
    }

    fn write_zeros(&self, mut offset: u64, mut len: u64) -> Result<()> {
        let piece = |len: u64| usize::try_from(len).unwrap_or(PIECE).min(PIECE);
        let zeros = vec![0; piece(len)];
        while len > 0 {
            let some = piece(len);
            self.write_at(offset, &zeros[..some])?;
            (offset, len) = (offset + some as u64, len - some as u64);
        }
        Ok(())
    }

    fn error(&self, operation: &'static str, errno: Errno) -> Error {
        Error::new(operation, self.shown.clone(), errno)
    }
}
