//! A raw block device as a source.

use std::{os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{self, FileType, Mode, OFlags, SeekFrom},
    io::Errno,
};

use crate::{Error, Result, descriptors::opening};

/// A block device that is open for reading.
pub struct BlockSource {
    fd: OwnedFd,
    shown: String,
    size: u64,
}

/// True where `path`, or what it links to, is a block device.
///
/// # Errors
/// Whatever `stat(2)` answers.
pub fn is_block_device(path: &Path) -> Result<bool> {
    let stat = fs::stat(path).map_err(|e| Error::new("stat", show(path), e))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice)
}

/// The `(device, inode)` of what `path` leads to, links followed.
///
/// # Errors
/// Whatever `stat(2)` answers.
pub fn identity(path: &Path) -> Result<(u64, u64)> {
    let stat = fs::stat(path).map_err(|e| Error::new("stat", show(path), e))?;
    Ok((stat.st_dev, stat.st_ino))
}

impl BlockSource {
    /// Opens the device at `path`, which comes from the command line: links in it are followed.
    ///
    /// # Errors
    /// `ENOTBLK` where it is something else; whatever `open(2)` answers.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, OFlags::empty(), "open")
    }

    /// The same for a device that nobody may use meanwhile: what a dry run has of a target.
    ///
    /// # Errors
    /// `EBUSY` if the device is in use; else as [`BlockSource::open`].
    pub fn open_exclusive(path: &Path) -> Result<Self> {
        Self::open_with(path, OFlags::EXCL, "open exclusively")
    }

    fn open_with(path: &Path, more: OFlags, operation: &'static str) -> Result<Self> {
        let shown = show(path);
        let fail = |operation, errno| Error::new(operation, shown.clone(), errno);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
        let fd =
            opening(|| fs::open(path, flags, Mode::empty())).map_err(|e| fail(operation, e))?;
        let stat = fs::fstat(&fd).map_err(|e| fail("stat", e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
            return Err(fail("open as a block device", Errno::NOTBLK));
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
        crate::source::read_full(&self.fd, offset, buffer)
            .map_err(|e| Error::new("read", self.shown.clone(), e))
    }
}

fn show(path: &Path) -> String {
    wire::name::escape(path.as_os_str().as_encoded_bytes())
}
