//! When a tunnel that nobody uses any more gives up.
//!
//! A `sync` container that is killed leaves no marker, and a tunnel that waits for one would keep
//! the pod alive for ever. The kernel closes the connections of a killed process, so the sign to
//! watch for is: no connection is open, and none has been for a whole deadline. A connection that
//! is open and silent is left alone; its peer may be busy hashing. One that could not be carried any
//! further is a sign of life as well: somebody waits for the far end.
//!
//! A state machine without a clock: the caller says what happens and when.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// Knows which connections are open, and since when there is none.
#[derive(Debug, Clone)]
pub struct IdleWatch {
    open: HashSet<u64>,
    since: Instant,
    deadline: Duration,
}

impl IdleWatch {
    /// No connection yet; the first has the same `deadline` to come as each later one.
    #[must_use]
    pub fn new(now: Instant, deadline: Duration) -> Self {
        Self { open: HashSet::new(), since: now, deadline }
    }

    /// The connection `id` was accepted and goes somewhere.
    pub fn opened(&mut self, id: u64) {
        self.open.insert(id);
    }

    /// The connection `id` ended at `now`, or came to nothing, whether it had been [`opened`](Self::opened) or not.
    pub fn ended(&mut self, id: u64, now: Instant) {
        self.open.remove(&id);
        self.since = self.since.max(now);
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// When the watch expires if nothing happens; `None` while a connection is open, and where
    /// the deadline is beyond what a clock can show.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        if self.open() > 0 { None } else { self.since.checked_add(self.deadline) }
    }

    /// Whether nobody has been there for the whole deadline.
    #[must_use]
    pub fn expired(&self, now: Instant) -> bool {
        self.expires_at().is_some_and(|end| now >= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    const DEADLINE: Duration = Duration::from_secs(60);

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Open,
        /// Of one that is open, if there is one.
        Close,
        /// Of one that never was.
        Fail,
        Wait(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        let plain = prop::sample::select(vec![Event::Open, Event::Close, Event::Fail]);
        prop_oneof![3 => plain, 1 => (0..90_u64).prop_map(Event::Wait)]
    }

    proptest! {
        #[test]
        fn expires_after_a_whole_deadline_without_connection(events in vec(event(), 0..40)) {
            let start = Instant::now();
            let mut watch = IdleWatch::new(start, DEADLINE);
            let (mut now, mut open, mut next, mut idle) = (start, vec![], 0, 0);
            for event in events {
                next += 1;
                match event {
                    Event::Open => { open.push(next); watch.opened(next); }
                    Event::Close => if let Some(id) = open.pop() { idle = 0; watch.ended(id, now); },
                    Event::Fail => { idle = 0; watch.ended(next, now); }
                    Event::Wait(seconds) => { now += Duration::from_secs(seconds); idle += seconds; }
                }
                prop_assert_eq!(watch.expired(now), open.is_empty() && idle >= 60);
            }
        }
    }

    #[test]
    fn silence_on_an_open_connection_is_no_idleness() {
        let start = Instant::now();
        let mut watch = IdleWatch::new(start, DEADLINE);
        watch.opened(1);
        assert!(!watch.expired(start + DEADLINE * 1000));
        assert_eq!(watch.expires_at(), None);
        watch.ended(1, start + DEADLINE);
        assert_eq!(watch.expires_at(), Some(start + DEADLINE * 2));
    }

    #[test]
    fn a_deadline_for_ever_never_ends() {
        let start = Instant::now();
        assert!(!IdleWatch::new(start, Duration::MAX).expired(start + DEADLINE * 1000));
    }
}
