//! Counts calls, and decides what becomes of each.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is done and answered.
    Done,
    /// It never reaches the server.
    Lost,
    /// It is done, and the answer never arrives.
    AnswerLost,
    /// The server fails.
    Refused,
    /// It is done, and the client waits for the answer for too long.
    TimedOut,
}

#[derive(Default)]
struct State {
    made: Vec<String>,
    watches: usize,
    fault: Option<(usize, Fate)>,
    broken: Option<&'static str>,
}

/// The calls of all clusters of a test.
#[derive(Default)]
pub(crate) struct Calls {
    state: Mutex<State>,
    stalled: Notify,
}

impl Calls {
    /// Call `number`, from 1, meets `fate`.
    pub(crate) fn fault(&self, number: usize, fate: Fate) {
        self.state.lock().fault = Some((number, fate));
    }

    pub(crate) fn next(&self, call: &str) -> Fate {
        let mut state = self.state.lock();
        state.made.push(call.to_owned());
        let number = state.made.len();
        state.fault.filter(|(at, _)| *at == number).map_or(Fate::Done, |(_, fate)| fate)
    }

    /// Connections to a cluster fail from now on.
    pub(crate) fn break_cluster(&self, name: &'static str) {
        self.state.lock().broken = Some(name);
    }

    /// They no longer do.
    pub(crate) fn mend(&self) {
        self.state.lock().broken = None;
    }

    pub(crate) fn is_broken(&self, name: &str) -> bool {
        self.state.lock().broken == Some(name)
    }

    pub(crate) fn watched(&self) {
        self.state.lock().watches += 1;
    }

    /// How many calls were made, watches aside.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().made.len()
    }

    /// All calls that were made.
    pub(crate) fn all(&self) -> Vec<String> {
        self.state.lock().made.clone()
    }

    /// What was counted so far no longer counts.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        state.made.clear();
        state.watches = 0;
    }

    /// How many watches were begun.
    pub(crate) fn watches(&self) -> usize {
        self.state.lock().watches
    }

    /// How many calls there were of each verb and kind.
    pub(crate) fn by_verb_and_kind(&self) -> BTreeMap<String, usize> {
        let mut table = BTreeMap::new();
        for call in &self.state.lock().made {
            *table.entry(verb_and_kind(call)).or_default() += 1;
        }
        table
    }

    /// For ever, and known to [`Self::until_stalled`].
    pub(crate) async fn stall(&self) {
        self.stalled.notify_one();
        std::future::pending::<()>().await;
    }

    /// Returns once a call will never be answered.
    pub(crate) async fn until_stalled(&self) {
        self.stalled.notified().await;
    }
}

/// `GET pods`, without namespaces and names.
fn verb_and_kind(call: &str) -> String {
    let mut words = call.split(' ').skip(1);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    if parts[0] == "namespaces" && parts.len() > 2 {
        parts.drain(..2);
    }
    let verb = if method == "GET" && parts.len() == 1 { "LIST" } else { method };
    let part = parts.get(2).map(|part| format!("/{part}")).unwrap_or_default();
    format!("{verb} {}{part}", parts[0])
}
