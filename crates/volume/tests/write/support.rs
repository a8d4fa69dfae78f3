//! Scratch volumes on real file systems, metadata to apply, and threads with fewer rights.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    fs::{Gid, Uid, XattrFlags},
    thread::{self, CapabilitySet},
};
use tempfile::TempDir;
use volume::{
    Dir, Result,
    create::ParentHints,
    list::NameList,
    metadata::{Applied, ApplyOptions},
    small,
    staging::{self, Place, Staging},
    writer::FileWriter,
};
use wire::{Attributes, Entry, FileKind, Metadata, Name, Timestamp, Xattr, Xattrs};

/// The ordinary user of the tests, and his group.
pub(crate) const USER: u32 = 65534;

/// Another group that he belongs to.
pub(crate) const GROUP: u32 = 4343;

/// An empty directory on some file system, and the volume whose root it is.
pub(crate) struct Scratch {
    pub(crate) dir: Dir,
    pub(crate) path: PathBuf,
    pub(crate) staging: Staging,
    mounted: bool,
    /// What an overlay is made of.
    layers: Option<TempDir>,
    _temp: TempDir,
}

impl Scratch {
    /// On the file system of `/tmp`.
    pub(crate) fn disk() -> Self {
        Self::below("/tmp")
    }

    /// On tmpfs.
    pub(crate) fn memory() -> Self {
        Self::below("/dev/shm")
    }

    fn below(parent: &str) -> Self {
        let temp = TempDir::new_in(parent).unwrap();
        let path = temp.path().to_owned();
        Self::of(temp, path, false)
    }

    fn of(temp: TempDir, path: PathBuf, mounted: bool) -> Self {
        let dir = Dir::open_root_writable(&path).unwrap();
        let staging = Staging::find(&dir, &NameList::read(&dir).unwrap()).unwrap();
        Self { dir, path, staging, mounted, layers: None, _temp: temp }
    }

    /// A file system of its own, on a loop device; `None`, said loudly, where that is impossible.
    pub(crate) fn image(kind: &str) -> Option<Self> {
        let temp = TempDir::new_in("/tmp").unwrap();
        let image = temp.path().join("image");
        fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let (image, path) = (image.to_str().unwrap(), temp.path().join("volume"));
        fs::create_dir(&path).unwrap();
        let done = run(&[&format!("mkfs.{kind}"), "-q", image])
            && run(&["mount", "-o", "loop", image, path.to_str().unwrap()]);
        if !done {
            skip(&format!("no {kind} on a loop device"));
            return None;
        }
        Some(Self::of(temp, path, true))
    }

    /// An overlay over tmpfs, as the root of a container is.
    pub(crate) fn overlay() -> Option<Self> {
        let layers = TempDir::new_in("/dev/shm").unwrap();
        let at = |name: &str| {
            fs::create_dir(layers.path().join(name)).unwrap();
            layers.path().join(name).to_str().unwrap().to_owned()
        };
        let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let mut scratch = Self::mounted("overlay", &options)?;
        scratch.layers = Some(layers);
        Some(scratch)
    }

    /// A mount of a file system without a device, such as a small tmpfs.
    pub(crate) fn mounted(kind: &str, options: &str) -> Option<Self> {
        let temp = TempDir::new_in("/tmp").unwrap();
        let path = temp.path().to_owned();
        if !run(&["mount", "-t", kind, "-o", options, "none", path.to_str().unwrap()]) {
            skip(&format!("no mount of {kind}"));
            return None;
        }
        Some(Self::of(temp, path, true))
    }

    /// Gives the root to the ordinary user.
    pub(crate) fn of_user(self) -> Self {
        std::os::unix::fs::chown(&self.path, Some(USER), Some(USER)).unwrap();
        self
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Sorted names of the root, but for the staging directory.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = names(&self.path);
        names.retain(|name| !self.staging.is_own(name.as_bytes()));
        names
    }

    /// Sorted names in the staging directory.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        self.staging.dirs().iter().flat_map(|dir| names(&self.at(&dir.display()))).collect()
    }

    /// Where an unfinished entry lies that is to become `at` in the root.
    pub(crate) fn part(&self, at: &str) -> PathBuf {
        let staged = staging::staged_name(&self.dir, &name(at)).to_string();
        self.at(&self.staging.dir().unwrap().display()).join(staged)
    }

    /// Calls `work` with the place `at` in `dir`.
    pub(crate) fn place<T>(
        &self,
        dir: &Dir,
        at: &str,
        occupied: bool,
        work: impl FnOnce(Place<'_>) -> Result<T>,
    ) -> Result<T> {
        let (staging, name, hints) = (&self.staging, &name(at), ParentHints::of(dir)?);
        work(Place { staging, dir, name, occupied, hints })
    }

    /// A file that will replace what bears its name.
    pub(crate) fn staged(&self, dir: &Dir, at: &str) -> Result<FileWriter> {
        self.place(dir, at, true, FileWriter::staged)
    }

    /// A small file in the place of what bears its name.
    pub(crate) fn write_over(
        &self,
        dir: &Dir,
        at: &str,
        want: &Metadata,
        content: &[u8],
    ) -> Result<Applied> {
        let options = ApplyOptions::default();
        self.place(dir, at, true, |place| small::write_over(place, want, content, options))
    }

    /// As [`Self::write_over`], of a node.
    pub(crate) fn replace_node(&self, entry: &Entry) -> Result<Applied> {
        let options = ApplyOptions::default();
        self.place(&self.dir, &entry.name.to_string(), true, |place| {
            volume::create::replace_node(place, entry, options)
        })
    }

    /// As [`Self::write_over`], of a further name of a file in the root.
    pub(crate) fn link(&self, leader: &str, dir: &Dir, at: &str) -> Result<()> {
        self.place(dir, at, true, |place| volume::create::link(&self.dir, &name(leader), place))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.mounted {
            // The volume holds its root open, so the mount goes when that is closed.
            run(&["umount", "--lazy", self.path.to_str().unwrap()]);
        } else {
            run(&["chattr", "-R", "-f", "-i", "-a", self.path.to_str().unwrap()]);
        }
    }
}

