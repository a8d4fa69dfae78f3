//! The staging directory: where everything lies that is not finished yet.
//!
//! Files before they are whole, new directories while they are filled, what takes the place of another entry, and
//! files that were renamed at the source: all of it lies in one directory at the root of the volume, under names
//! that follow from the final paths, so that the next run finds what an interrupted one left. A finished entry is
//! renamed to its place. The directory is made for the first unfinished entry and removed at the end of a run.
//!
//! # How it is recognised
//! It is called `.pvferry-`, its own inode number, `-`, and 16 random digits, all hexadecimal, and belongs to the user
//! of the receiver alone (mode 0700). A directory is the staging directory of an earlier run only if all of that is
//! true, so nobody can lay one down for this end to reuse:
//! * A copy of one, made by any tool, has another inode number. It is data like any other.
//! * A peer names entries but does not choose inode numbers. It may guess one, so an entry of the source that would
//!   end up under its own number is refused.
//! * Another user can choose name and number, but cannot make this user the owner.
//!
//! Nothing else in a volume is special because of its name, and nothing is reused or removed because of it. At a
//! source the owner does not matter: the directory is reported and left out, whoever received into that volume.
//!
//! # Where staging does not reach
//! Some directories take nothing by rename from outside (`EXDEV`): those of another project quota, for example. In
//! others only the kernel can give an entry its group: setgid directories of a group that this user is not in. There an
//! entry is made under a fresh random name in the directory itself; a random name that is taken is never reused.

