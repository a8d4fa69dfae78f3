//! How often the progress of volumes is read: a step comes for many reasons, and each read is a call.
//!
//! Every container is read once, a few seconds after it has started: shorter copies cost nothing. From then on the containers of a pod take
//! turns, with pauses that double, but none waits longer than [`LONGEST`] for its turn.

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// Seconds from the start of a container to its first read, and the first pause of its pod.
const FIRST: i64 = 5;
/// Seconds between two reads of one container, at most; those of a container without others are half as far apart.
const LONGEST: i64 = 60;
/// A pod of which nothing was asked for so long is forgotten.
const FORGOTTEN: SignedDuration = SignedDuration::from_secs(600);

/// The containers whose progress is read, by the uid of their pod.
#[derive(Default)]
pub(crate) struct Throttle {
    pods: Mutex<HashMap<String, Pod>>,
}

struct Pod {
    asked: Timestamp,
    /// The last read of each container.
    read: HashMap<String, Timestamp>,
    /// The next read in turn, and the pause before it.
    next: Timestamp,
    pause: i64,
}

/// A container that runs, and since when.
pub(super) type Running = (String, Option<Timestamp>);

impl Throttle {
    /// Which of the `running` containers of a pod are due; they count as read. And when one is due next.
    pub(super) fn due(
        &self,
        pod: String,
        running: &[Running],
        now: Timestamp,
    ) -> (Vec<String>, Option<Timestamp>) {
        let mut pods = self.pods.lock();
        pods.retain(|_, pod| now.duration_since(pod.asked) < FORGOTTEN);
        let new = || Pod { asked: now, read: HashMap::new(), next: now, pause: FIRST };
        let pod = pods.entry(pod).or_insert_with(new);
        pod.asked = now;
        let mut due = Vec::new();
        let mut first = None;
        for (container, begun) in running {
            let at = after(begun.unwrap_or(now), FIRST);
            match pod.read.contains_key(container) {
                false if at <= now || begun.is_none() => due.push(container.clone()),
                false => first = Some(first.map_or(at, |first: Timestamp| first.min(at))),
                true => {}
            }
        }
        if due.is_empty() && pod.next <= now {
            let read = running.iter().filter_map(|(name, _)| Some((pod.read.get(name)?, name)));
            due.extend(read.min().map(|(_, name)| name.clone()));
        }
        if !due.is_empty() {
            pod.read.extend(due.iter().map(|container| (container.clone(), now)));
            pod.next = after(now, pod.pause);
            let others = i64::try_from(running.len()).unwrap_or(LONGEST).max(2);
            pod.pause = (pod.pause * 2).min(LONGEST / others);
        }
        let in_turn = (!pod.read.is_empty()).then_some(pod.next);
        (due, [first, in_turn].into_iter().flatten().min())
    }
}

fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The seconds at which each of `count` containers is read that run from the beginning.
    fn reads(count: usize, seconds: i64) -> Vec<Vec<i64>> {
        let throttle = Throttle::default();
        let running: Vec<Running> =
            (0..count).map(|n| (format!("sync-{n}"), Some(at(0)))).collect();
        let mut reads = vec![Vec::new(); count];
        let mut next = Some(at(0));
        for second in 0..seconds {
            let (due, then) = throttle.due("u".into(), &running, at(second));
            assert!(due.is_empty() || next <= Some(at(second)), "{second}");
            next = then;
            for (number, (name, _)) in running.iter().enumerate() {
                if due.contains(name) {
                    reads[number].push(second);
                }
            }
        }
        reads
    }

    #[test]
    fn a_container_is_read_five_seconds_after_its_start_and_then_with_pauses_that_double_up_to_30_s()
     {
        assert_eq!(reads(1, 170)[0], [5, 10, 20, 40, 70, 100, 130, 160]);
    }

    #[test]
    fn containers_of_a_pod_take_turns_and_each_is_read_once_a_minute() {
        let reads = reads(5, 600);
        for (number, of_one) in reads.iter().enumerate() {
            assert_eq!(of_one[0], 5, "{number}");
            assert!(of_one.windows(2).all(|two| two[1] - two[0] <= 60), "{of_one:?}");
        }
        let all: usize = reads.iter().map(Vec::len).sum();
        assert!(all <= 5 + 600 / 12 + 1, "{all}");
    }

    #[test]
    fn a_container_that_starts_later_is_read_five_seconds_after_its_start() {
        let throttle = Throttle::default();
        let one = ("a".to_owned(), Some(at(0)));
        let both = [one.clone(), ("b".to_owned(), Some(at(100)))];
        for second in 0..=100 {
            throttle.due("u".into(), std::slice::from_ref(&one), at(second));
        }
        let (due, next) = throttle.due("u".into(), &both, at(101));
        assert_eq!((due.len(), next), (0, Some(at(105))));
        assert_eq!(throttle.due("u".into(), &both, at(105)).0, ["b"]);
        // Without a time of start it is read at once.
        assert_eq!(throttle.due("v".into(), &[("a".into(), None)], at(1)).0, ["a"]);
    }
}
