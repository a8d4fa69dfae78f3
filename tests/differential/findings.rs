//! Seeds, and what was found with them.

use std::{env, ops::Range};

/// How many failures a test collects before it stops.
const ENOUGH: usize = 25;

/// The seeds to try: the usual number of them from 0, or as the environment says.
pub(crate) fn seeds(usual: u64) -> Range<u64> {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (alone, count) = (number("PVFERRY_SEED"), number("PVFERRY_SEEDS"));
    let count = count.unwrap_or(if alone.is_some() { 1 } else { usual });
    let first = alone.or_else(|| number("PVFERRY_FIRST_SEED")).unwrap_or(0);
    first..first + count
}

/// Failures of one test. Each is printed at once; all of them fail the test in the end.
#[derive(Debug)]
pub(crate) struct Findings {
    test: &'static str,
    found: Vec<String>,
}

impl Findings {
    pub(crate) fn of(test: &'static str) -> Self {
        Self { test, found: Vec::new() }
    }

    /// Notes what went wrong with a seed; nothing where `wrong` is empty.
    pub(crate) fn add(&mut self, seed: u64, context: &str, wrong: &[String]) {
        if wrong.is_empty() {
            return;
        }
        let line = format!(
            "FOUND by {} with PVFERRY_SEED={seed}: {context}\n    {}",
            self.test,
            wrong.join("\n    ")
        );
        println!("{line}");
        self.found.push(line);
    }

    pub(crate) fn are_enough(&self) -> bool {
        self.found.len() >= ENOUGH
    }

    /// Fails where anything was found.
    #[track_caller]
    pub(crate) fn conclude(self) {
        let count = self.found.len();
        assert!(count == 0, "{}: {count} failures:\n{}", self.test, self.found.join("\n"));
    }
}
