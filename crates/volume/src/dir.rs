//! A directory, held by descriptor.
//!
//! A [`Dir`] knows its parent and its own name there, so it can be opened again when the
//! [cache](crate::descriptors) has closed its descriptor: trees may be deeper and wider than a process
//! may hold descriptors. Opening again checks that device and inode are still the same, so a directory
//! that was swapped meanwhile is an error and never somebody else's directory. The root alone stays
//! open as long as the volume is used.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use rustix::{
    fs::{self, AtFlags, Mode, OFlags, ResolveFlags, StatxFlags},
    io::Errno,
};
use wire::Name;

use crate::{
    Error, Result,
    access::Access,
    descriptors::{Loan, MOST_WORTH, Slot, opening},
};

const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What opens a file to be changed, or makes one.
const WRITING: OFlags = OFlags::WRONLY
    .union(OFlags::RDWR)
    .union(OFlags::CREATE)
    .union(OFlags::TRUNC)
    .union(OFlags::APPEND);

/// A directory of a volume. Cheap to clone; all clones share one descriptor.
#[derive(Clone)]
pub struct Dir(Arc<Node>);

struct Node {
    /// `None` for the root.
    parent: Option<Dir>,
    /// Directories above.
    depth: usize,
    /// Name within the parent; `None` for the root.
    name: Option<Name>,
    /// Where the directory lies until it is published: the directory that holds it, and its name there.
    staged: RwLock<Option<(Dir, Name)>>,
    /// See [`Dir::path_hash`].
    path_hash: OnceLock<[u8; 32]>,
    identity: (u64, u64),
    volume: Arc<Volume>,
    descriptor: Descriptor,
    /// What the directory was before it was [lifted](crate::unlock) so that work can be done in it.
    lifted: Mutex<Option<Access>>,
    /// The directory in it that was opened last: while that one is open, this one is a step away.
    below: Mutex<Weak<Node>>,
}

enum Descriptor {
    /// The root's is never closed: errors of the device are reported to it, and nothing could open it
    /// again.
    Fixed(Loan),
    Cached(Arc<Slot>),
}

impl Descriptor {
    fn get(&self) -> Option<Loan> {
        match self {
            Self::Fixed(fd) => Some(fd.clone()),
            Self::Cached(slot) => slot.get(),
        }
    }
}

/// Directories at the lower end of a way down that are kept open.
const NEAR: usize = 4;
/// Those of every eighth depth are kept on the way.
const LANDMARK: u8 = 3;

/// How much a directory is worth as a landmark, from which those below can be reached: the rounder its depth the more,
/// so that a cache of any size holds landmarks at even distances, as far apart as it has to.
fn landmark(depth: usize) -> u8 {
    let zeros = u8::try_from(depth.trailing_zeros()).unwrap_or(MOST_WORTH);
    zeros.min(MOST_WORTH)
}

/// What all directories of one volume share.
struct Volume {
    /// False for a source, for a destination in a dry run, and for what is only compared.
    writable: bool,
    /// False once openat2 was answered with ENOSYS: kernels before 5.6, and some sandboxes.
    openat2: AtomicBool,
    root_device: u64,
    hints: Hints,
}

/// What was once refused on the root's device and need not be tried again.
#[derive(Default)]
pub(crate) struct Hints {
    /// The file system keeps no extended attributes.
    pub(crate) no_xattrs: AtomicBool,
    /// Opening with `O_NOATIME` is for owners only.
    pub(crate) no_noatime: AtomicBool,
    /// When content is known to be kept.
    pub(crate) keeps: OnceLock<crate::flush::Keeps>,
    /// It is an overlay, whose births are not those of its files.
    pub(crate) overlay: OnceLock<bool>,
    /// It shows a flag for every entry that none of them has.
    pub(crate) no_flags: OnceLock<bool>,
    /// Whether owners can be known.
    pub(crate) ids: OnceLock<crate::unmapped::Ids>,
}

impl Dir {
    /// Opens the root of a volume to be read: every change in it is refused with `EROFS`.
    ///
    /// # Errors
    /// `ENOTDIR` where `path` is no directory, and whatever `open(2)` answers.
    pub fn open_root(path: &Path) -> Result<Self> {
        Self::open_root_as(path, false)
    }

    /// Opens the root of a volume that may be changed.
    ///
    /// # Errors
    /// As [`Dir::open_root`].
    pub fn open_root_writable(path: &Path) -> Result<Self> {
        Self::open_root_as(path, true)
    }

