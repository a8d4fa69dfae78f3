//! Entries of the destination that a verification leaves out of its digest.

use std::collections::{HashMap, HashSet};

use wire::Name;

use crate::memory_budget::MemoryReservation;

/// Entries that stay although they were not compared with the source.
#[derive(Default)]
pub(super) struct Kept {
    /// By the names that lead to their directory.
    names: HashMap<Vec<Name>, HashSet<Name>>,
    /// Directories of which the source lists nothing, by the names that lead to them.
    closed: HashSet<Vec<Name>>,
    count: u64,
    _memory: Vec<MemoryReservation>,
}

impl Kept {
    /// Adds `names` of the directory that the names in `parent` lead to. They make the trees differ.
    pub(super) fn add(&mut self, parent: Vec<Name>, names: Vec<Name>, memory: MemoryReservation) {
        self.count += names.len() as u64;
        self.names.entry(parent).or_default().extend(names);
        self._memory.push(memory);
    }

    /// Adds all that is in the directory that these names lead to. The source says why it lists nothing of it.
    pub(super) fn close(&mut self, dir: Vec<Name>, memory: MemoryReservation) {
        self.closed.insert(dir);
        self._memory.push(memory);
    }

    /// Entries that make the trees differ.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.closed.is_empty()
    }

    pub(super) fn contains(&self, parent: &[Name], name: &Name) -> bool {
        self.closed.contains(parent)
            || self.names.get(parent).is_some_and(|names| names.contains(name))
    }
}
