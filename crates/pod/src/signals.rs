//! A request to stop, as a token that every task and thread can hold.
//!
//! SIGTERM (the kubelet) and SIGINT (a terminal) both ask for the same: begin nothing new, leave a
//! state that resumes, report, and exit. What a second signal means is up to the binary, which
//! can wait for it with [`Shutdown::insisted`].

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::Error;

/// Whether somebody asked this process to stop. Clones share the state.
#[derive(Debug, Clone)]
pub struct Shutdown {
    requests: watch::Sender<Requests>,
}

/// How often somebody asked, and how at first.
#[derive(Debug, Clone, Copy, Default)]
struct Requests {
    count: u32,
    first: Option<&'static str>,
}

impl Shutdown {
    /// A token that no signal reaches; for work inside another program, and for tests.
    #[must_use]
    pub fn new() -> Self {
        Self { requests: watch::Sender::default() }
    }

    /// A token that SIGTERM and SIGINT reach from now on. Must be called within a runtime, which
    /// carries the task that listens.
    ///
    /// # Errors
    /// [`Error::Signals`] where the process cannot take the signals over.
    pub fn install() -> Result<Self, Error> {
        let mut term = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let mut int = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let token = Self::new();
        let listener = token.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    Some(()) = term.recv() => "SIGTERM",
                    Some(()) = int.recv() => "SIGINT",
                    else => return,
                };
                tracing::warn!("{name}: stopping");
                listener.request_by(Some(name));
            }
        });
        Ok(token)
    }

    /// Asks all holders to stop.
    pub fn request(&self) {
        self.request_by(None);
    }

    fn request_by(&self, signal: Option<&'static str>) {
        self.requests.send_modify(|requests| {
            requests.count = requests.count.saturating_add(1);
            requests.first = requests.first.or(signal);
        });
    }

    /// The name of the signal that came first, if it was one.
    #[must_use]
    pub fn signal(&self) -> Option<&'static str> {
        self.requests.borrow().first
    }

    /// Whether somebody asked; for threads that look now and then.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requests.borrow().count > 0
    }

    /// Waits until somebody asks. Returns at once where somebody did. Safe to cancel.
    pub async fn requested(&self) {
        self.reached(1).await;
    }

    /// Waits until somebody asks a second time. Safe to cancel.
    pub async fn insisted(&self) {
        self.reached(2).await;
    }

    async fn reached(&self, count: u32) {
        // The only error is that no sender is left, and `self` holds one.
        let _ = self.requests.subscribe().wait_for(|requests| requests.count >= count).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};
    use std::time::Duration;
    use tokio::time::timeout;

    const SHORT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_request_reaches_every_clone() {
        let token = Shutdown::new();
        let clone = token.clone();
        assert!(!clone.is_requested());
        assert!(timeout(SHORT, clone.requested()).await.is_err());

        let waiting = tokio::spawn(async move {
            clone.requested().await;
            clone
        });
        token.request();
        let clone = timeout(SHORT, waiting).await.unwrap().unwrap();
        assert!(clone.is_requested());
        clone.requested().await;

        assert!(timeout(SHORT, clone.insisted()).await.is_err());
        token.request();
        timeout(SHORT, clone.insisted()).await.unwrap();
    }

    /// Both signals in one test: they go to the whole process, so two tests would meet.
    #[tokio::test]
    async fn signals_are_requests() {
        let token = Shutdown::install().unwrap();
        assert!(!token.is_requested());
        kill_process(getpid(), Signal::TERM).unwrap();
        token.requested().await;
        kill_process(getpid(), Signal::INT).unwrap();
        token.insisted().await;
        assert_eq!(token.signal(), Some("SIGTERM"));
    }
}
