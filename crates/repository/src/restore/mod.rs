//! A snapshot into a directory, or a stored file onto a block device.
//!
//! The calling thread walks the stored tree and creates directories; threads fetch content and write files; hard links follow
//! when the files are complete. At the end the volume is flushed, and every entry is read back and compared with the stored
//! one.

mod content;
mod device;
mod links;
mod proof;
mod target;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use crossbeam_channel::{Sender, bounded};
use volume::{
    Dir, create, flush,
    list::NameList,
    lock::VolumeLock,
    metadata::ApplyOptions,
    staging::{Place, Staging},
    walk,
};
use wire::{Entry, FileKind, Metadata, Name};

use crate::{
    Error, Repository, Result, Snapshot,
    backup::PARTIAL_TAG,
    engine::{Indexed, StoredEntry, TreeId},
    error::Kind,
    problems::Found,
    stored::{self, Step, StoredWalk},
};
use content::Job;
use links::LinkKey;
use target::{OpenDir, Target};

/// Threads that fetch and write files: most of their time they wait for the storage.
const THREADS: usize = 8;
/// Files that wait for a thread.
const QUEUE: usize = 64;

/// What to restore, and where.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Path within the snapshot; by default the volume for snapshots of this program, and everything for others.
    pub path: Option<PathBuf>,
    /// The directory to restore into, which must exist and be empty; or a block device.
    pub destination: PathBuf,
    /// Read all content of files back and compare it. A block device is always read back.
    pub verify: bool,
}

/// What a restore did.
#[derive(Debug, Clone)]
pub struct RestoreSummary {
    /// Entries of the snapshot, the root included.
    pub entries: u64,
    /// Entries that were created.
    pub files_written: u64,
    /// Bytes of regular files, holes included.
    pub bytes_total: u64,
    /// Digest of the manifest of what was read back.
    pub digest: [u8; 32],
    /// Entries that are not as in the snapshot.
    pub problems: Found,
}

/// Where a restore starts.
struct Start {
    tree: TreeId,
    /// Metadata of the root, if the snapshot has it.
    root: Option<Metadata>,
}

impl Repository {
    /// Restores a snapshot. `stop` ends it early.
    ///
    /// # Errors
    /// Where the run did not go to its end. Problems with single entries are in the summary.
    pub fn restore(
        &self,
        snapshot: &Snapshot,
        options: &RestoreOptions,
        stop: &AtomicBool,
    ) -> Result<RestoreSummary> {
        // Whatever does not exist is refused where it is opened.
        if volume::device::is_block_device(&options.destination).unwrap_or(false) {
            return self.restore_device(snapshot, options, stop);
        }
        let unusable = |error: volume::Error| Error::new(Kind::Selection, error.to_string());
        let root = Dir::open_root_writable(&options.destination).map_err(unusable)?;
        let Some(_lock) = VolumeLock::acquire(&root)? else {
            let what = "another transfer is writing to the destination";
            return Err(Error::new(Kind::Selection, what));
        };
        let staging = empty(&root)?;
        let _repository_lock = self.engine.lock(false)?;
        let indexed = self.engine.index()?;
        let start = start(&indexed, snapshot, options)?;
        let target = Target::new(root.clone(), staging, stop);
        if snapshot.tags().iter().any(|tag| tag == PARTIAL_TAG) {
            target.problems.add(".", "the snapshot does not hold all of its volume");
        }
        write(&indexed, &start, &target)?;
        target.staging.remove(false)?;
        target.check()?;
        flush::file_system(&root)?;
        let proof = proof::prove(&indexed, &start, &target, options.verify)?;
        Ok(RestoreSummary {
            entries: proof.manifest.len() as u64,
            files_written: target.written.load(Relaxed),
            bytes_total: target.bytes.load(Relaxed),
            digest: proof.manifest.digest(),
            problems: target.problems.take(),
        })
    }
}

/// Refuses a destination with anything in it but what `mkfs` makes.
fn empty(root: &Dir) -> Result<Staging> {
    let names = NameList::read(root)?;
    let staging = Staging::find(root, &names)?;
    for name in (0..names.len()).filter_map(|index| names.name(index)) {
        if !walk::is_lost_and_found(root, &name) {
            let what = format!("the destination is not empty: it holds {name}");
            return Err(Error::new(Kind::Selection, what));
        }
    }
    Ok(staging)
}