use std::{
    collections::HashSet,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use rustix::{
    fs::{self, AtFlags, Mode, RenameFlags},
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};
use wire::{FileKind, Metadata, Name};

use crate::{
    Dir, Error, Result,
    create::{ParentHints, discard, remove_acls},
    descriptors::Loan,
    list::NameList,
    metadata,
    remove::{self, Removal},
    stat::{self, Inode, ReadOptions},
    unlock::{open_new_dir, unlocking},
};

const PREFIX: &str = ".pvferry-";
const DIGITS: usize = 16;

/// A file in the staging directory that is no unfinished entry: it tells a crash from an orderly end.
pub const CRASH_MARKER: &[u8] = b"crash-marker";

/// What is reported where an entry was believed absent and something bears its name all the same.
pub const CONFLICT: &str =
    "conflicts with an existing entry (case-insensitive or normalising file system?)";

/// The inode number in `name`, where it has the form of a staging directory's name.
#[must_use]
pub fn inode_number(name: &[u8]) -> Option<u64> {
    let rest = name.strip_prefix(PREFIX.as_bytes())?;
    let (number, random) = rest.split_at_checked(rest.len().checked_sub(DIGITS + 1)?)?;
    let number = str::from_utf8(number).ok()?;
    let random = random.strip_prefix(b"-")?;
    let is_hex = |bytes: &[u8]| bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let exact = is_hex(number.as_bytes()) && !number.starts_with('0') && is_hex(random);
    u64::from_str_radix(number, 16).ok().filter(|_| exact)
}

/// True where `name` in `dir`, whose inode it is, could be taken for a staging directory.
#[must_use]
pub fn bears_own_number(dir: &Dir, name: &[u8], inode: u64) -> bool {
    dir.parent().is_none() && inode_number(name) == Some(inode)
}

/// True where the entry `name` of `dir` is the staging directory of some receiver.
#[must_use]
pub fn is_staging(dir: &Dir, name: &Name, meta: &Metadata, inode: &Inode) -> bool {
    bears_own_number(dir, name, inode.ino)
        && meta.kind == FileKind::Directory
        && meta.mode & 0o077 == 0
        && inode.dev == dir.root_device()
        && !inode.mount_root
}

/// The positions in `names`, those of `dir`, at which there are staging directories.
pub(crate) fn among(dir: &Dir, names: &NameList) -> Vec<usize> {
    if dir.parent().is_some() {
        return Vec::new();
    }
    let plain = ReadOptions { xattrs: false, selinux: false };
    let is = |index: &usize| {
        names.get(*index).is_some_and(has_form)
            && names.name(*index).is_some_and(|name| {
                stat::read_entry(dir, &name, &plain)
                    .is_ok_and(|(entry, inode)| is_staging(dir, &name, &entry.meta, &inode))
            })
    };
    (0..names.len()).filter(is).collect()
}

/// The staging of one session. Cheap to clone.
#[derive(Clone)]
pub struct Staging(Arc<Shared>);

struct Shared {
    root: Dir,
    /// Whether the root gets its metadata back after a change in it: this process can set them, or has to report that it cannot.
    restores_root: AtomicBool,
    /// What an earlier run left in the directory that is used again.
    left: HashSet<Name>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    area: Option<Area>,
    /// Further directories of earlier runs: they are removed at the end.
    others: Vec<Dir>,
}

/// The staging directory, or the directory in whose place it cannot be used.
#[derive(Clone)]
pub(crate) struct Area {
    pub(crate) dir: Dir,
    pub(crate) hints: ParentHints,
}

impl Staging {
    /// Looks for what earlier runs left in `root`, whose entries are `names`. Changes nothing.
    ///
    /// # Errors
    /// Whatever reading answers.
    pub fn find(root: &Dir, names: &NameList) -> Result<Self> {
        let user = rustix::process::geteuid().as_raw();
        let mut found = Vec::new();
        for index in among(root, names) {
            let Some(name) = names.name(index) else { continue };
            // A user who does not own it cannot tell what is in it, and did not make it.
            match root.open_child(&name) {
                Ok(dir) => {
                    let stat = fs::fstat(dir.descriptor()?)
                        .map_err(|errno| root.error("stat", &name, errno))?;
                    if stat.st_uid == user {
                        found.push(dir);
                    }
                }
                Err(error) if matches!(error.errno, Errno::NOENT | Errno::ACCESS) => {}
                Err(error) => return Err(error),
            }
        }
        let mut state = State::default();
        let mut left = HashSet::new();
        if let Some(dir) = found.pop() {
            let names = NameList::read(&dir)?;
            left = (0..names.len()).filter_map(|index| names.name(index)).collect();
            state.area = Some(Area { hints: ParentHints::of(&dir)?, dir });
        }
        state.others = found;
        let (root, restores_root) = (root.clone(), AtomicBool::new(true));
        Ok(Self(Arc::new(Shared { root, restores_root, left, state: Mutex::new(state) })))
    }

    /// The same for a root whose metadata this process cannot set, which was announced.
    #[must_use]
    pub fn without_root_metadata(self) -> Self {
        self.0.restores_root.store(false, Relaxed);
        self
    }

    /// True where an earlier run left a part of the file that is to become `name` in `dir`.
    #[must_use]
    pub fn left_part(&self, dir: &Dir, name: &Name) -> bool {
        !self.0.left.is_empty() && self.0.left.contains(&staged_name(dir, name))
    }

    /// As [`Self::left_part`], of a directory.
    pub(crate) fn left_dir(&self, dir: &Dir, name: &Name) -> bool {
        !self.0.left.is_empty() && self.0.left.contains(&staged_dir_name(dir, name))
    }

    /// True where `name`, in the root, is a staging directory of this session or of an earlier one.
    #[must_use]
    pub fn is_own(&self, name: &[u8]) -> bool {
        inode_number(name).is_some()
            && self.dirs().iter().any(|dir| dir.name().is_some_and(|own| **own == *name))
    }

    /// The staging directories that there are.
    #[must_use]
    pub fn dirs(&self) -> Vec<Dir> {
        let state = self.0.state.lock();
        state.area.iter().map(|area| &area.dir).chain(&state.others).cloned().collect()
    }

    /// The staging directory that this session works in, which is made where there is none.
    ///
    /// # Errors
    /// Where the root may not be written to; whatever `mkdirat(2)` answers.
    pub fn dir(&self) -> Result<Dir> {
        self.area().map(|area| area.dir)
    }

    pub(crate) fn area(&self) -> Result<Area> {
        let mut state = self.0.state.lock();
        if let Some(area) = &state.area {
            return Ok(area.clone());
        }
        let root = &self.0.root;
        let mut made = None;
        let kept = keeping_metadata(root, || {
            made = Some(make(root)?);
            Ok(())
        });
        let dir = match (made, kept) {
            // What the root cannot be given back is reported when its metadata is set.
            (Some(dir), _) => dir,
            (None, Err(error)) => return Err(error),
            (None, Ok(())) => return Err(root.own_error("stage", Errno::INVAL)),
        };
        Ok(state.area.insert(Area { hints: ParentHints::of(&dir)?, dir }).clone())
    }

    /// Removes everything but crash markers; what cannot be removed is handed to `failed`.
    pub fn clear(&self, failed: &mut dyn FnMut(Error)) {
        for dir in self.dirs() {
            remove::empty_dir(&dir, remove::Mode::Remove, &mut Quiet(failed));
        }
    }

    /// Removes the staging directories, with the crash markers in them; with `keep_unfinished` only those that are
    /// empty then. The root keeps its metadata, and is flushed.
    ///
    /// # Errors
    /// Whatever removing and flushing answer.
    pub fn remove(&self, keep_unfinished: bool) -> Result<()> {
        let dirs = self.dirs();
        if dirs.is_empty() {
            return Ok(());
        }
        let root = &self.0.root;
        let remove = || {
            for dir in &dirs {
                unlink(dir, CRASH_MARKER, AtFlags::empty())?;
                let Some(name) = dir.name() else { continue };
                match unlink(root, name, AtFlags::REMOVEDIR) {
                    Err(error) if keep_unfinished && error.errno == Errno::NOTEMPTY => {}
                    other => other?,
                }
            }
            Ok(())
        };
        if self.0.restores_root.load(Relaxed) {
            keeping_metadata(root, remove)?;
        } else {
            remove()?;
        }
        *self.0.state.lock() = State::default();
        flush(root)
    }
}

fn has_form(name: &[u8]) -> bool {
    inode_number(name).is_some()
}

/// Runs `change`, which moves the time of `dir`, and gives it back what it had.
fn keeping_metadata(dir: &Dir, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = stat::root_entry(dir, &ReadOptions::default())?;
    change()?;
    let applied = metadata::apply_dir(dir, &before, metadata::ApplyOptions::default())?;
    match applied.problems.first() {
        Some(problem) => {
            // It was taken without an error, and is not kept.
            let errno = problem.errno.unwrap_or(Errno::OPNOTSUPP);
            Err(dir.own_error("set metadata again", errno))
        }
        None => Ok(()),
    }
}

fn unlink(dir: &Dir, name: &[u8], flags: AtFlags) -> Result<()> {
    let fd = dir.descriptor()?;
    match unlocking(dir, None, || fs::unlinkat(&fd, name, flags)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(dir.own_error("remove from", errno)),
    }
}

/// Flushes the directory itself.
///
/// # Errors
/// Whatever `fsync(2)` answers.
pub fn flush(dir: &Dir) -> Result<()> {
    fs::fsync(dir.descriptor()?).map_err(|errno| dir.own_error("flush", errno))
}

/// Makes the staging directory. Its name holds its inode number, so it is made under a random name first.
fn make(root: &Dir) -> Result<Dir> {
    let fail = |errno| root.own_error("create the staging directory", errno);
    let fd = root.descriptor()?;
    let mkdir =
        |name: &Name| unlocking(root, None, || fs::mkdirat(&fd, name.as_bytes(), Mode::RWXU));
    let (first, ()) = fresh(mkdir).map_err(fail)?;
    let made = close_to_others(root, &first).and_then(|made| {
        let number = made.identity().1;
        let random = random().map_err(fail)?;
        let name = name(&format!("{PREFIX}{number:x}-{random:016x}")).map_err(fail)?;
        put_new((root, &first), (root, &name), true).map_err(fail)?;
        let dir = root.open_child(&name)?;
        if dir.identity() == made.identity() { Ok(dir) } else { Err(fail(Errno::STALE)) }
    });
    made.inspect_err(|_| {
        // Where it has its name already, it is empty and no worse than one that a killed run left.
        let _ = fs::unlinkat(&fd, first.as_bytes(), AtFlags::REMOVEDIR);
    })
}

/// Takes away what a new directory may have inherited: ACLs, setgid.
fn close_to_others(root: &Dir, name: &Name) -> Result<Dir> {
    let made = open_new_dir(root, name)?;
    let fd = made.descriptor()?;
    remove_acls(fd.as_fd()).map_err(|e| root.error("remove inherited ACL", name, e))?;
    // A file system without permissions refuses; it keeps nothing from anybody.
    let _ = fs::fchmod(&fd, Mode::RWXU);
    Ok(made)
}

/// A directory of unfinished entries is emptied without counting deletions.
struct Quiet<'a>(&'a mut dyn FnMut(Error));

