//! What nothing refers to any more, and what replaces packs that are partly in use.
//!
//! The engine decides, writes new packs and a new index, and asks for removals, which are deferred. Then everything that
//! snapshots refer to is looked up in what would remain. Only then the caller removes files.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
};

use rustic_core::{
    BlobId, DataId, LimitOption, OpenStatus, PackedId, PruneOptions, PrunePlan, Repository, TreeId,
};
use sha2::{Digest as _, Sha256};

use super::{
    Engine, Failure, Indexed, Snapshot,
    backend::{Deferred, INDEX, PACKS},
    failed, file_name,
};
use crate::{Error, Result, error::Kind};

/// Share of the stored bytes that may be unused afterwards, in percent. To use it costs less than to write packs again.
const MAX_UNUSED: u64 = 5;

/// What a prune would do.
pub(crate) struct Plan<'a> {
    engine: &'a Engine,
    opened: Repository<OpenStatus>,
    failure: Failure,
    deferred: Arc<Deferred>,
    options: PruneOptions,
    plan: PrunePlan,
    used: Used,
}

/// What a prune writes, also while it writes.
pub(crate) struct Written(Arc<Deferred>);

/// What snapshots refer to.
struct Used {
    snapshots: BTreeSet<String>,
    trees: BTreeSet<TreeId>,
    content: BTreeSet<DataId>,
}

/// Files to remove, in this order, with their sizes.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    /// Index files, which refer to packs that are removed.
    pub(crate) index: Vec<(String, u64)>,
    pub(crate) packs: Vec<(String, u64)>,
    /// Bytes that were written in their place.
    pub(crate) written: u64,
}

impl Engine {
    /// Decides what to remove, as if the snapshots `without` did not exist. `stop` ends this and what follows.
    pub(crate) fn plan_prune(
        &self,
        without: &[Snapshot],
        stop: &Arc<AtomicBool>,
    ) -> Result<Plan<'_>> {
        let deferred = Arc::new(Deferred { stop: Arc::clone(stop), ..Deferred::default() });
        let used = self.used(without, &deferred)?;
        used.refuse_ambiguous_ids()?;
        let (opened, _, failure) = self.again(Some(Arc::clone(&deferred)))?;
        let mut options = PruneOptions::default();
        // The lock is exclusive: nobody uses what is not in use now.
        options.instant_delete = true;
        options.max_repack = LimitOption::Unlimited;
        options.max_unused = LimitOption::Percentage(MAX_UNUSED);
        options.ignore_snaps = without.iter().map(|snapshot| snapshot.file.id).collect();
        let plan = opened
            .prune_plan(&options)
            .map_err(|error| failed("look for unused data", &error, &failure))?;
        Ok(Plan { engine: self, opened, failure, deferred, options, plan, used })
    }

    fn used(&self, without: &[Snapshot], deferred: &Arc<Deferred>) -> Result<Used> {
        let mut snapshots = self.snapshots()?;
        snapshots.retain(|one| without.iter().all(|other| other.id() != one.id()));
        let indexed = self.index_beside(Some(Arc::clone(deferred)))?;
        let mut content = BTreeSet::new();
        let (trees, unreadable) = indexed.visit_trees(&snapshots, |node| {
            content.extend(node.content.iter().flatten());
        })?;
        if let Some(first) = unreadable.first() {
            let cure = "nothing was removed: check lists all damage";
            return Err(Error::new(Kind::Damaged, format!("{first}: {cure}")));
        }
        Ok(Used { snapshots: snapshots.iter().map(Snapshot::id).collect(), trees, content })
    }
}

