//! A directory tree for one test, built entry by entry on a real file system.
//!
//! Paths are relative to the root of the tree; missing parents are made. Each method changes one thing
//! and returns the tree, so that calls chain. Times of directories change as entries are added to
//! them: set them last.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, PermissionsExt, symlink},
        },
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
    lsetxattr, makedev, mkdirat, mknodat, openat, utimensat,
};
use tempfile::TempDir;

use crate::Content;

/// A tree that is removed when dropped.
#[derive(Debug)]
pub struct TempTree {
    root: PathBuf,
    _dir: TempDir,
}

impl Default for TempTree {
    fn default() -> Self {
        Self::new()
    }
}

impl TempTree {
    /// An empty tree in the system's directory for temporary files.
    #[must_use]
    pub fn new() -> Self {
        Self::of(tempfile::tempdir().unwrap())
    }

    /// An empty tree below `parent`, such as the root of a [`Mount`](crate::Mount).
    #[must_use]
    pub fn below(parent: &Path) -> Self {
        Self::of(tempfile::tempdir_in(parent).unwrap())
    }

    /// The root is one level down, so that a test may remove it or put something else in its place.
    fn of(dir: TempDir) -> Self {
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        Self { root, _dir: dir }
    }

    /// The root directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The path of an entry.
    #[must_use]
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    fn new_at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Makes a directory.
    pub fn dir(&self, path: impl AsRef<Path>) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }

    /// Makes a file, or replaces what is in it.
    pub fn file(&self, path: impl AsRef<Path>, content: impl Into<Content>) -> &Self {
        fs::write(self.new_at(path), content.into().bytes()).unwrap();
        self
    }

    /// Makes a file of `size` bytes that has these pieces (offset, bytes) and holes between them.
    pub fn sparse(&self, path: impl AsRef<Path>, size: u64, pieces: &[(u64, &[u8])]) -> &Self {
        let file = File::create(self.new_at(path)).unwrap();
        file.set_len(size).unwrap();
        for (offset, bytes) in pieces {
            file.write_all_at(bytes, *offset).unwrap();
        }
        self
    }

    /// Writes `bytes` at `offset` of a file that is there.
    pub fn patch(&self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) -> &Self {
        let file = File::options().write(true).open(self.at(path)).unwrap();
        file.write_all_at(bytes, offset).unwrap();
        self
    }

    /// Makes a symbolic link with this text in it.
    pub fn symlink(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> &Self {
        symlink(OsStr::from_bytes(text.as_ref()), self.new_at(path)).unwrap();
        self
    }

    /// Gives the file `path` a further name.
    pub fn hard_link(&self, path: impl AsRef<Path>, name: impl AsRef<Path>) -> &Self {
        fs::hard_link(self.at(path), self.new_at(name)).unwrap();
        self
    }

    /// Makes a FIFO.
    pub fn fifo(&self, path: impl AsRef<Path>) -> &Self {
        self.special(path, FileType::Fifo, 0)
    }

    /// Makes a socket that nobody listens on.
    pub fn socket(&self, path: impl AsRef<Path>) -> &Self {
        self.special(path, FileType::Socket, 0)
    }

    /// Makes a character device node; root only.
    pub fn character_device(&self, path: impl AsRef<Path>, major: u32, minor: u32) -> &Self {
        self.special(path, FileType::CharacterDevice, makedev(major, minor))
    }

    /// Makes a block device node; root only.
    pub fn block_device(&self, path: impl AsRef<Path>, major: u32, minor: u32) -> &Self {
        self.special(path, FileType::BlockDevice, makedev(major, minor))
    }

    fn special(&self, path: impl AsRef<Path>, kind: FileType, device: u64) -> &Self {
        let mode = Mode::from_raw_mode(0o644);
        mknodat(CWD, self.new_at(path), kind, mode, device).unwrap();
        self
    }

    /// Makes directories one in the other, `depth` of them, all called `name`, and a file with some text in
    /// the innermost. The path may become longer than the system lets a path be.
    pub fn deep(&self, name: impl AsRef<Path>, depth: usize) -> &Self {
        let mut dir: OwnedFd = File::open(&self.root).unwrap().into();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        for _ in 0..depth {
            mkdirat(&dir, name.as_ref(), Mode::from_raw_mode(0o755)).unwrap();
            dir = openat(&dir, name.as_ref(), flags, Mode::empty()).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&dir, "bottom", flags, Mode::from_raw_mode(0o644)).unwrap();
        rustix::io::write(file, b"a long way down").unwrap();
        self
    }

    /// Sets permission bits, with setuid, setgid and sticky.
    pub fn mode(&self, path: impl AsRef<Path>, mode: u32) -> &Self {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// Sets the owner of the entry itself, also where it is a symbolic link; root only.
    pub fn owner(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> &Self {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(CWD, self.at(path), Some(uid), Some(gid), flags).unwrap();
        self
    }

    /// Sets the time of last modification, and the time of access to the same.
    pub fn mtime(&self, path: impl AsRef<Path>, seconds: i64, nanoseconds: u32) -> &Self {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        self
    }

    /// Sets an extended attribute of the entry itself.
    pub fn xattr(&self, path: impl AsRef<Path>, name: &str, value: &[u8]) -> &Self {
        lsetxattr(self.at(path), name, value, XattrFlags::empty()).unwrap();
        self
    }

    /// Changes the access control list by one entry in the notation of `setfacl`, such as `u:1000:rw` or, of
    /// a directory, `d:g:1000:rx`.
    pub fn acl(&self, path: impl AsRef<Path>, entry: &str) -> &Self {
        let mut setfacl = Command::new("setfacl");
        let status = setfacl.args(["-m", entry, "--"]).arg(self.at(path)).status().unwrap();
        assert!(status.success(), "setfacl -m {entry}");
        self
    }

    /// Removes an entry and what is below it.
    pub fn remove(&self, path: impl AsRef<Path>) -> &Self {
        let path = self.at(path);
        if path.symlink_metadata().unwrap().is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        self
    }

    /// Removes everything, but not the root.
    pub fn clear(&self) -> &Self {
        for entry in fs::read_dir(&self.root).unwrap() {
            self.remove(entry.unwrap().file_name());
        }
        self
    }

    /// Gives an entry another name.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> &Self {
        fs::rename(self.at(from), self.new_at(to)).unwrap();
        self
    }
}
