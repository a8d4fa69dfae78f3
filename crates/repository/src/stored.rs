//! The walk of a stored tree: a directory before what is in it, siblings in the order of their names.

use std::{
    collections::HashSet,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path},
};

use crate::{
    Error, Result,
    engine::{Indexed, StoredEntry, TreeId},
    error::Kind,
};

/// Directories above an entry, at most. A tree cannot hold itself, since its id is a digest of what is in it; this bounds
/// what a forged repository costs.
const MAX_DEPTH: usize = 4096;

/// One step of a walk.
pub(crate) enum Step {
    /// An entry at a depth below the start.
    Entry(usize, Box<StoredEntry>),
    /// The entries of a directory are over.
    Leave,
    /// An entry that cannot be one of a volume, or a directory that cannot be read.
    Unreadable(String),
}

/// A depth-first walk.
pub(crate) struct StoredWalk<'a> {
    indexed: &'a Indexed,
    levels: Vec<std::vec::IntoIter<Result<StoredEntry, String>>>,
    /// The directory to go into at the next step, with its name for messages.
    below: Option<(TreeId, String)>,
}

impl<'a> StoredWalk<'a> {
    /// Walks what is in the tree `id`.
    pub(crate) fn new(indexed: &'a Indexed, id: TreeId) -> Result<Self> {
        let levels = vec![checked(indexed.tree(id)?).into_iter()];
        Ok(Self { indexed, levels, below: None })
    }

    /// Goes on behind the directory that came last, and not into it.
    pub(crate) fn pass_over(&mut self) {
        self.below = None;
    }
}

/// The entries of a tree, where two of one name are errors.
fn checked(entries: Vec<Result<StoredEntry, String>>) -> Vec<Result<StoredEntry, String>> {
    let mut names = HashSet::with_capacity(entries.len());
    let check = |entry: Result<StoredEntry, String>| {
        let stored = entry?;
        if names.insert(stored.entry.name.clone()) {
            Ok(stored)
        } else {
            Err(format!("{}: stored twice in one directory", stored.entry.name))
        }
    };
    entries.into_iter().map(check).collect()
}

impl Iterator for StoredWalk<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if let Some((id, name)) = self.below.take() {
            let depth = self.levels.len();
            let read = if depth < MAX_DEPTH {
                self.indexed.tree(id).map_err(|error| error.what)
            } else {
                Err(format!("more than {MAX_DEPTH} directories deep"))
            };
            let (entries, failure) = match read {
                Ok(entries) => (checked(entries), None),
                Err(what) => (Vec::new(), Some(format!("{name}: {what}"))),
            };
            self.levels.push(entries.into_iter());
            if let Some(failure) = failure {
                return Some(Step::Unreadable(failure));
            }
        }
        let depth = self.levels.len().checked_sub(1)?;
        match self.levels.last_mut()?.next() {
            None => {
                self.levels.pop();
                Some(Step::Leave)
            }
            Some(Err(what)) => Some(Step::Unreadable(what)),
            Some(Ok(stored)) => {
                self.below = stored.subtree.map(|id| (id, stored.entry.name.to_string()));
                Some(Step::Entry(depth, Box::new(stored)))
            }
        }
    }
}

/// The entry at `path` of the tree `root`. `None` for the tree itself, which is not an entry.
///
/// # Errors
/// [`Kind::Selection`] where there is none.
pub(crate) fn find(indexed: &Indexed, root: TreeId, path: &Path) -> Result<Option<StoredEntry>> {
    let (mut tree, mut found) = (Some(root), None);
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => name.as_bytes(),
            Component::RootDir | Component::CurDir => continue,
            _ => return Err(missing(path)),
        };
        let entries = indexed.tree(tree.ok_or_else(|| missing(path))?)?;
        let entry = entries.into_iter().flatten().find(|stored| *stored.entry.name == *name);
        let entry = entry.ok_or_else(|| missing(path))?;
        tree = entry.subtree;
        found = Some(entry);
    }
    Ok(found)
}

fn missing(path: &Path) -> Error {
    let shown = wire::name::escape(path.as_os_str().as_bytes());
    Error::new(Kind::Selection, format!("the snapshot holds no {shown}"))
}
