//! The memory budget of one end of a session: a limit on what is kept per entry.
//!
//! A tree may have any number of entries that wait for something, and a hostile peer may announce any number. So everything
//! that is kept per entry holds a [`MemoryReservation`]. Over the budget the session ends with exit code 22, before
//! the kernel ends the process and every other session in it.
//!
//! Frames on their way are bounded by credit, and not charged here.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use wire::{Entry, Metadata, Name, Xattr};

use crate::{Error, control::Control};

/// What one entry takes beside its attributes and its link target, in bytes, as measured with names of ten bytes.
pub(crate) const ENTRY: u64 = 300;
/// What a name takes in a list beside its bytes.
const NAME: u64 = 48;
/// What one extended attribute takes beside its name and value: two allocations and their pointers.
const XATTR: u64 = 64;

/// The bytes that one end keeps for entries, of a limit.
pub(crate) struct MemoryBudget {
    limit: u64,
    used: AtomicU64,
}

/// A share of a [`MemoryBudget`], until it is dropped.
pub(crate) struct MemoryReservation {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl MemoryBudget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// Reserves `bytes`. Over the budget this ends the session: the caller notices at its next step.
    pub(crate) fn reserve(self: &Arc<Self>, control: &Control, bytes: u64) -> MemoryReservation {
        let mut reservation = MemoryReservation { budget: Arc::clone(self), bytes: 0 };
        reservation.grow(control, bytes);
        reservation
    }
}

impl MemoryReservation {
    /// Reserves `bytes` more, as [`MemoryBudget::reserve`] does.
    pub(crate) fn grow(&mut self, control: &Control, bytes: u64) {
        self.bytes += bytes;
        let used = self.budget.used.fetch_add(bytes, Relaxed) + bytes;
        if used > self.budget.limit {
            control.fail(Error::MemoryBudget(self.budget.limit));
        }
    }

    /// Reserves `bytes` in place of what it has.
    pub(crate) fn resize(&mut self, control: &Control, bytes: u64) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(control, more),
            None => self.shrink(self.bytes - bytes),
        }
    }

    /// Gives `bytes` back.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// What an entry takes that is kept whole.
pub(crate) fn of_entry(entry: &Entry) -> u64 {
    of_metadata(&entry.meta) + entry.target.len() as u64
}

/// What an entry takes of which the metadata are kept.
pub(crate) fn of_metadata(meta: &Metadata) -> u64 {
    ENTRY + of_xattrs(&meta.xattrs)
}

pub(crate) fn of_xattrs(xattrs: &[Xattr]) -> u64 {
    xattrs.iter().map(|xattr| (xattr.name.len() + xattr.value.len()) as u64 + XATTR).sum()
}

/// What a list of names takes.
pub(crate) fn of_names(names: &[Name]) -> u64 {
    names.iter().map(|name| name.len() as u64 + NAME).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_given_back_and_over_the_limit_the_session_ends_with_22() {
        let (budget, control) = (MemoryBudget::new(100), Control::default());
        let first = budget.reserve(&control, 60);
        let mut second = budget.reserve(&control, 40);
        assert!(control.check().is_ok());
        drop(first);
        second.grow(&control, 60);
        second.shrink(30);
        assert!(control.check().is_ok());
        let _third = budget.reserve(&control, 31);
        assert_eq!(control.take_reason().map(|reason| reason.exit_code()), Some(22));
    }
}
