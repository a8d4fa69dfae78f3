//! The one error of this crate.

use std::io;

/// Why telemetry could not be set up. Nothing of it is retryable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A log filter that cannot be understood.
    #[error("log filter {filter:?}: {why}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Logging is set up already.
    #[error("logging is set up already")]
    Logging,
    /// The thread that reports progress could not be started.
    #[error("cannot start the progress thread: {0}")]
    Thread(#[source] io::Error),
    /// A word that names no choice of an option.
    #[error("expected one of {choices}; got {given:?}")]
    Choice {
        /// The word.
        given: String,
        /// The words that there are.
        choices: &'static str,
    },
}
