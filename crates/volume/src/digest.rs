//! One digest of everything that a volume holds.
//!
//! Two volumes have the same digest exactly where their names, metadata and content are the same.
//! Inode numbers, devices, allocation, link counts beyond the tree, and the time and place of the
//! walk do not enter.
//!
//! ```text
//! volume    = H("root", metadata, children)                  H is BLAKE3 in a context of its own
//! children  = H(line and body of every entry, in the order of names)
//! line      = H(name, metadata, link target)
//! body      = digest of the bytes  |  children  |  digest of an earlier path with the same inode
//! ```
//!
//! All fields have a fixed length or say theirs, so that no two trees have the same encoding. A
//! device is the digest of its size and bytes.
//!
//! The calling thread walks, in depth-first order, and threads read what the files hold. Results are
//! folded in the order of the walk; between the walk and the fold lie no more than `WINDOW`
//! entries, so memory is bounded by the depth, the largest directory and the number of inodes with
//! more than one name.
//!
//! Directories called `lost+found` at the root are left out. A directory that is a mount point counts
//! as an empty one.

mod fold;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use parking_lot::Mutex;
use rustix::io::Errno;
use wire::{Entry, FileKind, Metadata, Name};

use self::fold::{Fold, Item, Line, context_hasher, path_digest};
use crate::{
    Dir, Error, Result,
    device::BlockSource,
    error::{CHANGED, LESS_CONTENT},
    filter::{FilterRules, Verdict},
    source::{SourceFile, Stamp},
    stat::{self, Inode, ReadOptions},
    unmapped,
    walk::{self, Level},
    xattr::XattrTarget,
};

/// Entries between the walk and the fold, at most.
const WINDOW: usize = 4096;

/// One read of a file, in bytes.
const CHUNK: usize = 256 * 1024;

/// True for an entry that does not count.
pub type LeftOut<'a> = &'a (dyn Fn(&[Name], &Name) -> bool + Sync);

/// How a digest is made.
#[derive(Clone, Copy)]
pub struct DigestOptions<'a> {
    /// What of the metadata counts.
    pub read: ReadOptions,
    /// An entry counts as failed where its owner or its ACL cannot be known, as in a user namespace that does not map them.
    /// Otherwise what was read of it counts.
    pub known_only: bool,
    /// Which entries count.
    pub filter: &'a FilterRules,
    /// Entries that do not count besides, by the names that lead to their directory and their own.
    pub left_out: Option<LeftOut<'a>>,
    /// Threads that read files; at least one.
    pub threads: usize,
    /// Told the number of bytes after each read, from any of the threads.
    pub progress: Option<&'a (dyn Fn(u64) + Sync)>,
}

impl DigestOptions<'_> {
    /// Why `meta`, which was read in `dir`, does not count.
    fn hidden(&self, dir: &Dir, name: Option<&Name>, meta: &Metadata) -> Option<&'static str> {
        self.known_only.then(|| unmapped::hides(dir, name, meta)).flatten()
    }

    fn known(&self, dir: &Dir, name: &Name, meta: &Metadata) -> Result<()> {
        self.hidden(dir, Some(name), meta)
            .map_or(Ok(()), |reason| Err(dir.error(reason, name, Errno::OVERFLOW)))
    }
}

/// The digest of a volume, and what was counted on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeDigest {
    /// 32 bytes of BLAKE3. Says nothing where [`TreeDigest::failed`] is not 0.
    pub digest: [u8; 32],
    /// Entries that are no directories.
    pub files: u64,
    /// Directories, with the root.
    pub dirs: u64,
    /// Bytes of regular files, each inode once, holes included; or of the device.
    pub bytes: u64,
    /// Entries that could not be read or that changed while they were.
    pub failed: u64,
    /// What kept them from being read: the first 1,000.
    pub errors: Vec<Error>,
    /// Mount points, which were not entered, escaped for display: the first 1,000.
    pub mount_points: Vec<String>,
}

/// The digest of the directory tree or block device at `path`.
///
/// # Errors
/// Where the root itself cannot be opened or read.
pub fn digest(path: &Path, options: &DigestOptions<'_>) -> Result<TreeDigest> {
    if crate::device::is_block_device(path)? {
        device_digest(&BlockSource::open(path)?, options)
    } else {
        tree_digest(&Dir::open_root(path)?, options)
    }
}

