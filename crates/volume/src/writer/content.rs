//! The content of a file that is being written: ranges of data, holes, and what is taken from a basis.
//!
//! Everything that changes a file under its name narrows it first and makes its time the present.

use std::{
    io::IoSlice,
    os::fd::{AsFd, BorrowedFd},
    sync::{OnceLock, atomic::Ordering::Relaxed},
};

use rustix::{
    fs::{self, FallocateFlags},
    io::{self, Errno, ReadWriteFlags},
};

use super::FileWriter;
use crate::{Result, source::read_full};

/// `RWF_DONTCACHE` of `linux/fs.h`.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Content is shared between files in blocks of no less than this, in bytes, at the same place in both.
const SHARED_BLOCK: u64 = 4096;

/// Writes of fewer bytes gain nothing from it.
const UNCACHED_MIN: usize = 64 * 1024;

/// Copying and zeroing by hand go in pieces of this size, in bytes.
const PIECE: usize = 256 * 1024;

impl FileWriter {
    /// Makes the content that of `basis` without copying it. `false` where the file system cannot.
    ///
    /// # Errors
    /// Where the file system can share data but failed to.
    pub fn reflink_from(&self, basis: impl AsFd) -> Result<bool> {
        self.begin()?;
        match fs::ioctl_ficlone(&self.fd, basis) {
            Ok(()) => Ok(true),
            Err(
                Errno::OPNOTSUPP
                | Errno::NOTTY
                | Errno::NOSYS
                | Errno::XDEV
                | Errno::INVAL
                | Errno::PERM
                | Errno::ACCESS
                | Errno::TXTBSY,
            ) => Ok(false),
            Err(errno) => Err(self.error("share data", errno)),
        }
    }

