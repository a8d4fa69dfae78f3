//! The calls to another cluster: each has a deadline, and a cluster that does not answer is not called again and again.
//!
//! Migrations share the workers of the controller. A cluster that answers nothing must not hold them, so that those between
//! other clusters go on: at most [`PROBES`] calls at a time wait for a cluster that has not answered lately, all others
//! fail at once. After a failure there is a pause, which grows. Every call of a client passes here, whoever makes it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Client, client::Body};
use parking_lot::Mutex;

use crate::reconciler::Clock;

/// Calls at a time to a cluster that has not answered lately.
const PROBES: usize = 2;
/// For so long an answer shows that a cluster can be reached.
const LATELY: SignedDuration = SignedDuration::from_secs(30);
/// Seconds of the pause after the first failure; it doubles with each.
const FIRST_PAUSE: i64 = 2;
/// Seconds of the longest pause.
const LONGEST_PAUSE: i64 = 60;

/// Makes the calls of a client of another cluster.
#[derive(Clone)]
pub(crate) struct Guard {
    client: Client,
    name: Arc<str>,
    deadline: Duration,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answered: Option<Timestamp>,
    failures: u32,
    paused_until: Option<Timestamp>,
    probes: usize,
}

/// Why a call was not made or not answered.
#[derive(Debug, thiserror::Error)]
enum Unreachable {
    #[error("{0} does not respond; next call in {1} s")]
    Paused(Arc<str>, i64),
    #[error("waiting for a response from {0}")]
    Probed(Arc<str>),
    #[error("{0} did not respond within {1} s")]
    TooLate(Arc<str>, u64),
    #[error("{0}: {1}")]
    Failed(Arc<str>, kube::Error),
}

/// A call that waits for a cluster that has not answered lately. It is given back also if the call is dropped.
struct Probe(Arc<Mutex<State>>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.lock().probes -= 1;
    }
}

impl Guard {
    /// The same cluster, through a guard. `name` is how messages call it.
    pub(crate) fn client(client: Client, name: &str, deadline: Duration, clock: Clock) -> Client {
        let namespace = client.default_namespace().to_owned();
        let guard = Self { client, name: name.into(), deadline, clock, state: Arc::default() };
        Client::new(guard, namespace)
    }

    /// Whether a call may be made now.
    fn admit(&self, now: Timestamp) -> Result<Option<Probe>, Unreachable> {
        let mut state = self.state.lock();
        let left = state.paused_until.map_or(0, |until| until.as_second() - now.as_second());
        // A clock may have been set back.
        if (1..=LONGEST_PAUSE).contains(&left) {
            return Err(Unreachable::Paused(Arc::clone(&self.name), left));
        }
        let lately = |at: Timestamp| now.duration_since(at).abs() < LATELY;
        if state.failures == 0 && state.answered.is_some_and(lately) {
            return Ok(None);
        }
        if state.probes >= PROBES {
            return Err(Unreachable::Probed(Arc::clone(&self.name)));
        }
        state.probes += 1;
        Ok(Some(Probe(Arc::clone(&self.state))))
    }

    fn settle(&self, answered: bool, now: Timestamp) {
        let mut state = self.state.lock();
        if answered {
            *state = State { answered: Some(now), probes: state.probes, ..State::default() };
            return;
        }
        let pause = (FIRST_PAUSE << state.failures.min(5)).min(LONGEST_PAUSE);
        state.failures = state.failures.saturating_add(1);
        state.paused_until = now.checked_add(SignedDuration::from_secs(pause)).ok();
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Unreachable> {
        let _probe = self.admit(self.clock.now())?;
        let sent = tokio::time::timeout(self.deadline, self.client.send(request)).await;
        self.settle(matches!(sent, Ok(Ok(_))), self.clock.now());
        match sent {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Unreachable::Failed(Arc::clone(&self.name), error)),
            Err(_) => Err(Unreachable::TooLate(Arc::clone(&self.name), self.deadline.as_secs())),
        }
    }
}

impl tower_service::Service<Request<Body>> for Guard {
    type Response = Response<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move { Ok(guard.send(request).await?) })
    }
}