/// The digest of the tree below `root`, with the metadata of `root` itself.
///
/// # Errors
/// Where `root` itself cannot be read, or no thread started. Failures on other entries are in the
/// result.
pub fn tree_digest(root: &Dir, options: &DigestOptions<'_>) -> Result<TreeDigest> {
    let root_meta = stat::root_entry(root, &options.read)?;
    let unknown = options
        .hidden(root, None, &root_meta)
        .map(|reason| root.own_error(reason, Errno::OVERFLOW));
    let level = Level::read(root.clone())?;
    let (send, receive) = sync_channel(WINDOW);
    let receive = Arc::new(Mutex::new(receive));
    thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            let receive = Arc::clone(&receive);
            thread::Builder::new()
                .name("digest".to_owned())
                .spawn_scoped(scope, move || read_files(&receive, options))
                .map_err(|_| Error::new("start a thread", ".", Errno::AGAIN))?;
        }
        // Only threads hold it now: where all of them end early, sending fails instead of waiting.
        drop(receive);
        let mut walk = Walk {
            options,
            jobs: send,
            fold: Fold::new(),
            inodes: HashMap::new(),
            levels: vec![level],
        };
        if let Some(error) = unknown {
            walk.fold.push(Item::Failed(error))?;
        }
        walk.run()?;
        let Walk { fold, .. } = walk;
        fold.finish(&root_meta)
    })
}

/// The digest of a block device.
///
/// # Errors
/// Whatever reading answers.
pub fn device_digest(device: &BlockSource, options: &DigestOptions<'_>) -> Result<TreeDigest> {
    let digest = content_digest(device.size(), |offset, buffer| {
        let len = device.read_at(offset, buffer)?;
        report(options, len);
        Ok(len)
    })?;
    let bytes = device.size();
    Ok(TreeDigest {
        digest,
        files: 0,
        dirs: 0,
        bytes,
        failed: 0,
        errors: Vec::new(),
        mount_points: Vec::new(),
    })
}

/// The digest of the first `size` bytes of a device, as [`device_digest`] gives it for a device of
/// that size: a target may be larger than its source.
///
/// # Errors
/// What `read_at` answers; `ENODATA` where there is less.
pub fn content_digest(
    size: u64,
    read_at: impl Fn(u64, &mut [u8]) -> Result<usize>,
) -> Result<[u8; 32]> {
    let mut hasher = context_hasher();
    hasher.update(b"device").update(&size.to_le_bytes());
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < size {
        let want = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
        let len = read_at(offset, &mut buffer[..want])?;
        if len == 0 {
            return Err(Error::new("read", "block device", Errno::NODATA));
        }
        hasher.update(&buffer[..len]);
        offset += len as u64;
    }
    Ok(hasher.finalize().into())
}

/// A file that a thread shall read.
struct Job {
    dir: Dir,
    name: Name,
    result: Sender<Result<FileBody>>,
}

/// What a thread found.
struct FileBody {
    line: Line,
    content: [u8; 32],
    bytes: u64,
}

struct Walk<'a> {
    options: &'a DigestOptions<'a>,
    jobs: SyncSender<Job>,
    fold: Fold,
    /// Inodes with several names, by the digest of the first path that led to each.
    inodes: HashMap<(u64, u64), [u8; 32]>,
    levels: Vec<Level>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        let mut parent = Vec::new();
        let mut parent_of = None;
        while let Some(level) = self.levels.last_mut() {
            let hint = level.kind_hint();
            let Some(name) = level.pop() else {
                self.leave()?;
                continue;
            };
            let dir = level.dir.clone();
            if !self.options.filter.is_empty() || self.options.left_out.is_some() {
                if parent_of != Some(self.levels.len()) {
                    parent = dir.components();
                    parent_of = Some(self.levels.len());
                }
                if self.options.left_out.is_some_and(|left_out| left_out(&parent, &name)) {
                    continue;
                }
                // The filter comes first: an excluded entry is not read, so nothing about it can fail.
                match self.is_excluded(&dir, &parent, &name, hint) {
                    Ok(false) => {}
                    Ok(true) => continue,
                    Err(error) => {
                        self.fold.push(Item::Failed(error))?;
                        continue;
                    }
                }
            }
            let (entry, inode) = match read_line(&dir, &name, self.options) {
                Ok(read) => read,
                Err(error) => {
                    self.fold.push(Item::Failed(error))?;
                    continue;
                }
            };
            let is_dir = entry.meta.kind == FileKind::Directory;
            if is_dir && walk::is_lost_and_found(&dir, &name) {
                continue;
            }
            if is_dir {
                parent_of = None;
                self.enter(&dir, entry, inode)?;
            } else {
                self.add(dir, entry, inode)?;
            }
        }
        Ok(())
    }

    fn is_excluded(
        &self,
        dir: &Dir,
        parent: &[Name],
        name: &Name,
        hint: Option<FileKind>,
    ) -> Result<bool> {
        let kind = hint.map_or_else(|| stat::kind(dir, name), Ok)?;
        let is_dir = kind == FileKind::Directory;
        Ok(self.options.filter.matches(parent, name, is_dir) == Verdict::Excluded)
    }

    fn leave(&mut self) -> Result<()> {
        if let Some(failure) = self.levels.pop().and_then(|level| level.failure().cloned()) {
            self.fold.push(Item::Failed(failure))?;
        }
        self.fold.push(Item::Leave)
    }

    fn enter(&mut self, dir: &Dir, entry: Entry, inode: Inode) -> Result<()> {
        let opened = if inode.mount_root {
            self.fold.mount_point(dir.display_entry(&entry.name));
            Ok(Level::closed(dir.clone()))
        } else {
            dir.open_child(&entry.name).and_then(Level::read)
        };
        self.fold.push(Item::Enter(line_of(&entry)))?;
        match opened {
            Ok(level) => {
                self.levels.push(level);
                Ok(())
            }
            Err(error) => {
                self.fold.push(Item::Failed(error))?;
                self.fold.push(Item::Leave)
            }
        }
    }

    fn add(&mut self, dir: Dir, entry: Entry, inode: Inode) -> Result<()> {
        if inode.nlink > 1 {
            let path = path_digest(&dir, &entry.name);
            let first = *self.inodes.entry((inode.dev, inode.ino)).or_insert(path);
            if first != path {
                return self.fold.push(Item::Link(line_of(&entry), first));
            }
        }
        if entry.meta.kind != FileKind::File {
            return self.fold.push(Item::Special(line_of(&entry)));
        }
        let (send, receive) = channel();
        let job = Job { dir, name: entry.name, result: send };
        self.jobs.send(job).map_err(|_| threads_ended())?;
        self.fold.push(Item::File(receive))
    }
}