    /// Copies `len` bytes of `basis` from `from` to `to`. `basis` may be this file itself where the
    /// two ranges do not overlap.
    ///
    /// # Errors
    /// `ENODATA` where `basis` ends before; whatever reading and writing answer.
    pub fn copy_range(&self, basis: impl AsFd, from: u64, to: u64, len: u64) -> Result<()> {
        self.begin()?;
        if from % SHARED_BLOCK != to % SHARED_BLOCK && self.copies_itself() {
            return self.copy_by_hand(basis.as_fd(), from, to, len);
        }
        let (mut from, mut to, mut left) = (from, to, len);
        while left > 0 {
            let (mut off_in, mut off_out) = (from, to);
            let want = usize::try_from(left).unwrap_or(usize::MAX);
            let got =
                fs::copy_file_range(&basis, Some(&mut off_in), &self.fd, Some(&mut off_out), want);
            match got {
                // The end of the basis, or a file system that pretends to copy.
                Ok(0) => return self.copy_by_hand(basis.as_fd(), from, to, left),
                Ok(n) => {
                    let n = n as u64;
                    (from, to, left) = (from + n, to + n, left - n);
                }
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::XDEV | Errno::INVAL | Errno::PERM) => {
                    return self.copy_by_hand(basis.as_fd(), from, to, left);
                }
                Err(errno) => return Err(self.error("copy", errno)),
            }
        }
        Ok(())
    }

    /// True for file systems of which the kernel would copy page by page through the page cache what
    /// cannot be shared; those on a network copy at the server.
    fn copies_itself(&self) -> bool {
        const EXT4: u64 = 0xef53;
        const XFS: u64 = 0x5846_5342;
        const BTRFS: u64 = 0x9123_683e;
        // The width and sign of the type differ between architectures.
        fs::fstatfs(&self.fd)
            .is_ok_and(|stat| [EXT4, XFS, BTRFS].contains(&((stat.f_type as u64) & 0xffff_ffff)))
    }

    fn copy_by_hand(
        &self,
        basis: BorrowedFd<'_>,
        mut from: u64,
        mut to: u64,
        mut left: u64,
    ) -> Result<()> {
        let mut buffer = vec![0; piece(left)];
        while left > 0 {
            let want = piece(left);
            let got = read_full(basis, from, &mut buffer[..want])
                .map_err(|e| self.error("read basis", e))?;
            if got < want {
                return Err(self.error("read basis", Errno::NODATA));
            }
            self.write_at(to, &buffer[..got])?;
            let n = got as u64;
            (from, to, left) = (from + n, to + n, left - n);
        }
        Ok(())
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// Whatever `pwrite(2)` answers.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.begin()?;
        let mut done = 0;
        if data.len() >= UNCACHED_MIN && !self.cached.load(Relaxed) && kernel_is_sound() {
            done = self.write_uncached(offset, data).map_err(|e| self.error("write", e))?;
        }
        let rest = &data[done..];
        write_full(self.fd.as_fd(), offset + done as u64, rest).map_err(|e| self.error("write", e))
    }

    /// Writes so that the kernel begins to write back at once and keeps no copy: it flushes while
    /// bytes still come, and takes no memory for content that nobody reads before the cutover.
    /// Returns how much could be written so; less than all where the file system cannot.
    fn write_uncached(&self, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < data.len() {
            let rest = [IoSlice::new(&data[done..])];
            match io::pwritev2(&self.fd, &rest, offset + done as u64, DONTCACHE) {
                Ok(0) => return Err(Errno::IO),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                // An older kernel, or a file system without; of a filter of system calls the others.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                    self.cached.store(true, Relaxed);
                    break;
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// Makes `len` bytes at `offset` zero, as a hole where the file system has holes. The size of the
    /// file stays, so a hole at its end takes [`FileWriter::set_len`] as well.
    ///
    /// # Errors
    /// Whatever `fallocate(2)` answers, and reading and writing where it cannot make holes.
    pub fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.begin()?;
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            return match fs::fallocate(&self.fd, flags, offset, len) {
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.zero_by_hand(offset, len),
                other => other.map_err(|e| self.error("punch hole", e)),
            };
        }
    }

    /// Zeroes what is not zero: reading a hole allocates nothing, writing it would.
    fn zero_by_hand(&self, mut offset: u64, mut len: u64) -> Result<()> {
        let mut buffer = vec![0; piece(len)];
        let zeros = vec![0; piece(len)];
        while len > 0 {
            let got = self.read_at(offset, &mut buffer[..piece(len)])?;
            if got == 0 {
                break;
            }
            if buffer[..got] != zeros[..got] {
                self.write_at(offset, &zeros[..got])?;
            }
            (offset, len) = (offset + got as u64, len - got as u64);
        }
        Ok(())
    }

    /// Cuts the file off or extends it with a hole.
    ///
    /// # Errors
    /// `EFBIG` where the file system has no files of that size; whatever `ftruncate(2)` answers.
    pub fn set_len(&self, size: u64) -> Result<()> {
        self.begin()?;
        loop {
            return match fs::ftruncate(&self.fd, size) {
                Err(Errno::INTR) => continue,
                other => other.map_err(|e| self.error("set size", e)),
            };
        }
    }

    /// Reserves room for the first `len` bytes, without changing the size, so that a full file system
    /// shows before anything is sent. Only for content without holes; does nothing where the file
    /// system cannot.
    ///
    /// # Errors
    /// `ENOSPC`, `EDQUOT`, `EFBIG`.
    pub fn preallocate(&self, len: u64) -> Result<()> {
        self.begin()?;
        if len == 0 {
            return Ok(());
        }
        match fs::fallocate(&self.fd, FallocateFlags::KEEP_SIZE, 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(()),
            Err(errno) => Err(self.error("reserve room", errno)),
        }
    }

    /// Reads at `offset` until `buffer` is full or the file ends; the number of bytes.
    ///
    /// # Errors
    /// Whatever `pread(2)` answers.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_full(&self.fd, offset, buffer).map_err(|e| self.error("read", e))
    }
}

/// Linux has [`DONTCACHE`] since 6.14. Until 6.16 it could drop a page that was being written again.
fn kernel_is_sound() -> bool {
    static SOUND: OnceLock<bool> = OnceLock::new();
    *SOUND.get_or_init(|| is_since_6_16(rustix::system::uname().release().to_bytes()))
}

fn is_since_6_16(release: &[u8]) -> bool {
    let mut numbers = release.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(0_u32)
    });
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 16)
}

/// Writes all of `data` at `offset`.
pub(crate) fn write_full(fd: BorrowedFd<'_>, offset: u64, data: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < data.len() {
        match io::pwrite(fd, &data[done..], offset + done as u64) {
            // Accepts nothing and names no reason.
            Ok(0) => return Err(Errno::IO),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn piece(left: u64) -> usize {
    usize::try_from(left).unwrap_or(PIECE).min(PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for yes in ["6.16.0", "6.16-rc1", "6.100.1-cloud", "7.0", "10.2.3"] {
            assert!(is_since_6_16(yes.as_bytes()), "{yes}");
        }
        for no in ["6.15.9", "6.2.0", "5.19.0-generic", "4.18.0-305.el8", "6", "", "linux"] {
            assert!(!is_since_6_16(no.as_bytes()), "{no}");
        }
    }
}
