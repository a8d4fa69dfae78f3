//! One monitor that tells several.

use std::sync::Arc;

use session::monitor::{Monitor, Phase};

/// Passes every event on to each of its monitors, in order.
#[derive(Default)]
pub struct Fanout(Vec<Arc<dyn Monitor>>);

impl Fanout {
    /// Passes on to `monitors`.
    #[must_use]
    pub fn new(monitors: Vec<Arc<dyn Monitor>>) -> Self {
        Self(monitors)
    }
}

impl Monitor for Fanout {
    fn phase(&self, phase: Phase) {
        self.0.iter().for_each(|monitor| monitor.phase(phase));
    }

    fn error(&self, name: &str, what: &str) {
        self.0.iter().for_each(|monitor| monitor.error(name, what));
    }

    fn skipped(&self, name: &str, why: &str) {
        self.0.iter().for_each(|monitor| monitor.skipped(name, why));
    }

    fn action(&self, line: &str) {
        self.0.iter().for_each(|monitor| monitor.action(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Monitor for Heard {
        fn phase(&self, phase: Phase) {
            self.0.lock().push(format!("{phase:?}"));
        }
        fn error(&self, name: &str, what: &str) {
            self.0.lock().push(format!("{name}: {what}"));
        }
        fn skipped(&self, name: &str, why: &str) {
            self.0.lock().push(format!("{name}: skipped: {why}"));
        }
        fn action(&self, line: &str) {
            self.0.lock().push(line.into());
        }
    }

    #[test]
    fn everybody_hears_everything() {
        let monitors = [Arc::new(Heard::default()), Arc::new(Heard::default())];
        let fanout = Fanout::new(monitors.iter().map(|m| Arc::clone(m) as _).collect());
        fanout.phase(Phase::Flush);
        fanout.error("a", "gone");
        fanout.skipped("m", "mount point");
        fanout.action("delete b");
        for monitor in monitors {
            assert_eq!(
                *monitor.0.lock(),
                ["Flush", "a: gone", "m: skipped: mount point", "delete b"]
            );
        }
    }
}
