//! Delays between tries: exponential with full jitter.
//!
//! Each delay is uniform between zero and a ceiling that doubles from try to try up to a cap, so
//! that many pods that lost the same server do not come back in step. (M. Brooker, "Exponential
//! Backoff And Jitter", AWS Architecture Blog, 2015.)

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// A sequence of delays that never ends.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    ceiling: Duration,
    state: u64,
}

impl Backoff {
    /// Ceilings from `first` up to `cap`, different in every process.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self::seeded(first, cap, RandomState::new().hash_one(0))
    }

    /// The same delays for the same seed.
    #[must_use]
    pub fn seeded(first: Duration, cap: Duration, seed: u64) -> Self {
        let first = first.min(cap);
        Self { first, cap, ceiling: first, state: seed }
    }

    /// The next delay to wait.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.cap);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        // The upper half of the product is uniform in 0..=nanos, but for a bias of 2^-64.
        let scaled = (u128::from(self.random()) * (u128::from(nanos) + 1)) >> 64;
        Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
    }

    /// Starts over with the first ceiling; for after a try that worked.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }

    /// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Default for Backoff {
    /// From 100 ms up to 5 s: quick while a pod starts, light while it does not.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_stay_below_a_doubling_ceiling(first: Duration, cap: Duration, seed: u64) {
            let mut backoff = Backoff::seeded(first, cap, seed);
            let mut ceiling = first.min(cap);
            for _ in 0..100 {
                prop_assert!(backoff.next_delay() <= ceiling);
                ceiling = ceiling.saturating_mul(2).min(cap);
            }
        }

        #[test]
        fn a_seed_fixes_the_delays(seed: u64) {
            let delays = |seed| {
                let mut backoff =
                    Backoff::seeded(Duration::from_millis(100), Duration::from_secs(5), seed);
                (0..20).map(|_| backoff.next_delay()).collect::<Vec<_>>()
            };
            prop_assert_eq!(delays(seed), delays(seed));
            prop_assert_ne!(delays(seed), delays(seed.wrapping_add(1)));
        }
    }

    #[test]
    fn delays_spread_over_the_whole_range() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::seeded(second, second, 7);
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let tenth = (backoff.next_delay().as_millis() / 100).min(9) as usize;
            tenths[tenth] += 1;
        }
        assert!(tenths.iter().all(|n| (800..1200).contains(n)), "{tenths:?}");
    }

    #[test]
    fn reset_starts_over() {
        let (first, cap) = (Duration::from_millis(1), Duration::from_secs(60));
        let mut backoff = Backoff::seeded(first, cap, 1);
        for _ in 0..30 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= first);
    }
}
