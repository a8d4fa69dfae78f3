//! Prometheus metrics of the sessions of one process, and the HTTP server for them.
//!
//! Sessions count in their own [`Progress`]; nothing is counted twice. A scrape reads the counters
//! of the sessions that run, and adds those of the sessions that have ended, so that no counter
//! ever goes back. [`describe`] lists every metric there is, for the reference page.

mod server;
mod table;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::Registry,
};
use session::monitor::{Monitor, Phase, Progress, Snapshot};

pub use self::{
    server::{Exposition, Readiness, serve},
    table::{Description, describe},
};

/// How a session ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is there.
    Completed,
    /// The session went to its end, but left something out.
    Partial,
    /// The session did not go to its end.
    Failed,
    /// A dry run that went to its end. It moved nothing.
    DryRun,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    const ALL: [Self; 4] = [Self::Completed, Self::Partial, Self::Failed, Self::DryRun];
}

/// The metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    volumes: Volumes,
    registry: Registry,
}

/// Shared by the registry and the sessions.
#[derive(Debug, Clone, Default)]
struct Volumes(Arc<Mutex<BTreeMap<String, Volume>>>);

#[derive(Debug, Default)]
struct Volume {
    ended: Totals,
    running: Vec<Arc<Live>>,
}

/// One session that runs.
#[derive(Debug)]
struct Live {
    progress: Arc<Progress>,
    /// What its progress counts would be done, and is not.
    dry_run: bool,
    phases: Mutex<PhaseClock>,
}

impl Exposition for Metrics {
    fn exposition(&self) -> Result<String, fmt::Error> {
        self.encode()
    }
}

impl Metrics {
    /// No sessions yet.
    #[must_use]
    pub fn new() -> Self {
        let volumes = Volumes::default();
        let mut registry = Registry::with_prefix(table::PREFIX);
        registry.register_collector(Box::new(volumes.clone()));
        Self { volumes, registry }
    }

    /// Counts a session of `volume` in, which counts in `progress`.
    #[must_use]
    pub fn session(&self, volume: &str, progress: Arc<Progress>, dry_run: bool) -> SessionMetrics {
        let live = Arc::new(Live { progress, dry_run, phases: Mutex::new(PhaseClock::default()) });
        let mut volumes = self.volumes.0.lock();
        volumes.entry(volume.to_owned()).or_default().running.push(Arc::clone(&live));
        let volumes = self.volumes.clone();
        SessionMetrics { volumes, volume: volume.to_owned(), live, outcome: Outcome::Failed }
    }

    /// All metrics in OpenMetrics text, as of now.
    ///
    /// # Errors
    /// None that is known: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// One session among the metrics. Dropped without [`finish`](Self::finish) it has failed.
#[derive(Debug)]
pub struct SessionMetrics {
    volumes: Volumes,
    volume: String,
    live: Arc<Live>,
    outcome: Outcome,
}

impl SessionMetrics {
    /// Counts the session out.
    pub fn finish(mut self, outcome: Outcome) {
        self.outcome = match outcome {
            Outcome::Completed | Outcome::Partial if self.live.dry_run => Outcome::DryRun,
            outcome => outcome,
        };
    }
}

impl Drop for SessionMetrics {
    fn drop(&mut self) {
        let mut volumes = self.volumes.0.lock();
        if let Some(volume) = volumes.get_mut(&self.volume) {
            volume.running.retain(|live| !Arc::ptr_eq(live, &self.live));
            volume.ended.add(&self.live, Instant::now());
            volume.ended.sessions[self.outcome as usize] += 1;
        }
    }
}

impl Monitor for SessionMetrics {
    fn phase(&self, phase: Phase) {
        self.live.phases.lock().enter(phase, Instant::now());
    }
}

impl Collector for Volumes {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = Instant::now();
        let totals: Vec<_> = {
            let volumes = self.0.lock();
            volumes.iter().map(|(name, volume)| (name.clone(), volume.totals(now))).collect()
        };
        table::encode(&totals, encoder)
    }
}

impl Volume {
    fn totals(&self, now: Instant) -> Totals {
        let mut totals = self.ended;
        for live in &self.running {
            totals.add(live, now);
        }
        totals
    }
}

/// What all sessions of one volume have counted.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    counters: Snapshot,
    /// By [`Phase`].
    phases: [Duration; PHASES.len()],
    /// By [`Outcome`].
    sessions: [u64; Outcome::ALL.len()],
}

const PHASES: [Phase; 5] =
    [Phase::Connect, Phase::Transfer, Phase::Finish, Phase::Flush, Phase::Verify];