fn line_of(entry: &Entry) -> Line {
    fold::line(&entry.name, &entry.meta, &entry.target)
}

/// Reads an entry; what a thread will read of a file again is left out.
fn read_line(dir: &Dir, name: &Name, options: &DigestOptions<'_>) -> Result<(Entry, Inode)> {
    let plain = ReadOptions { xattrs: false, ..options.read };
    let (mut entry, inode) = stat::read_entry(dir, name, &plain)?;
    let read_later = entry.meta.kind == FileKind::File && inode.nlink == 1;
    if options.read.xattrs && !read_later {
        let target = XattrTarget::At(dir, name);
        let kind = entry.meta.kind;
        entry.meta.xattrs = stat::read_xattrs(dir, target, inode.dev, kind, &options.read)
            .map_err(|e| dir.error("read extended attributes", name, e))?;
    }
    options.known(dir, name, &entry.meta)?;
    Ok((entry, inode))
}

/// Work of one thread: until the walk has ended.
fn read_files(jobs: &Mutex<Receiver<Job>>, options: &DigestOptions<'_>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let job = jobs.lock().recv();
        let Ok(Job { dir, name, result }) = job else { return };
        // Where nobody waits for the result, the walk has failed already.
        let _ = result.send(read_file(&dir, &name, &mut buffer, options));
    }
}

fn read_file(
    dir: &Dir,
    name: &Name,
    buffer: &mut [u8],
    options: &DigestOptions<'_>,
) -> Result<FileBody> {
    let file = SourceFile::open(dir, name)?;
    let (meta, stamp) = file.metadata(&options.read)?;
    options.known(dir, name, &meta)?;
    if stamp.size > buffer.len() as u64 {
        file.advise_sequential();
    }
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    for extent in file.extents(0..stamp.size) {
        let extent = extent?;
        add_zeros(&mut hasher, extent.start - at, options);
        at = extent.start;
        while at < extent.end {
            let want = buffer.len().min(usize::try_from(extent.end - at).unwrap_or(usize::MAX));
            let len = file.read_at(at, &mut buffer[..want])?;
            if len == 0 {
                return Err(ends_early(&file, &stamp));
            }
            hasher.update(&buffer[..len]);
            at += len as u64;
            report(options, len);
        }
    }
    add_zeros(&mut hasher, stamp.size - at, options);
    if file.changed_since(&stamp)? {
        return Err(changed(dir, name));
    }
    let line = fold::line(name, &meta, &[]);
    Ok(FileBody { line, content: hasher.finalize().into(), bytes: stamp.size })
}

/// A hole of `len` bytes; nothing is read for it.
fn add_zeros(hasher: &mut blake3::Hasher, mut len: u64, options: &DigestOptions<'_>) {
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    while len > 0 {
        let part = ZEROS.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        hasher.update(&ZEROS[..part]);
        len -= part as u64;
        report(options, part);
    }
}

fn report(options: &DigestOptions<'_>, bytes: usize) {
    if let Some(progress) = options.progress {
        progress(bytes as u64);
    }
}

pub(crate) fn changed(dir: &Dir, name: &Name) -> Error {
    dir.error(CHANGED, name, Errno::AGAIN)
}

/// Why a file that had the size of `stamp` has an end before it.
pub(crate) fn ends_early(file: &SourceFile, stamp: &Stamp) -> Error {
    match file.changed_since(stamp) {
        Ok(true) => changed(file.dir(), file.name()),
        Ok(false) => file.dir().error(LESS_CONTENT, file.name(), Errno::NODATA),
        Err(error) => error,
    }
}

fn threads_ended() -> Error {
    Error::new("read with threads", ".", Errno::CANCELED)
}