impl Removal for Quiet<'_> {
    fn protects(&mut self, dir: &Dir, name: &Name, _is_dir: bool) -> bool {
        **name == *CRASH_MARKER && dir.parent().is_some_and(|root| root.parent().is_none())
    }
    fn removed(&mut self, _dir: &Dir, _name: &Name, _is_dir: bool) {}
    fn failed(&mut self, error: Error) {
        (self.0)(error);
    }
}

/// The name under which a file, link or node that is to become `name` in `dir` lies until it is finished.
#[must_use]
pub fn staged_name(dir: &Dir, name: &Name) -> Name {
    staged(dir, name, "")
}

/// As [`staged_name`], for a directory.
#[must_use]
pub fn staged_dir_name(dir: &Dir, name: &Name) -> Name {
    staged(dir, name, "-dir")
}

fn staged(dir: &Dir, of: &Name, suffix: &str) -> Name {
    let hash = blake3::Hash::from_bytes(hash(&dir.path_hash(), of)).to_hex();
    // Ascii digits of a fixed number: always a name.
    name(&format!("{}{suffix}", &hash.as_str()[..32])).unwrap_or_else(|_| of.clone())
}

/// The hash of a path, from that of its directory and its last name.
pub(crate) fn hash(parent: &[u8; 32], name: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(parent).update(name);
    hasher.finalize().into()
}

