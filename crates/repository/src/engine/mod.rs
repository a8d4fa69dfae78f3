//! The format engine: keys, packs, index, trees and snapshots of restic's format. The only user of `rustic_core`.
//!
//! Nothing outside of this module sees a type of that crate other than ids. What it does not promise is done here or by the
//! callers: it drops entries that it cannot read with a line in a log, saves a snapshot whether or not it is complete, and
//! does not compare a blob with its id.

mod backend;
mod lock_file;
mod node;
mod offer;
mod prune;
mod snapshot;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustic_core::{
    BackupOptions, BlobId, CheckOptions, ConfigOptions, IndexedFullStatus, KeyOptions,
    NoProgressBars, OpenStatus, PackedId, ParentOptions, Repository, RepositoryBackends,
    RepositoryOptions, RusticError,
    repofile::{BlobType, Node, SnapshotFile, SnapshotSummary},
};

pub(crate) use lock_file::{LockCipher, LockFile, MAX_LOCK};
pub(crate) use node::{LinkId, StoredEntry};
pub(crate) use offer::{Offer, Opener, Source, encode};
pub(crate) use prune::Removals;
pub(crate) use rustic_core::{DataId, TreeId};
pub use snapshot::Snapshot;

use crate::{Error, Result, error::Kind, lock::RepositoryLock, storage::Storage};
use backend::{Backend, Deferred};
use offer::Adapter;

/// What the snapshots of this program say wrote them.
const PROGRAM: &str = concat!("pvferry ", env!("CARGO_PKG_VERSION"));

/// The last failure of the storage.
type Failure = Arc<Mutex<Option<Error>>>;

/// A repository whose key is known.
pub(crate) struct Engine {
    storage: Arc<Storage>,
    opened: Repository<OpenStatus>,
    failure: Failure,
}

/// A repository whose index is in memory.
pub(crate) struct Indexed {
    storage: Arc<Storage>,
    indexed: Repository<IndexedFullStatus>,
    failure: Failure,
}

/// Where a blob of content lies.
pub(crate) struct BlobPlace {
    pub(crate) pack: String,
    /// Where it ends in the pack. The header of the pack follows.
    pub(crate) end: u64,
    /// Bytes of its content.
    pub(crate) length: u64,
}

/// Who and what a new snapshot is of.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub(crate) host: String,
    pub(crate) path: PathBuf,
    pub(crate) tags: Vec<String>,
}

impl Engine {
    fn connect(
        storage: Arc<Storage>,
        deferred: Option<Arc<Deferred>>,
    ) -> Result<(Repository<()>, Arc<AtomicBool>, Failure)> {
        let (hold_snapshots, failure) = (Arc::default(), Arc::default());
        let backend = Backend {
            storage,
            hold_snapshots: Arc::clone(&hold_snapshots),
            failure: Arc::clone(&failure),
            deferred,
        };
        let backends = RepositoryBackends::new(Arc::new(backend), None);
        let mut options = RepositoryOptions::default();
        options.no_cache = true;
        let repository = Repository::new_with_progress(&options, &backends, NoProgressBars {})
            .map_err(|error| failed("open the repository", &error, &failure))?;
        Ok((repository, hold_snapshots, failure))
    }

    /// Creates an empty repository, which `password` opens.
    pub(crate) fn init(storage: Arc<Storage>, password: &str) -> Result<String> {
        let (repository, _, failure) = Self::connect(storage, None)?;
        let exists = repository
            .config_id()
            .map_err(|error| failed("look for a repository", &error, &failure))?;
        if exists.is_some() {
            let what = format!("{}: a repository exists here already", repository.name);
            return Err(Error::new(Kind::Selection, what));
        }
        let created = repository
            .init(&credentials(password), &KeyOptions::default(), &ConfigOptions::default())
            .map_err(|error| failed("create the repository", &error, &failure))?;
        Ok(created.config().id.to_hex().to_string())
    }

    /// Opens a repository with `password`.
    pub(crate) fn open(storage: Arc<Storage>, password: &str) -> Result<Self> {
        let (repository, _, failure) = Self::connect(Arc::clone(&storage), None)?;
        let found = repository
            .config_id()
            .map_err(|error| failed("look for the repository", &error, &failure))?;
        if found.is_none() {
            let what = format!("{}: no repository here: create one with init", repository.name);
            return Err(Error::new(Kind::Selection, what));
        }
        let name = repository.name.clone();
        let opened = repository.open(&credentials(password)).map_err(|error| {
            let wrong = error.is_code("C002") || error.is_incorrect_password();
            match failure.lock().take() {
                None if wrong => Error::new(Kind::Usage, format!("{name}: wrong password")),
                Some(storage) => storage,
                None => Error::new(Kind::Damaged, sentence("open the repository", &error)),
            }
        })?;
        Ok(Self { storage, opened, failure })
    }

