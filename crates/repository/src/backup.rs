//! A volume into a new snapshot.
//!
//! The order makes the success: read and store, then list what was stored and compare it with the manifest of what was read,
//! then save the snapshot. Before the last step nothing of the run is visible, and a run that ends early leaves blobs which
//! the next one uses.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use volume::{Dir, filter::FilterRules};
use wire::FileKind;

use crate::{
    Error, Repository, Result, Snapshot,
    device::DeviceSource,
    engine::{Indexed, Label, StoredEntry},
    error::Kind,
    manifest,
    problems::Found,
    source::{Observed, VolumeSource},
    stored::{self, Step, StoredWalk},
};

/// The tag of a snapshot that does not hold all of its volume.
pub(crate) const PARTIAL_TAG: &str = "pvferry-partial";

/// What to back up, and as what.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The directory or block device.
    pub source: PathBuf,
    /// The host that the snapshot is of.
    pub host: String,
    /// The absolute path that it gets in the snapshot.
    pub path: PathBuf,
    /// Tags of the snapshot.
    pub tags: Vec<String>,
    /// What to leave out.
    pub filter: FilterRules,
}

/// What a backup did.
#[derive(Debug, Clone)]
pub struct BackupSummary {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Entries in it, the root included.
    pub entries: u64,
    /// Mount points and the like, whose content is not part of the volume.
    pub skipped: u64,
    /// Bytes of the regular files.
    pub bytes_total: u64,
    /// Bytes of them that were read: files as in the last snapshot are not.
    pub bytes_read: u64,
    /// Digest of the manifest.
    pub digest: [u8; 32],
    /// Entries that are not in the snapshot, or not as they should be.
    pub problems: Found,
}

impl Repository {
    /// Backs a directory or block device up into a new snapshot. `stop` cancels the backup, and no snapshot is saved.
    ///
    /// # Errors
    /// Where nothing was saved. Problems with single entries are in the summary, and the snapshot is tagged as partial.
    pub fn backup(&self, options: &BackupOptions, stop: &Arc<AtomicBool>) -> Result<BackupSummary> {
        check_path(&options.path)?;
        let observed = Arc::new(Observed::default());
        let source = OpenSource::open(options, &observed, stop)?;
        let lock = self.engine.lock(false)?;
        let label = Label {
            host: options.host.clone(),
            path: options.path.clone(),
            tags: options.tags.clone(),
        };
        let stored = match source {
            OpenSource::Tree(tree) => {
                self.engine.store(*tree, &label, self.parent(options)?.as_ref())
            }
            OpenSource::Device(device) => {
                let stored = self.engine.store(*device, &label, None);
                stored.and_then(|snapshot| observed.of_device().map(|()| snapshot))
            }
        };
        if stop.load(Relaxed) {
            return Err(Error::new(Kind::Stopped, "interrupted before the snapshot was saved"));
        }
        let mut snapshot = stored?;
        let indexed = self.engine.index()?;
        prove(&indexed, &snapshot, &options.path, &observed)?;
        let problems = observed.problems.take();
        if problems.count > 0 {
            snapshot.tag(PARTIAL_TAG);
        }
        if stop.load(Relaxed) {
            return Err(Error::new(Kind::Stopped, "interrupted before the snapshot was saved"));
        }
        lock.check()?;
        let snapshot = self.engine.save(&snapshot)?;
        let manifest = observed.manifest.lock();
        Ok(BackupSummary {
            snapshot,
            entries: manifest.len() as u64,
            skipped: observed.skipped.load(Relaxed),
            bytes_total: observed.bytes_total.load(Relaxed),
            bytes_read: observed.bytes_read.load(Relaxed),
            digest: manifest.digest(),
            problems,
        })
    }

    /// The last snapshot of the same host and path: files that did not change since are not read.
    fn parent(&self, options: &BackupOptions) -> Result<Option<Snapshot>> {
        let path = options.path.to_string_lossy();
        let same = |snapshot: &Snapshot| {
            snapshot.is_own() && snapshot.host() == options.host && snapshot.paths() == [&*path]
        };
        Ok(self.engine.snapshots()?.into_iter().rev().find(same))
    }
}

/// What is backed up.
enum OpenSource {
    Tree(Box<VolumeSource>),
    Device(Box<DeviceSource>),
}

