//! A volume as a source of entries for the engine.
//!
//! The walk goes through directories that are held by descriptor. What cannot be read, vanishes or changes while it is read
//! is a problem with a name; the [manifest](crate::manifest) holds what was offered, and afterwards loses what turned out
//! unreadable. The engine drops such entries without a word: the manifest is what tells.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use volume::{
    Dir,
    filter::{FilterRules, Verdict},
    source::{SourceFile, Stamp, confirm_empty},
    stat::{self, DirectoryState, Inode, ReadOptions},
    unmapped::{self, Unknown},
    walk::{self, Level},
};
use wire::{Entry, FileKind, Metadata, Name};

use crate::{
    Error, Result,
    engine::{self, LinkId, Offer, Opener, Source},
    error::Kind,
    manifest::Manifest,
    problems::Problems,
};

/// What is known of a volume while it is read.
#[derive(Default)]
pub(crate) struct Observed {
    pub(crate) manifest: Mutex<Manifest>,
    pub(crate) problems: Problems,
    /// Bytes of regular files, and those of them that were read.
    pub(crate) bytes_total: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
    /// Mount points and `lost+found`.
    pub(crate) skipped: AtomicU64,
    /// The walk went to its end.
    pub(crate) complete: AtomicBool,
}

impl Observed {
    /// Fails where a block device was not read to its end: a part of one is of no use.
    pub(crate) fn of_device(&self) -> Result<()> {
        let first = self.problems.take().first.into_iter().next();
        first.map_or(Ok(()), |problem| {
            Err(Error::new(Kind::Volume, format!("{}: {}", problem.name, problem.what)))
        })
    }
}

const SET_ID: u16 = 0o6000;
const CAPABILITY: &[u8] = b"security.capability";

/// The walk of one volume.
pub(crate) struct VolumeSource {
    root: Option<(PathBuf, Metadata, Inode)>,
    levels: Vec<(Level, PathBuf)>,
    filter: FilterRules,
    observed: Arc<Observed>,
    stop: Arc<AtomicBool>,
}

const READ: ReadOptions = ReadOptions { xattrs: true, selinux: false };

impl VolumeSource {
    /// The volume below `root`, to be stored as the directory `path`.
    ///
    /// # Errors
    /// Where the root cannot be read.
    pub(crate) fn new(
        root: &Dir,
        path: &Path,
        filter: FilterRules,
        observed: Arc<Observed>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let (meta, inode) = stat::root(root, &READ)?;
        let level = Level::read(root.clone())?;
        let levels = vec![(level, path.to_owned())];
        Ok(Self { root: Some((path.to_owned(), meta, inode)), levels, filter, observed, stop })
    }

    fn offer_root(&mut self) -> Option<Offer<FileOpener>> {
        let (path, meta, inode) = self.root.take()?;
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default().to_owned();
        let name = Name::new(&name).ok()?;
        let entry = Entry { name, meta, target: Box::default() };
        let root = self.levels.first().map(|(level, _)| level.dir.clone())?;
        self.offer(path, ".", &root, &entry, &inode)
    }

    fn offer(
        &self,
        path: PathBuf,
        shown: &str,
        dir: &Dir,
        entry: &Entry,
        inode: &Inode,
    ) -> Option<Offer<FileOpener>> {
        let listed = &entry.meta;
        let kept = self.keep(shown, dir, entry);
        let entry = kept.as_ref().unwrap_or(entry);
        let meta = &entry.meta;
        let node = match engine::encode(entry.name.as_bytes(), meta, &entry.target, inode) {
            Ok(node) => node,
            Err(what) => {
                self.observed.problems.add(shown, what);
                return None;
            }
        };
        let is_file = meta.kind == FileKind::File;
        let linked = inode.nlink > 1 && meta.kind != FileKind::Directory;
        let link = linked.then_some(LinkId { device: inode.dev, inode: inode.ino });
        let depth = self.levels.len();
        let number = self.observed.manifest.lock().add(depth, entry, link);
        let open = is_file.then(|| {
            self.observed.bytes_total.fetch_add(meta.size, Relaxed);
            let (dir, name, observed) =
                (dir.clone(), entry.name.clone(), Arc::clone(&self.observed));
            let sparse = inode.blocks.saturating_mul(512) < meta.size;
            let listed = (listed.clone(), *inode);
            let stop = Arc::clone(&self.stop);
            FileOpener { dir, name, listed, sparse, number, observed, stop }
        });
        Some(Offer { path, node, open })
    }

    /// Reports what this process cannot know of the metadata of `entry`; answers what is stored instead, if it differs. An
    /// owner that is not known lends no rights.
    fn keep(&self, shown: &str, dir: &Dir, entry: &Entry) -> Option<Entry> {
        let unknown = unmapped::find(dir, Some(&entry.name), &entry.meta)?;
        self.observed.problems.add(shown, unknown.reason());
        if unknown == Unknown::Acl {
            return None;
        }
        let mut kept = entry.clone();
        if entry.meta.kind != FileKind::Directory {
            kept.meta.mode &= !SET_ID;
            kept.meta.xattrs.retain(|xattr| *xattr.name != *CAPABILITY);
        }
        if unknown == Unknown::Owner {
            unmapped::withhold(&mut kept.meta);
        }
        Some(kept)
    }

