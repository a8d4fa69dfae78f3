//! What can end a session.

use wire::{DecodeError, Refusal, Text};

/// Result of a session.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a session ended without a commit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The volume here can take or give no more.
    #[error("{}", volume_failure(.0))]
    Volume(#[from] volume::Error),
    /// The stream broke.
    #[error("connection lost: {0}")]
    Stream(#[from] std::io::Error),
    /// The peer closed a stream before the session was over.
    #[error("the peer closed the connection before the transfer was complete")]
    Eof,
    /// The peer sent what is no message.
    #[error("the peer does not speak the pvferry protocol: {0}")]
    Decode(#[from] DecodeError),
    /// The peer sent a message that has no place here.
    #[error("protocol violation by the peer: {0}")]
    Protocol(&'static str),
    /// The peer refused the session.
    #[error("refused by the server: {1}")]
    Refused(Refusal, Text),
    /// The peer gave up, and says why.
    #[error("{}", aborted(.1))]
    Aborted(u8, Text),
    /// The peer fell silent.
    #[error("no traffic from the peer for {0} s (--timeout)")]
    Timeout(u32),
    /// The source has no entry at all, which is more often a wrong mount than a wish.
    #[error("the source is empty (missing mount?): use --allow-empty-source if this is intended")]
    EmptySource,
    /// More is kept for entries than the memory budget, in bytes, allows.
    #[error(
        "hard links, unfinished entries and deletions need more than the memory budget of {} MiB",
        .0 >> 20
    )]
    MemoryBudget(u64),
    /// The source has entries, and the filters leave none of them.
    #[error(
        "all {0} entries at the root of the source are excluded by the filters: use --allow-empty-source if this is intended"
    )]
    AllExcluded(u64),
    /// The path of the volume leads elsewhere: it was unmounted or replaced.
    #[error(
        "the volume was replaced during the transfer: its path now points to another directory"
    )]
    VolumeReplaced,
    /// Ended from outside.
    #[error("interrupted by a signal")]
    Cancelled,
    /// A hash of the peer's makes no sense of the data.
    #[error("delta: {0}")]
    Delta(#[from] delta::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// A failed operation on an entry. Where the volume itself can take no more, that comes first: only a destination is
/// written to.
fn volume_failure(error: &volume::Error) -> String {
    use rustix::io::Errno;
    let reason = volume::reason(error.errno);
    let state = match error.errno {
        Errno::NOSPC => "full",
        Errno::DQUOT => "over its quota",
        Errno::ROFS => "read-only",
        _ => return error.to_string(),
    };
    // The kernel has one answer for both.
    let which = if error.errno == Errno::NOSPC { " or inode: see df and df -i" } else { "" };
    format!("{DESTINATION} {state}: {}: {reason}{which}", error.name)
}

const DESTINATION: &str = "destination is";

/// Why the peer ended the session. What a destination reports of itself needs no other words.
fn aborted(text: &Text) -> String {
    if text.starts_with(DESTINATION) {
        text.to_string()
    } else {
        format!("stopped by the peer: {text}")
    }
}

impl Error {
    /// The exit code, with rsync's meaning where it has one.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Volume(_) | Self::VolumeReplaced => 11,
            Self::Stream(_) | Self::Eof => 12,
            Self::Decode(_) | Self::Protocol(_) | Self::Delta(_) => 2,
            Self::Refused(Refusal::Unfit, _) => 3,
            Self::Refused(Refusal::Protocol | Refusal::Version, _) => 2,
            Self::Refused(..) => 5,
            Self::MemoryBudget(_) | Self::Thread(_) => 22,
            Self::Aborted(code, _) => *code,
            Self::Timeout(_) => 30,
            Self::EmptySource | Self::AllExcluded(_) => 3,
            Self::Cancelled => 20,
        }
    }

    /// True where the same run may succeed when it is tried again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            // A run that was stopped can be taken up where it was left.
            Self::Stream(_) | Self::Eof | Self::Timeout(_) | Self::Thread(_) | Self::Cancelled => {
                true
            }
            Self::Refused(refusal, _) => {
                matches!(refusal, Refusal::Busy | Refusal::Unavailable | Refusal::UnknownSession)
            }
            Self::Aborted(code, _) => matches!(code, 10 | 12 | 20 | 30),
            _ => false,
        }
    }

    /// What the peer is told when this ends the session here.
    pub(crate) fn abort_text(&self) -> Option<(u8, String)> {
        match self {
            Self::Stream(_) | Self::Eof | Self::Aborted(..) | Self::Refused(..) => None,
            other => Some((other.exit_code(), other.to_string())),
        }
    }
}
