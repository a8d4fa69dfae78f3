//! A regular file that is read for a transfer.
//!
//! Opening is the dangerous part: the name may by now be a FIFO that blocks, a device that acts, or
//! a link to elsewhere. [`SourceFile::open`] never follows, never blocks, and hands out regular
//! files only. Reading is by offset and never through a mapping, which would turn a file that is
//! truncated meanwhile into a signal.
//!
//! A live file may change while it is read. [`SourceFile::stamp`] before and
//! [`SourceFile::changed_since`] after tell; what was read in between is then no version of the file
//! and must not be published.
//!
//! A file is read up to its size. Some file systems, such as `/proc` and those by FUSE with `direct_io`, report less
//! than a file holds. Where that can be, both [`SourceFile::changed_since`] and [`confirm_empty`] read one byte more.

use std::{
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::Ordering,
};

use rustix::{
    fs::{self, Advice, AtFlags, FileType, Mode, OFlags, SeekFrom, Statx},
    io::Errno,
};
use wire::{Metadata, Name, Timestamp};

use crate::{
    Dir, Error, Result, flush,
    stat::{self, Inode, Lifetime, ReadOptions},
    xattr::XattrTarget,
};

/// An open regular file.
pub struct SourceFile {
    fd: OwnedFd,
    dir: Dir,
    name: Name,
    /// The file system may report less than the file holds.
    may_hold_more: bool,
}

/// What changes whenever the content of a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Last modification of the content.
    pub mtime: Timestamp,
    /// Last change of content or metadata, which nobody can set back.
    pub ctime: Timestamp,
    /// Number of the inode on its device.
    pub ino: u64,
    /// Since when it is this inode.
    pub since: Lifetime,
}

impl Stamp {
    fn of(stat: &Statx) -> Self {
        Self {
            size: stat.stx_size,
            mtime: stat::timestamp(stat.stx_mtime),
            ctime: stat::timestamp(stat.stx_ctime),
            ino: stat.stx_ino,
            since: Lifetime::of(stat),
        }
    }
}

impl SourceFile {
    /// Opens the regular file `name` of `dir` for reading.
    ///
    /// # Errors
    /// `ELOOP` for a symbolic link, `EISDIR` for a directory, `EINVAL` with the operation
    /// `open as a regular file` for every other kind, and whatever `openat2(2)` answers.
    pub fn open(dir: &Dir, name: &Name) -> Result<Self> {
        let fd = open_quietly(dir, name)?;
        let stat = fs::fstat(&fd).map_err(|e| dir.error("stat", name, e))?;
        let errno = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let may_hold_more = may_hold_more(dir, stat.st_dev)?;
                return Ok(Self { fd, dir: dir.clone(), name: name.clone(), may_hold_more });
            }
            FileType::Directory => Errno::ISDIR,
            _ => Errno::INVAL,
        };
        Err(dir.error("open as a regular file", name, errno))
    }

    /// The directory that it was opened in.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The name within its directory.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What to compare with later.
    ///
    /// # Errors
    /// Whatever `statx(2)` answers.
    pub fn stamp(&self) -> Result<Stamp> {
        self.statx().map(|stat| Stamp::of(&stat))
    }

    /// True where the file is not, or may not be, what it was when `stamp` was taken.
    ///
    /// # Errors
    /// `EFBIG` where the file did not change and has content behind its size. Whatever `statx(2)` and `pread(2)` answer.
    pub fn changed_since(&self, stamp: &Stamp) -> Result<bool> {
        let holds_more = self.may_hold_more && self.read_at(stamp.size, &mut [0])? > 0;
        let changed = self.stamp()? != *stamp;
        if holds_more && !changed {
            return Err(self.error(crate::error::MORE_CONTENT, Errno::FBIG));
        }
        Ok(changed)
    }

    /// The metadata as it is now, and the stamp of the same look: of two looks at a file that changes, one may have missed
    /// what the other has.
    ///
    /// # Errors
    /// Whatever `statx(2)` and the calls for extended attributes answer.
    pub fn metadata(&self, options: &ReadOptions) -> Result<(Metadata, Stamp)> {
        let stat = self.statx()?;
        let mut meta = stat::metadata(&self.dir, &stat).map_err(|e| self.error("stat", e))?;
        if options.xattrs {
            let device = stat::inode(&stat, self.dir.root_device()).dev;
            let target = XattrTarget::Fd(self.fd.as_fd());
            meta.xattrs = stat::read_xattrs(&self.dir, target, device, meta.kind, options)
                .map_err(|e| self.error("read extended attributes", e))?;
        }
        Ok((meta, Stamp::of(&stat)))
    }

    /// Fills `buffer` from `offset` and returns how many bytes there were: fewer than asked for only
    /// at the end of the file.
    ///
    /// # Errors
    /// Whatever `pread(2)` answers.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_full(&self.fd, offset, buffer).map_err(|e| self.error("read", e))
    }

    /// The parts of `range` that hold data, in order; what lies between them reads as zeros. Ends at
    /// the end of the file. One part where the file system does not tell.
    pub fn extents(&self, range: Range<u64>) -> Extents<'_> {
        Extents { file: self, at: range.start, end: range.end }
    }

    /// True where all of `range` is a hole, or lies behind the end of the file. Asks for the next data
    /// alone: some file systems look at every page to find the hole behind it.
    #[must_use]
    pub fn is_hole(&self, range: Range<u64>) -> bool {
        match fs::seek(&self.fd, SeekFrom::Data(range.start)) {
            Ok(data) => data >= range.end,
            Err(errno) => self.ends_in_a_hole(errno),
        }
    }

    /// Where a hole that begins at `from` ends, in a file of `size` bytes. `None` where there is data, and where the file
    /// system does not tell.
    #[must_use]
    pub fn hole_end(&self, from: u64, size: u64) -> Option<u64> {
        match fs::seek(&self.fd, SeekFrom::Data(from)) {
            Ok(data) => (data > from).then(|| data.min(size)),
            Err(errno) => self.ends_in_a_hole(errno).then_some(size),
        }
    }

    /// True where no data follows by the answer `errno` of `SEEK_DATA`. A file system that may report less than a file holds
    /// says so of what lies behind that size.
    fn ends_in_a_hole(&self, errno: Errno) -> bool {
        errno == Errno::NXIO && !self.may_hold_more
    }

    /// The entry, relative to the root of the volume and escaped for display.
    #[must_use]
    pub fn display(&self) -> String {
        self.dir.display_entry(&self.name)
    }

    /// Tells the kernel that the file will be read from its start to its end.
    pub fn advise_sequential(&self) {
        // Only a hint: a file system that does not take it loses nothing.
        let _ = fs::fadvise(&self.fd, 0, None, Advice::Sequential);
    }

    fn statx(&self) -> Result<Statx> {
        let flags = AtFlags::EMPTY_PATH | stat::UNCACHED;
        fs::statx(&self.fd, c"", flags, stat::INODE).map_err(|e| self.error("stat", e))
    }

    fn error(&self, operation: &'static str, errno: Errno) -> Error {
        self.dir.error(operation, &self.name, errno)
    }
}

