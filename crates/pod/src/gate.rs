//! The readiness gate: `sync` waits here for its tunnel, and through it for the volume.
//!
//! An open port says little, for a tunnel listens long before the far end does. The attempt that
//! is made again and again is therefore the caller's whole handshake to the named volume. Each
//! failure carries a [`Reason`]; the last one is what the pod reports when its patience ends.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{ExitCode, backoff::Backoff};

/// How long `sync` waits unless told otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);

/// How long the first attempt may take, however short the deadline is.
pub const FIRST_TRY: Duration = Duration::from_secs(15);

/// Why the other end cannot be used, as far as this end can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The tunnel of this pod does not listen yet.
    NotStarted,
    /// The server's host answers, but nothing listens there.
    Refused,
    /// The server's name has no address.
    Dns,
    /// No answer in time.
    Timeout,
    /// The connection broke off, or no TLS session came about on it.
    Tls,
    /// One end does not accept the certificate of the other.
    Identity,
    /// The server has no volume of that name, or not for this identity.
    UnknownVolume,
    /// Another transfer to the volume is under way.
    Busy,
    /// What answers speaks another protocol, or another version of it.
    Protocol,
}

impl Reason {
    /// Whether time alone can cure it.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::NotStarted
            | Self::Refused
            | Self::Dns
            | Self::Timeout
            | Self::Tls
            | Self::Busy => true,
            Self::Identity | Self::UnknownVolume | Self::Protocol => false,
        }
    }

    /// What the process exits with where this is why it ended.
    #[must_use]
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::NotStarted | Self::Refused | Self::Dns | Self::Timeout => {
                ExitCode::ConnectTimeout
            }
            Self::Tls | Self::Identity | Self::UnknownVolume | Self::Busy => ExitCode::StartUp,
            Self::Protocol => ExitCode::Protocol,
        }
    }
}

impl Reason {
    /// What stands before a message that does not say it.
    fn prefix(self) -> &'static str {
        match self {
            // The message begins with an address.
            Self::NotStarted => "no tunnel at ",
            Self::Dns => "DNS: ",
            Self::Timeout => "timeout: ",
            Self::Protocol => "protocol: ",
            Self::Refused | Self::Tls | Self::Identity | Self::UnknownVolume | Self::Busy => "",
        }
    }
}

/// Why one attempt did not get through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", reason.prefix())]
pub struct NotReady {
    /// The kind of trouble.
    pub reason: Reason,
    /// The trouble in words.
    pub message: String,
    /// Whether to try again.
    pub retryable: bool,
}

impl NotReady {
    /// Trouble that is retryable if its reason is.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retryable: reason.is_retryable() }
    }
}

/// Why the gate stayed shut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaveUp {
    /// The last trouble that an attempt met.
    pub last: NotReady,
    /// How many attempts were made, the unfinished one included.
    pub attempts: u32,
    /// How long they went on, where patience ended; `None` where the trouble ended it at once.
    pub waited: Option<Duration>,
}

impl GaveUp {
    /// Whether another run may get through: not where it ended at once.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.last.retryable
    }

    /// What the process exits with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        self.last.reason.exit_code()
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(waited) = self.waited {
            write!(f, "not ready after {} s (--wait): ", waited.as_secs())?;
        }
        self.last.fmt(f)
    }
}

impl std::error::Error for GaveUp {}