impl OpenSource {
    fn open(
        options: &BackupOptions,
        observed: &Arc<Observed>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let (path, observed, stop) = (&options.path, Arc::clone(observed), Arc::clone(stop));
        if volume::device::is_block_device(&options.source)? {
            if !options.filter.is_empty() {
                let what = "--exclude: a block device has no entries to exclude";
                return Err(Error::new(Kind::Usage, what));
            }
            let device = DeviceSource::new(&options.source, path, observed, stop)?;
            return Ok(Self::Device(Box::new(device)));
        }
        let root = Dir::open_root(&options.source)
            .map_err(|error| Error::new(Kind::Selection, error.to_string()))?;
        let tree = VolumeSource::new(&root, path, options.filter.clone(), observed, stop)?;
        Ok(Self::Tree(Box::new(tree)))
    }
}

/// The path is what `restore` finds the volume by, and its last name bears the metadata of the root.
fn check_path(path: &Path) -> Result<()> {
    let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && path.file_name().is_some() && plain && path.to_str().is_some() {
        return Ok(());
    }
    let what =
        format!("--path {}: expected an absolute path with at least one name", path.display());
    Err(Error::new(Kind::Usage, what))
}

/// Compares what is stored with what was read: every name and all metadata, in order, and that the content of each file has
/// the length of the file and lies in packs that the storage lists with all of their bytes.
fn prove(indexed: &Indexed, snapshot: &Snapshot, path: &Path, observed: &Observed) -> Result<()> {
    let mut proof = Proof { indexed, observed, packs: HashMap::new() };
    if !observed.complete.load(Relaxed) {
        return Err(Error::new(Kind::Volume, "the volume was not read to its end"));
    }
    let unequal = |what: String| observed.problems.add(".", what);
    let Some(root) = stored::find(indexed, snapshot.tree(), path)? else {
        return Err(Error::new(Kind::Damaged, "the root of the volume was not stored"));
    };
    let manifest = observed.manifest.lock();
    let mut expected = manifest.lines();
    let mut compare = |depth: usize, stored: &StoredEntry| {
        let line = manifest::line(depth, &stored.entry, stored.link);
        expected.next() == Some(&line)
    };
    let mut equal = compare(1, &root);
    if !equal {
        unequal("the root is not stored as it was read".to_owned());
    }
    if root.entry.meta.kind == FileKind::File {
        // A block device. In place of a tree, the comparison above has reported it.
        proof.content(&root);
        return proof.packs();
    }
    let Some(tree) = root.subtree else {
        return Err(Error::new(Kind::Damaged, "the root of the volume was not stored"));
    };
    for step in StoredWalk::new(indexed, tree)? {
        match step {
            Step::Entry(depth, stored) => {
                // The root has no level of its own in the walk of the source.
                if equal && !compare(depth + 1, &stored) {
                    equal = false;
                    observed
                        .problems
                        .add(stored.entry.name.to_string(), "is not stored as it was read");
                }
                proof.content(&stored);
            }
            Step::Leave => {}
            Step::Unreadable(what) => {
                equal = false;
                unequal(format!("cannot be read back: {what}"));
            }
        }
    }
    if equal && expected.next().is_some() {
        unequal("entries that were read are not stored".to_owned());
    }
    proof.packs()
}

struct Proof<'a> {
    indexed: &'a Indexed,
    observed: &'a Observed,
    /// Where the last blob of the volume ends in each pack.
    packs: HashMap<String, u64>,
}

impl Proof<'_> {
    fn content(&mut self, stored: &StoredEntry) {
        if stored.entry.meta.kind != FileKind::File {
            return;
        }
        let mut size = 0;
        for blob in &stored.content {
            let Some(place) = self.indexed.place(blob) else {
                let what = format!("blob {blob} is not in the index");
                return self.observed.problems.add(stored.entry.name.to_string(), what);
            };
            let end = self.packs.entry(place.pack).or_default();
            *end = place.end.max(*end);
            size += place.length;
        }
        if size != stored.entry.meta.size {
            let what = format!("{size} bytes are stored of {}", stored.entry.meta.size);
            self.observed.problems.add(stored.entry.name.to_string(), what);
        }
    }

    fn packs(&self) -> Result<()> {
        let listed = self.indexed.packs()?;
        for (pack, end) in &self.packs {
            let what = match listed.get(pack) {
                None => "is not listed by the storage",
                // The header of the pack lies behind its blobs.
                Some(size) if size <= end => "is truncated",
                Some(_) => continue,
            };
            let cure = "restic repair packs takes it out of the index, and the next backup stores its content again";
            return Err(Error::new(Kind::Damaged, format!("pack {pack} {what}: {cure}")));
        }
        Ok(())
    }
}