impl Totals {
    fn add(&mut self, live: &Live, now: Instant) {
        let (to, mut from) = (&mut self.counters, live.progress.snapshot());
        if live.dry_run {
            let (wire_sent, wire_received) = (from.wire_sent, from.wire_received);
            from = Snapshot { wire_sent, wire_received, ..Snapshot::default() };
        }
        to.entries += from.entries;
        to.entries_total += from.entries_total;
        to.files_written += from.files_written;
        to.files_deleted += from.files_deleted;
        to.bytes_total += from.bytes_total;
        to.bytes_done += from.bytes_done;
        to.bytes_literal += from.bytes_literal;
        to.bytes_matched += from.bytes_matched;
        to.bytes_hole += from.bytes_hole;
        to.wire_sent += from.wire_sent;
        to.wire_received += from.wire_received;
        to.errors += from.errors;
        to.skipped += from.skipped;
        let spent = live.phases.lock().spent(now);
        for (to, from) in self.phases.iter_mut().zip(spent) {
            *to += from;
        }
    }
}

/// How long a session has been in each phase.
#[derive(Debug, Default)]
struct PhaseClock {
    spent: [Duration; PHASES.len()],
    current: Option<(Phase, Instant)>,
}

impl PhaseClock {
    fn enter(&mut self, phase: Phase, now: Instant) {
        self.spent = self.spent(now);
        self.current = Some((phase, now));
    }

    fn spent(&self, now: Instant) -> [Duration; PHASES.len()] {
        let mut spent = self.spent;
        if let Some((phase, since)) = self.current {
            spent[phase as usize] += now.saturating_duration_since(since);
        }
        spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    fn value(metrics: &Metrics, series: &str) -> Option<f64> {
        let text = metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    #[test]
    fn dry_run_is_counted_as_such_and_adds_to_nothing_that_was_not_done() {
        let metrics = Metrics::new();
        let progress = Arc::new(Progress::default());
        for counter in [&progress.files_written, &progress.bytes_literal, &progress.wire_sent] {
            counter.store(7, Relaxed);
        }
        let session = metrics.session("a", Arc::clone(&progress), true);
        session.finish(Outcome::Completed);
        drop(metrics.session("a", progress, true));
        for (series, expected) in [
            (r#"pvferry_sessions_total{volume="a",outcome="dry_run"}"#, 1.0),
            (r#"pvferry_sessions_total{volume="a",outcome="completed"}"#, 0.0),
            (r#"pvferry_sessions_total{volume="a",outcome="failed"}"#, 1.0),
            (r#"pvferry_files_written_total{volume="a"}"#, 0.0),
            (r#"pvferry_file_bytes_total{volume="a",kind="literal"}"#, 0.0),
            (r#"pvferry_wire_bytes_total{volume="a",direction="sent"}"#, 14.0),
        ] {
            assert_eq!(value(&metrics, series), Some(expected), "{series}");
        }
    }

    #[test]
    fn counters_never_go_back_when_sessions_end() {
        const LITERAL: &str = r#"pvferry_file_bytes_total{volume="a",kind="literal"}"#;
        let metrics = Metrics::new();
        assert_eq!(value(&metrics, LITERAL), None);

        let first = Arc::new(Progress::default());
        let session = metrics.session("a", Arc::clone(&first), false);
        first.bytes_literal.store(100, Relaxed);
        assert_eq!(value(&metrics, LITERAL), Some(100.0));

        let second = Arc::new(Progress::default());
        let again = metrics.session("a", Arc::clone(&second), false);
        second.bytes_literal.store(11, Relaxed);
        assert_eq!(value(&metrics, LITERAL), Some(111.0));
        session.finish(Outcome::Completed);
        first.bytes_literal.store(9999, Relaxed);
        assert_eq!(value(&metrics, LITERAL), Some(111.0));
        drop(again);
        assert_eq!(value(&metrics, LITERAL), Some(111.0));

        let sessions = |outcome| {
            value(&metrics, &format!(r#"pvferry_sessions_total{{volume="a",outcome="{outcome}"}}"#))
        };
        assert_eq!(sessions("completed"), Some(1.0));
        assert_eq!(sessions("partial"), Some(0.0));
        assert_eq!(sessions("failed"), Some(1.0), "dropped without an outcome");
    }

    #[test]
    fn phases_add_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clock = PhaseClock::default();
        clock.enter(Phase::Connect, at(0));
        clock.enter(Phase::Transfer, at(2));
        clock.enter(Phase::Connect, at(12));
        clock.enter(Phase::Transfer, at(13));
        let seconds = clock.spent(at(20)).map(|span| span.as_secs());
        assert_eq!(seconds, [3, 17, 0, 0, 0]);
        for (place, phase) in PHASES.into_iter().enumerate() {
            assert_eq!(phase as usize, place);
        }
    }
}
