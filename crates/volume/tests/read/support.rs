//! What the tests share.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{self, FileType, Mode, OFlags};
use tempfile::TempDir;
use volume::{
    Dir,
    compare::{Counts, Difference},
    digest::{DigestOptions, TreeDigest},
    filter::FilterRules,
    stat::ReadOptions,
};
use wire::Name;

pub(crate) fn name(bytes: impl AsRef<[u8]>) -> Name {
    Name::new(bytes.as_ref()).unwrap()
}

/// A directory on a file system that takes values of 64 KiB.
pub(crate) fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

pub(crate) fn run(program: &str, args: &[&str], path: &Path) {
    let status = Command::new(program).args(args).arg(path).status().unwrap();
    assert!(status.success(), "{program} {args:?} {}", path.display());
}

pub(crate) fn node(path: &Path, kind: FileType, device: (u32, u32)) {
    let device = fs::makedev(device.0, device.1);
    fs::mknodat(fs::CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// A chain of directories of one name, deeper than paths and recursion reach.
pub(crate) struct Chain {
    tmp: Option<TempDir>,
}

impl Chain {
    pub(crate) fn new(component: &[u8], depth: usize) -> Self {
        let tmp = in_memory();
        let chain = Self { tmp: Some(tmp) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = fs::open(chain.path(), flags, Mode::empty()).unwrap();
        for _ in 0..depth {
            fs::mkdirat(&at, component, Mode::RWXU).unwrap();
            at = fs::openat(&at, component, flags, Mode::empty()).unwrap();
        }
        let leaf = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let leaf = fs::openat(&at, c"leaf", leaf, Mode::RUSR).unwrap();
        rustix::io::write(leaf, b"deep").unwrap();
        chain
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.tmp.as_ref().unwrap().path().to_owned()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // The recursion of the standard library runs out of descriptors.
        let path = self.tmp.take().unwrap().keep();
        run("rm", &["-rf"], &path);
    }
}

/// A file system mounted on `at`; `None`, loudly, where that is not permitted.
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn new(kind: &str, at: &Path) -> Option<Self> {
        let done = Command::new("mount").args(["-t", kind, "none"]).arg(at).status();
        if done.is_ok_and(|status| status.success()) {
            return Some(Self(at.to_owned()));
        }
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI mounts file systems");
        eprintln!("SKIPPED: may not mount {kind}");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &[], &self.0);
    }
}

pub(crate) fn digest_with(path: &Path, threads: usize, filter: &FilterRules) -> TreeDigest {
    let read = ReadOptions::default();
    let options =
        DigestOptions { read, known_only: true, left_out: None, filter, threads, progress: None };
    volume::digest::digest(path, &options).unwrap()
}

/// The digest of a tree that can be read.
pub(crate) fn digest(path: &Path) -> [u8; 32] {
    let found = digest_with(path, 2, &FilterRules::default());
    assert_eq!((found.failed, &*found.errors), (0, &[][..]));
    found.digest
}

pub(crate) fn differences(a: &Path, b: &Path) -> (Vec<Difference>, Counts) {
    let mut found = Vec::new();
    let options = ReadOptions::default();
    let counts =
        volume::compare::compare(a, b, &options, &mut |difference| found.push(difference)).unwrap();
    assert_eq!(counts.differences, found.len() as u64);
    (found, counts)
}

pub(crate) fn root(path: &Path) -> Dir {
    Dir::open_root_writable(path).unwrap()
}
