//! The manifest: what one end holds, folded into a digest that does not depend on order.
//!
//! Each entry gives one record: where it lies, what its metadata are and, where content moved in this
//! session, what proves the content. The record of a hard link says which inode it names, and no more: all else is in the
//! record of the first name. The modification time of a directory belongs to its listing, and has a record of its own. The sender makes its records from what it read, the receiver
//! from what it reads back after writing. A record is hashed under the session key and the hashes
//! are added up, each of four 64-bit lanes by itself, so that workers fold in any order.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use delta::{Checksum, HashKey};
use parking_lot::Mutex;
use wire::{ContentCheck, EntryId, FileKind, ManifestDigest, Metadata, Name, Timestamp};

/// Stand in records where that of an inode has its kind.
const HARD_LINK: u8 = 0;
const LISTING: u8 = 255;
const DIRECTORY_TIME: u8 = 254;

/// The digest of the entries folded so far.
pub(crate) struct Manifest {
    key: [u8; 32],
    no_owner: bool,
    sum: Mutex<Sum>,
    /// A directory was not listed to its end.
    incomplete: AtomicBool,
}

#[derive(Default, Clone, Copy)]
struct Sum {
    lanes: [u64; 4],
    entries: u64,
}

/// One entry as one end holds it.
pub(crate) struct Record<'a> {
    pub(crate) parent: EntryId,
    pub(crate) id: EntryId,
    /// `None` for the root.
    pub(crate) name: Option<&'a Name>,
    pub(crate) meta: &'a Metadata,
    pub(crate) target: &'a [u8],
    pub(crate) link: Option<EntryId>,
    pub(crate) content: Option<ContentCheck>,
}

/// A directory of which nothing is kept but that it is one.
fn neutral(meta: &Metadata) -> Metadata {
    let mut neutral = meta.clone();
    (neutral.mode, neutral.mtime) = (0, Timestamp { secs: 0, nanos: 0 });
    (neutral.attributes.immutable, neutral.attributes.append_only) = (false, false);
    neutral.xattrs.clear();
    neutral
}

impl Manifest {
    pub(crate) fn new(session_key: &[u8; 32], no_owner: bool) -> Self {
        let key = blake3::derive_key("pvferry 2026 manifest", session_key);
        Self { key, no_owner, sum: Mutex::default(), incomplete: AtomicBool::new(false) }
    }

    /// Folds one record in.
    pub(crate) fn add(&self, record: &Record<'_>) {
        // With `no owner`, the root may belong to a user whose directories the receiver cannot change.
        let is_root = record.name.is_none() && record.meta.kind == FileKind::Directory;
        let neutral = (self.no_owner && is_root).then(|| neutral(record.meta));
        let m = neutral.as_ref().unwrap_or(record.meta);
        let mut fixed = Vec::with_capacity(160 + record.target.len());
        for n in [record.parent.0, record.id.0, record.link.map_or(u64::MAX, |l| l.0)] {
            fixed.extend_from_slice(&n.to_le_bytes());
        }
        let (uid, gid) = if self.no_owner { (0, 0) } else { (m.uid, m.gid) };
        fixed.push(m.kind as u8);
        fixed.extend_from_slice(&m.mode.to_le_bytes());
        let mtime = if m.kind == FileKind::Directory { Timestamp::default() } else { m.mtime };
        for n in [uid, gid, m.rdev.0, m.rdev.1, mtime.nanos] {
            fixed.extend_from_slice(&n.to_le_bytes());
        }
        fixed.extend_from_slice(&mtime.secs.to_le_bytes());
        let size = if m.kind == FileKind::File { m.size } else { 0 };
        fixed.extend_from_slice(&size.to_le_bytes());
        fixed.push(u8::from(m.attributes.immutable) | u8::from(m.attributes.append_only) << 1);
        let mut put = |bytes: &[u8]| {
            fixed.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            fixed.extend_from_slice(bytes);
        };
        put(record.name.map_or(&[], |name| name.as_bytes()));
        put(record.target);
        match record.content {
            None => fixed.push(0),
            Some(ContentCheck::Checksum(checksum)) => {
                fixed.push(1);
                fixed.extend_from_slice(&checksum.to_le_bytes());
            }
            Some(ContentCheck::Digest(digest)) => {
                fixed.push(2);
                fixed.extend_from_slice(&digest);
            }
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&fixed);
        for xattr in &m.xattrs {
            hasher.update(&(xattr.name.len() as u64).to_le_bytes());
            hasher.update(&xattr.name);
            hasher.update(&(xattr.value.len() as u64).to_le_bytes());
            hasher.update(&xattr.value);
        }
        self.fold(&hasher.finalize());
    }