    /// Only here a path is resolved, and links in it are followed: it comes from the command line.
    fn open_root_as(path: &Path, writable: bool) -> Result<Self> {
        let shown = || wire::name::escape(path.as_os_str().as_encoded_bytes());
        let flags = OPEN_DIRECTORY.difference(OFlags::NOFOLLOW);
        let fd = opening(|| fs::open(path, flags, Mode::empty()))
            .map_err(|e| Error::new("open", shown(), e))?;
        let stat = fs::fstat(&fd).map_err(|e| Error::new("stat", shown(), e))?;
        let volume = Arc::new(Volume {
            writable,
            openat2: AtomicBool::new(true),
            root_device: stat.st_dev,
            hints: Hints::default(),
        });
        Ok(Self(Arc::new(Node {
            parent: None,
            depth: 0,
            name: None,
            staged: RwLock::new(None),
            path_hash: OnceLock::from([0; 32]),
            identity: (stat.st_dev, stat.st_ino),
            volume,
            descriptor: Descriptor::Fixed(Loan::fixed(fd)),
            lifted: Mutex::default(),
            below: Mutex::default(),
        })))
    }

    /// Opens the directory `name` in this one, never through a link and never outside.
    ///
    /// # Errors
    /// `ENOTDIR` or `ELOOP` where the entry is something else, and whatever `openat2(2)` answers.
    pub fn open_child(&self, name: &Name) -> Result<Self> {
        let fd = self.open_at(name, OPEN_DIRECTORY, Mode::empty())?;
        self.child(name, fd, None)
    }

    /// Opens the directory that is to become `name` in this one and lies in `area`, as `staged`, until
    /// [`Dir::published`] tells otherwise.
    ///
    /// # Errors
    /// As [`Dir::open_child`].
    pub fn open_staged(&self, name: &Name, area: &Self, staged: &Name) -> Result<Self> {
        let fd = area
            .open_at(staged, OPEN_DIRECTORY, Mode::empty())
            .map_err(|e| self.error(e.operation, name, e.errno))?;
        self.child(name, fd, Some((area.clone(), staged.clone())))
    }

    fn child(&self, name: &Name, fd: OwnedFd, staged: Option<(Self, Name)>) -> Result<Self> {
        let stat = fs::fstat(&fd).map_err(|e| self.error("stat", name, e))?;
        let depth = self.0.depth + 1;
        let child = Self(Arc::new(Node {
            parent: Some(self.clone()),
            depth,
            name: Some(name.clone()),
            staged: RwLock::new(staged),
            path_hash: OnceLock::new(),
            identity: (stat.st_dev, stat.st_ino),
            volume: Arc::clone(&self.0.volume),
            descriptor: Descriptor::Cached(Arc::new(Slot::worth(landmark(depth)))),
            lifted: Mutex::default(),
            below: Mutex::default(),
        }));
        if child.staged().is_none() {
            *self.0.below.lock() = Arc::downgrade(&child.0);
        }
        child.keep(fd);
        Ok(child)
    }

    /// Opens any entry of this directory with `flags`, which always gain `NOFOLLOW | CLOEXEC`.
    ///
    /// # Errors
    /// `ELOOP` where the entry is a symbolic link; whatever `openat2(2)` answers.
    pub fn open_at(&self, name: &Name, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        if flags.intersects(WRITING) {
            self.check_writable().map_err(|e| self.error("open", name, e))?;
        }
        let fd = self.descriptor()?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let volume = &self.0.volume;
        if volume.openat2.load(Ordering::Relaxed) {
            let resolve =
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match opening(|| fs::openat2(&fd, name.as_bytes(), flags, mode, resolve)) {
                // ENOSYS from an old kernel, EPERM from a seccomp profile that does not know it.
                // A name is one component, so NOFOLLOW alone confines it just as well.
                Err(Errno::NOSYS) => volume.openat2.store(false, Ordering::Relaxed),
                Err(Errno::PERM) => {}
                other => return other.map_err(|e| self.error("open", name, e)),
            }
        }
        opening(|| fs::openat(&fd, name.as_bytes(), flags, mode))
            .map_err(|e| self.error("open", name, e))
    }

