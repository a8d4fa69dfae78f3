//! The one error of this crate: what kind of failure it is, and one sentence.

/// Result of an operation on a repository.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is. Decides exit code and retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is not valid: a malformed URL, a missing credential, a wrong password.
    Usage,
    /// The repository, snapshot or path does not exist, or the destination is not usable.
    Selection,
    /// The storage did not answer, or refused.
    Storage,
    /// What the repository holds cannot be read: it is damaged, or of an unknown version.
    Damaged,
    /// Another process holds a lock of the repository.
    Locked,
    /// The source or destination volume failed as a whole.
    Volume,
    /// A signal requested the end of the run.
    Stopped,
}

/// A run that did not reach its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    /// What kind of failure it is.
    pub kind: Kind,
    /// What failed, on what.
    pub what: String,
}

impl Error {
    /// A failure of the given kind.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }

    /// True where the same run may succeed later without a change by hand.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Storage | Kind::Locked | Kind::Stopped)
    }
}

impl From<volume::Error> for Error {
    fn from(error: volume::Error) -> Self {
        Self::new(Kind::Volume, error.to_string())
    }
}