fn name(text: &str) -> Result<Name, Errno> {
    Name::new(text.as_bytes()).map_err(|_| Errno::INVAL)
}

fn random() -> Result<u64, Errno> {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::empty())? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(Errno::IO),
    }
}

/// Makes something under a random name that is free.
fn fresh<T>(mut make: impl FnMut(&Name) -> Result<T, Errno>) -> Result<(Name, T), Errno> {
    for _ in 0..64 {
        let name = name(&format!("{PREFIX}{:016x}", random()?))?;
        match make(&name) {
            Err(Errno::EXIST) => {}
            other => return other.map(|made| (name, made)),
        }
    }
    Err(Errno::EXIST)
}

/// Where an entry goes, and what is believed of its name.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Where it lies until it is finished.
    pub staging: &'a Staging,
    /// The directory that it will be in.
    pub dir: &'a Dir,
    /// Its name there.
    pub name: &'a Name,
    /// An entry bears the name, and is replaced. Where none is believed to, none is replaced.
    pub occupied: bool,
    /// What `dir` gives to what is made in it.
    pub hints: ParentHints,
}

impl Place<'_> {
    pub(crate) fn error(&self, operation: &'static str, errno: Errno) -> Error {
        self.dir.error(operation, self.name, errno)
    }

    /// `dir` itself, in place of the staging directory.
    pub(crate) fn beside(&self) -> Area {
        Area { dir: self.dir.clone(), hints: self.hints }
    }

    /// Makes an unfinished entry in the staging directory, in the place of what an earlier run left there; where that
    /// directory does not reach `dir`, in `dir` itself. Then `finish` gives it metadata and its name.
    pub(crate) fn build<T, U>(
        &self,
        make: &mut dyn FnMut(&Area, &Name) -> Result<T, Errno>,
        finish: &mut dyn FnMut(&Area, &Hidden, T) -> Result<U>,
    ) -> Result<U> {
        if !self.hints.foreign_group {
            let built = self.stage(make).and_then(|(area, hidden, made)| {
                finish(&area, &hidden, made).inspect_err(|_| hidden.discard())
            });
            match built {
                Err(error) if error.errno == Errno::XDEV => {}
                other => return other,
            }
        }
        let area = self.beside();
        let (hidden, made) = hide_beside(&area, make).map_err(|e| self.error("create", e))?;
        finish(&area, &hidden, made).inspect_err(|_| hidden.discard())
    }

    /// Makes an unfinished entry in the staging directory, in the place of what an earlier run left there.
    pub(crate) fn stage<T>(
        &self,
        make: &mut dyn FnMut(&Area, &Name) -> Result<T, Errno>,
    ) -> Result<(Area, Hidden, T)> {
        let area = self.staging.area()?;
        let hidden = Hidden { dir: area.dir.clone(), name: staged_name(self.dir, self.name) };
        let made = match make(&area, &hidden.name) {
            // Removed and not reused: it might be a further name of a file that is in use.
            Err(Errno::EXIST) => {
                hidden.discard();
                make(&area, &hidden.name)
            }
            other => other,
        };
        let made = made.map_err(|e| self.error("create", e))?;
        Ok((area, hidden, made))
    }
}

