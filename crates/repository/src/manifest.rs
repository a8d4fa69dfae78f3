//! What one end of a run holds, in order, as one short digest for each entry.
//!
//! Both ends are walked in the same order: a directory before what is in it, siblings by the bytes of their names. So two
//! manifests are equal where all entries are, and the first place where they differ tells the entry.

use std::collections::HashSet;

use wire::{Entry, Xattr};

use crate::engine::LinkId;

/// Digests of entries. 16 bytes for each.
#[derive(Default)]
pub(crate) struct Manifest {
    lines: Vec<[u8; 16]>,
    /// Lines of entries that turned out not to be stored.
    withdrawn: HashSet<usize>,
}

impl Manifest {
    /// Adds an entry at `depth` below the root; answers its number.
    pub(crate) fn add(&mut self, depth: usize, entry: &Entry, link: Option<LinkId>) -> usize {
        self.lines.push(line(depth, entry, link));
        self.lines.len() - 1
    }

    /// Tells that an entry that was added is not stored after all.
    pub(crate) fn withdraw(&mut self, number: usize) {
        self.withdrawn.insert(number);
    }

    /// Entries that are stored.
    pub(crate) fn len(&self) -> usize {
        self.lines.len() - self.withdrawn.len()
    }

    /// The lines that are stored.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8; 16]> {
        let stored = |(number, line)| (!self.withdrawn.contains(&number)).then_some(line);
        self.lines.iter().enumerate().filter_map(stored)
    }

    /// One digest of all lines.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("pvferry repository manifest");
        for line in self.lines() {
            hasher.update(line);
        }
        hasher.finalize().into()
    }
}

/// The digest of one entry.
pub(crate) fn line(depth: usize, entry: &Entry, link: Option<LinkId>) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("pvferry repository manifest entry");
    let meta = &entry.meta;
    let mut numbers = Vec::with_capacity(96);
    numbers.extend((depth as u64).to_le_bytes());
    numbers.push(meta.kind as u8);
    numbers.extend(meta.mode.to_le_bytes());
    numbers.extend(meta.uid.to_le_bytes());
    numbers.extend(meta.gid.to_le_bytes());
    numbers.extend(meta.size.to_le_bytes());
    numbers.extend(meta.mtime.secs.to_le_bytes());
    numbers.extend(meta.mtime.nanos.to_le_bytes());
    numbers.extend(meta.rdev.0.to_le_bytes());
    numbers.extend(meta.rdev.1.to_le_bytes());
    numbers.push(u8::from(meta.attributes.immutable) | u8::from(meta.attributes.append_only) << 1);
    let link = link.map_or((0, 0), |link| (link.device, link.inode));
    numbers.extend(link.0.to_le_bytes());
    numbers.extend(link.1.to_le_bytes());
    hasher.update(&numbers);
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    field(entry.name.as_bytes());
    field(&entry.target);
    for Xattr { name, value } in &meta.xattrs {
        field(name);
        field(value);
    }
    let mut line = [0; 16];
    line.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    line
}