impl AsFd for SourceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<SourceFile> for OwnedFd {
    fn from(file: SourceFile) -> Self {
        file.fd
    }
}

/// Confirms that the regular file `name` of `dir`, which reports a size of 0, is empty. Opens it only where its file
/// system may report less than it holds.
///
/// # Errors
/// `EFBIG` where it has content; those of [`SourceFile::open`] and [`SourceFile::changed_since`].
pub fn confirm_empty(dir: &Dir, name: &Name, inode: &Inode) -> Result<()> {
    if !may_hold_more(dir, inode.dev)? {
        return Ok(());
    }
    let file = SourceFile::open(dir, name)?;
    let stamp = file.stamp()?;
    // Where it has a size by now, it was written to since: the size that was read first was right.
    if stamp.size == 0 { file.changed_since(&stamp).map(drop) } else { Ok(()) }
}

/// True where a file of the device `device` may hold more than its size: on file systems that are not known to keep
/// what they report, and where another file system is mounted over the file.
fn may_hold_more(dir: &Dir, device: u64) -> Result<bool> {
    Ok(device != dir.root_device() || !flush::is_local(dir)?)
}

/// Opens for reading, without a new access time where that is permitted.
fn open_quietly(dir: &Dir, name: &Name) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let refused = &dir.hints().no_noatime;
    if !refused.load(Ordering::Relaxed) {
        match dir.open_at(name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(e) if e.errno == Errno::PERM => refused.store(true, Ordering::Relaxed),
            other => return other,
        }
    }
    dir.open_at(name, flags, Mode::empty())
}

/// Reads until `buffer` is full or the end is reached.
pub(crate) fn read_full(fd: impl AsFd, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(&fd, &mut buffer[done..], offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Iterator over the data of a file: see [`SourceFile::extents`].
///
/// Seeking moves the position of the open file, which nothing else here looks at.
pub struct Extents<'a> {
    file: &'a SourceFile,
    at: u64,
    end: u64,
}

impl Extents<'_> {
    fn advance(&mut self) -> Result<Option<Range<u64>>, Errno> {
        if self.at >= self.end {
            return Ok(None);
        }
        let start = match fs::seek(&self.file.fd, SeekFrom::Data(self.at)) {
            Ok(start) => start.max(self.at),
            // At or behind the end of the file, or in the hole that ends it.
            Err(errno) if self.file.ends_in_a_hole(errno) => return Ok(None),
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => return self.rest(),
            Err(errno) => return Err(errno),
        };
        if start >= self.end {
            return Ok(None);
        }
        let end = match fs::seek(&self.file.fd, SeekFrom::Hole(start)) {
            Ok(end) if end > start => end.min(self.end),
            // Truncated since.
            Err(Errno::NXIO) => return Ok(None),
            // An answer that leads nowhere must not be asked for ever.
            Ok(_) | Err(Errno::INVAL | Errno::OPNOTSUPP) => return self.rest(),
            Err(errno) => return Err(errno),
        };
        self.at = end;
        Ok(Some(start..end))
    }

    /// All that is left, up to the end of the file, as data.
    fn rest(&mut self) -> Result<Option<Range<u64>>, Errno> {
        let size = u64::try_from(fs::fstat(&self.file.fd)?.st_size).unwrap_or(0);
        let (start, end) = (self.at, self.end.min(size));
        self.at = self.end;
        Ok((start < end).then_some(start..end))
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.advance();
        if !matches!(step, Ok(Some(_))) {
            self.at = self.end;
        }
        step.map_err(|e| self.file.error("seek data", e)).transpose()
    }
}