pub(crate) fn hide_beside<T>(
    area: &Area,
    make: &mut dyn FnMut(&Area, &Name) -> Result<T, Errno>,
) -> Result<(Hidden, T), Errno> {
    let (name, made) = fresh(|name| make(area, name))?;
    Ok((Hidden { dir: area.dir.clone(), name }, made))
}

/// An unfinished entry: where it lies.
pub(crate) struct Hidden {
    pub(crate) dir: Dir,
    pub(crate) name: Name,
}

impl Hidden {
    pub(crate) fn discard(&self) {
        discard(&self.dir, &self.name);
    }

    /// Gives the entry its name `name` in `dir`, in place of the entry there where it is `occupied`.
    pub(crate) fn put(&self, dir: &Dir, name: &Name, occupied: bool) -> Result<()> {
        let done = if occupied {
            put_over((&self.dir, &self.name), (dir, name))
        } else {
            put_new((&self.dir, &self.name), (dir, name), false)
        };
        done.map_err(|errno| conflict(dir, name, errno))
    }
}

/// The error of an entry that was believed absent.
pub(crate) fn conflict(dir: &Dir, name: &Name, errno: Errno) -> Error {
    let operation = if errno == Errno::EXIST { CONFLICT } else { "rename" };
    dir.error(operation, name, errno)
}

type At<'a> = (&'a Dir, &'a Name);

/// Renames an entry over another, clearing flags of that one which forbid it.
fn put_over(from: At<'_>, to: At<'_>) -> Result<(), Errno> {
    let (from_fd, to_fd) = descriptors(from, to)?;
    unlocking(to.0, Some(to.1), || {
        fs::renameat(&from_fd, from.1.as_bytes(), &to_fd, to.1.as_bytes())
    })
}

/// Held from the look to the rename where nothing else keeps an entry from being replaced: two names of the source that
/// are one here may arrive on two threads. Other processes are kept out by the lock of the volume.
static LOOK_AND_RENAME: Mutex<()> = Mutex::new(());

/// Renames an entry to a name that is free.
pub(crate) fn put_new(from: At<'_>, to: At<'_>, is_dir: bool) -> Result<(), Errno> {
    let (from_fd, to_fd) = descriptors(from, to)?;
    let (old, new) = (from.1.as_bytes(), to.1.as_bytes());
    let once = || match fs::renameat_with(&from_fd, old, &to_fd, new, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag. A link replaces nothing either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            if !is_dir {
                match fs::linkat(&from_fd, old, &to_fd, new, AtFlags::empty()) {
                    Ok(()) => return fs::unlinkat(&from_fd, old, AtFlags::empty()),
                    Err(errno @ (Errno::EXIST | Errno::XDEV)) => return Err(errno),
                    // There are no links here.
                    Err(_) => {}
                }
            }
            let _held = LOOK_AND_RENAME.lock();
            match fs::statat(&to_fd, new, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => fs::renameat(&from_fd, old, &to_fd, new),
                Err(errno) => Err(errno),
            }
        }
        other => other,
    };
    unlocking(to.0, None, once)
}

fn descriptors(from: At<'_>, to: At<'_>) -> Result<(Loan, Loan), Errno> {
    let from = from.0.descriptor().map_err(|e| e.errno)?;
    Ok((from, to.0.descriptor().map_err(|e| e.errno)?))
}
