//! Writing one regular file.
//!
//! A [`FileWriter`] is an open file and the way it will get its name:
//!
//! | made by | while it is written | [`finish`](FileWriter::finish) | dropped unfinished |
//! | --- | --- | --- | --- |
//! | [`create_new`](FileWriter::create_new) | under its name, in a directory that is itself new | sets metadata | removed |
//! | [`beside`](FileWriter::beside), [`open_part`](FileWriter::open_part) | under its [temporary name](crate::temp) | sets metadata, renames | removed, or [kept](FileWriter::keep) for the next run |
//! | [`in_place`](FileWriter::in_place) | under its name, narrowed and marked dirty | flushes, sets metadata | stays, marked dirty |
//!
//! While it is written, a new file is readable and writable by its owner alone; setuid and the like
//! come when it is whole. Metadata is set through the open descriptor, never by name.
//!
//! # The dirty mark
//! A file that is patched in place is neither its old self nor its new one until it is whole. Before
//! its first byte changes its modification time becomes [`DIRTY`], a nanosecond after the epoch,
//! which no source has by chance; every write then moves it to the present, and giving up moves it
//! back. At no time is it that of the source, so the next run never takes the file for unchanged. The
//! real time is set last, after the content was flushed: with the data still in memory, a power cut
//! could keep the time and lose the data. The mark itself is not flushed; where an old time survives
//! a power cut together with some new data, it is that of the old file, which differed.
//!
//! Such a file is [narrowed](crate::narrow) before that: new content is not to be read by those whom only the old mode
//! let in.
//!
//! Several threads may write ranges of one file at a time.

mod content;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{OnceLock, atomic::AtomicBool},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags},
    io::Errno,
};
use wire::{FileKind, Metadata, Name, Timestamp};

use crate::{
    Dir, Error, Result,
    basis::BasisFile,
    create::{discard, rename_over},
    held::{self, Held, OWNER_FILE},
    metadata::{self, Applied, ApplyOptions, Stage},
    narrow, temp,
    unlock::{LiftedFlags, unlocking},
};

pub(crate) use content::write_full;

/// Modification time of a file that is being patched in place. A file at the destination that has
/// it is to be compared by content, even where the source says the same time.
pub const DIRTY: Timestamp = Timestamp { secs: 0, nanos: 1 };

/// A regular file that is being written.
pub struct FileWriter {
    dir: Dir,
    /// The final name.
    name: Name,
    fd: OwnedFd,
    place: Place,
    /// Finished, or to be left as it is.
    settled: bool,
    /// Writing past the page cache was refused.
    cached: AtomicBool,
}

enum Place {
    New,
    Beside { part: Name },
    Existing(Box<Existing>),
}

/// A file that is patched where it lies.
struct Existing {
    /// Whom it is to be open to.
    want: Metadata,
    /// Set before the first change.
    mark: OnceLock<Result<(), Errno>>,
    /// Its inode flags, lifted for writing.
    flags: Option<LiftedFlags>,
}

impl FileWriter {
    /// Makes the file under its final name. Only for a directory that nobody knows yet.
    ///
    /// # Errors
    /// `EEXIST` where the name is taken; whatever `open(2)` answers.
    pub fn create_new(dir: &Dir, name: &Name) -> Result<Self> {
        let fd = create(dir, name).map_err(|e| dir.error("create", name, e))?;
        Ok(Self::new(dir, name, fd, Place::New))
    }

    /// Makes the file under its temporary name. What an earlier run left there is removed.
    ///
    /// # Errors
    /// Whatever `open(2)` answers.
    pub fn beside(dir: &Dir, name: &Name) -> Result<Self> {
        let part = temp::part_name(name);
        // Removed and not truncated: it might be a further name of a file that is in use.
        let fd = match create(dir, &part) {
            Err(Errno::EXIST) => {
                discard(dir, &part);
                create(dir, &part)
            }
            other => other,
        };
        let fd = fd.map_err(|e| dir.error("create", name, e))?;
        Ok(Self::new(dir, name, fd, Place::Beside { part }))
    }