    /// Locks the repository.
    pub(crate) fn lock(&self, exclusive: bool) -> Result<RepositoryLock> {
        let cipher = LockCipher::new(&self.opened.key())
            .ok_or_else(|| Error::new(Kind::Damaged, "the key of the repository is malformed"))?;
        RepositoryLock::acquire(&self.storage, cipher, exclusive)
    }

    /// All snapshots, the oldest first.
    pub(crate) fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut files = self
            .opened
            .get_all_snapshots()
            .map_err(|error| failed("read the snapshots", &error, &self.failure))?;
        files.sort_by_key(|file| (file.time.timestamp(), file.id));
        Ok(files.into_iter().map(|file| Snapshot { file }).collect())
    }

    /// The ids of all snapshots that the storage lists.
    pub(crate) fn snapshot_ids(&self) -> Result<BTreeSet<String>> {
        let files = self.storage.list(backend::SNAPSHOTS)?;
        Ok(files.into_iter().map(|(path, _)| file_name(path)).collect())
    }

    /// Removes the file of a snapshot. The engine would panic where that fails.
    pub(crate) fn remove_snapshot(&self, snapshot: &Snapshot) -> Result<()> {
        self.remove_file(&format!("{}/{}", backend::SNAPSHOTS, snapshot.id()))
    }

    /// Removes a file by its path.
    pub(crate) fn remove_file(&self, path: &str) -> Result<()> {
        self.storage.remove(path)
    }

    /// The repository once more, to load an index into.
    fn again(
        &self,
        deferred: Option<Arc<Deferred>>,
    ) -> Result<(Repository<OpenStatus>, Arc<AtomicBool>, Failure)> {
        let storage = Arc::clone(&self.storage);
        let (repository, hold_snapshots, failure) = Self::connect(storage, deferred)?;
        let opened = repository
            .open(&rustic_core::Credentials::Masterkey(self.opened.key()))
            .map_err(|error| failed("open the repository", &error, &failure))?;
        Ok((opened, hold_snapshots, failure))
    }

    /// Loads the index.
    pub(crate) fn index(&self) -> Result<Indexed> {
        self.index_beside(None)
    }

    fn index_beside(&self, deferred: Option<Arc<Deferred>>) -> Result<Indexed> {
        let (opened, _, failure) = self.again(deferred)?;
        let indexed =
            opened.to_indexed().map_err(|error| failed("read the index", &error, &failure))?;
        Ok(Indexed { storage: Arc::clone(&self.storage), indexed, failure })
    }

    /// Stores what `source` offers. Answers a snapshot that is not saved yet.
    pub(crate) fn store<S: Source>(
        &self,
        source: S,
        label: &Label,
        parent: Option<&Snapshot>,
    ) -> Result<Snapshot> {
        let (opened, hold_snapshots, failure) = self.again(None)?;
        let cannot = |error: &RusticError| failed("store the volume", error, &failure);
        let indexed = opened.to_indexed_ids().map_err(|error| cannot(&error))?;
        let mut file = SnapshotFile::default();
        PROGRAM.clone_into(&mut file.program_version);
        label.host.clone_into(&mut file.hostname);
        for tag in &label.tags {
            file.tags.add(tag.clone());
        }
        file.summary = Some(SnapshotSummary::default());
        let mut parents = ParentOptions::default();
        match parent {
            Some(parent) => parents.parents = vec![parent.id()],
            None => parents.force = true,
        }
        let mut options = BackupOptions::default();
        options.no_scan = true;
        options.parent_opts = parents;
        hold_snapshots.store(true, Ordering::SeqCst);
        let stored = indexed.archive(
            &options,
            &Adapter(Mutex::new(Some(source))),
            file,
            std::slice::from_ref(&label.path),
        );
        let file = stored.map_err(|error| cannot(&error))?;
        let lost = failure.lock().take();
        lost.map_or(Ok(Snapshot { file }), Err)
    }

    /// Makes a snapshot visible.
    pub(crate) fn save(&self, snapshot: &Snapshot) -> Result<Snapshot> {
        let before = self.snapshots()?;
        self.opened
            .save_snapshots(vec![snapshot.file.clone()])
            .map_err(|error| failed("save the snapshot", &error, &self.failure))?;
        // The id is a digest of what was written, which only the file itself tells.
        let new = |found: &Snapshot| {
            found.file.tree == snapshot.file.tree
                && found.file.time == snapshot.file.time
                && before.iter().all(|old| old.file.id != found.file.id)
        };
        self.snapshots()?.into_iter().find(new).ok_or_else(|| {
            Error::new(Kind::Storage, "the snapshot was written and cannot be found".to_owned())
        })
    }

    /// Checks the structure of the repository, and with `read_data` the content of every pack. Answers whether it is sound,
    /// and what was found.
    pub(crate) fn check(&self, read_data: bool) -> Result<(bool, Vec<String>)> {
        // The check of the engine panics at a directory that it cannot read.
        let mut unreadable = self.unreadable_trees()?;
        if !unreadable.is_empty() {
            unreadable.push("Error: content was not checked, since directories are damaged".into());
            return Ok((false, unreadable));
        }
        let mut options = CheckOptions::default();
        options.read_data = read_data;
        let results = self
            .opened
            .check(options)
            .map_err(|error| failed("check the repository", &error, &self.failure))?;
        let found = results.0.iter().map(|(level, error)| format!("{level:?}: {error}")).collect();
        let read = self.failure.lock().take();
        match read {
            Some(error) if results.is_ok().is_ok() => Err(error),
            _ => Ok((results.is_ok().is_ok(), found)),
        }
    }

    /// The directories of all snapshots that cannot be read.
    fn unreadable_trees(&self) -> Result<Vec<String>> {
        Ok(self.index()?.visit_trees(&self.snapshots()?, |_| ())?.1)
    }
}

