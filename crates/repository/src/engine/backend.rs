//! The storage as the format engine sees it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};

use crate::{Error, storage::Storage};

/// The one name of the configuration, which has no id.
const CONFIG: &str = "config";
/// The directory of the packs.
pub(super) const PACKS: &str = "data";
/// The directory of the snapshots.
pub(super) const SNAPSHOTS: &str = "snapshots";

/// Files of a repository by type and id.
pub(super) struct Backend {
    pub(super) storage: Arc<Storage>,
    /// Snapshots are not written. The engine saves one as soon as its source ends, whether or not all of it was stored: it
    /// becomes visible only after it was compared with what was read.
    pub(super) hold_snapshots: Arc<AtomicBool>,
    /// The last failure of the storage, which the engine itself may only log.
    pub(super) failure: Arc<parking_lot::Mutex<Option<Error>>>,
}

impl Backend {
    fn failed(&self, error: Error) -> Box<RusticError> {
        let what = error.what.clone();
        *self.failure.lock() = Some(error);
        RusticError::new(ErrorKind::Backend, what)
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
        let files = self.storage.list(tpe.dirname()).map_err(|error| self.failed(error))?;
        let id = |path: &str| path.rsplit('/').next().and_then(|name| name.parse::<Id>().ok());
        Ok(files.iter().filter_map(|(path, len)| Some((id(path)?, size(*len)))).collect())
    }

    fn read_full(&self, tpe: FileType, id: &Id) -> RusticResult<Bytes> {
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
        let written = self.storage.write(&path(tpe, id), content.into_vec());
        written.map_err(|error| self.failed(error))
    }

    fn remove(&self, tpe: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        self.storage.remove(&path(tpe, id)).map_err(|error| self.failed(error))
    }
}
