//! Writing one regular file.
//!
//! A [`FileWriter`] is an open file and the way it will get its name:
//!
//! | made by | while it is written | [`finish`](FileWriter::finish) | dropped unfinished |
//! | --- | --- | --- | --- |
//! | [`staged`](FileWriter::staged), [`open_part`](FileWriter::open_part) | in the [staging directory](crate::staging) | sets metadata, renames | removed, or [kept](FileWriter::keep) for the next run |
//! | [`in_place`](FileWriter::in_place) | under its name, narrowed, its time the present | flushes, sets metadata | stays, its time the present |
//!
//! While it is written, a new file is readable and writable by its owner alone; setuid and the like
//! come when it is whole. Metadata is set through the open descriptor, never by name.
//!
//! # A file that is patched in place
//! It is neither its old self nor its new one until it is whole. Before its first byte changes it is
//! [narrowed](crate::narrow): new content is not to be read by those whom only the old mode let in. And its modification
//! time becomes the present, as with every write after that, and once more when it is given up. No time is special, so the
//! source may have any. That the next run does not take the file for unchanged follows from two things together:
//! * The caller has a crash marker on disk before the first byte changes, and leaves one until the last such file is
//!   whole.
//! * The content of such a file and its inode [changed together](crate::stat::Inode::changed_with): the kernel sets
//!   the modification time and the time of change in one step. Nobody can set the time of change.
//!
//! So while there is a crash marker, a file whose two times are the same is compared by content, whatever time the source
//! has. The real time is set last, after the content was flushed: with the data still in memory, a power cut could keep the
//! time and lose the data; after a power cut the crash marker has everything compared by content.
//!
//! Several threads may write ranges of one file at a time.

mod content;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{OnceLock, atomic::AtomicBool},
};

use rustix::{
    fs::{
        self, AtFlags, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_NOW,
        UTIME_OMIT,
    },
    io::Errno,
};
use wire::{FileKind, Metadata, Name};

use crate::{
    Dir, Error, Result,
    basis::BasisFile,
    create::ParentHints,
    flush,
    held::{Held, OWNER_FILE},
    metadata::{self, Applied, ApplyOptions, Stage},
    narrow,
    staging::{self, Hidden, Place},
    unlock::{LiftedFlags, unlocking},
};

pub(crate) use content::write_full;

/// A regular file that is being written.
pub struct FileWriter {
    dir: Dir,
    /// The final name.
    name: Name,
    fd: OwnedFd,
    way: Way,
    /// Finished, or to be left as it is.
    settled: bool,
    /// Writing past the page cache was refused.
    cached: AtomicBool,
}

/// The way in which the file gets its name.
enum Way {
    Staged {
        hidden: Hidden,
        /// See [`Place::occupied`].
        occupied: bool,
        /// See [`Place::hints`].
        hints: ParentHints,
    },
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
    /// Makes the file in the staging directory. What an earlier run left there is removed.
    ///
    /// # Errors
    /// Whatever `open(2)` answers.
    pub fn staged(place: Place<'_>) -> Result<Self> {
        let (_, hidden, fd) = place.stage(&mut |area, name| create(&area.dir, name))?;
        Ok(Self::hidden(place, hidden, fd))
    }

