//! Small files, whose content is at hand in one piece: the few system calls that each of them takes.
//!
//! Everything is set in the hope that it takes, and the inode is read back once. What does not hold
//! then goes the thorough way of [`metadata`], which finds out why and says so.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, ftruncate},
    io::Errno,
};
use wire::{Attributes, FileKind, Metadata, Name};

use crate::{
    Dir, Result,
    create::{ParentHints, discard},
    flush,
    held::Held,
    metadata::{self, Applied, ApplyOptions, MetadataDiff},
    staging::{Place, conflict},
    unlock::unlocking,
    writer,
};

/// Zeros of this many bytes become a hole: the block of most file systems.
const HOLE_BLOCK: usize = 4 << 10;

/// Writes the file `name` with all of `content` directly under its name. Only for a directory that is
/// itself new in this run, since the file shows before it is whole.
///
/// # Errors
/// `EEXIST` where the name is taken, `EUCLEAN` where `content` is not of the size in `want`; whatever
/// the calls answer. Nothing is left behind.
pub fn write_new(
    dir: &Dir,
    name: &Name,
    want: &Metadata,
    content: &[u8],
    hints: ParentHints,
    options: ApplyOptions,
) -> Result<Applied> {
    check(dir, name, want, content)?;
    let fd = create(dir, name, want, hints).map_err(|e| match e {
        Errno::EXIST => conflict(dir, name, e),
        _ => dir.error("create", name, e),
    })?;
    let file = File { dir, shown: name, fd: fd.as_fd(), want, hints };
    file.fill(content)
        .and_then(|done| match done {
            Some(applied) if applied.actual.attributes == want.attributes => Ok(applied),
            _ => metadata::apply_fd(dir, name, fd.as_fd(), want, options),
        })
        .inspect_err(|_| discard(dir, name))
}

/// Writes the file with all of `content` in the staging directory and renames it to its place, where it is occupied over
/// whatever bears the name, unless that is a directory.
///
/// # Errors
/// As [`write_new`], and what renaming answers. The old entry stays then.
pub fn write_over(
    place: Place<'_>,
    want: &Metadata,
    content: &[u8],
    options: ApplyOptions,
) -> Result<Applied> {
    let Place { dir, name, .. } = place;
    check(dir, name, want, content)?;
    place.build(
        &mut |area, name| create(&area.dir, name, want, area.hints),
        &mut |area, hidden, fd| {
            let file = File { dir, shown: name, fd: fd.as_fd(), want, hints: area.hints };
            match file.fill(content)? {
                Some(applied) if want.attributes == Attributes::default() => {
                    hidden.put(dir, name, place.occupied).map(|()| applied)
                }
                _ => {
                    writer::publish((dir, name, place.occupied), hidden, fd.as_fd(), want, options)
                }
            }
        },
    )
}

fn check(dir: &Dir, name: &Name, want: &Metadata, content: &[u8]) -> Result<()> {
    if want.kind == FileKind::File && want.size == content.len() as u64 {
        return Ok(());
    }
    Err(dir.error("publish a file of another size", name, Errno::UCLEAN))
}

/// True where creation gives the file its owner and nothing else, so that it may have its permission
/// bits from the start: nobody reads it then who may not later.
fn born_right(want: &Metadata, hints: ParentHints) -> bool {
    plain(want, hints) && (want.uid, want.gid) == (hints.uid, hints.gid)
}

/// True where the file has no extended attributes, neither wanted nor handed down.
fn plain(want: &Metadata, hints: ParentHints) -> bool {
    want.xattrs.is_empty() && !hints.default_acl
}

fn create(dir: &Dir, name: &Name, want: &Metadata, hints: ParentHints) -> Result<OwnedFd, Errno> {
    let mode = if born_right(want, hints) { want.mode & 0o777 } else { 0o600 };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    unlocking(dir, None, || {
        dir.open_at(name, flags, Mode::from_raw_mode(mode.into())).map_err(|e| e.errno)
    })
}

/// A file that was just made.
struct File<'a> {
    dir: &'a Dir,
    shown: &'a Name,
    fd: BorrowedFd<'a>,
    want: &'a Metadata,
    hints: ParentHints,
}

impl File<'_> {
    /// Writes the content and sets the metadata. `None` where not all of it took, inode flags aside.
    fn fill(&self, content: &[u8]) -> Result<Option<Applied>> {
        self.write(content).map_err(|e| self.dir.error("write", self.shown, e))?;
        flush::confirm(self.dir, self.fd).map_err(|e| self.dir.error("flush", self.shown, e))?;
        // Set-id bits come after owner and group were read back.
        let thorough = !plain(self.want, self.hints) || self.want.mode & metadata::SET_ID != 0;
        if thorough || self.set().is_err() {
            return Ok(None);
        }
        let read = Held::Open(self.dir, self.fd).read_inode();
        let (actual, _) = read.map_err(|e| self.dir.error("stat", self.shown, e))?;
        let diff = MetadataDiff::between(self.want, &actual);
        let took = MetadataDiff { attributes: false, ..diff }.is_empty();
        Ok(took.then(|| Applied { actual, problems: Vec::new(), changed: true }))
    }

    /// Writes the content but for whole blocks of zeros, which become holes.
    fn write(&self, content: &[u8]) -> Result<(), Errno> {
        let mut start = 0;
        for (index, block) in content.chunks_exact(HOLE_BLOCK).enumerate() {
            if block.iter().all(|&byte| byte == 0) {
                let at = index * HOLE_BLOCK;
                writer::write_full(self.fd, start as u64, &content[start..at])?;
                start = at + HOLE_BLOCK;
            }
        }
        writer::write_full(self.fd, start as u64, &content[start..])?;
        if start > 0 && start == content.len() {
            ftruncate(self.fd, start as u64)?;
        }
        Ok(())
    }

    fn set(&self) -> Result<(), Errno> {
        let held = Held::Open(self.dir, self.fd);
        let want = self.want;
        if (want.uid, want.gid) != (self.hints.uid, self.hints.gid) {
            held.set_owner(Some(want.uid), Some(want.gid))?;
        }
        if !born_right(want, self.hints) || want.mode > 0o777 {
            held.set_mode(want.mode)?;
        }
        held.set_mtime(want.mtime)
    }
}