impl Plan<'_> {
    /// Bytes that would be removed, less those that would be written again.
    pub(crate) fn freed(&self) -> u64 {
        let (stats, sizes) = (&self.plan.stats, self.plan.stats.size_sum());
        sizes.remove
            + sizes.repackrm
            + stats.size_unref
            + stats.size_to_delete.remove
            + stats.size_to_delete.keep
    }

    /// What [`Self::write`] writes.
    pub(crate) fn written(&self) -> Written {
        Written(Arc::clone(&self.deferred))
    }

    /// Writes what replaces files, reads it back, and answers the files to remove.
    pub(crate) fn write(self) -> Result<Removals> {
        let Self { engine, opened, failure, deferred, options, plan, used } = self;
        opened
            .prune(&options, plan)
            .map_err(|error| failed("store used data again", &error, &failure))?;
        if let Some(lost) = failure.lock().take() {
            return Err(lost);
        }
        let sizes: BTreeMap<_, _> = [INDEX, PACKS]
            .into_iter()
            .map(|dir| engine.storage.list(dir))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        let mut written = 0;
        for path in &*deferred.written.lock() {
            written += engine.read_back(path)?;
        }
        let (mut remaining, mut removed) = (sizes, Vec::new());
        for path in &*deferred.removed.lock() {
            removed.extend(remaining.remove_entry(path));
        }
        let indexed = engine.index_beside(Some(deferred))?;
        let packs = remaining.into_iter().map(|(path, size)| (file_name(path), size)).collect();
        used.look_up(engine, &indexed, &packs)?;
        Ok(Removals { written, ..Removals::of(removed) })
    }
}

impl Written {
    /// The files that were written, to remove them again.
    pub(crate) fn undo(&self) -> Removals {
        Removals::of(self.0.written.lock().iter().map(|path| (path.clone(), 0)))
    }
}

impl Removals {
    fn of(files: impl IntoIterator<Item = (String, u64)>) -> Self {
        let (index, packs) = files.into_iter().partition(|(path, _)| path.starts_with(INDEX));
        Self { index, packs, written: 0 }
    }
}

impl Engine {
    /// Reads a file that was written, compares it with the digest that is its name, and answers its size.
    fn read_back(&self, path: &str) -> Result<u64> {
        let content = self.storage.read(path, None)?;
        let digest: String =
            Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        if digest == file_name(path.to_owned()) {
            return Ok(content.len() as u64);
        }
        let what = format!("{path} is not stored as it was written: nothing was removed");
        Err(Error::new(Kind::Damaged, what))
    }
}

impl Used {
    /// Fails where a file holds the same bytes as a stored directory. The engine has one table of ids for both, and would keep
    /// only one of the two blobs.
    fn refuse_ambiguous_ids(&self) -> Result<()> {
        let both = |id: &&DataId| self.trees.contains(&TreeId::from(BlobId::from(**id)));
        let Some(id) = self.content.iter().find(both) else { return Ok(()) };
        let what = format!(
            "a file holds the same bytes as the stored directory {id}: only restic prune can tell them apart"
        );
        Err(Error::new(Kind::Selection, what))
    }

    /// Fails unless the index and the packs that remain hold everything.
    fn look_up(
        &self,
        engine: &Engine,
        indexed: &Indexed,
        packs: &BTreeMap<String, u64>,
    ) -> Result<()> {
        self.trees.iter().try_for_each(|id| held(indexed, packs, id, &id.to_hex()))?;
        self.content.iter().try_for_each(|id| held(indexed, packs, id, &id.to_hex()))?;
        // One that knows nothing of locks may have come meanwhile.
        if engine.snapshot_ids()?.is_subset(&self.snapshots) {
            return Ok(());
        }
        let what =
            "a snapshot was saved during the prune, in spite of its lock: nothing was removed";
        Err(Error::new(Kind::Locked, what))
    }
}

fn held<T: PackedId>(
    indexed: &Indexed,
    packs: &BTreeMap<String, u64>,
    id: &T,
    name: &str,
) -> Result<()> {
    let what = match indexed.place(id) {
        // The header of the pack lies behind its blobs.
        Some(place) => match packs.get(&place.pack) {
            Some(size) if *size > place.end => return Ok(()),
            Some(_) => format!("pack {} is truncated", place.pack),
            None => format!("pack {} would be missing", place.pack),
        },
        None => format!("blob {name} would be missing"),
    };
    Err(Error::new(Kind::Damaged, format!("{what}, which a snapshot needs: nothing was removed")))
}