    /// Opens what an earlier run left of the file in the staging directory, and its size. It is the
    /// basis of the next attempt and is patched where it lies. `None` where there is nothing of use.
    ///
    /// # Errors
    /// Whatever `open(2)` answers, other than that there is no such file.
    pub fn open_part(place: Place<'_>) -> Result<Option<(Self, u64)>> {
        let hidden =
            Hidden { dir: place.staging.dir()?, name: staging::staged_name(place.dir, place.name) };
        match regular_file(&hidden.dir, &hidden.name) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(_) => {
                hidden.discard();
                return Ok(None);
            }
        }
        let (fd, flags) = open_existing(&hidden.dir, &hidden.name)
            .map_err(|e| place.error(e.operation, e.errno))?;
        if let Some(flags) = flags {
            flags.settle();
        }
        // It may have had its final mode already, with setuid perhaps.
        fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(|e| place.error("set mode", e))?;
        let size = fs::fstat(&fd).map_err(|e| place.error("stat", e))?.st_size;
        let writer = Self::hidden(place, hidden, fd);
        Ok(Some((writer, u64::try_from(size).unwrap_or(0))))
    }

    fn hidden(place: Place<'_>, hidden: Hidden, fd: OwnedFd) -> Self {
        let way = Way::Staged { hidden, occupied: place.occupied, hints: place.hints };
        Self::new(place.dir, place.name, fd, way)
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
        let writer = Self::new(dir, name, fd, Way::Existing(Box::new(existing)));
        // What was looked at by name is what was opened.
        let stat = fs::fstat(&writer.fd).map_err(refuse)?;
        if (stat.st_dev, stat.st_ino) == identity { Ok(writer) } else { Err(refuse(Errno::STALE)) }
    }

    fn new(dir: &Dir, name: &Name, fd: OwnedFd, way: Way) -> Self {
        let cached = AtomicBool::new(false);
        Self { dir: dir.clone(), name: name.clone(), fd, way, settled: false, cached }
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
        flush::confirm(&self.dir, self.fd.as_fd()).map_err(|e| self.error("flush", e))?;
        let (dir, name, fd) = (&self.dir, &self.name, self.fd.as_fd());
        let published = match &self.way {
            Way::Existing(_) => metadata::apply_fd(dir, name, fd, want, options),
            Way::Staged { hints, .. } if hints.foreign_group => {
                return self.publish_copy(want, options);
            }
            Way::Staged { hidden, occupied, .. } => {
                publish((dir, name, *occupied), hidden, fd, want, options)
            }
        };
        match published {
            Err(error) if error.errno == Errno::XDEV => self.publish_copy(want, options),
            Ok(applied) => {
                self.settled = true;
                if let Way::Existing(existing) = &mut self.way
                    && let Some(flags) = existing.flags.take()
                {
                    flags.settle();
                }
                Ok(applied)
            }
            Err(error) => Err(error),
        }
    }

    /// Publishes a copy that is made in the directory itself, which staging does not reach. Dropping removes the
    /// staged file.
    fn publish_copy(&self, want: &Metadata, options: ApplyOptions) -> Result<Applied> {
        let Way::Staged { occupied, hints, .. } = &self.way else {
            return Err(self.error("copy", Errno::INVAL));
        };
        let area = staging::Area { dir: self.dir.clone(), hints: *hints };
        let (hidden, fd) = staging::hide_beside(&area, &mut |area, name| create(&area.dir, name))
            .map_err(|e| self.error("create", e))?;
        let way = Way::Staged { hidden, occupied: *occupied, hints: *hints };
        let mut copy = Self::new(&self.dir, &self.name, fd, way);
        let mut at = 0;
        while at < want.size {
            let data = match fs::seek(&self.fd, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => break,
                found => found.unwrap_or(at),
            };
            let end = fs::seek(&self.fd, SeekFrom::Hole(data)).unwrap_or(want.size);
            copy.copy_range(&self.fd, data, data, end.min(want.size).saturating_sub(data))?;
            at = end.max(data + 1);
        }
        copy.set_len(want.size)?;
        flush::confirm(&self.dir, copy.fd.as_fd()).map_err(|e| self.error("flush", e))?;
        let Way::Staged { hidden, .. } = &copy.way else {
            return Err(self.error("copy", Errno::INVAL));
        };
        let at = (&self.dir, &self.name, *occupied);
        let applied = publish(at, hidden, copy.fd.as_fd(), want, options)?;
        copy.settled = true;
        Ok(applied)
    }

    /// Gives up for now and leaves what was written for [`FileWriter::open_part`]. A file that is
    /// patched in place stays as it is.
    pub fn keep(mut self) {
        self.settled = matches!(self.way, Way::Staged { .. });
    }

    /// Makes the file ready to be changed, where it lies under its name already. Done before the first change at the
    /// latest.
    ///
    /// # Errors
    /// `EPERM` where the mode of somebody else's file would have to be narrowed; whatever the calls answer.
    pub fn begin(&self) -> Result<()> {
        let Way::Existing(existing) = &self.way else { return Ok(()) };
        let begin = || {
            narrow::file(&Held::Open(&self.dir, self.fd.as_fd()), &existing.want)?;
            self.mark_changed()
        };
        existing.mark.get_or_init(begin).map_err(|e| self.error("patch in place", e))
    }

    /// The file as it is now, to be read while nobody writes to it.
    ///
    /// # Errors
    /// As [`BasisFile::open`].
    pub fn as_basis(&self) -> Result<BasisFile> {
        let stat = fs::fstat(&self.fd).map_err(|e| self.error("stat", e))?;
        let (dir, name) = match &self.way {
            Way::Staged { hidden, .. } => (&hidden.dir, &hidden.name),
            Way::Existing(_) => (&self.dir, &self.name),
        };
        BasisFile::open(dir, name, (stat.st_dev, stat.st_ino))
    }

    /// The present as its modification time: the same as its time of change.
    fn mark_changed(&self) -> Result<(), Errno> {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let last_modification = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        fs::futimens(&self.fd, &Timestamps { last_access, last_modification })
    }

    fn changed_in_place(&self) -> bool {
        matches!(&self.way, Way::Existing(existing) if existing.mark.get().is_some())
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
        match &self.way {
            Way::Staged { hidden, .. } => hidden.discard(),
            Way::Existing(_) if self.changed_in_place() => _ = self.mark_changed(),
            Way::Existing(_) => {}
        }
    }
}

/// Applies `want` to the file `fd`, renames it to its directory and name, over what is there where that is
/// `occupied`, and sets the inode flags that would have forbidden that.
pub(crate) fn publish(
    (dir, name, occupied): (&Dir, &Name, bool),
    hidden: &Hidden,
    fd: BorrowedFd<'_>,
    want: &Metadata,
    options: ApplyOptions,
) -> Result<Applied> {
    let applied = metadata::apply_staged(dir, name, fd, want, options, Stage::BeforeRename)?;
    hidden.put(dir, name, occupied)?;
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
