//! The storage as the format engine sees it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};

use crate::{Error, error::Kind, storage::Storage};

/// The one name of the configuration, which has no id.
const CONFIG: &str = "config";
/// The directory of the packs.
pub(super) const PACKS: &str = "data";
/// The directory of the snapshots.
pub(super) const SNAPSHOTS: &str = "snapshots";
/// The directory of the index files.
pub(super) const INDEX: &str = "index";

/// Files of a repository by type and id.
pub(super) struct Backend {
    pub(super) storage: Arc<Storage>,
    /// Snapshots are not written. The engine saves one as soon as its source ends, whether or not all of it was stored: it
    /// becomes visible only after it was compared with what was read.
    pub(super) hold_snapshots: Arc<AtomicBool>,
    /// The last failure of the storage, which the engine itself may only log.
    pub(super) failure: Arc<Mutex<Option<Error>>>,
    /// Where it is set, nothing is removed.
    pub(super) deferred: Option<Arc<Deferred>>,
}

/// What the engine wrote, and what it asked to remove. To the engine, files that it removed do not exist any more. They are
/// removed after those that replace them were read back.
#[derive(Default)]
pub(super) struct Deferred {
    pub(super) written: Mutex<BTreeSet<String>>,
    pub(super) removed: Mutex<BTreeSet<String>>,
    /// Ends the run: the engine itself cannot be interrupted.
    pub(super) stop: Arc<AtomicBool>,
}

impl Deferred {
    fn hides(&self, path: &str) -> bool {
        self.removed.lock().contains(path)
    }
}

impl Backend {
    fn failed(&self, error: Error) -> Box<RusticError> {
        let what = error.what.clone();
        *self.failure.lock() = Some(error);
        RusticError::new(ErrorKind::Backend, what)
    }

    fn go_on(&self) -> RusticResult<()> {
        match &self.deferred {
            Some(deferred) if deferred.stop.load(Ordering::Relaxed) => {
                Err(self.failed(Error::new(Kind::Stopped, "interrupted: nothing was removed")))
            }
            _ => Ok(()),
        }
    }
}

fn path(tpe: FileType, id: &Id) -> String {
    let hex = id.to_hex();
    match tpe {
        FileType::Config => CONFIG.to_owned(),
        FileType::Pack => format!("{PACKS}/{}/{}", &hex[..2], &*hex),
        _ => format!("{}/{}", tpe.dirname(), &*hex),
    }
}

impl ReadBackend for Backend {
    fn location(&self) -> String {
        self.storage.shown().to_owned()
    }

    fn list_with_size(&self, tpe: FileType) -> RusticResult<Vec<(Id, u32)>> {
        let size = |size: u64| u32::try_from(size).unwrap_or(u32::MAX);
        if tpe == FileType::Config {
            let found = self.storage.size(CONFIG).map_err(|error| self.failed(error))?;
            return Ok(found.map(|found| (Id::default(), size(found))).into_iter().collect());
        }
        let mut files = self.storage.list(tpe.dirname()).map_err(|error| self.failed(error))?;
        if let Some(deferred) = &self.deferred {
            files.retain(|(path, _)| !deferred.hides(path));
        }
        let id = |path: &str| path.rsplit('/').next().and_then(|name| name.parse::<Id>().ok());
        Ok(files.iter().filter_map(|(path, len)| Some((id(path)?, size(*len)))).collect())
    }

    fn read_full(&self, tpe: FileType, id: &Id) -> RusticResult<Bytes> {
        self.go_on()?;
        self.storage.read(&path(tpe, id), None).map_err(|error| self.failed(error))
    }

    fn read_partial(
        &self,
        tpe: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        self.go_on()?;
        let range = u64::from(offset)..u64::from(offset) + u64::from(length);
        self.storage.read(&path(tpe, id), Some(range)).map_err(|error| self.failed(error))
    }

    fn warmup_path(&self, tpe: FileType, id: &Id) -> String {
        path(tpe, id)
    }
}

impl WriteBackend for Backend {
    fn write_bytes(
        &self,
        tpe: FileType,
        id: &Id,
        _cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        if tpe == FileType::Snapshot && self.hold_snapshots.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.go_on()?;
        let path = path(tpe, id);
        let written = self.storage.write(&path, content.into_vec());
        written.map_err(|error| self.failed(error))?;
        if let Some(deferred) = &self.deferred {
            deferred.written.lock().insert(path);
        }
        Ok(())
    }

    fn remove(&self, tpe: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        if let Some(deferred) = &self.deferred {
            deferred.removed.lock().insert(path(tpe, id));
            return Ok(());
        }
        self.storage.remove(&path(tpe, id)).map_err(|error| self.failed(error))
    }
}
