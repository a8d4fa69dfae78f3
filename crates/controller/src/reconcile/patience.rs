//! How long a migration waits for its next step when no watch wakes it.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

use crate::informers::Name;
pub(super) use crate::informers::jittered;

/// A migration that watches wake is looked at all the same after so long.
pub(super) const SAFETY_NET: Duration = Duration::from_secs(30 * 60);

/// Steps of each migration that have come to nothing.
#[derive(Default)]
pub(crate) struct Patience {
    steps: Mutex<HashMap<Name, u32>>,
}

impl Patience {
    /// The pause after one more such step: `first`, and twice as long each time, up to `longest`.
    pub(super) fn next(&self, migration: &Name, first: Duration, longest: Duration) -> Duration {
        let mut steps = self.steps.lock();
        let steps = steps.entry(migration.clone()).or_default();
        let pause = first.saturating_mul(1 << (*steps).min(16)).min(longest);
        *steps = steps.saturating_add(1);
        jittered(pause)
    }

    /// A step has changed something, or no step is due.
    pub(super) fn reset(&self, migration: &Name) {
        self.steps.lock().remove(migration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_change() {
        let patience = Patience::default();
        let name = ("home".to_owned(), "m".to_owned());
        let next = || patience.next(&name, Duration::from_secs(5), Duration::from_secs(60));
        for seconds in [5, 10, 20, 40, 60, 60] {
            let pause = next().as_secs_f64() / f64::from(seconds);
            assert!((1.0..=1.5).contains(&pause), "{seconds}: {pause}");
        }
        patience.reset(&name);
        assert!(next() < Duration::from_secs(8));
    }
}
