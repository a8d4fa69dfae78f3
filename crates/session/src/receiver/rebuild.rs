//! A file whose content has moved: built anew from copies of its basis and from what is in none.
//!
//! It comes in pieces, one behind the other without a gap. The hashes of the pieces make its digest, and
//! those of copied segments are known since the signature was made: nothing is read twice.

use std::{
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use delta::RangeFold;
use rustix::{
    fs::{self, SeekFrom},
    io::Errno,
};
use volume::{
    descriptors::{self, Loan},
    writer::FileWriter,
};
use wire::{Entry, limits::MAX_PIECE};

use super::{
    basis::{self, Basis, Output},
    dirs::DirState,
    file::FileState,
    patch::{Delta, Inner},
    room,
    state::Shared,
};
use crate::{control::Stopped, fault::Fault};

/// A file that is being built anew.
pub(super) struct Rebuilt {
    /// What the file had become before, up to here, stands.
    pub(super) keep: u64,
    /// Where the next piece belongs.
    pub(super) next: u64,
    pub(super) pieces: RangeFold,
    /// Where the old content can be read. `None` in a dry run.
    old: Option<Old<OldFile>>,
}

impl Rebuilt {
    /// Takes in that a piece of `len` bytes comes at `at`, which must be behind the piece before.
    pub(super) fn follow(&mut self, shared: &Shared, at: u64, len: u64) -> Result<(), Stopped> {
        if at != self.next {
            return shared.broken("content out of order");
        }
        self.next = at + len;
        Ok(())
    }
}

impl Delta {
    /// Begins a new file with the first `keep` bytes of what the file has become.
    pub(super) fn rebuild(
        &self,
        shared: &Shared,
        file: &FileState,
        inner: &mut Inner,
        keep: u64,
    ) -> Result<(), Fault> {
        let segment = u64::from(self.layout.segment_len());
        if inner.rebuilt.is_some() || keep > self.basis_len || !keep.is_multiple_of(segment) {
            return Ok(shared.broken("rebuild that makes no sense")?);
        }
        let Some(dir) = file.dir() else { return Ok(shared.broken("rebuild of a device")?) };
        inner.changed = true;
        let old = if self.dry {
            None
        } else {
            dir.touch();
            match self.begin(shared, file, dir, inner, keep)? {
                Some(old) => Some(old),
                None => return Ok(shared.broken("rebuild of a device")?),
            }
        };
        let pieces = RangeFold::new(&shared.key);
        inner.rebuilt = Some(Rebuilt { keep, next: keep, pieces, old });
        Ok(())
    }

    fn begin(
        &self,
        shared: &Shared,
        file: &FileState,
        dir: &DirState,
        inner: &mut Inner,
        keep: u64,
    ) -> volume::Result<Option<Old<OldFile>>> {
        let entry = file.entry();
        shared.before_content()?;
        // A part is about to lose its name.
        if let Basis::Part(part) = &self.basis {
            part.pin()?;
        }
        let old = match (&inner.output, &self.basis) {
            (Some(Output::File(writer)), Basis::File(_)) => {
                OldFile::Written(duplicate(&**writer, dir, entry)?)
            }
            (None, Basis::File(basis)) | (_, Basis::Part(basis)) => {
                OldFile::Basis(basis.descriptor()?)
            }
            _ => return Ok(None),
        };
        // The staged name passes to the new file; what bore it lives on by its descriptor.
        if let Some(Output::File(writer)) = inner.output.take()
            && let Some(writer) = Arc::into_inner(writer)
        {
            writer.keep();
        }
        let new = file.stage(shared)?;
        let mut old = Old::new(old);
        old.copy_to(&new, 0, 0..keep)?;
        inner.output = Some(Output::File(Arc::new(new)));
        Ok(Some(old))
    }

    /// Copies `len` bytes of the basis from `from` on to `at`.
    pub(super) fn copy(
        &self,
        shared: &Shared,
        inner: &mut Inner,
        at: u64,
        from: u64,
        len: u64,
    ) -> Result<(), Fault> {
        let Inner { rebuilt: Some(rebuilt), output, known, .. } = inner else {
            return Ok(shared.broken("copy into a file that is not built anew")?);
        };
        if from + len > self.basis_len {
            return Ok(shared.broken("copy from past the end of a file")?);
        }
        rebuilt.follow(shared, at, len)?;
        let Rebuilt { old: Some(old), pieces, .. } = rebuilt else { return Ok(()) };
        let Some(Output::File(writer)) = output else {
            return Ok(shared.broken("copy onto a device")?);
        };
        if !self.layout.is_of_segments(from, len, self.basis_len) {
            // A short piece of anything: its hash is made of what is copied.
            if len > MAX_PIECE {
                return Ok(shared.broken("copy of more than may be hashed at once")?);
            }
            let mut buffer = vec![0; len as usize];
            room::with_room(shared, || copy_through(writer, &old.fd, &mut buffer, (from, at)))?;
            pieces.push(shared.key.hash(&buffer));
            return Ok(());
        }
        let mut done = from;
        while done < from + len {
            let index = done / u64::from(self.layout.segment_len());
            let range = self.layout.segment_range(index, self.basis_len);
            done = range.end;
            if let Some(hash) = known.get(index, &range) {
                pieces.push(hash);
                continue;
            }
            // Blocks were found in it before the signature came to it.
            let mut segment = vec![0; (range.end - range.start) as usize];
            read_old(&old.fd, range.start, &mut segment)?;
            pieces.push(shared.key.hash(&segment));
        }
        room::with_room(shared, || old.copy_to(writer, from, at..at + len))
    }
}

/// Copies what fills `buffer` by way of it, from one offset to another.
fn copy_through(
    writer: &FileWriter,
    old: &OldFile,
    buffer: &mut [u8],
    (from, at): (u64, u64),
) -> volume::Result<()> {
    read_old(old, from, buffer)?;
    writer.write_at(at, buffer)
}

fn read_old(old: &OldFile, from: u64, buffer: &mut [u8]) -> volume::Result<()> {
    let failed = |errno| volume::Error::new("read", "the old content", errno);
    match basis::read_full(old, from, buffer) {
        Ok(got) if got == buffer.len() => Ok(()),
        Ok(_) => Err(failed(Errno::NODATA)),
        Err(errno) => Err(failed(errno)),
    }
}

/// A file whose content is copied from while a new one is built.
enum OldFile {
    Basis(Loan),
    /// What the basis had become before.
    Written(OwnedFd),
}

impl AsFd for OldFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Basis(fd) => fd.as_fd(),
            Self::Written(fd) => fd.as_fd(),
        }
    }
}

