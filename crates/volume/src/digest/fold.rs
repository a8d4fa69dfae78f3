//! The encoding of a tree, and its folding into one digest in the order of the walk.

use std::{collections::VecDeque, sync::mpsc::Receiver};

use wire::{Metadata, Name};

use super::{FileBody, TreeDigest, WINDOW, threads_ended};
use crate::{Dir, Error, Result};

/// Separates these digests from every other use of the hash.
const CONTEXT: &str = "pvferry 2026 tree digest v1";

/// Errors, and mount points, that are kept; the rest is only counted.
const MAX_ERRORS: usize = 1000;

/// Name, metadata and link target of one entry. A digest, since thousands of entries wait to be
/// folded and each may have a mebibyte of attributes.
pub(super) type Line = [u8; 32];

/// One step of the walk, waiting to be folded.
pub(super) enum Item {
    Enter(Line),
    Leave,
    Special(Line),
    Link(Line, [u8; 32]),
    File(Receiver<Result<FileBody>>),
    Failed(Error),
}

/// Folds the steps of the walk, in their order.
pub(super) struct Fold {
    queue: VecDeque<Item>,
    /// The children so far of every directory on the way down, and the line that each will get.
    open: Vec<(blake3::Hasher, Line)>,
    result: TreeDigest,
    /// The children of the root, when it has been left.
    root: Option<[u8; 32]>,
}

impl Fold {
    pub(super) fn new() -> Self {
        let result = TreeDigest {
            digest: [0; 32],
            files: 0,
            dirs: 1,
            bytes: 0,
            failed: 0,
            errors: Vec::new(),
            mount_points: Vec::new(),
        };
        Self { queue: VecDeque::new(), open: vec![(context_hasher(), [0; 32])], result, root: None }
    }

    pub(super) fn push(&mut self, item: Item) -> Result<()> {
        if self.queue.len() >= WINDOW
            && let Some(first) = self.queue.pop_front()
        {
            self.fold(first)?;
        }
        self.queue.push_back(item);
        Ok(())
    }

    pub(super) fn mount_point(&mut self, name: String) {
        if self.result.mount_points.len() < MAX_ERRORS {
            self.result.mount_points.push(name);
        }
    }

    pub(super) fn finish(mut self, root: &Metadata) -> Result<TreeDigest> {
        while let Some(item) = self.queue.pop_front() {
            self.fold(item)?;
        }
        let mut line = b"root".to_vec();
        put_metadata(&mut line, root);
        let children = self.root.ok_or_else(threads_ended)?;
        self.result.digest = context_hasher().update(&line).update(&children).finalize().into();
        Ok(self.result)
    }

    fn fold(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Enter(line) => {
                self.result.dirs += 1;
                self.open.push((context_hasher(), line));
            }
            Item::Leave => {
                let Some((children, line)) = self.open.pop() else { return Ok(()) };
                let children = children.finalize().into();
                if self.open.is_empty() {
                    self.root = Some(children);
                } else {
                    self.add(&line, b'D', &children);
                }
            }
            Item::Special(line) => {
                self.result.files += 1;
                self.add(&line, b'S', &[]);
            }
            Item::Link(line, first) => {
                self.result.files += 1;
                self.add(&line, b'L', &first);
            }
            Item::File(body) => match body.recv().map_err(|_| threads_ended())? {
                Ok(FileBody { line, content, bytes }) => {
                    self.result.files += 1;
                    self.result.bytes += bytes;
                    self.add(&line, b'F', &content);
                }
                Err(error) => self.failed(error),
            },
            Item::Failed(error) => self.failed(error),
        }
        Ok(())
    }

    fn add(&mut self, line: &Line, body_kind: u8, body: &[u8]) {
        if let Some((children, _)) = self.open.last_mut() {
            children.update(line).update(&[body_kind]).update(body);
        }
    }

    fn failed(&mut self, error: Error) {
        self.result.failed += 1;
        if self.result.errors.len() < MAX_ERRORS {
            self.result.errors.push(error);
        }
    }
}

pub(super) fn line(name: &Name, meta: &Metadata, target: &[u8]) -> Line {
    let mut line = Vec::with_capacity(name.len() + target.len() + 96);
    put_bytes(&mut line, name);
    put_metadata(&mut line, meta);
    put_bytes(&mut line, target);
    context_hasher().update(&line).finalize().into()
}

fn put_metadata(line: &mut Vec<u8>, meta: &Metadata) {
    let Metadata { kind, mode, uid, gid, size, mtime, rdev, attributes, xattrs } = meta;
    line.push(*kind as u8);
    line.extend_from_slice(&mode.to_le_bytes());
    line.extend_from_slice(&uid.to_le_bytes());
    line.extend_from_slice(&gid.to_le_bytes());
    line.extend_from_slice(&size.to_le_bytes());
    line.extend_from_slice(&mtime.secs.to_le_bytes());
    line.extend_from_slice(&mtime.nanos.to_le_bytes());
    line.extend_from_slice(&rdev.0.to_le_bytes());
    line.extend_from_slice(&rdev.1.to_le_bytes());
    line.push(u8::from(attributes.immutable) | u8::from(attributes.append_only) << 1);
    line.extend_from_slice(&(xattrs.len() as u64).to_le_bytes());
    for xattr in xattrs {
        put_bytes(line, &xattr.name);
        put_bytes(line, &xattr.value);
    }
}

fn put_bytes(line: &mut Vec<u8>, bytes: &[u8]) {
    line.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    line.extend_from_slice(bytes);
}

pub(super) fn path_digest(dir: &Dir, name: &Name) -> [u8; 32] {
    let mut path = Vec::new();
    for component in dir.components().iter().chain([name]) {
        put_bytes(&mut path, component);
    }
    context_hasher().update(&path).finalize().into()
}

pub(super) fn context_hasher() -> blake3::Hasher {
    blake3::Hasher::new_derive_key(CONTEXT)
}
