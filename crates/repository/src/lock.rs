//! The lock of a repository in use, as restic writes it.
//!
//! A lock is a file that says who uses the repository, and whether alone. It is written first; then others are looked for,
//! and one that conflicts makes this one go away again. While the repository is used the file is replaced by a fresh one
//! every five minutes. One that is older than half an hour, or than ten minutes with a process on this host that does not
//! exist, is stale and removed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rustix::{
    io::Errno,
    process::{Pid, getpid, test_kill_process},
    system::uname,
};

use crate::{
    Error, Result,
    engine::{LockCipher, LockFile, MAX_LOCK},
    error::Kind,
    storage::Storage,
};

const DIR: &str = "locks";
/// How often the file is replaced, and how soon that is tried again where it failed.
const REFRESH: Duration = Duration::from_secs(5 * 60);
const RETRY: Duration = Duration::from_secs(30);
/// Seconds after which a lock is stale.
const STALE: i64 = 30 * 60;
/// Seconds after which a lock has missed a refresh. Only then the absence of its process counts: pods that share the name of
/// their node do not see each other's processes.
const MISSED: i64 = 10 * 60;
/// After this time without a fresh file others may take the lock for stale.
const LOST: Duration = Duration::from_secs(25 * 60);
/// How long two that lock at the same time wait before they look for each other again.
const SETTLE: Duration = Duration::from_millis(200);

/// A lock, held as long as it lives.
pub(crate) struct RepositoryLock {
    held: Arc<Held>,
    end: Option<mpsc::Sender<()>>,
    refresher: Option<JoinHandle<()>>,
}

struct Held {
    storage: Arc<Storage>,
    cipher: LockCipher,
    exclusive: bool,
    /// Name of the current file, and when it was written.
    current: Mutex<(String, Instant)>,
    /// Others may have used the repository alone meanwhile. A fresh file does not bring back what they removed.
    lost: AtomicBool,
}

impl RepositoryLock {
    /// Locks the repository, `exclusive` or beside others that are not.
    ///
    /// # Errors
    /// [`Kind::Locked`] where another lock conflicts; those of the storage.
    pub(crate) fn acquire(
        storage: &Arc<Storage>,
        cipher: LockCipher,
        exclusive: bool,
    ) -> Result<Self> {
        refuse_conflicts(storage, &cipher, exclusive, "")?;
        let name = write(storage, &cipher, exclusive)?;
        let held = Arc::new(Held {
            storage: Arc::clone(storage),
            cipher,
            exclusive,
            current: Mutex::new((name.clone(), Instant::now())),
            lost: AtomicBool::new(false),
        });
        // From here on dropping removes the file.
        let mut lock = Self { held: Arc::clone(&held), end: None, refresher: None };
        thread::sleep(SETTLE);
        refuse_conflicts(storage, &held.cipher, exclusive, &name)?;
        let (end, ended) = mpsc::channel();
        let refresher = thread::Builder::new().name("lock".to_owned()).spawn(move || {
            let mut pause = REFRESH;
            while ended.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                pause = if held.refresh().is_ok() { REFRESH } else { RETRY };
            }
        });
        let failed = |error| Error::new(Kind::Storage, format!("cannot start a thread: {error}"));
        (lock.end, lock.refresher) = (Some(end), Some(refresher.map_err(failed)?));
        Ok(lock)
    }

    /// Fails where others may have taken the lock for stale, or it was removed.
    pub(crate) fn check(&self) -> Result<()> {
        self.held.confirm(&self.held.current.lock())
    }
}

impl Held {
    /// Writes a fresh file, and removes the old one then. The old one must still exist when the fresh one does: otherwise
    /// there was a time without any, in which others may have locked the repository.
    fn refresh(&self) -> Result<()> {
        let mut current = self.current.lock();
        let name = write(&self.storage, &self.cipher, self.exclusive)?;
        if let Err(error) = self.confirm(&current) {
            // One that cannot be removed becomes stale.
            let _ = self.storage.remove(&format!("{DIR}/{name}"));
            return Err(error);
        }
        let old = std::mem::replace(&mut *current, (name, Instant::now()));
        self.storage.remove(&format!("{DIR}/{}", old.0))
    }

    /// Fails where the lock is lost. It stays lost then.
    fn confirm(&self, current: &(String, Instant)) -> Result<()> {
        let fresh = !self.lost.load(Ordering::SeqCst) && current.1.elapsed() < LOST;
        if fresh && self.storage.size(&format!("{DIR}/{}", current.0))?.is_some() {
            return Ok(());
        }
        self.lost.store(true, Ordering::SeqCst);
        let what = "the lock of the repository was lost: others may have removed data";
        Err(Error::new(Kind::Locked, what))
    }
}