    /// Opens what an earlier run left of the file under its temporary name, and its size. It is the
    /// basis of the next try and is patched where it lies. `None` where there is nothing of use.
    ///
    /// # Errors
    /// Whatever `open(2)` answers, other than that there is no such file of ours.
    pub fn open_part(dir: &Dir, name: &Name) -> Result<Option<(Self, u64)>> {
        let part = temp::part_name(name);
        match regular_file(dir, &part) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(_) => {
                discard(dir, &part);
                return Ok(None);
            }
        }
        let (fd, flags) = open_existing(dir, &part)?;
        if let Some(flags) = flags {
            flags.settle();
        }
        // It may have had its final mode already, with setuid perhaps.
        fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(|e| dir.error("set mode", name, e))?;
        let size = fs::fstat(&fd).map_err(|e| dir.error("stat", name, e))?.st_size;
        let writer = Self::new(dir, name, fd, Place::Beside { part });
        Ok(Some((writer, u64::try_from(size).unwrap_or(0))))
    }

    /// Opens the existing file to be patched where it lies until it is `want`; `identity` is the `(device, inode)`
    /// that its listing gave.
    ///
    /// # Errors
    /// `ESTALE` where it is another file by now, `EMLINK` where it has further names, which would
    /// change with it, `EINVAL` where it is no regular file; whatever `open(2)` answers.
    pub fn in_place(dir: &Dir, name: &Name, identity: (u64, u64), want: &Metadata) -> Result<Self> {
        let refuse = |errno| dir.error("patch in place", name, errno);
        if regular_file(dir, name).map_err(refuse)? != identity {
            return Err(refuse(Errno::STALE));
        }
        let (fd, flags) = open_existing(dir, name)?;
        let want = narrow::limits(want);
        let existing = Existing { want, mark: OnceLock::new(), flags };
        let writer = Self::new(dir, name, fd, Place::Existing(Box::new(existing)));
        // What was looked at by name is what was opened.
        let stat = fs::fstat(&writer.fd).map_err(refuse)?;
        if (stat.st_dev, stat.st_ino) == identity { Ok(writer) } else { Err(refuse(Errno::STALE)) }
    }

    fn new(dir: &Dir, name: &Name, fd: OwnedFd, place: Place) -> Self {
        let cached = AtomicBool::new(false);
        Self { dir: dir.clone(), name: name.clone(), fd, place, settled: false, cached }
    }

    /// The directory that the file will be in.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The final name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Gives the file its metadata and its name. From here on it is what the source has: the caller
    /// has checked the content before.
    ///
    /// # Errors
    /// `EUCLEAN` where the file is not of the size in `want`; whatever flushing and renaming answer.
    /// Nothing is published then.
    pub fn finish(mut self, want: &Metadata, options: ApplyOptions) -> Result<Applied> {
        let stat = fs::fstat(&self.fd).map_err(|e| self.error("stat", e))?;
        if want.kind != FileKind::File || u64::try_from(stat.st_size) != Ok(want.size) {
            return Err(self.error("publish a file of another size", Errno::UCLEAN));
        }
        if self.changed_in_place() {
            fs::fdatasync(&self.fd).map_err(|e| self.error("flush", e))?;
        }
        let Place::Beside { part } = &self.place else {
            let applied =
                metadata::apply_fd(&self.dir, &self.name, self.fd.as_fd(), want, options)?;
            self.settled = true;
            if let Place::Existing(existing) = &mut self.place
                && let Some(flags) = existing.flags.take()
            {
                flags.settle();
            }
            return Ok(applied);
        };
        let applied = publish(&self.dir, part, &self.name, self.fd.as_fd(), want, options)?;
        self.settled = true;
        Ok(applied)
    }

    /// Gives up for now and leaves what was written for [`FileWriter::open_part`]. A file that is
    /// patched in place stays marked dirty; one under its final name is removed all the same.
    pub fn keep(mut self) {
        self.settled = matches!(self.place, Place::Beside { .. });
    }

    /// Makes the file ready to be changed, where it lies under its name already. Done before the first change at the
    /// latest.
    ///
    /// # Errors
    /// `EPERM` where the mode of somebody else's file would have to be narrowed; whatever the calls answer.
    pub fn begin(&self) -> Result<()> {
        let Place::Existing(existing) = &self.place else { return Ok(()) };
        let begin = || {
            narrow::file(&Held::Open(&self.dir, self.fd.as_fd()), &existing.want)?;
            self.mark_dirty()
        };
        existing.mark.get_or_init(begin).map_err(|e| self.error("patch in place", e))
    }

    /// The file as it is now, to be read while nobody writes to it.
    ///
    /// # Errors
    /// As [`BasisFile::open`].
    pub fn as_basis(&self) -> Result<BasisFile> {
        let stat = fs::fstat(&self.fd).map_err(|e| self.error("stat", e))?;
        let name = match &self.place {
            Place::Beside { part } => part,
            Place::New | Place::Existing { .. } => &self.name,
        };
        BasisFile::open(&self.dir, name, (stat.st_dev, stat.st_ino))
    }

    fn mark_dirty(&self) -> Result<(), Errno> {
        fs::futimens(&self.fd, &held::times(DIRTY)?)
    }

    fn changed_in_place(&self) -> bool {
        matches!(&self.place, Place::Existing(existing) if existing.mark.get().is_some())
    }

    fn error(&self, operation: &'static str, errno: Errno) -> Error {
        self.dir.error(operation, &self.name, errno)
    }
}

