//! Entries that were not stored or restored as they should be.

use std::collections::HashSet;

use parking_lot::Mutex;

/// How many are kept by name.
const KEPT: usize = 1000;

/// One entry, and what went wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The entry below the root of the volume, escaped for display.
    pub name: String,
    /// What went wrong.
    pub what: String,
}

/// Problems of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The first ones.
    pub first: Vec<Problem>,
    /// How many there were.
    pub count: u64,
    /// How many of them only vanished while the volume was read.
    pub vanished: u64,
}

impl Found {
    /// 0 where nothing went wrong, 24 where entries only vanished, else 23.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (self.count, self.vanished) {
            (0, _) => 0,
            (count, vanished) if count == vanished => 24,
            _ => 23,
        }
    }
}

/// Collects problems from several threads.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Mutex<Found>,
    names: Mutex<HashSet<String>>,
}

impl Problems {
    pub(crate) fn add(&self, name: impl Into<String>, what: impl Into<String>) {
        self.push(name.into(), what.into(), false);
    }

    pub(crate) fn of_volume(&self, error: &volume::Error) {
        let what = format!("{}: {}", error.operation, error.errno);
        self.push(error.name.clone(), what, error.is_vanished());
    }

    /// An entry of the destination: that it is gone is no better than anything else.
    pub(crate) fn of_destination(&self, error: &volume::Error) {
        self.push(error.name.clone(), format!("{}: {}", error.operation, error.errno), false);
    }

    /// True where the entry has a problem.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.lock().contains(name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.lock().count == 0
    }

    fn push(&self, name: String, what: String, vanished: bool) {
        self.names.lock().insert(name.clone());
        let mut found = self.found.lock();
        found.count += 1;
        found.vanished += u64::from(vanished);
        if found.first.len() < KEPT {
            found.first.push(Problem { name, what });
        }
    }

    pub(crate) fn take(&self) -> Found {
        std::mem::take(&mut self.found.lock())
    }
}
