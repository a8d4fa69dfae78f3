//! Removing entries, whole trees of them, and saying beforehand what would be removed.
//!
//! A tree goes bottom-up, each directory in the order of its names, one call per entry, relative to
//! the directory that is held. Links are removed and not followed; what is mounted below is not
//! entered. The walk keeps its own stack, so depth costs memory for one listing per level and no
//! more. [`Mode::Pretend`] takes the same walk without removing: it visits the same entries in the same
//! order and asks the same questions.
//!
//! An entry that cannot be removed is told to [`Removal::failed`] and the rest goes on; directories
//! above it stay. Flags and modes that forbid removing are taken out of the way where this process
//! may, and put back on every directory that stays.

use rustix::{
    fs::{self, AtFlags, IFlags, StatxFlags},
    io::Errno,
};
use std::os::fd::AsFd as _;
use wire::{Attributes, FileKind, Metadata, Name};

use crate::{
    Dir, Error, Result, error::MOUNTED, held::Held, list::NameList, read_only::is_read_only, stat,
    unlock, unlock::unlocking,
};

/// Whether anything is removed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Remove.
    Remove,
    /// Only visit what would be removed.
    Pretend,
}

/// What became of the entry that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is not there any more, or would not be.
    Gone,
    /// It is a directory and something in it stays, or it could not be removed itself.
    Kept,
    /// [`Removal::reserve`] ended the walk.
    Stopped,
}

/// Who decides about a removal and is told about it.
pub trait Removal {
    /// Asked before each entry; `false` ends the walk. This is where a limit counts: what is reserved is either
    /// [removed](Removal::removed) or [returned](Removal::release).
    fn reserve(&mut self) -> bool {
        true
    }

    /// The entry that was reserved last has not been removed by this walk.
    fn release(&mut self) {}

    /// True for an entry that must stay, and with it every directory above.
    fn protects(&mut self, _dir: &Dir, _name: &Name, _is_dir: bool) -> bool {
        false
    }

    /// The entry was removed, or would be.
    fn removed(&mut self, dir: &Dir, name: &Name, is_dir: bool);

    /// An entry stays that should have gone.
    fn failed(&mut self, error: Error);
}

/// Removes the entry `name` of `dir` and everything below it.
pub fn remove_tree(dir: &Dir, name: &Name, mode: Mode, removal: &mut dyn Removal) -> Outcome {
    let mut walk = Walk { mode, removal, stack: Vec::new() };
    let before = Access::of(dir);
    let outcome = match walk.visit(dir, name, None) {
        Visit::Leaf(outcome) => outcome,
        Visit::Descend(frame) => walk.run(frame),
    };
    if let (Mode::Remove, Ok(before)) = (mode, before) {
        before.restore(dir);
    }
    outcome
}

/// Removes everything in `dir`, which stays itself.
pub fn empty_dir(dir: &Dir, mode: Mode, removal: &mut dyn Removal) -> Outcome {
    let mut walk = Walk { mode, removal, stack: Vec::new() };
    match Frame::open(dir.clone(), None, Access::of(dir)) {
        Ok(frame) => walk.run(frame),
        Err(error) => {
            walk.removal.failed(error);
            Outcome::Kept
        }
    }
}

struct Walk<'a> {
    mode: Mode,
    removal: &'a mut dyn Removal,
    stack: Vec<Frame>,
}

/// A directory that is being emptied.
struct Frame {
    dir: Dir,
    /// Where it lies; `None` for one that is emptied but stays.
    place: Option<(Dir, Name)>,
    names: NameList,
    next: usize,
    /// Something in it stays.
    kept: bool,
    before: Result<Access>,
}

enum Visit {
    Leaf(Outcome),
    Descend(Frame),
}

