//! A stored file onto a block device.
//!
//! Threads fetch blobs and write them. At the end the device is flushed, read back, and compared with the ids of the blobs.

use std::{
    collections::HashSet,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    thread,
};

use bytes::Bytes;
use parking_lot::Mutex;
use volume::target_device::TargetDevice;
use wire::FileKind;

use super::{RestoreOptions, RestoreSummary, THREADS, content::check_size};
use crate::{
    Error, Repository, Result, Snapshot,
    backup::PARTIAL_TAG,
    device::unusable,
    engine::{self, DataId, Indexed, StoredEntry},
    error::Kind,
    manifest::Manifest,
    problems::Problems,
    stored,
};

/// Bytes of one run, at most, unless a single blob is longer: a signal is noticed between two runs.
const MAX_RUN: u64 = 64 << 20;

/// The same blob, one or more times in a row: zeros mostly.
struct Run {
    blob: DataId,
    at: u64,
    /// Bytes of the blob.
    size: u64,
    count: u64,
}

/// One restore, shared by its threads.
struct DeviceRestore<'a> {
    indexed: &'a Indexed,
    device: &'a TargetDevice,
    /// The stored file, for messages.
    shown: String,
    problems: Problems,
    /// Where the runs start that could not be fetched.
    missing: Mutex<HashSet<u64>>,
    bytes: AtomicU64,
    stop: &'a AtomicBool,
    fatal: Mutex<Option<Error>>,
}

impl Repository {
    /// Restores a file of a snapshot onto a block device.
    pub(super) fn restore_device(
        &self,
        snapshot: &Snapshot,
        options: &RestoreOptions,
        stop: &AtomicBool,
    ) -> Result<RestoreSummary> {
        let device = TargetDevice::open(&options.destination).map_err(|error| unusable(&error))?;
        let _repository_lock = self.engine.lock(false)?;
        let indexed = self.engine.index()?;
        let stored = stored_file(&indexed, snapshot, options)?;
        let (size, have) = (stored.entry.meta.size, device.size());
        if have < size {
            let what = format!(
                "the destination is too small: it has {have} bytes, the snapshot {size} bytes"
            );
            return Err(Error::new(Kind::Selection, what));
        }
        check_size(&indexed, &stored)?;
        let restore = DeviceRestore {
            indexed: &indexed,
            device: &device,
            shown: stored.entry.name.to_string(),
            problems: Problems::default(),
            missing: Mutex::default(),
            bytes: AtomicU64::new(0),
            stop,
            fatal: Mutex::default(),
        };
        if snapshot.tags().iter().any(|tag| tag == PARTIAL_TAG) {
            restore.problems.add(&*restore.shown, "the snapshot does not hold all of it");
        }
        let runs = runs(&indexed, &stored);
        restore.each(&runs, DeviceRestore::write)?;
        device.flush()?;
        device.drop_cache();
        restore.each(&runs, DeviceRestore::compare)?;
        let mut manifest = Manifest::default();
        manifest.add(1, &stored.entry, None);
        Ok(RestoreSummary {
            entries: 1,
            files_written: 1,
            bytes_total: restore.bytes.load(Relaxed),
            digest: manifest.digest(),
            problems: restore.problems.take(),
        })
    }
}

/// The file to restore: that of the snapshot, or the one that was asked for.
fn stored_file(
    indexed: &Indexed,
    snapshot: &Snapshot,
    options: &RestoreOptions,
) -> Result<StoredEntry> {
    let own = snapshot.paths().first().filter(|_| snapshot.is_own()).map(PathBuf::from);
    let path = options.path.clone().or(own);
    let found = match &path {
        Some(path) => stored::find(indexed, snapshot.tree(), path)?,
        None => None,
    };
    match found {
        Some(stored) if stored.entry.meta.kind == FileKind::File => Ok(stored),
        _ => {
            let path = path.as_deref().unwrap_or(Path::new("/")).as_os_str();
            let what = format!(
                "{} of the snapshot is not a file, but the destination is a block device",
                wire::name::escape(path.as_bytes())
            );
            Err(Error::new(Kind::Selection, what))
        }
    }
}

/// The content of a file as runs of equal blobs.
fn runs(indexed: &Indexed, stored: &StoredEntry) -> Vec<Run> {
    let (mut runs, mut at) = (Vec::<Run>::new(), 0);
    for blob in &stored.content {
        let size = indexed.blob_size(blob).unwrap_or(0);
        match runs.last_mut() {
            Some(run) if run.blob == *blob && (run.count + 1) * size <= MAX_RUN => run.count += 1,
            _ => runs.push(Run { blob: *blob, at, size, count: 1 }),
        }
        at += size;
    }
    runs
}

impl DeviceRestore<'_> {
    /// Fails where the run has to end.
    fn check(&self) -> Result<()> {
        if self.stop.load(Relaxed) {
            return Err(Error::new(Kind::Stopped, "interrupted before everything was restored"));
        }
        self.fatal.lock().clone().map_or(Ok(()), Err)
    }

    /// Has threads do `work` with each run.
    fn each(&self, runs: &[Run], work: fn(&Self, &Run) -> Result<()>) -> Result<()> {
        let next = AtomicUsize::new(0);
        let take = || {
            while self.check().is_ok()
                && let Some(run) = runs.get(next.fetch_add(1, Relaxed))
            {
                if let Err(error) = work(self, run) {
                    self.fatal.lock().get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..THREADS.min(runs.len()) {
                thread::Builder::new()
                    .name("restore".to_owned())
                    .spawn_scoped(scope, take)
                    .map_err(|error| {
                        Error::new(Kind::Storage, format!("cannot start a thread: {error}"))
                    })?;
            }
            Ok::<_, Error>(())
        })?;
        self.check()
    }

    /// Writes a run. Where its blob is damaged, it is reported, and the rest can be restored.
    fn write(&self, run: &Run) -> Result<()> {
        let content = match self.fetch(run) {
            Err(error) if error.kind == Kind::Damaged => {
                self.missing.lock().insert(run.at);
                let what = format!("from byte {} on: {}", run.at, error.what);
                self.problems.add(&*self.shown, what);
                return Ok(());
            }
            fetched => fetched?,
        };
        if content.iter().all(|byte| *byte == 0) {
            self.device.zero_range(run.at, run.size * run.count)?;
        } else {
            for at in run.offsets() {
                self.device.write_at(at, &content)?;
            }
        }
        self.bytes.fetch_add(run.size * run.count, Relaxed);
        Ok(())
    }

    /// The blob of a run. One of another length than the index says would be written over what is beside it.
    fn fetch(&self, run: &Run) -> Result<Bytes> {
        let content = self.indexed.blob(&run.blob)?;
        if content.len() as u64 == run.size {
            Ok(content)
        } else {
            let what = format!("blob {} has not the length that the index says", run.blob);
            Err(Error::new(Kind::Damaged, what))
        }
    }

    /// Reads a run back.
    fn compare(&self, run: &Run) -> Result<()> {
        if self.missing.lock().contains(&run.at) {
            return Ok(());
        }
        let mut buffer = vec![0; usize::try_from(run.size).unwrap_or(0)];
        for at in run.offsets() {
            let len = self.device.read_at(at, &mut buffer)?;
            if !engine::is_blob(&run.blob, &buffer[..len]) {
                let what = format!("other content than stored, from byte {at} on");
                self.problems.add(&*self.shown, what);
            }
        }
        Ok(())
    }
}

impl Run {
    fn offsets(&self) -> impl Iterator<Item = u64> {
        let (at, size) = (self.at, self.size);
        (0..self.count).map(move |number| at + number * size)
    }
}