    /// The entry `name` of the directory that the walk is in.
    fn visit(
        &mut self,
        name: &Name,
        hint: Option<FileKind>,
    ) -> volume::Result<Option<Offer<FileOpener>>> {
        let Some((level, parent)) = self.levels.last() else { return Ok(None) };
        let (dir, path) = (level.dir.clone(), parent.join(OsStr::from_bytes(name)));
        if !self.filter.is_empty() {
            let kind = hint.map_or_else(|| stat::kind(&dir, name), Ok)?;
            let is_dir = kind == FileKind::Directory;
            if self.filter.matches(&dir.components(), name, is_dir) == Verdict::Excluded {
                return Ok(None);
            }
        }
        let (entry, inode) = stat::read_entry(&dir, name, &READ)?;
        let shown = dir.display_entry(name);
        match entry.meta.kind {
            FileKind::Directory if walk::is_lost_and_found(&dir, name) => {
                self.observed.skipped.fetch_add(1, Relaxed);
                return Ok(None);
            }
            FileKind::File if entry.meta.size == 0 => confirm_empty(&dir, name, &inode)?,
            _ => {}
        }
        let offer = self.offer(path.clone(), &shown, &dir, &entry, &inode);
        if entry.meta.kind == FileKind::Directory && offer.is_some() {
            if inode.mount_root {
                self.observed.skipped.fetch_add(1, Relaxed);
            } else {
                // The directory itself is stored whatever becomes of its content.
                match open_listed(&dir, &entry, &inode) {
                    Ok(level) => self.levels.push((level, path)),
                    Err(error) => self.observed.problems.of_volume(&error),
                }
            }
        }
        Ok(offer)
    }
}

/// Opens a directory and lists it; refuses another one than was listed, or one whose owner or mode changed since.
fn open_listed(dir: &Dir, entry: &Entry, inode: &Inode) -> volume::Result<Level> {
    let child = dir.open_child(&entry.name)?;
    if let Some(state) = DirectoryState::of(&entry.meta, inode)
        && state.change(&child)?.is_some()
    {
        return Err(dir.changed(&entry.name));
    }
    Level::read(child)
}

impl Source for VolumeSource {
    type Open = FileOpener;
}

impl Iterator for VolumeSource {
    type Item = Offer<FileOpener>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.root.is_some() {
            // The walk has no entries without a root: then nothing is stored, which the proof finds.
            return self.offer_root();
        }
        while let Some((level, _)) = self.levels.last_mut() {
            if self.stop.load(Relaxed) {
                return None;
            }
            let hint = level.kind_hint();
            let Some(name) = level.pop() else {
                if let Some(failure) = level.failure() {
                    self.observed.problems.of_volume(failure);
                }
                self.levels.pop();
                continue;
            };
            match self.visit(&name, hint) {
                Ok(Some(offer)) => return Some(offer),
                Ok(None) => {}
                Err(error) => self.observed.problems.of_volume(&error),
            }
        }
        self.observed.complete.store(true, Relaxed);
        None
    }
}

/// Opens one file of the volume, and reports it where it is not what was listed.
pub(crate) struct FileOpener {
    dir: Dir,
    name: Name,
    listed: (Metadata, Inode),
    sparse: bool,
    number: usize,
    observed: Arc<Observed>,
    stop: Arc<AtomicBool>,
}

/// Reads one file from its start to its end, and confirms then that it did not change meanwhile.
pub(crate) struct FileReader {
    opener: FileOpener,
    file: SourceFile,
    stamp: Stamp,
    at: u64,
    done: bool,
}

impl FileOpener {
    fn try_open(&self) -> volume::Result<(SourceFile, Stamp)> {
        let file = SourceFile::open(&self.dir, &self.name)?;
        let (meta, stamp) = file.metadata(&READ)?;
        let (listed, inode) = &self.listed;
        if meta != *listed || (stamp.ino, stamp.ctime) != (inode.ino, inode.ctime) {
            return Err(self.dir.changed(&self.name));
        }
        Ok((file, stamp))
    }

    /// Reports the file, which is not stored.
    fn fail(&self, error: &volume::Error) -> io::Error {
        self.observed.problems.of_volume(error);
        self.observed.manifest.lock().withdraw(self.number);
        io::Error::other(error.to_string())
    }
}

impl Opener for FileOpener {
    type Reader = FileReader;

    fn open(self) -> io::Result<FileReader> {
        let (file, stamp) = self.try_open().map_err(|error| self.fail(&error))?;
        if stamp.size > 1 << 20 {
            file.advise_sequential();
        }
        Ok(FileReader { opener: self, file, stamp, at: 0, done: false })
    }
}

impl FileReader {
    fn read_some(&mut self, buffer: &mut [u8]) -> volume::Result<usize> {
        let left = usize::try_from(self.stamp.size - self.at).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        if want == 0 {
            let unchanged = self.done || !self.file.changed_since(&self.stamp)?;
            self.done = true;
            return if unchanged { Ok(0) } else { Err(self.opener.dir.changed(&self.opener.name)) };
        }
        if self.opener.sparse
            && let Some(end) = self.file.hole_end(self.at, self.stamp.size)
        {
            let len = want.min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
            buffer[..len].fill(0);
            self.at += len as u64;
            return Ok(len);
        }
        let len = self.file.read_at(self.at, &mut buffer[..want])?;
        if len == 0 {
            return Err(self.opener.dir.changed(&self.opener.name));
        }
        self.at += len as u64;
        self.opener.observed.bytes_read.fetch_add(len as u64, Relaxed);
        Ok(len)
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.opener.stop.load(Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        self.read_some(buffer).map_err(|error| self.opener.fail(&error))
    }
}
