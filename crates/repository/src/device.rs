//! A block device as a source: one regular file with all of its content.
//!
//! The file has the path of the snapshot, so that restic can print it with `dump`. Nothing tells whether a device changed
//! since the last backup: all of it is read.

use std::{
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::io::Errno;
use volume::{
    device::BlockSource,
    stat::{Inode, Lifetime},
};
use wire::{Attributes, Entry, FileKind, Metadata, Name, Timestamp};

use crate::{
    Error, Result,
    engine::{self, Offer, Opener, Source},
    error::Kind,
    source::Observed,
};

/// The one entry of a block device.
pub(crate) struct DeviceSource {
    offer: Option<Offer<DeviceReader>>,
    observed: Arc<Observed>,
}

/// Reads a block device from its start to its end.
pub(crate) struct DeviceReader {
    device: BlockSource,
    shown: String,
    at: u64,
    number: usize,
    observed: Arc<Observed>,
    stop: Arc<AtomicBool>,
}

impl DeviceSource {
    /// The device at `source`, to be stored as the file `path`. Nothing may mount it while it is read.
    ///
    /// # Errors
    /// Where it cannot be opened, or is in use.
    pub(crate) fn new(
        source: &Path,
        path: &Path,
        observed: Arc<Observed>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let device = BlockSource::open_exclusive(source).map_err(|error| unusable(&error))?;
        let entry = entry(path, device.size())?;
        let inode = inode(&entry.meta);
        let node = engine::encode(entry.name.as_bytes(), &entry.meta, b"", &inode)
            .map_err(|what| Error::new(Kind::Volume, what))?;
        let number = observed.manifest.lock().add(1, &entry, None);
        observed.bytes_total.fetch_add(device.size(), Relaxed);
        let shown = wire::name::escape(source.as_os_str().as_bytes()).to_string();
        let reader =
            DeviceReader { device, shown, at: 0, number, observed: Arc::clone(&observed), stop };
        let offer = Offer { path: PathBuf::from(path), node, open: Some(reader) };
        Ok(Self { offer: Some(offer), observed })
    }
}

/// Why a device cannot be opened; what to do where it is in use.
pub(crate) fn unusable(error: &volume::Error) -> Error {
    let what = match error.errno {
        Errno::BUSY => format!("{}: the device is in use: stop what uses it", error.name),
        _ => error.to_string(),
    };
    Error::new(Kind::Selection, what)
}

/// The file that stands for a device of `size` bytes. A device has no modification time of its content: that of the backup
/// stands in its place.
fn entry(path: &Path, size: u64) -> Result<Entry> {
    let name = path.file_name().unwrap_or_default();
    let name =
        Name::new(name.as_bytes()).map_err(|error| Error::new(Kind::Usage, error.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let secs = i64::try_from(now.as_secs()).unwrap_or(0);
    let meta = Metadata {
        kind: FileKind::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
        size,
        mtime: Timestamp { secs, nanos: now.subsec_nanos() },
        rdev: (0, 0),
        attributes: Attributes::default(),
        xattrs: Vec::new(),
    };
    Ok(Entry { name, meta, target: Box::default() })
}

fn inode(meta: &Metadata) -> Inode {
    Inode {
        dev: 0,
        ino: 0,
        since: Lifetime::Changed(meta.mtime),
        nlink: 1,
        size: meta.size,
        blocks: meta.size.div_ceil(512),
        ctime: meta.mtime,
        mount_root: false,
        subvolume_stub: false,
    }
}

impl Source for DeviceSource {
    type Open = DeviceReader;
}

impl Iterator for DeviceSource {
    type Item = Offer<DeviceReader>;

    fn next(&mut self) -> Option<Self::Item> {
        let offer = self.offer.take();
        if offer.is_none() {
            self.observed.complete.store(true, Relaxed);
        }
        offer
    }
}

impl Opener for DeviceReader {
    type Reader = Self;

    fn open(self) -> io::Result<Self> {
        Ok(self)
    }
}

impl DeviceReader {
    fn read_some(&self, buffer: &mut [u8]) -> Result<usize, String> {
        let left = self.device.size() - self.at;
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.device.read_at(self.at, &mut buffer[..want]);
        let len = read.map_err(|error| format!("{}: {}", error.operation, error.errno))?;
        if len < want {
            return Err(format!("ends at {} of {}", self.at + len as u64, self.device.size()));
        }
        Ok(len)
    }
}

impl Read for DeviceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        match self.read_some(buffer) {
            Ok(len) => {
                self.at += len as u64;
                self.observed.bytes_read.fetch_add(len as u64, Relaxed);
                Ok(len)
            }
            Err(what) => {
                // The engine drops what it cannot read without a word.
                self.observed.problems.add(&*self.shown, &*what);
                self.observed.manifest.lock().withdraw(self.number);
                Err(io::Error::other(what))
            }
        }
    }
}
