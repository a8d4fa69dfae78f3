//! How often the progress of a volume is read: a step comes for many reasons.

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// The time at which the logs of each container were read last, by the uid of its pod and its name.
#[derive(Default)]
pub(crate) struct Throttle {
    read: Mutex<HashMap<(String, String), Timestamp>>,
}

/// Seconds between two looks: at first, and at last.
const SHORTEST: i64 = 5;
const LONGEST: i64 = 30;
/// Containers that are remembered.
const REMEMBERED: usize = 10_000;

impl Throttle {
    /// Whether the logs of a container are due, which began at `begun`; if so they count as read. And when they are due next.
    pub(super) fn is_due(
        &self,
        pod: String,
        container: &str,
        begun: Option<Timestamp>,
        now: Timestamp,
    ) -> (bool, Timestamp) {
        let mut read = self.read.lock();
        if read.len() >= REMEMBERED {
            let old = SignedDuration::from_secs(10 * LONGEST);
            read.retain(|_, at| now.duration_since(*at) < old);
        }
        let key = (pod, container.to_owned());
        // What runs for long is looked at less often.
        let age = begun.map_or(0, |begun| now.duration_since(begun).as_secs());
        let pause = SignedDuration::from_secs((age / 20).clamp(SHORTEST, LONGEST));
        let next = read.get(&key).copied().or(begun).map(|last| last.saturating_add(pause));
        match next {
            Some(Ok(next)) if next > now => (false, next),
            _ => {
                read.insert(key, now);
                (true, now.saturating_add(pause).unwrap_or(now))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_read_five_seconds_after_the_start_and_less_and_less_often_from_then_on() {
        let throttle = Throttle::default();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let reads = (0..1000)
            .filter(|second| throttle.is_due("u".into(), "sync-a", Some(at(0)), at(*second)).0);
        let reads: Vec<i64> = reads.collect();
        assert_eq!(reads[..3], [5, 10, 15]);
        let pauses: Vec<i64> = reads.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.is_sorted() && pauses.last() == Some(&30), "{pauses:?}");
        assert!(throttle.is_due("v".into(), "sync-a", None, at(1)).0);
    }
}
