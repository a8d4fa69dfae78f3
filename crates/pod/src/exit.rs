//! Exit codes: the one number that a container leaves behind.
//!
//! The numbers are rsync's where rsync has one for the case, so that scripts and people who know
//! them read them right. Codes are compared by badness, never added or multiplied: a sum can wrap
//! to zero, and zero means that everything is there.

use std::{fmt, process};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a process of a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// Everything asked for was done, and both ends agree on it.
    Ok = 0,
    /// The command line makes no sense.
    Usage = 1,
    /// The peer speaks another protocol, or breaks this one.
    Protocol = 2,
    /// Source or destination cannot be used: missing, of the wrong kind, too small, or empty.
    Selection = 3,
    /// The transfer was refused before it began: identity, authorisation, unknown or busy volume.
    StartUp = 5,
    /// A socket could not be opened, bound or connected.
    Socket = 10,
    /// Reading or writing files failed in a way that ends the run: no space, read-only, I/O error.
    FileIo = 11,
    /// The connection broke in the middle of the transfer.
    Stream = 12,
    /// A signal asked the process to stop.
    Signal = 20,
    /// Memory ran out, or a memory budget did.
    Memory = 22,
    /// The run went to its end, but some entries are not as they are at the source.
    Partial = 23,
    /// The run went to its end, but some entries changed or vanished at the source meanwhile. Nothing else went wrong: everything
    /// but these entries is at the destination, and both ends agree on it.
    SourceChanged = 24,
    /// The limit on deletions left extraneous entries in place.
    DeleteLimit = 25,
    /// The peer said nothing for too long.
    IoTimeout = 30,
    /// No connection came about in time.
    ConnectTimeout = 35,
}

impl ExitCode {
    /// Every code, from the least bad to the worst. This order is the one that [`worst`](Self::worst)
    /// goes by:
    ///
    /// 1. success;
    /// 2. runs that went to their end, by how much is missing;
    /// 3. trouble with the connection, which another try may not meet;
    /// 4. a signal, above the broken connections that it causes;
    /// 5. what another try would meet again, the more fundamental the worse.
    pub const BY_BADNESS: [Self; 15] = [
        Self::Ok,
        Self::SourceChanged,
        Self::Partial,
        Self::DeleteLimit,
        Self::ConnectTimeout,
        Self::IoTimeout,
        Self::Socket,
        Self::Stream,
        Self::Signal,
        Self::Memory,
        Self::FileIo,
        Self::StartUp,
        Self::Selection,
        Self::Protocol,
        Self::Usage,
    ];

    /// The worse of two codes, by [`BY_BADNESS`](Self::BY_BADNESS).
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        if self.badness() >= other.badness() { self } else { other }
    }

    /// The number that the process exits with.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code of a number, or `None` where the number has no meaning here.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::BY_BADNESS.into_iter().find(|code| code.number() == number)
    }

    /// Whether the same run may end better with nothing changed by hand.
    ///
    /// [`SourceChanged`](Self::SourceChanged) is: the next walk no longer sees what has gone, and may find at rest what changed.
    /// [`Partial`](Self::Partial) is not: an entry that cannot be read now cannot be read again.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::SourceChanged
            | Self::ConnectTimeout
            | Self::IoTimeout
            | Self::Socket
            | Self::Stream
            | Self::Signal => true,
            Self::Ok
            | Self::Partial
            | Self::DeleteLimit
            | Self::Memory
            | Self::FileIo
            | Self::StartUp
            | Self::Selection
            | Self::Protocol
            | Self::Usage => false,
        }
    }

    /// The code in words, for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Ok => "completed",
            Self::Usage => "usage error",
            Self::Protocol => "protocol error",
            Self::Selection => "source or destination not usable",
            Self::StartUp => "cannot start",
            Self::Socket => "socket error",
            Self::FileIo => "file I/O error",
            Self::Stream => "connection lost",
            Self::Signal => "interrupted by a signal",
            Self::Memory => "out of memory",
            Self::Partial => "partial transfer",
            Self::SourceChanged => "source entries changed or vanished",
            Self::DeleteLimit => "stopped by --max-delete",
            Self::IoTimeout => "I/O timeout",
            Self::ConnectTimeout => "connect timeout",
        }
    }

    fn badness(self) -> Option<usize> {
        Self::BY_BADNESS.iter().position(|&code| code == self)
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.describe(), self.number())
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

impl Serialize for ExitCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for ExitCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        Self::from_number(number)
            .ok_or_else(|| serde::de::Error::custom(format_args!("unknown exit code {number}")))
    }
}

#[cfg(test)]
mod tests {
    use super::ExitCode::{self, *};
    use proptest::{prelude::*, sample::select};

    fn code() -> impl Strategy<Value = ExitCode> {
        select(ExitCode::BY_BADNESS.to_vec())
    }

    proptest! {
        #[test]
        fn worst_is_a_maximum(a in code(), b in code(), c in code()) {
            prop_assert_eq!(a.worst(a), a);
            prop_assert_eq!(a.worst(b), b.worst(a));
            prop_assert_eq!(a.worst(b).worst(c), a.worst(b.worst(c)));
            prop_assert_eq!(a.worst(Ok), a);
            prop_assert!([a, b].contains(&a.worst(b)));
        }

        #[test]
        fn numbers_have_one_meaning(number: u8) {
            match ExitCode::from_number(number) {
                Some(code) => prop_assert_eq!(code.number(), number),
                None => prop_assert!(![0, 1, 2, 3, 5, 10, 11, 12, 20, 22, 23, 24, 25, 30, 35].contains(&number)),
            }
        }
    }

    #[test]
    fn a_run_that_ended_early_is_worse_than_one_that_ended_short() {
        assert_eq!(SourceChanged.worst(Partial), Partial);
        assert_eq!(Partial.worst(DeleteLimit), DeleteLimit);
        for hard in &ExitCode::BY_BADNESS[4..] {
            assert_eq!(hard.worst(DeleteLimit), *hard);
        }
        assert_eq!(Signal.worst(Stream), Signal);
        assert_eq!(FileIo.worst(Signal), FileIo);
    }

    #[test]
    fn every_code_is_in_the_order_once() {
        for (at, code) in ExitCode::BY_BADNESS.iter().enumerate() {
            assert_eq!(code.badness(), Some(at), "{code} twice");
        }
    }

    #[test]
    fn json_is_the_number() {
        assert_eq!(serde_json::to_string(&Partial).unwrap(), "23");
        assert_eq!(serde_json::from_str::<ExitCode>("35").unwrap(), ConnectTimeout);
        assert!(serde_json::from_str::<ExitCode>("4").is_err());
        assert!(serde_json::from_str::<ExitCode>("256").is_err());
    }
}
