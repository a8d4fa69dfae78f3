//! The volume read back, and compared with the stored tree.

use std::collections::HashMap;

use volume::{
    Dir,
    metadata::MetadataDiff,
    source::SourceFile,
    stat::{self, ReadOptions},
};
use wire::{Entry, FileKind, Metadata, Name};

use super::{Start, links::LinkKey, target::Target};
use crate::{
    Error, Result,
    engine::{self, Indexed, StoredEntry},
    error::Kind,
    manifest::Manifest,
    stored::{Step, StoredWalk},
};

/// What the volume holds.
pub(super) struct Proof {
    pub(super) manifest: Manifest,
}

/// Looks at every entry of the snapshot in the volume. A difference is a problem, unless the entry has one already.
pub(super) fn prove(
    indexed: &Indexed,
    start: &Start,
    target: &Target<'_>,
    verify: bool,
) -> Result<Proof> {
    let mut prover = Prover {
        indexed,
        target,
        verify,
        dirs: vec![target.root.clone()],
        links: HashMap::new(),
        proof: Proof { manifest: Manifest::default() },
    };
    let root = stat::root_entry(&target.root, &READ)?;
    if let Some(want) = &start.root {
        prover.compare(".", want, &root);
    }
    let name = Name::new(b"root").map_err(|error| Error::new(Kind::Volume, error.to_string()))?;
    let entry = Entry { name, meta: root, target: Box::default() };
    prover.proof.manifest.add(1, &entry, None);
    let mut walk = StoredWalk::new(indexed, start.tree)?;
    while let Some(step) = walk.next() {
        target.check()?;
        match step {
            Step::Entry(depth, stored) => {
                let is_dir = stored.subtree.is_some();
                if !prover.entry(depth, &stored) && is_dir {
                    walk.pass_over();
                }
            }
            Step::Leave => _ = prover.dirs.pop(),
            // The walk before has reported it.
            Step::Unreadable(_) => {}
        }
    }
    if target.problems.is_empty() && prover.dirs.is_empty() {
        return Ok(prover.proof);
    }
    if target.problems.is_empty() {
        return Err(Error::new(Kind::Volume, "the volume was not read back to its end"));
    }
    Ok(prover.proof)
}

const READ: ReadOptions = ReadOptions { xattrs: true, selinux: false };

struct Prover<'a> {
    indexed: &'a Indexed,
    target: &'a Target<'a>,
    verify: bool,
    dirs: Vec<Dir>,
    /// Inodes of the volume by those of the snapshot.
    links: HashMap<LinkKey, (u64, u64)>,
    proof: Proof,
}

impl Prover<'_> {
    /// Compares one entry; false where a directory cannot be gone into.
    fn entry(&mut self, depth: usize, stored: &StoredEntry) -> bool {
        let Some(dir) = self.dirs.last().cloned() else { return false };
        let name = &stored.entry.name;
        let shown = dir.display_entry(name);
        let (have, inode) = match stat::read_entry(&dir, name, &READ) {
            Ok(read) => read,
            Err(error) => {
                self.differs(&shown, format!("cannot be read back: {}", error.errno));
                return false;
            }
        };
        self.compare(&shown, &stored.entry.meta, &have.meta);
        if have.target != stored.entry.target {
            self.differs(&shown, "has another link target than stored");
        }
        if let Some(link) = LinkKey::of(stored) {
            let id = (inode.dev, inode.ino);
            if *self.links.entry(link).or_insert(id) != id {
                self.differs(&shown, "is not the hard link that is stored");
            }
        }
        self.proof.manifest.add(depth + 1, &have, stored.link);
        if self.verify
            && have.meta.kind == FileKind::File
            && let Err(what) = self.content(&dir, stored)
        {
            self.differs(&shown, what);
        }
        if stored.subtree.is_none() {
            return true;
        }
        match dir.open_child(name) {
            Ok(below) => {
                self.dirs.push(below);
                true
            }
            Err(error) => {
                self.differs(&shown, format!("cannot be read back: {}", error.errno));
                false
            }
        }
    }

    fn compare(&self, shown: &str, want: &Metadata, have: &Metadata) {
        let diff = MetadataDiff::between(want, have);
        for (differs, what) in [
            (want.kind != have.kind, "kind"),
            (want.size != have.size, "size"),
            (want.rdev != have.rdev, "device number"),
            (diff.owner, "owner"),
            (diff.mode, "mode"),
            (diff.xattrs, "extended attributes"),
            (diff.mtime, "modification time"),
            (diff.attributes, "inode flags"),
        ] {
            if differs {
                self.differs(shown, format!("another {what} than stored"));
            }
        }
    }

    /// Reads a file back, blob by blob.
    fn content(&self, dir: &Dir, stored: &StoredEntry) -> Result<(), String> {
        let read = |error: volume::Error| format!("cannot be read back: {}", error.errno);
        let file = SourceFile::open(dir, &stored.entry.name).map_err(read)?;
        let (mut at, mut buffer) = (0, Vec::new());
        for blob in &stored.content {
            let size = self.indexed.blob_size(blob).ok_or("is not in the index")?;
            buffer.resize(usize::try_from(size).unwrap_or(0), 0);
            let len = file.read_at(at, &mut buffer).map_err(read)?;
            if !engine::is_blob(blob, &buffer[..len]) {
                return Err(format!("other content than stored, from {at} on"));
            }
            at += len as u64;
        }
        Ok(())
    }

    fn differs(&self, shown: &str, what: impl Into<String>) {
        if !self.target.problems.has(shown) {
            self.target.problems.add(shown, what);
        }
    }
}