impl Drop for RepositoryLock {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(refresher) = self.refresher.take() {
            // It does not panic.
            let _ = refresher.join();
        }
        // One that cannot be removed becomes stale.
        let _ = self.held.storage.remove(&format!("{DIR}/{}", self.held.current.lock().0));
    }
}

fn write(storage: &Storage, cipher: &LockCipher, exclusive: bool) -> Result<String> {
    let lock =
        LockFile { time: now(), exclusive, host: host(), pid: getpid().as_raw_nonzero().get() };
    let (name, sealed) = cipher
        .seal(&lock)
        .ok_or_else(|| Error::new(Kind::Storage, "cannot encrypt a lock of the repository"))?;
    storage.write(&format!("{DIR}/{name}"), vec![sealed.into()])?;
    Ok(name)
}

/// Looks at all locks but `own`. Stale ones are removed.
fn refuse_conflicts(
    storage: &Storage,
    cipher: &LockCipher,
    exclusive: bool,
    own: &str,
) -> Result<()> {
    for (path, size) in storage.list(DIR)? {
        if path.rsplit('/').next() == Some(own) {
            continue;
        }
        let content = match (size <= MAX_LOCK).then(|| storage.read(&path, None)) {
            Some(Ok(content)) => content,
            // It was given up meanwhile.
            Some(Err(error)) if error.kind == Kind::Damaged => continue,
            Some(Err(error)) => return Err(error),
            None => return Err(unreadable(&path)),
        };
        let lock = cipher.open(&content).ok_or_else(|| unreadable(&path))?;
        if is_stale(&lock) {
            storage.remove(&path)?;
        } else if exclusive || lock.exclusive {
            let LockFile { host, pid, time, .. } = lock;
            let kind = if lock.exclusive { "exclusively " } else { "" };
            let host = wire::name::escape(host.as_bytes()).to_string();
            let age = now().saturating_sub(time);
            let what =
                format!("the repository is {kind}locked by process {pid} on {host}, {age} s ago");
            return Err(Error::new(Kind::Locked, what));
        }
    }
    Ok(())
}

fn unreadable(path: &str) -> Error {
    Error::new(
        Kind::Locked,
        format!("{path} is not a readable lock: restic unlock --remove-all removes it"),
    )
}

fn is_stale(lock: &LockFile) -> bool {
    let gone = || {
        let pid = Pid::from_raw(lock.pid);
        pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
    };
    let age = now().saturating_sub(lock.time);
    age > STALE || (age > MISSED && lock.host == host() && gone())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn host() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Credentials, Location, engine::Engine};

    /// An empty repository, and a lock of it.
    fn locked() -> (tempfile::TempDir, RepositoryLock) {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::from_names(|_| None);
        let location = Location::Local(dir.path().join("repository"));
        let storage = Arc::new(Storage::open(&location, &credentials).unwrap());
        Engine::init(Arc::clone(&storage), "password").unwrap();
        let lock = Engine::open(storage, "password").unwrap().lock(false).unwrap();
        lock.check().unwrap();
        (dir, lock)
    }

    #[test]
    fn lock_that_was_removed_stays_lost_after_a_refresh() {
        let (dir, lock) = locked();
        let locks = dir.path().join("repository/locks");
        std::fs::remove_file(locks.join(&lock.held.current.lock().0)).unwrap();
        assert_eq!(lock.held.refresh().unwrap_err().kind, Kind::Locked);
        assert_eq!(lock.check().unwrap_err().kind, Kind::Locked);
        drop(lock);
        assert_eq!(std::fs::read_dir(locks).unwrap().count(), 0);
    }

    #[test]
    fn lock_that_missed_its_refreshes_stays_lost_after_a_late_one() {
        let (_dir, lock) = locked();
        lock.held.current.lock().1 = Instant::now().checked_sub(LOST).unwrap();
        assert_eq!(lock.held.refresh().unwrap_err().kind, Kind::Locked);
        assert_eq!(lock.check().unwrap_err().kind, Kind::Locked);
    }

    #[test]
    fn lock_that_is_refreshed_in_time_is_kept() {
        let (dir, lock) = locked();
        let before = lock.held.current.lock().0.clone();
        lock.held.refresh().unwrap();
        lock.check().unwrap();
        assert_ne!(lock.held.current.lock().0, before);
        assert_eq!(std::fs::read_dir(dir.path().join("repository/locks")).unwrap().count(), 1);
    }
}