impl Walk<'_> {
    fn run(&mut self, frame: Frame) -> Outcome {
        self.stack.push(frame);
        loop {
            let Some(frame) = self.stack.last_mut() else { return Outcome::Gone };
            let outcome = if let Some(name) = frame.names.name(frame.next) {
                let hint = frame.names.kind_hint(frame.next);
                frame.next += 1;
                let dir = frame.dir.clone();
                match self.visit(&dir, &name, hint) {
                    Visit::Leaf(outcome) => outcome,
                    Visit::Descend(frame) => {
                        self.stack.push(frame);
                        continue;
                    }
                }
            } else {
                let Some(frame) = self.stack.pop() else { return Outcome::Gone };
                let outcome = self.leave(frame);
                if self.stack.is_empty() {
                    return outcome;
                }
                outcome
            };
            match outcome {
                Outcome::Gone => {}
                Outcome::Kept => self.keep(),
                Outcome::Stopped => {
                    self.stack.drain(..).rev().for_each(|frame| frame.stays(self.mode));
                    return Outcome::Stopped;
                }
            }
        }
    }

    fn keep(&mut self) {
        if let Some(frame) = self.stack.last_mut() {
            frame.kept = true;
        }
    }

    /// Removes one entry, or opens it where it is a directory.
    fn visit(&mut self, dir: &Dir, name: &Name, hint: Option<FileKind>) -> Visit {
        match self.try_visit(dir, name, hint) {
            Ok(visit) => visit,
            // Somebody else was faster.
            Err(error) if error.errno == Errno::NOENT => Visit::Leaf(Outcome::Gone),
            Err(error) => {
                self.removal.failed(error);
                Visit::Leaf(Outcome::Kept)
            }
        }
    }

    fn try_visit(&mut self, dir: &Dir, name: &Name, hint: Option<FileKind>) -> Result<Visit> {
        let look =
            self.mode == Mode::Pretend || hint.is_none_or(|kind| kind == FileKind::Directory);
        let seen = if look { Some(look_at(dir, name)?) } else { None };
        let is_dir = seen.as_ref().is_some_and(|seen| seen.meta.kind == FileKind::Directory);
        if self.removal.protects(dir, name, is_dir) {
            return Ok(Visit::Leaf(Outcome::Kept));
        }
        match seen {
            Some(seen) if is_dir => {
                // What is mounted here belongs to another volume.
                if seen.inode.mount_root {
                    return Err(dir.error(MOUNTED, name, Errno::BUSY));
                }
                let child = match self.mode {
                    Mode::Remove => unlock::open_dir(dir, name)?,
                    Mode::Pretend => dir.open_child(name)?,
                };
                if child.identity() != (seen.inode.dev, seen.inode.ino) {
                    return Err(dir.error("open", name, Errno::STALE));
                }
                if self.mode == Mode::Pretend {
                    confirm_writable(&child)?;
                }
                let place = Some((dir.clone(), name.clone()));
                Frame::open(child, place, Ok(Access::from(&seen.meta))).map(Visit::Descend)
            }
            Some(seen) if self.mode == Mode::Pretend && seen.inode.mount_root => {
                Err(dir.error(MOUNTED, name, Errno::BUSY))
            }
            _ => self.unlink(dir, name, false).map(Visit::Leaf),
        }
    }

    /// Ends with a directory: removes it where nothing in it stays.
    fn leave(&mut self, mut frame: Frame) -> Outcome {
        if let Some(failure) = frame.names.failure() {
            self.removal.failed(failure.clone());
            frame.kept = true;
        }
        let place = frame.place.take();
        let outcome = match &place {
            _ if frame.kept => Outcome::Kept,
            None => Outcome::Gone,
            Some((dir, name)) => self.unlink(dir, name, true).unwrap_or_else(|error| {
                self.removal.failed(error);
                Outcome::Kept
            }),
        };
        if outcome != Outcome::Gone || place.is_none() {
            frame.stays(self.mode);
        }
        outcome
    }

    fn unlink(&mut self, dir: &Dir, name: &Name, is_dir: bool) -> Result<Outcome> {
        if !self.removal.reserve() {
            return Ok(Outcome::Stopped);
        }
        if self.mode == Mode::Remove {
            unlink(dir, name, is_dir).inspect_err(|_| self.removal.release())?;
        }
        self.removal.removed(dir, name, is_dir);
        Ok(Outcome::Gone)
    }
}

fn unlink(dir: &Dir, name: &Name, is_dir: bool) -> Result<()> {
    let fd = dir.descriptor()?;
    let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    unlocking(dir, Some(name), || fs::unlinkat(&fd, name.as_bytes(), flags))
        .map_err(|e| dir.error("remove", name, e))
}

/// A subvolume of its own may be read-only, as snapshots are. The volume itself is known.
fn confirm_writable(dir: &Dir) -> Result<()> {
    if dir.in_subvolume() && is_read_only(dir)? {
        return Err(dir.own_error("remove from", Errno::ROFS));
    }
    Ok(())
}

impl Frame {
    fn open(dir: Dir, place: Option<(Dir, Name)>, before: Result<Access>) -> Result<Self> {
        let names = NameList::read(&dir)?;
        Ok(Self { dir, place, names, next: 0, kept: false, before })
    }

    /// Gives the directory, which stays, its permissions back.
    fn stays(self, mode: Mode) {
        if let (Mode::Remove, Ok(before)) = (mode, self.before) {
            before.restore(&self.dir);
        }
    }
}

struct Seen {
    meta: Metadata,
    inode: stat::Inode,
}

fn look_at(dir: &Dir, name: &Name) -> Result<Seen> {
    let fail = |errno| dir.error("stat", name, errno);
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = fs::statx(dir.descriptor()?, name.as_bytes(), flags, StatxFlags::BASIC_STATS)
        .map_err(fail)?;
    let meta = stat::metadata(dir, &stat).map_err(fail)?;
    Ok(Seen { meta, inode: stat::inode(&stat, dir.root_device()) })
}

/// What of a directory may be changed so as to remove entries from it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Access {
    mode: u16,
    attributes: Attributes,
}

impl Access {
    fn of(dir: &Dir) -> Result<Self> {
        let fd = dir.descriptor()?;
        let (meta, _) =
            Held::Open(dir, fd.as_fd()).read_inode().map_err(|e| dir.own_error("stat", e))?;
        Ok(Self::from(&meta))
    }

    /// Puts back what was taken away. Nothing more can be done where that fails: the listing of the
    /// next run shows the difference.
    fn restore(self, dir: &Dir) {
        if Self::of(dir).is_ok_and(|now| now == self) {
            return;
        }
        let Ok(fd) = dir.descriptor() else { return };
        let held = Held::Open(dir, fd.as_fd());
        let mut flags = IFlags::empty();
        flags.set(IFlags::IMMUTABLE, self.attributes.immutable);
        flags.set(IFlags::APPEND, self.attributes.append_only);
        let _ = held.set_mode(self.mode);
        let _ = held.set_flags(flags);
    }
}

impl From<&Metadata> for Access {
    fn from(meta: &Metadata) -> Self {
        Self { mode: meta.mode, attributes: meta.attributes }
    }
}