    /// The descriptor, opened again from the nearest directory that is open.
    ///
    /// # Errors
    /// `ESTALE` where the directory is no longer the one that was opened first.
    pub fn descriptor(&self) -> Result<Loan> {
        if let Some(fd) = self.at_hand() {
            return Ok(fd);
        }
        // Walk up to the nearest ancestor that is open, then down again: no recursion, since the
        // depth is the peer's choice.
        let mut chain = vec![self.clone()];
        let mut fd = loop {
            let Some(top) = chain.last() else { return Err(self.stale()) };
            let Some((parent, _)) = top.location() else { return Err(self.stale()) };
            if let Some(fd) = parent.at_hand() {
                break fd;
            }
            chain.push(parent);
        };
        for (left, dir) in chain.iter().enumerate().rev() {
            let Some((_, name)) = dir.location() else { return Err(self.stale()) };
            let next = opening(|| fs::openat(&fd, name.as_bytes(), OPEN_DIRECTORY, Mode::empty()))
                .map_err(|e| dir.own_error("open", e))?;
            let stat = fs::fstat(&next).map_err(|e| dir.own_error("stat", e))?;
            if (stat.st_dev, stat.st_ino) != dir.0.identity {
                return Err(dir.stale());
            }
            // Of a long way down only landmarks are kept, and its end: to keep all would close what others work in.
            if left >= NEAR && landmark(dir.0.depth) < LANDMARK {
                fd = Loan::fixed(next);
                continue;
            }
            fd = dir.keep(next);
            if let (Some(parent), None) = (dir.parent(), dir.staged()) {
                *parent.0.below.lock() = Arc::downgrade(&dir.0);
            }
        }
        Ok(fd)
    }

    /// The descriptor, where it is open or a step away. So a walk that comes up again from the depth
    /// of a tree opens each directory once, and not all above it for each.
    fn at_hand(&self) -> Option<Loan> {
        if let Some(fd) = self.0.descriptor.get() {
            return Some(fd);
        }
        let child = self.0.below.lock().upgrade()?;
        self.open_above(&child.descriptor.get()?)
    }

    /// Closes the descriptor; [`Dir::descriptor`] opens it again when it is wanted.
    pub fn release(&self) {
        if let Descriptor::Cached(slot) = &self.0.descriptor {
            self.0.open_parent();
            slot.close();
        }
    }

    /// The one check that every change of the volume passes: opening for writing, and the calls that change names
    /// ([`unlocking`](crate::unlock::unlocking)) and metadata.
    ///
    /// # Errors
    /// `EROFS` if the root was opened to be read only.
    pub fn check_writable(&self) -> Result<(), Errno> {
        if self.0.volume.writable { Ok(()) } else { Err(Errno::ROFS) }
    }

    /// Opens the directory by way of `child`, which lay in it; `None` where it does not any more.
    fn open_above(&self, child: &Loan) -> Option<Loan> {
        let fd = opening(|| fs::openat(child, c"..", OPEN_DIRECTORY, Mode::empty())).ok()?;
        let stat = fs::fstat(&fd).ok()?;
        ((stat.st_dev, stat.st_ino) == self.0.identity).then(|| self.keep(fd))
    }

