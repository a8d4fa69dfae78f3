//! The one error of this crate.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a part of the contract could not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the contract could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb: `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Text that is no [`VolumeName`](crate::VolumeName).
    #[error(
        "invalid volume name {name:?}: use 1 to 248 characters of A-Z a-z 0-9 . _ - and no leading dot"
    )]
    VolumeName {
        /// The text.
        name: String,
    },
    /// The process could not ask for its signals.
    #[error("cannot install signal handlers: {0}")]
    Signals(#[source] io::Error),
}

impl Error {
    /// Turns an I/O error into [`Error::File`]; made for `map_err`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_path_buf(), source }
    }

    /// Whether the same call may succeed later with nothing changed by hand.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::Interrupted | io::ErrorKind::StorageFull)
            }
            Self::VolumeName { .. } | Self::Signals(_) => false,
        }
    }
}