    /// Folds in that `name` of the directory `parent` is a hard link to the inode of the entry `first`.
    pub(crate) fn add_link(&self, parent: EntryId, id: EntryId, name: &Name, first: EntryId) {
        let mut record = Vec::with_capacity(40 + name.len());
        for n in [parent.0, id.0, first.0] {
            record.extend_from_slice(&n.to_le_bytes());
        }
        record.push(HARD_LINK);
        record.extend_from_slice(&(name.len() as u64).to_le_bytes());
        record.extend_from_slice(name);
        self.fold(&blake3::keyed_hash(&self.key, &record));
    }

    /// Folds in that the listing of a directory ended, and whether the directory was read to its end: what decides about
    /// removals in it is proved like anything else.
    pub(crate) fn add_listing(&self, directory: EntryId, complete: bool) {
        self.fold_listing(directory.0, complete);
    }

    /// Folds in the modification time of a directory. Each has one.
    pub(crate) fn add_directory_time(&self, directory: EntryId, mtime: Timestamp) {
        // As in the record of such a root.
        let mtime =
            if self.no_owner && directory == EntryId::ROOT { Timestamp::default() } else { mtime };
        let mut record = [0; 26];
        record[..8].copy_from_slice(&directory.0.to_le_bytes());
        record[8..16].copy_from_slice(&mtime.secs.to_le_bytes());
        record[16..20].copy_from_slice(&mtime.nanos.to_le_bytes());
        record[24] = DIRECTORY_TIME;
        self.fold(&blake3::keyed_hash(&self.key, &record));
    }

    /// Folds in that nothing may be removed, as the listing of a directory that there is not.
    pub(crate) fn add_no_removals(&self) {
        self.fold_listing(u64::MAX, false);
    }

    fn fold_listing(&self, directory: u64, complete: bool) {
        if !complete {
            self.incomplete.store(true, Relaxed);
        }
        let mut record = [0; 26];
        record[..8].copy_from_slice(&directory.to_le_bytes());
        (record[24], record[25]) = (LISTING, u8::from(complete));
        self.fold(&blake3::keyed_hash(&self.key, &record));
    }

    /// Whether all directories so far were listed to their end.
    pub(crate) fn all_listed(&self) -> bool {
        !self.incomplete.load(Relaxed)
    }

    fn fold(&self, hash: &blake3::Hash) {
        let mut sum = self.sum.lock();
        for (lane, bytes) in sum.lanes.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            *lane = lane.wrapping_add(u64::from_le_bytes(word));
        }
        sum.entries += 1;
    }

    /// The digest, and how many records it holds.
    pub(crate) fn digest(&self) -> (ManifestDigest, u64) {
        let sum = *self.sum.lock();
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&sum.entries.to_le_bytes());
        for lane in sum.lanes {
            hasher.update(&lane.to_le_bytes());
        }
        (*hasher.finalize().as_bytes(), sum.entries)
    }
}

/// What the content of an entry that travels whole is checked by. The id makes the same content of two entries differ.
pub(crate) fn checksum(id: EntryId, content: Checksum) -> u64 {
    content.crc() ^ id.0
}

/// The session's key for content hashes.
pub(crate) fn content_key(session_key: &[u8; 32]) -> HashKey {
    HashKey::new(blake3::derive_key("pvferry 2026 content", session_key))
}
