//! A directory, held by descriptor.
//!
//! A [`Dir`] knows its parent and its own name there, so it can be opened again when its descriptor
//! was given back: trees may be deeper than a process may hold descriptors, and those far above the
//! one opened last are given back of their own accord. Opening again checks that device and inode
//! are still the same, so a directory that was swapped meanwhile is an error and never somebody
//! else's directory.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use rustix::{
    fs::{self, AtFlags, Mode, OFlags, ResolveFlags, StatxFlags},
    io::Errno,
};
use wire::Name;

use crate::{Error, Result, access::Access};

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
    /// Name within the parent. May change once, when a directory that was built under a temporary
    /// name is published.
    name: RwLock<Option<Name>>,
    shown: RwLock<Option<Name>>,
    identity: (u64, u64),
    volume: Arc<Volume>,
    descriptor: Mutex<Option<Arc<OwnedFd>>>,
    /// What the directory was before it was [lifted](crate::unlock) so that work can be done in it.
    lifted: Mutex<Option<Access>>,
}

/// What all directories of one volume share.
struct Volume {
    /// False for a source, for a destination in a dry run, and for what is only compared.
    writable: bool,
    open: AtomicUsize,
    limit: usize,
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
}

/// Descriptors of directories that one volume keeps open, at most.
const DESCRIPTOR_LIMIT: usize = 512;