/// Makes attempts until one gets through, trouble comes up that is not retryable, or `deadline`
/// has passed since the call.
///
/// An attempt that is under way at the deadline is dropped, but the first is given [`FIRST_TRY`] at
/// least: a deadline of zero means one try. Between attempts it waits as
/// [`Backoff::default`] says.
///
/// # Errors
/// [`GaveUp`] with the last trouble; [`Reason::Timeout`] where no attempt ever came back.
pub async fn wait_ready<T>(
    deadline: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, NotReady>,
) -> Result<T, GaveUp> {
    let end = Instant::now() + deadline;
    let mut backoff = Backoff::default();
    let mut attempts = 0_u32;
    let mut last = NotReady::new(Reason::Timeout, "no answer");
    loop {
        attempts = attempts.saturating_add(1);
        let until = if attempts == 1 { end.max(Instant::now() + FIRST_TRY) } else { end };
        let Ok(answer) = timeout_at(until, attempt()).await else {
            return Err(GaveUp { last, attempts, waited: Some(deadline) });
        };
        match answer {
            Ok(value) => return Ok(value),
            Err(trouble) if !trouble.retryable => {
                return Err(GaveUp { last: trouble, attempts, waited: None });
            }
            Err(trouble) => {
                if trouble != last {
                    tracing::info!(attempts, "not ready yet: {trouble}");
                }
                last = trouble;
            }
        }
        let pause = backoff.next_delay();
        if Instant::now() + pause >= end {
            return Err(GaveUp { last, attempts, waited: Some(deadline) });
        }
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn opens_once_an_attempt_gets_through() {
        let mut tries = 0;
        let ready = wait_ready(MINUTE, async || {
            tries += 1;
            if tries < 5 {
                Err(NotReady::new(Reason::Refused, "10.0.0.1:443"))
            } else {
                Ok("hello")
            }
        })
        .await;
        assert_eq!(ready, Ok("hello"));
        assert_eq!(tries, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_reports_the_last_reason() {
        let start = Instant::now();
        let mut tries = 0;
        let gave_up = wait_ready(MINUTE * 10, async || {
            tries += 1;
            let reason = if tries < 9 { Reason::Refused } else { Reason::Dns };
            Err::<(), _>(NotReady::new(reason, "server.example"))
        })
        .await
        .unwrap_err();
        assert_eq!(gave_up.to_string(), "not ready after 600 s (--wait): DNS: server.example");
        assert_eq!(gave_up.attempts, tries);
        assert_eq!(gave_up.exit_code(), ExitCode::ConnectTimeout);
        assert!(gave_up.is_retryable());
        assert!(start.elapsed() <= MINUTE * 10);
        assert!(start.elapsed() > MINUTE * 9, "patience ended early");
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_that_time_cannot_cure_ends_at_once() {
        let start = Instant::now();
        let gave_up =
            wait_ready(MINUTE, async || Err::<(), _>(NotReady::new(Reason::UnknownVolume, "data")))
                .await
                .unwrap_err();
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(gave_up.attempts, 1);
        assert_eq!(gave_up.to_string(), "data");
        assert_eq!(gave_up.exit_code(), ExitCode::StartUp);
        assert!(!gave_up.is_retryable());
    }

    #[tokio::test(start_paused = true)]
    async fn the_caller_may_insist_on_retrying() {
        let insist = NotReady { retryable: true, ..NotReady::new(Reason::Identity, "expired") };
        let gave_up = wait_ready(MINUTE * 10, async || Err::<(), _>(insist.clone())).await;
        let gave_up = gave_up.unwrap_err();
        assert!(gave_up.attempts > 10);
        assert_eq!(gave_up.to_string(), "not ready after 600 s (--wait): expired");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_does_not_hold_the_gate() {
        let start = Instant::now();
        let gave_up = wait_ready(MINUTE, async || pending::<Result<(), _>>().await).await;
        let gave_up = gave_up.unwrap_err();
        assert_eq!(start.elapsed(), MINUTE);
        assert_eq!(gave_up.last.reason, Reason::Timeout);

        let mut tries = 0;
        let gave_up = wait_ready(MINUTE, async || {
            tries += 1;
            if tries == 1 {
                return Err::<(), _>(NotReady::new(Reason::Tls, "handshake failure"));
            }
            pending().await
        })
        .await
        .unwrap_err();
        assert_eq!(gave_up.last.reason, Reason::Tls, "an earlier reason says more than none");
    }
}
