//! Removal of snapshots. What only they refer to is removed by a prune.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crate::{
    Error, Policy, PruneSummary, Repository, Result, Snapshot, TagList, error::Kind,
    lock::RepositoryLock, problems::Found, problems::Problems,
};

/// Which snapshots to remove.
#[derive(Debug, Clone)]
pub enum Forget {
    /// These: ids, the beginning of ids, or `latest`.
    Ids(Vec<String>),
    /// Those that the filter matches and the policy does not keep. The policy is applied to the snapshots of each host and
    /// set of paths by themselves.
    Policy(Policy, SnapshotFilter),
}

/// What a run that removes snapshots does.
#[derive(Debug, Clone)]
pub struct ForgetOptions {
    /// Which snapshots to remove.
    pub what: Forget,
    /// Remove what nothing refers to then, unless a snapshot could not be removed.
    pub prune: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// Which snapshots a policy is applied to. What is empty matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// One of these hosts.
    pub hosts: Vec<String>,
    /// All of these paths.
    pub paths: Vec<String>,
    /// The tags of one of these lists.
    pub tags: Vec<TagList>,
}

impl SnapshotFilter {
    fn matches(&self, snapshot: &Snapshot) -> bool {
        let (paths, tags) = (snapshot.paths(), snapshot.tags());
        (self.hosts.is_empty() || self.hosts.iter().any(|host| host == snapshot.host()))
            && self.paths.iter().all(|path| paths.contains(path))
            && (self.tags.is_empty() || self.tags.iter().any(|list| list.matches(&tags)))
    }
}

/// What was removed.
#[derive(Debug, Clone)]
pub struct ForgetSummary {
    /// Snapshots that the policy keeps.
    pub kept: Vec<Snapshot>,
    /// Snapshots that were removed, or would be.
    pub removed: Vec<Snapshot>,
    /// Snapshots that could not be removed.
    pub problems: Found,
    /// What a prune removed afterwards.
    pub pruned: Option<PruneSummary>,
}

impl Repository {
    /// Removes snapshots. `stop` ends it early.
    ///
    /// # Errors
    /// [`Kind::Selection`] where a snapshot does not exist, [`Kind::Usage`] for a policy that would keep nothing of a host and
    /// path: nothing is removed then. Those of the storage and of the lock.
    pub fn forget(&self, options: &ForgetOptions, stop: &Arc<AtomicBool>) -> Result<ForgetSummary> {
        let ForgetOptions { what, prune, dry_run } = options;
        let (prune, dry_run) = (*prune, *dry_run);
        // Exclusive: two policies at a time may both remove what the other one keeps.
        let lock = self.engine.lock(!dry_run)?;
        let (kept, chosen) = choose(self.snapshots()?, what)?;
        let (removed, problems) = match dry_run {
            true => (chosen, Found::default()),
            false => self.remove_snapshots(chosen, &lock, stop)?,
        };
        let prune = prune && problems.count == 0;
        let without = if dry_run { &*removed } else { &[] };
        let pruned = prune.then(|| self.prune_locked(&lock, dry_run, without, stop)).transpose()?;
        Ok(ForgetSummary { kept, removed, problems, pruned })
    }

    fn remove_snapshots(
        &self,
        chosen: Vec<Snapshot>,
        lock: &RepositoryLock,
        stop: &AtomicBool,
    ) -> Result<(Vec<Snapshot>, Found)> {
        let (problems, mut tried) = (Problems::default(), Vec::new());
        let total = chosen.len();
        for snapshot in chosen {
            let ended = |kind, why: &str| {
                let done = tried.len();
                Err(Error::new(kind, format!("{why}: {done} of {total} snapshots were removed")))
            };
            if stop.load(Relaxed) {
                return ended(Kind::Stopped, "interrupted");
            }
            if let Err(error) = lock.check() {
                return ended(error.kind, &error.what);
            }
            match self.engine.remove_snapshot(&snapshot) {
                Ok(()) => tried.push(snapshot),
                Err(error) => problems.add(snapshot.id(), error.what),
            }
        }
        // Storage that keeps versions or protects files may say that one was removed.
        let listed = self.engine.snapshot_ids()?;
        tried.retain(|snapshot| {
            let gone = !listed.contains(&snapshot.id());
            if !gone {
                problems.add(snapshot.id(), "still exists after it was removed");
            }
            gone
        });
        Ok((tried, problems.take()))
    }
}

/// What is kept, and what is not.
fn choose(all: Vec<Snapshot>, what: &Forget) -> Result<(Vec<Snapshot>, Vec<Snapshot>)> {
    match what {
        Forget::Ids(ids) => {
            let mut chosen = BTreeSet::new();
            for id in ids {
                chosen.insert(crate::find_in(&all, id)?.id());
            }
            Ok(all.into_iter().partition(|snapshot| !chosen.contains(&snapshot.id())))
        }
        Forget::Policy(policy, _) if policy.is_empty() => {
            Err(Error::new(Kind::Usage, "no snapshot and no policy: nothing is removed"))
        }
        Forget::Policy(policy, filter) => {
            let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for snapshot in all.into_iter().rev().filter(|snapshot| filter.matches(snapshot)) {
                let key = (snapshot.host().to_owned(), snapshot.paths());
                groups.entry(key).or_default().push(snapshot);
            }
            let (mut kept, mut chosen) = (Vec::new(), Vec::new());
            for ((host, paths), group) in groups {
                let times: Vec<_> = group.iter().map(|s| (s.moment(), s.tags())).collect();
                let selected = policy.select(&times);
                if !selected.contains(&true) {
                    let host = wire::name::escape(host.as_bytes()).to_string();
                    let paths = wire::name::escape(paths.join(" ").as_bytes()).to_string();
                    let what = "the policy keeps no snapshot: nothing is removed";
                    return Err(Error::new(Kind::Usage, format!("{host} {paths}: {what}")));
                }
                for (snapshot, keep) in group.into_iter().zip(selected) {
                    if keep { &mut kept } else { &mut chosen }.push(snapshot);
                }
            }
            Ok((kept, chosen))
        }
    }
}
