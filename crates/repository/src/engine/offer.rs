//! What a source offers to the engine.

use std::path::PathBuf;

use parking_lot::Mutex;
use rustic_core::{
    ErrorKind, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult,
    repofile::Node,
};
use volume::stat::Inode;
use wire::Metadata;

use super::node;

/// One entry that a source offers.
pub(crate) struct Offer<O> {
    /// Its path within the snapshot.
    pub(crate) path: PathBuf,
    pub(crate) node: EncodedNode,
    /// What opens a regular file.
    pub(crate) open: Option<O>,
}

/// An entry in the form of the repository.
pub(crate) struct EncodedNode(Node);

/// The node of an entry called `name`. The error says what the format cannot hold.
pub(crate) fn encode(
    name: &[u8],
    meta: &Metadata,
    target: &[u8],
    inode: &Inode,
) -> Result<EncodedNode, String> {
    node::encode(name, meta, target, inode).map(EncodedNode)
}

/// What offers entries to the engine: parents before their children, siblings in the order of their names.
pub(crate) trait Source: Iterator<Item = Offer<Self::Open>> + Send + 'static {
    /// Opens one regular file.
    type Open: Opener;
}

/// Opens one regular file for reading.
pub(crate) trait Opener: Send + 'static {
    type Reader: std::io::Read + Send + 'static;
    fn open(self) -> std::io::Result<Self::Reader>;
}

/// A source in the form that the engine takes.
pub(super) struct Adapter<S>(pub(super) Mutex<Option<S>>);

pub(super) struct Entries<S>(Option<S>);

pub(super) struct Open<O>(O);

impl<S: Source> ReadSource for Adapter<S> {
    type Open = Open<S::Open>;
    type Iter = Entries<S>;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Entries<S> {
        Entries(self.0.lock().take())
    }
}

impl<S: Source> Iterator for Entries<S> {
    type Item = RusticResult<ReadSourceEntry<Open<S::Open>>>;

    fn next(&mut self) -> Option<Self::Item> {
        let Offer { path, node, open } = self.0.as_mut()?.next()?;
        Some(Ok(ReadSourceEntry { path, node: node.0, open: open.map(Open) }))
    }
}

impl<O: Opener> ReadSourceOpen for Open<O> {
    type Reader = O::Reader;

    fn open(self) -> RusticResult<O::Reader> {
        self.0.open().map_err(|error| RusticError::new(ErrorKind::InputOutput, error.to_string()))
    }
}