/// A bind mount, gone when it is dropped.
pub(crate) struct Bind(PathBuf);

impl Bind {
    pub(crate) fn new(from: &Path, onto: PathBuf) -> Option<Self> {
        if run(&["mount", "--bind", from.to_str().unwrap(), onto.to_str().unwrap()]) {
            return Some(Self(onto));
        }
        skip("no bind mounts");
        None
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        run(&["umount", self.0.to_str().unwrap()]);
    }
}

pub(crate) fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Runs a command; true where it ended well.
pub(crate) fn run(command: &[&str]) -> bool {
    Command::new(command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Says that something is not tested here. In continuous integration everything must be.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "not tested: {why}");
    eprintln!("NOT TESTED: {why}");
}

/// Runs `work` as the ordinary user, without any capability.
pub(crate) fn as_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    in_thread(work, || {
        let gid = Gid::from_raw(USER);
        let uid = Uid::from_raw(USER);
        thread::set_thread_groups(&[Gid::from_raw(GROUP)]).unwrap();
        thread::set_thread_res_gid(gid, gid, gid).unwrap();
        thread::set_thread_res_uid(uid, uid, uid).unwrap();
    })
}

/// Runs `work` as root without the capabilities `without`.
pub(crate) fn without<T: Send>(without: CapabilitySet, work: impl FnOnce() -> T + Send) -> T {
    in_thread(work, || {
        let mut sets = thread::capabilities(None).unwrap();
        sets.effective.remove(without);
        sets.permitted.remove(without);
        sets.inheritable.remove(without);
        thread::set_capabilities(None, sets).unwrap();
    })
}

fn in_thread<T: Send>(work: impl FnOnce() -> T + Send, prepare: impl FnOnce() + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            prepare();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// Plain metadata of root's, with a time of its own.
pub(crate) fn meta(kind: FileKind, mode: u16) -> Metadata {
    Metadata {
        kind,
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Timestamp { secs: 1_234_567_890, nanos: 123_456_789 },
        rdev: (0, 0),
        attributes: Attributes::default(),
        xattrs: Xattrs::new(),
    }
}

pub(crate) fn file(mode: u16, size: usize) -> Metadata {
    Metadata { size: size as u64, ..meta(FileKind::File, mode) }
}

/// Metadata of the file that is there.
pub(crate) fn as_it_is(path: &Path) -> Metadata {
    let found = fs::symlink_metadata(path).unwrap();
    let mode = u16::try_from(found.mode() & 0o7777).unwrap();
    Metadata { uid: found.uid(), gid: found.gid(), size: found.len(), ..meta(FileKind::File, mode) }
}

pub(crate) fn entry(text: &str, meta: Metadata, target: &[u8]) -> Entry {
    Entry { name: name(text), meta, target: target.into() }
}

pub(crate) fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().into(), value: value.into() }
}

/// `system.posix_acl_*` with `rwx` for user 4242 below a mask, in the form of the kernel: version 2,
/// then tag, permissions and id of each entry.
pub(crate) fn acl(owner: u16, user: u16, group: u16, mask: u16, other: u16) -> Vec<u8> {
    let none = u32::MAX;
    let entries = [
        (0x01_u16, owner, none),
        (0x02, user, 4242),
        (0x04, group, none),
        (0x10, mask, none),
        (0x20, other, none),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// `security.capability`, revision 2: `CAP_NET_BIND_SERVICE`, effective.
pub(crate) fn capability() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

pub(crate) fn set_default_acl(path: &Path) {
    set_xattr(path, "system.posix_acl_default", &acl(7, 7, 7, 7, 5));
}

/// Asserts that everything is as in `want`, in the answer and on the disk.
#[track_caller]
pub(crate) fn assert_exact(scratch: &Scratch, at: &str, want: &Metadata, applied: &Applied) {
    assert_eq!(applied.problems, [], "{at}");
    assert_same(&applied.actual, want);
    let options = volume::stat::ReadOptions::default();
    let (entry, _) = volume::stat::read_entry(&scratch.dir, &name(at), &options).unwrap();
    assert_same(&entry.meta, want);
}

/// As equal as entries of their kind can be: the mode of a link means nothing.
#[track_caller]
pub(crate) fn assert_same(have: &Metadata, want: &Metadata) {
    let mut have = have.clone();
    if want.kind == FileKind::Symlink {
        have.mode = want.mode;
    }
    assert_eq!(&have, want);
}

/// Allocated bytes.
pub(crate) fn allocated(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().blocks() * 512
}

/// `(device, inode)`.
pub(crate) fn identity(path: &Path) -> (u64, u64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.dev(), meta.ino())
}