/// A descriptor of its own for the file behind `fd`, which is `entry` of `dir`.
fn duplicate(fd: impl AsFd, dir: &DirState, entry: &Entry) -> volume::Result<OwnedFd> {
    descriptors::opening(|| rustix::io::fcntl_dupfd_cloexec(&fd, 0))
        .map_err(|errno| volume::Error::new("open", dir.display_entry(&entry.name), errno))
}

/// Old content, to copy from.
pub(super) struct Old<F> {
    fd: F,
    /// The stretch of data that was found last. Some file systems look for its end page by page, so it
    /// is not asked for again for each copy.
    data: Range<u64>,
}

impl<F: AsFd> Old<F> {
    pub(super) fn new(fd: F) -> Self {
        Self { fd, data: 0..0 }
    }

    /// Copies the data from `from` on to the range `to` of a new file, and not the holes, which the
    /// new file has already.
    pub(super) fn copy_to(
        &mut self,
        new: &FileWriter,
        mut from: u64,
        to: Range<u64>,
    ) -> volume::Result<()> {
        let end = from + (to.end - to.start);
        let shift = |at: u64| to.end - (end - at);
        while from < end {
            if !self.data.contains(&from) {
                match self.next_data(from) {
                    Ok(Some(data)) => self.data = data,
                    Ok(None) => break,
                    // A file system that does not tell.
                    Err(_) => return new.copy_range(&self.fd, from, shift(from), end - from),
                }
                from = from.max(self.data.start);
                continue;
            }
            let stop = self.data.end.min(end);
            new.copy_range(&self.fd, from, shift(from), stop - from)?;
            from = stop;
        }
        Ok(())
    }

    /// The first stretch of data that ends behind `from`.
    fn next_data(&self, from: u64) -> Result<Option<Range<u64>>, Errno> {
        let start = match fs::seek(&self.fd, SeekFrom::Data(from)) {
            Ok(start) => start.max(from),
            Err(Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let end = fs::seek(&self.fd, SeekFrom::Hole(start))?;
        if end > start { Ok(Some(start..end)) } else { Err(Errno::INVAL) }
    }
}
