//! How fast a session goes, and how long it will go on.
//!
//! The speed is the average over the last ten seconds: long enough not to jump with every file,
//! short enough to follow when unchanged data gives way to new data. No clock: the caller says
//! when each sample was taken.

use std::{collections::VecDeque, time::Duration};

use session::monitor::Snapshot;

const WINDOW: Duration = Duration::from_secs(10);
/// Below this span two samples say nothing about the speed.
const LEAST: Duration = Duration::from_millis(500);

/// The speed of settling, over the window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Speed {
    pub(super) bytes_per_second: f64,
    pub(super) entries_per_second: f64,
}

impl Speed {
    /// How long the rest takes at this speed. `None` while totals still grow, and where nothing
    /// moves.
    ///
    /// A tree of small files is bound by their number, one of large files by their bytes: the
    /// later of both ends counts.
    pub(super) fn eta(&self, snapshot: &Snapshot) -> Option<Duration> {
        if !snapshot.listing_complete {
            return None;
        }
        let bytes = snapshot.bytes_total.saturating_sub(snapshot.bytes_done);
        let entries = snapshot.entries_total.saturating_sub(snapshot.entries);
        if (bytes, entries) == (0, 0) {
            return None;
        }
        let seconds = time_for(bytes, self.bytes_per_second)?
            .max(time_for(entries, self.entries_per_second)?);
        Duration::try_from_secs_f64(seconds).ok()
    }
}

fn time_for(rest: u64, per_second: f64) -> Option<f64> {
    match rest {
        0 => Some(0.0),
        _ if per_second > 0.0 => Some(rest as f64 / per_second),
        _ => None,
    }
}

/// The samples within the window, and the last one before it.
#[derive(Debug, Default)]
pub(super) struct RateMeter {
    samples: VecDeque<(Duration, u64, u64)>,
}

impl RateMeter {
    /// Takes in the counters as they were at `now`, counted from any fixed moment.
    pub(super) fn sample(&mut self, now: Duration, snapshot: &Snapshot) {
        self.samples.push_back((now, snapshot.bytes_done, snapshot.entries));
        while self.samples.get(1).is_some_and(|second| second.0 + WINDOW <= now) {
            self.samples.pop_front();
        }
    }

    /// The speed over the window; zero before there are two samples far enough apart.
    pub(super) fn speed(&self) -> Speed {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Speed::default();
        };
        let span = last.0.saturating_sub(first.0);
        if span < LEAST {
            return Speed::default();
        }
        let per_second = |a: u64, b: u64| b.saturating_sub(a) as f64 / span.as_secs_f64();
        Speed {
            bytes_per_second: per_second(first.1, last.1),
            entries_per_second: per_second(first.2, last.2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn at(bytes_done: u64, entries: u64) -> Snapshot {
        Snapshot {
            bytes_done,
            entries,
            bytes_total: 10_000,
            entries_total: 100,
            listing_complete: true,
            ..Snapshot::default()
        }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn speed_follows_the_window() {
        let mut meter = RateMeter::default();
        assert_eq!(meter.speed(), Speed::default());
        for n in 0..=20 {
            meter.sample(seconds(n), &at(n * 100, n));
        }
        assert_eq!(meter.speed(), Speed { bytes_per_second: 100.0, entries_per_second: 1.0 });
        for n in 21..=31 {
            meter.sample(seconds(n), &at(2000, 20));
        }
        assert_eq!(meter.speed(), Speed::default(), "it stands still");
    }

    #[test]
    fn eta_is_the_later_of_bytes_and_entries() {
        let speed = Speed { bytes_per_second: 100.0, entries_per_second: 1.0 };
        assert_eq!(speed.eta(&at(9000, 99)), Some(seconds(10)));
        assert_eq!(speed.eta(&at(9900, 70)), Some(seconds(30)));
        assert_eq!(speed.eta(&at(10_000, 100)), None, "nothing is left");
        assert_eq!(Speed::default().eta(&at(1, 1)), None);
        let growing = Snapshot { listing_complete: false, ..at(9000, 99) };
        assert_eq!(speed.eta(&growing), None, "the totals still grow");
    }

    proptest! {
        #[test]
        fn a_steady_speed_is_found_whatever_the_ticks(steps in vec(1..5000_u64, 2..200), bps in 1..1_000_000_u64) {
            let mut meter = RateMeter::default();
            let mut now = 0;
            meter.sample(Duration::ZERO, &at(0, 0));
            for step in steps {
                now += step;
                meter.sample(Duration::from_millis(now), &at(bps * now, 0));
            }
            if now >= 500 {
                let found = meter.speed().bytes_per_second;
                let exact = bps as f64 * 1000.0;
                prop_assert!((found - exact).abs() <= exact * 1e-9, "{} {}", found, exact);
            }
            prop_assert!(meter.samples.len() < 10_002);
        }
    }
}