impl AsFd for FileWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // Whoever drops a file unfinished has an error to report already.
        match &self.place {
            Place::New => discard(&self.dir, &self.name),
            Place::Beside { part } => discard(&self.dir, part),
            Place::Existing(_) if self.changed_in_place() => _ = self.mark_dirty(),
            Place::Existing(_) => {}
        }
    }
}

/// Applies `want` to the file `fd` under the name `part`, renames it to `name`, and sets the inode
/// flags that would have forbidden that.
pub(crate) fn publish(
    dir: &Dir,
    part: &Name,
    name: &Name,
    fd: BorrowedFd<'_>,
    want: &Metadata,
    options: ApplyOptions,
) -> Result<Applied> {
    let applied = metadata::apply_staged(dir, name, fd, want, options, Stage::BeforeRename)?;
    rename_over(dir, part, name)?;
    if applied.actual.attributes == want.attributes {
        return Ok(applied);
    }
    metadata::apply_fd(dir, name, fd, want, options)
}

/// Makes a file that is its owner's alone.
pub(crate) fn create(dir: &Dir, name: &Name) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    unlocking(dir, None, || dir.open_at(name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| e.errno))
}

/// The `(device, inode)` of a regular file with a single name; told without opening it, which might
/// wake a device.
fn regular_file(dir: &Dir, name: &Name) -> Result<(u64, u64), Errno> {
    let fd = dir.descriptor().map_err(|e| e.errno)?;
    let stat = fs::statat(fd, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    if stat.st_nlink != 1 { Err(Errno::MLINK) } else { Ok((stat.st_dev, stat.st_ino)) }
}

/// Opens an existing file for reading and writing, lifting what forbids it to its owner. The mode is put back at once: it
/// counts only when a file is opened.
fn open_existing(dir: &Dir, name: &Name) -> Result<(OwnedFd, Option<LiftedFlags>)> {
    let open = || dir.open_at(name, OFlags::RDWR | OFlags::NONBLOCK, Mode::empty());
    match open() {
        Err(refused @ Error { errno: Errno::PERM, .. }) => {
            let flags = LiftedFlags::of_entry(dir, name)?.ok_or(refused)?;
            Ok((open()?, Some(flags)))
        }
        Err(Error { errno: Errno::ACCESS, .. }) => {
            let held = Held::entry(dir, name)?;
            let refused = |e| dir.error("open", name, e);
            let widened = held.widen(OWNER_FILE).map_err(refused)?;
            let fd = open()?;
            widened.restore().map_err(refused)?;
            Ok((fd, None))
        }
        other => Ok((other?, None)),
    }
}