    /// The directory above; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<&Self> {
        self.0.parent.as_ref()
    }

    /// The name within the parent; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.0.name.as_ref()
    }

    /// Where the directory lies before it is published: the directory that holds it, and its name there.
    #[must_use]
    pub fn staged(&self) -> Option<(Self, Name)> {
        self.0.staged.read().clone()
    }

    /// Tells that the directory now bears its name in its parent.
    pub fn published(&self) {
        *self.0.staged.write() = None;
    }

    /// The directory that holds this one, and the name there.
    pub(crate) fn location(&self) -> Option<(Self, Name)> {
        self.staged().or_else(|| Some((self.0.parent.clone()?, self.0.name.clone()?)))
    }

    /// A hash of the names from the root down to this directory; zeros for the root.
    #[must_use]
    pub fn path_hash(&self) -> [u8; 32] {
        let mut unknown = Vec::new();
        let mut at = self;
        let mut hash = loop {
            match (at.0.path_hash.get(), at.parent()) {
                (Some(hash), _) => break *hash,
                (None, Some(parent)) => {
                    unknown.push(at);
                    at = parent;
                }
                (None, None) => break [0; 32],
            }
        };
        for dir in unknown.into_iter().rev() {
            let name = dir.0.name.as_ref().map_or(&[][..], |name| name.as_bytes());
            hash = crate::staging::hash(&hash, name);
            // Another thread can only have found the same.
            let _ = dir.0.path_hash.set(hash);
        }
        hash
    }

    /// `(device, inode)`.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.0.identity
    }

    /// The device that the root of the volume lies on.
    #[must_use]
    pub fn root_device(&self) -> u64 {
        self.0.volume.root_device
    }

    /// What the directory was before it was lifted; see [`unlock`](crate::unlock).
    pub(crate) fn lifted(&self) -> &Mutex<Option<Access>> {
        &self.0.lifted
    }

    pub(crate) fn hints(&self) -> &Hints {
        &self.0.volume.hints
    }

    /// Names from the root down to this directory, as they are to be shown and matched by filters.
    #[must_use]
    pub fn components(&self) -> Vec<Name> {
        let mut names = Vec::new();
        let mut at = Some(self);
        while let Some(dir) = at {
            names.extend(dir.0.name.clone());
            at = dir.parent();
        }
        names.reverse();
        names
    }

    /// The path below the root, escaped for display; `.` for the root.
    #[must_use]
    pub fn display(&self) -> String {
        let names = self.components();
        if names.is_empty() {
            return ".".to_owned();
        }
        names.iter().map(ToString::to_string).collect::<Vec<_>>().join("/")
    }

    /// The path of the entry `name` below the root, escaped for display.
    #[must_use]
    pub fn display_entry(&self, name: &Name) -> String {
        if self.0.parent.is_none() {
            return name.to_string();
        }
        format!("{}/{name}", self.display())
    }

    /// True where it lies on another device than the root of the volume: in a subvolume.
    #[must_use]
    pub fn in_subvolume(&self) -> bool {
        self.identity().0 != self.root_device()
    }

    /// An error of `operation` on the entry `name` of this directory.
    #[must_use]
    pub fn error(&self, operation: &'static str, name: &Name, errno: Errno) -> Error {
        self.error_as(operation, self.display_entry(name), errno)
    }

    /// The error of the entry `name`, which changed while it was read.
    #[must_use]
    pub fn changed(&self, name: &Name) -> Error {
        self.error(crate::error::CHANGED, name, Errno::AGAIN)
    }

    /// An error of `operation` on this directory itself.
    #[must_use]
    pub fn own_error(&self, operation: &'static str, errno: Errno) -> Error {
        self.error_as(operation, self.display(), errno)
    }

    fn error_as(&self, operation: &'static str, shown: String, errno: Errno) -> Error {
        Error { subvolume: self.in_subvolume(), ..Error::new(operation, shown, errno) }
    }

    fn stale(&self) -> Error {
        self.own_error("open again", Errno::STALE)
    }

    fn keep(&self, fd: OwnedFd) -> Loan {
        match &self.0.descriptor {
            Descriptor::Fixed(fixed) => fixed.clone(),
            Descriptor::Cached(slot) => {
                let loan = slot.put(fd);
                // Many entries come by way of a directory: files, which share the cache, go first.
                slot.touch();
                loan
            }
        }
    }
}

impl Node {
    /// Puts back what was lifted. Nothing more can be done where that fails: whoever can still report it has called
    /// [`unlock::restore`](crate::unlock::restore) before.
    fn put_back(&mut self) {
        let Some(before) = self.lifted.get_mut().take() else { return };
        let place = match self.staged.get_mut() {
            Some((area, staged)) => Some((&*area, &*staged)),
            None => self.parent.as_ref().zip(self.name.as_ref()),
        };
        let fd = match (self.descriptor.get(), place) {
            (Some(fd), _) => fd,
            (None, Some((parent, name))) => {
                let Ok(fd) = parent.open_at(name, OPEN_DIRECTORY, Mode::empty()) else { return };
                let Ok(stat) = fs::fstat(&fd) else { return };
                if (stat.st_dev, stat.st_ino) != self.identity {
                    return;
                }
                Loan::fixed(fd)
            }
            _ => return,
        };
        let _ = before.restore(fd.as_fd());
    }

    /// Opens the directory above where it is closed: whoever leaves a directory goes on in that one,
    /// which is a step away as long as this one is open.
    fn open_parent(&self) {
        if let Some(parent) = &self.parent
            && self.staged.read().is_none()
            && parent.0.descriptor.get().is_none()
            && let Some(fd) = self.descriptor.get()
        {
            let _ = parent.open_above(&fd); // it can still be opened from above
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.put_back();
        // Where nobody else has the one above, it goes too.
        if self.parent.as_ref().is_some_and(|parent| Arc::strong_count(&parent.0) > 1) {
            self.open_parent();
        }
        // A chain of a million parents must not be dropped by recursion.
        let mut next = self.parent.take();
        while let Some(Dir(node)) = next {
            next = Arc::into_inner(node).and_then(|mut node| {
                node.put_back();
                node.parent.take()
            });
        }
    }
}

/// True where the entry is the root of another mount, as seen without crossing into it. Bind mounts
/// of the same file system count too.
///
/// # Errors
/// Whatever `statx(2)` answers.
pub fn is_mount_root(dir: &Dir, name: &Name) -> Result<bool> {
    let fd = dir.descriptor()?;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = fs::statx(&fd, name.as_bytes(), flags, StatxFlags::BASIC_STATS)
        .map_err(|e| dir.error("stat", name, e))?;
    Ok(crate::stat::inode(&stat, dir.root_device()).mount_root)
}