fn start(indexed: &Indexed, snapshot: &Snapshot, options: &RestoreOptions) -> Result<Start> {
    let own = snapshot.paths().first().filter(|_| snapshot.is_own()).map(PathBuf::from);
    let found = match options.path.clone().or(own) {
        Some(path) => stored::find(indexed, snapshot.tree(), &path)?,
        None => None,
    };
    match found {
        None => Ok(Start { tree: snapshot.tree(), root: None }),
        Some(StoredEntry { entry, subtree: Some(tree), .. }) => {
            Ok(Start { tree, root: Some(entry.meta) })
        }
        Some(StoredEntry { entry, .. }) => Err(Error::new(
            Kind::Selection,
            format!(
                "{} of the snapshot is not a directory, but the destination is one",
                entry.name
            ),
        )),
    }
}

/// Creates everything. Afterwards all directories have their metadata.
fn write(indexed: &Indexed, start: &Start, target: &Target<'_>) -> Result<()> {
    let root = OpenDir::root(target, start.root.as_ref())?;
    thread::scope(|scope| {
        let (send, receive) = bounded::<Job>(QUEUE);
        for _ in 0..THREADS {
            let receive = receive.clone();
            thread::Builder::new()
                .name("restore".to_owned())
                .spawn_scoped(scope, move || {
                    for job in receive {
                        content::write(indexed, target, job);
                    }
                })
                .map_err(|error| {
                    Error::new(Kind::Storage, format!("cannot start a thread: {error}"))
                })?;
        }
        drop(receive);
        let mut walk =
            Walk { target, send, stack: vec![root], links: HashMap::new(), further: Vec::new() };
        walk.run(StoredWalk::new(indexed, start.tree)?)?;
        let Walk { further, links, send, .. } = walk;
        drop(send);
        Ok::<_, Error>((further, links))
    })
    .map(|(further, links)| link(target, further, links))?;
    target.check()
}

/// The first name of each inode with several.
type Links = HashMap<LinkKey, (Arc<OpenDir>, Name)>;

struct Further {
    dir: Arc<OpenDir>,
    entry: Entry,
    link: LinkKey,
}

struct Walk<'a> {
    target: &'a Target<'a>,
    send: Sender<Job>,
    stack: Vec<Arc<OpenDir>>,
    links: Links,
    further: Vec<Further>,
}

impl Walk<'_> {
    fn run(&mut self, mut walk: StoredWalk<'_>) -> Result<()> {
        while let Some(step) = walk.next() {
            self.target.check()?;
            match step {
                Step::Leave => {
                    if let Some(dir) = self.stack.pop() {
                        OpenDir::release(dir, self.target);
                    }
                }
                Step::Unreadable(what) => {
                    let dir =
                        self.stack.last().map_or_else(|| ".".to_owned(), |dir| dir.dir.display());
                    self.target.problems.add(dir, format!("cannot be restored: {what}"));
                }
                Step::Entry(_, stored) => {
                    let is_dir = stored.subtree.is_some();
                    match self.place(*stored) {
                        Some(dir) => self.stack.push(dir),
                        None if is_dir => walk.pass_over(),
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Creates an entry, or has it created; answers the directory to go into.
    fn place(&mut self, stored: StoredEntry) -> Option<Arc<OpenDir>> {
        let parent = Arc::clone(self.stack.last()?);
        let (entry, target) = (&stored.entry, self.target);
        if let Some(link) = LinkKey::of(&stored) {
            if self.links.contains_key(&link) {
                let entry = stored.entry;
                self.further.push(Further { dir: parent, entry, link });
                return None;
            }
            self.links.insert(link, (Arc::clone(&parent), entry.name.clone()));
        }
        match entry.meta.kind {
            FileKind::Directory => match OpenDir::create(&parent, entry) {
                Ok(dir) => {
                    target.count();
                    return Some(dir);
                }
                Err(error) => target.failed(&error),
            },
            FileKind::File => {
                // Where no thread is left, they failed, and that is reported by them.
                let _ = self.send.send(Job { dir: parent, stored });
                return None;
            }
            _ => match create::node(&parent.dir, entry, ApplyOptions::default()) {
                Ok(applied) => target.created(&parent.dir.display_entry(&entry.name), &applied),
                Err(error) => target.failed(&error),
            },
        }
        OpenDir::release(parent, target);
        None
    }
}

/// Gives files that are complete their further names.
fn link(target: &Target<'_>, further: Vec<Further>, links: Links) {
    for Further { dir, entry, link } in further {
        if let Some((first_dir, first)) = links.get(&link) {
            let place = Place {
                staging: &target.staging,
                dir: &dir.dir,
                name: &entry.name,
                occupied: false,
                hints: dir.hints,
            };
            match create::link(&first_dir.dir, first, place) {
                Ok(()) => target.count(),
                Err(error) => target.failed(&error),
            }
        }
        OpenDir::release(dir, target);
    }
    for (dir, _) in links.into_values() {
        OpenDir::release(dir, target);
    }
}