/// So many directories at the lower end of a way down stay open.
const NEAR: usize = 32;

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
        let fd =
            fs::open(path, flags, Mode::empty()).map_err(|e| Error::new("open", shown(), e))?;
        let stat = fs::fstat(&fd).map_err(|e| Error::new("stat", shown(), e))?;
        let volume = Arc::new(Volume {
            writable,
            open: AtomicUsize::new(1),
            limit: DESCRIPTOR_LIMIT,
            openat2: AtomicBool::new(true),
            root_device: stat.st_dev,
            hints: Hints::default(),
        });
        Ok(Self(Arc::new(Node {
            parent: None,
            depth: 0,
            name: RwLock::new(None),
            shown: RwLock::new(None),
            identity: (stat.st_dev, stat.st_ino),
            volume,
            descriptor: Mutex::new(Some(Arc::new(fd))),
            lifted: Mutex::default(),
        })))
    }

    /// Opens the directory `name` in this one, never through a link and never outside.
    ///
    /// # Errors
    /// `ENOTDIR` or `ELOOP` where the entry is something else, and whatever `openat2(2)` answers.
    pub fn open_child(&self, name: &Name) -> Result<Self> {
        let fd = self.open_at(name, OPEN_DIRECTORY, Mode::empty())?;
        let stat = fs::fstat(&fd).map_err(|e| self.error("stat", name, e))?;
        let child = Self(Arc::new(Node {
            parent: Some(self.clone()),
            depth: self.0.depth + 1,
            name: RwLock::new(Some(name.clone())),
            shown: RwLock::new(None),
            identity: (stat.st_dev, stat.st_ino),
            volume: Arc::clone(&self.0.volume),
            descriptor: Mutex::new(None),
            lifted: Mutex::default(),
        }));
        child.keep(Arc::new(fd));
        child.thin();
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
            match fs::openat2(&fd, name.as_bytes(), flags, mode, resolve) {
                // ENOSYS from an old kernel, EPERM from a seccomp profile that does not know it.
                // A name is one component, so NOFOLLOW alone confines it just as well.
                Err(Errno::NOSYS) => volume.openat2.store(false, Ordering::Relaxed),
                Err(Errno::PERM) => {}
                other => return other.map_err(|e| self.error("open", name, e)),
            }
        }
        fs::openat(&fd, name.as_bytes(), flags, mode).map_err(|e| self.error("open", name, e))
    }

    /// The descriptor, opened again from the parent where it was given back.
    ///
    /// # Errors
    /// `ESTALE` where the directory is no longer the one that was opened first.
    pub fn descriptor(&self) -> Result<DirFd> {
        if let Some(fd) = &*self.0.descriptor.lock() {
            return Ok(DirFd(Arc::clone(fd)));
        }
        // Walk up to the nearest ancestor that is open, then down again: no recursion, since the
        // depth is the peer's choice.
        let mut chain = vec![self.clone()];
        let mut fd = loop {
            let Some(top) = chain.last() else { return Err(self.stale()) };
            let Some(parent) = top.0.parent.clone() else { return Err(self.stale()) };
            if let Some(fd) = parent.0.descriptor.lock().clone() {
                break fd;
            }
            chain.push(parent);
        };
        for dir in chain.iter().rev() {
            let Some(name) = dir.name() else { return Err(self.stale()) };
            let next = fs::openat(&*fd, name.as_bytes(), OPEN_DIRECTORY, Mode::empty())
                .map_err(|e| Error::new("open", dir.display(), e))?;
            let stat = fs::fstat(&next).map_err(|e| Error::new("stat", dir.display(), e))?;
            if (stat.st_dev, stat.st_ino) != dir.0.identity {
                return Err(dir.stale());
            }
            fd = Arc::new(next);
        }
        self.keep(Arc::clone(&fd));
        Ok(DirFd(fd))
    }

    /// Gives the descriptor back; [`Dir::descriptor`] opens it again when it is wanted.
    pub fn release(&self) {
        if self.0.parent.is_some() && self.0.descriptor.lock().take().is_some() {
            self.0.volume.open.fetch_sub(1, Ordering::Relaxed);
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

    /// The directory above; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<&Self> {
        self.0.parent.as_ref()
    }

    /// The name on disk within the parent; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        self.0.name.read().clone()
    }

    /// Tells that the directory now lies under `name` in the same parent.
    pub fn renamed(&self, name: Name) {
        *self.0.name.write() = Some(name);
        *self.0.shown.write() = None;
    }

    /// Shows the directory as `name` while it lies under a temporary one.
    pub fn show_as(&self, name: Name) {
        *self.0.shown.write() = Some(name);
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
            let shown = dir.0.shown.read().clone();
            names.extend(shown.or_else(|| dir.name()));
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

    /// An error of `operation` on the entry `name` of this directory.
    #[must_use]
    pub fn error(&self, operation: &'static str, name: &Name, errno: Errno) -> Error {
        Error::new(operation, self.display_entry(name), errno)
    }

    /// Gives back the descriptor of a directory far above, so that a way down does not use up the
    /// limit. Every [`NEAR`]th stays open: no closed one is further than that from an open one.
    fn thin(&self) {
        let Some(far) = self.0.depth.checked_sub(NEAR) else { return };
        if far.is_multiple_of(NEAR) {
            return;
        }
        let mut at = Some(self);
        while let Some(dir) = at.filter(|dir| dir.0.depth > far) {
            at = dir.parent();
        }
        if let Some(dir) = at {
            dir.release();
        }
    }

    fn stale(&self) -> Error {
        Error::new("open again", self.display(), Errno::STALE)
    }

    fn keep(&self, fd: Arc<OwnedFd>) {
        let volume = &self.0.volume;
        if volume.open.load(Ordering::Relaxed) < volume.limit
            && self.0.descriptor.lock().replace(fd).is_none()
        {
            volume.open.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Node {
    /// Puts back what was lifted. Nothing more can be done where that fails: whoever can still report it has called
    /// [`unlock::restore`](crate::unlock::restore) before.
    fn put_back(&mut self) {
        let Some(before) = self.lifted.get_mut().take() else { return };
        let fd = match (self.descriptor.get_mut(), &self.parent, self.name.get_mut()) {
            (Some(fd), ..) => Arc::clone(fd),
            (None, Some(parent), Some(name)) => {
                let Ok(fd) = parent.open_at(name, OPEN_DIRECTORY, Mode::empty()) else { return };
                let Ok(stat) = fs::fstat(&fd) else { return };
                if (stat.st_dev, stat.st_ino) != self.identity {
                    return;
                }
                Arc::new(fd)
            }
            _ => return,
        };
        let _ = before.restore(fd.as_fd());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.put_back();
        if self.descriptor.get_mut().is_some() {
            self.volume.open.fetch_sub(1, Ordering::Relaxed);
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

/// A descriptor on loan from a [`Dir`]; it stays open as long as this lives.
pub struct DirFd(Arc<OwnedFd>);

impl AsFd for DirFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
