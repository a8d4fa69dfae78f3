//! Why a step on one entry did not succeed: the entry alone failed, or the whole session ends.
//!
//! Work on an entry calls the volume and sends to the peer, so it can fail in both ways. With one error type
//! `?` carries both; the caller that owns the entry separates them again with [`Fault::settle`].

use crate::control::Stopped;

/// A failed step on one entry.
#[derive(Debug)]
pub(crate) enum Fault {
    /// This entry failed. The session goes on with the others.
    Entry(volume::Error),
    /// The session ends.
    Session(Stopped),
}

impl Fault {
    /// Ends the session where `self` does; otherwise hands the error of the entry to `report`.
    pub(crate) fn settle(
        self,
        report: impl FnOnce(&volume::Error) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        match self {
            Self::Entry(error) => report(&error),
            Self::Session(stopped) => Err(stopped),
        }
    }
}

impl From<volume::Error> for Fault {
    fn from(error: volume::Error) -> Self {
        Self::Entry(error)
    }
}

impl From<Stopped> for Fault {
    fn from(stopped: Stopped) -> Self {
        Self::Session(stopped)
    }
}