impl Indexed {
    /// The entries of a tree, in the order of their names. An entry that cannot be one of a volume is an error of its own.
    pub(crate) fn tree(&self, id: TreeId) -> Result<Vec<Result<StoredEntry, String>>> {
        Ok(self.nodes(id)?.into_iter().map(node::decode).collect())
    }

    fn nodes(&self, id: TreeId) -> Result<Vec<Node>> {
        let tree = self.indexed.get_tree(&id);
        Ok(tree.map_err(|error| failed("read a directory", &error, &self.failure))?.nodes)
    }

    /// Visits all directories of snapshots, each once, and the nodes in them. Answers the directories, and what could not be
    /// read.
    fn visit_trees(
        &self,
        snapshots: &[Snapshot],
        mut visit: impl FnMut(&Node),
    ) -> Result<(BTreeSet<TreeId>, Vec<String>)> {
        let mut queue: Vec<_> = snapshots.iter().map(Snapshot::tree).collect();
        let (mut visited, mut unreadable) = (BTreeSet::new(), Vec::new());
        while let Some(id) = queue.pop() {
            if !visited.insert(id) {
                continue;
            }
            match self.nodes(id) {
                Ok(nodes) => {
                    nodes.iter().for_each(&mut visit);
                    if nodes.iter().any(|node| node.is_dir() && node.subtree.is_none()) {
                        unreadable.push(format!("Error: tree {id}: a directory without entries"));
                    }
                    queue.extend(nodes.into_iter().filter_map(|node| node.subtree));
                }
                Err(error) if error.kind == Kind::Damaged => {
                    unreadable.push(format!("Error: tree {id}: {}", error.what));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((visited, unreadable))
    }

    /// Where a blob lies; `None` where the index does not have it.
    pub(crate) fn place<T: PackedId>(&self, id: &T) -> Option<BlobPlace> {
        let entry = self.indexed.get_index_entry(id).ok()?;
        Some(BlobPlace {
            pack: entry.pack.to_hex().to_string(),
            end: u64::from(entry.location.offset) + u64::from(entry.location.length),
            length: u64::from(entry.data_length()),
        })
    }

    /// Bytes of a blob; `None` where the index does not have it.
    pub(crate) fn blob_size(&self, id: &DataId) -> Option<u64> {
        self.indexed.get_index_entry(id).ok().map(|entry| u64::from(entry.data_length()))
    }

    /// All packs that the storage lists, with their sizes.
    pub(crate) fn packs(&self) -> Result<HashMap<String, u64>> {
        let files = self.storage.list(backend::PACKS)?;
        Ok(files.into_iter().map(|(path, size)| (file_name(path), size)).collect())
    }

    /// The content of a blob, compared with its id.
    pub(crate) fn blob(&self, id: &DataId) -> Result<Bytes> {
        let content = self
            .indexed
            .get_blob_cached(&BlobId::from(*id), BlobType::Data)
            .map_err(|error| failed("read content", &error, &self.failure))?;
        if is_blob(id, &content) {
            Ok(content)
        } else {
            Err(Error::new(Kind::Damaged, format!("blob {id}: content does not match its id")))
        }
    }
}

/// True where `content` is what `id` stands for.
pub(crate) fn is_blob(id: &DataId, mut content: &[u8]) -> bool {
    let len = content.len() as u64;
    BlobId::from(*id).blob_matches_reader(len, &mut content)
}

fn file_name(path: String) -> String {
    path.rsplit('/').next().map_or_else(String::new, str::to_owned)
}

fn credentials(password: &str) -> rustic_core::Credentials {
    rustic_core::Credentials::password(password)
}

/// An error of the engine; that of the storage, where one is behind it.
fn failed(doing: &str, error: &RusticError, storage: &Mutex<Option<Error>>) -> Error {
    let cause = storage.lock().take();
    cause.unwrap_or_else(|| Error::new(Kind::Damaged, sentence(doing, error)))
}

fn sentence(doing: &str, error: &RusticError) -> String {
    let text = error.display_log();
    let text = text.strip_prefix("Error: ").unwrap_or(&text);
    let text = text.split(" (kind: ").next().unwrap_or(text);
    format!("cannot {doing}: {}", text.lines().collect::<Vec<_>>().join(" "))
}
