//! Removal of what no snapshot refers to.
//!
//! Nothing is removed before everything that snapshots need was found in what remains. A run that ends early leaves files that
//! nothing refers to, and the next one removes them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;

use crate::{
    Error, Repository, Result, Snapshot,
    engine::Removals,
    error::Kind,
    lock::RepositoryLock,
    problems::{Found, Problems},
};

/// Requests at a time.
const REMOVERS: usize = 8;

/// What was removed.
#[derive(Debug, Clone, Default)]
pub struct PruneSummary {
    /// Files that were removed.
    pub files: u64,
    /// Bytes that were removed, less those that were written again; an estimate in a dry run. Negative where small files were
    /// written again and none could be removed.
    pub freed: i64,
    /// Files that could not be removed. The next prune tries again.
    pub problems: Found,
}

impl Repository {
    /// Removes what no snapshot refers to, and with `dry_run` only says how much that is. `stop` ends it early.
    ///
    /// # Errors
    /// [`Kind::Damaged`] where a snapshot cannot be read, or needs something that would not remain: nothing is removed then.
    /// Those of the storage and of the lock.
    pub fn prune(&self, dry_run: bool, stop: &Arc<AtomicBool>) -> Result<PruneSummary> {
        let lock = self.engine.lock(!dry_run)?;
        self.prune_locked(&lock, dry_run, &[], stop)
    }

    /// The same under a lock that is held already, as if the snapshots `without` did not exist.
    pub(crate) fn prune_locked(
        &self,
        lock: &RepositoryLock,
        dry_run: bool,
        without: &[Snapshot],
        stop: &Arc<AtomicBool>,
    ) -> Result<PruneSummary> {
        let plan = self.engine.plan_prune(without, stop)?;
        if dry_run {
            let freed = signed(plan.freed());
            return Ok(PruneSummary { freed, ..PruneSummary::default() });
        }
        lock.check()?;
        let written = plan.written();
        match plan.write() {
            Ok(removals) => self.remove(&removals, lock, stop),
            Err(error) => {
                if matches!(error.kind, Kind::Damaged | Kind::Stopped) {
                    // Nothing refers to what was written but itself. It would pile up with each attempt.
                    let _ = self.remove(&written.undo(), lock, &AtomicBool::new(false));
                }
                Err(error)
            }
        }
    }

    /// Index files first: afterwards nothing refers to the packs.
    fn remove(
        &self,
        removals: &Removals,
        lock: &RepositoryLock,
        stop: &AtomicBool,
    ) -> Result<PruneSummary> {
        let run = Removal { repository: self, lock, stop, problems: Problems::default() };
        let index = run.all(&removals.index)?;
        // An index file that stays refers to packs, which must stay then.
        let packs = if run.problems.is_empty() { run.all(&removals.packs)? } else { (0, 0) };
        Ok(PruneSummary {
            files: index.0 + packs.0,
            freed: signed(index.1 + packs.1) - signed(removals.written),
            problems: run.problems.take(),
        })
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

struct Removal<'a> {
    repository: &'a Repository,
    lock: &'a RepositoryLock,
    stop: &'a AtomicBool,
    problems: Problems,
}

impl Removal<'_> {
    /// Removes files, several at a time. Answers how many, and their bytes.
    fn all(&self, files: &[(String, u64)]) -> Result<(u64, u64)> {
        let (next, failure, done) = (AtomicUsize::new(0), Mutex::new(None), Mutex::new((0, 0)));
        let work = || {
            while let Some((path, size)) = files.get(next.fetch_add(1, Relaxed)) {
                match self.one(path) {
                    Ok(false) => {}
                    Ok(true) => {
                        let mut done = done.lock();
                        *done = (done.0 + 1, done.1 + size);
                    }
                    Err(error) => {
                        next.store(files.len(), Relaxed);
                        failure.lock().get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            (1..REMOVERS.min(files.len())).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let done = done.into_inner();
        failure.into_inner().map_or(Ok(done), Err)
    }

    /// Removes one file. True where that succeeded.
    fn one(&self, path: &str) -> Result<bool> {
        if self.stop.load(Relaxed) {
            let what = "interrupted: not everything that is unused was removed";
            return Err(Error::new(Kind::Stopped, what));
        }
        self.lock.check()?;
        let removed = self.repository.engine.remove_file(path);
        if let Err(error) = &removed {
            self.problems.add(path, &*error.what);
        }
        Ok(removed.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BackupOptions, Credentials, Forget, ForgetOptions, Location};

    /// A repository without snapshots, which has packs that nothing needs.
    fn unused() -> (tempfile::TempDir, Repository) {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "content").unwrap();
        let credentials = dir.path().join("credentials");
        std::fs::create_dir(&credentials).unwrap();
        std::fs::write(credentials.join("RESTIC_PASSWORD"), "password").unwrap();
        let credentials = Credentials::read(&credentials).unwrap();
        let location = Location::Local(dir.path().join("repository"));
        Repository::init(&location, &credentials).unwrap();
        let repository = Repository::open(&location, &credentials).unwrap();
        let options = BackupOptions {
            source,
            host: "host".into(),
            path: "/data".into(),
            tags: Vec::new(),
            filter: volume::filter::FilterRules::default(),
        };
        let stop = Arc::default();
        repository.backup(&options, &stop).unwrap();
        let what = Forget::Ids(vec!["latest".into()]);
        let options = ForgetOptions { what, prune: false, dry_run: false };
        repository.forget(&options, &stop).unwrap();
        (dir, repository)
    }

    /// How many packs and index files there are.
    fn files(dir: &tempfile::TempDir) -> usize {
        let list = |path: &str| std::fs::read_dir(dir.path().join("repository").join(path));
        let below = |path: &str| list(path).unwrap().map(|entry| entry.unwrap().path());
        let packs = below("data").map(|dir| std::fs::read_dir(dir).unwrap().count());
        packs.sum::<usize>() + below("index").count()
    }

    #[test]
    fn lock_that_is_lost_after_the_plan_ends_a_prune_before_anything_is_removed() {
        let (dir, repository) = unused();
        let before = files(&dir);
        let lock = repository.engine.lock(true).unwrap();
        let removals = repository.engine.plan_prune(&[], &Arc::default()).unwrap().write().unwrap();
        assert!(!removals.index.is_empty() && !removals.packs.is_empty(), "{removals:?}");
        let locks = dir.path().join("repository/locks");
        std::fs::read_dir(&locks).unwrap().for_each(|file| {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        });
        let failed = repository.remove(&removals, &lock, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(failed.kind, Kind::Locked, "{failed}");
        assert_eq!(files(&dir), before);
        drop(lock);
        assert!(repository.prune(false, &Arc::default()).unwrap().files >= 2);
        assert_eq!(files(&dir), 0);
    }

    #[test]
    fn snapshot_that_is_saved_beside_the_lock_ends_a_prune_before_anything_is_removed() {
        let (dir, repository) = unused();
        let before = files(&dir);
        let plan = repository.engine.plan_prune(&[], &Arc::default()).unwrap();
        let snapshots = dir.path().join("repository/snapshots");
        std::fs::write(snapshots.join("ab".repeat(32)), "").unwrap();
        assert_eq!(plan.write().unwrap_err().kind, Kind::Locked);
        assert_eq!(files(&dir), before);
    }

    #[test]
    fn prune_that_is_interrupted_removes_nothing() {
        let (dir, repository) = unused();
        let before = files(&dir);
        let stop = Arc::new(AtomicBool::new(true));
        assert_eq!(repository.prune(false, &stop).unwrap_err().kind, Kind::Stopped);
        assert_eq!(files(&dir), before);
    }
}
