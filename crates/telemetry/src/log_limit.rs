//! A limit on log lines that anybody can cause, for each class of them.
//!
//! The first few lines of a class in a period are written; the rest is counted, and the count is written at the end of
//! the period. A class is a word of this program, so there are few of them.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;

/// For how long lines of a class are counted together.
pub const PERIOD: Duration = Duration::from_secs(10);

/// Lines of a class that are written in a period.
const LINES: u64 = 5;

/// Counts the lines of each class in the present period.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<BTreeMap<&'static str, u64>>);

impl LogLimit {
    /// Whether a line of `class` is to be written; else it is counted.
    pub fn admits(&self, class: &'static str) -> bool {
        let mut counts = self.0.lock();
        let count = counts.entry(class).or_default();
        *count = count.saturating_add(1);
        *count <= LINES
    }

    /// Ends the period: writes how many lines of each class were not.
    pub fn report(&self) {
        for (class, count) in std::mem::take(&mut *self.0.lock()) {
            if count > LINES {
                let (more, seconds) = (count - LINES, PERIOD.as_secs());
                tracing::warn!(
                    "{more} more connections failed in this way in the last {seconds} s: {class}"
                );
            }
        }
    }

    /// Reports at the end of each period until it is dropped.
    pub async fn report_each_period(&self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.report();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Console, console::Sink, logging};

    #[test]
    fn the_first_lines_of_each_class_are_admitted_and_the_rest_is_counted_once() {
        let err = Sink::default();
        let console = Console::new(Box::new(Sink::default()), Box::new(err.clone()), false);
        let limit = LogLimit::default();
        logging::scoped("info", &console, || {
            for _ in 0..3 {
                assert!(limit.admits("rare"));
            }
            let written = (0..LINES + 7).filter(|_| limit.admits("frequent")).count();
            assert_eq!(written as u64, LINES);
            limit.report();
            limit.report();
        });
        let text = err.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("7 more connections failed in this way in the last 10 s: frequent"),
            "{text}"
        );
        assert!(limit.admits("frequent"));
    }
}
