//! Metrics of the controller.

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Outcome of an attempt.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

/// Why a status was not written.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NotWritten {
    reason: &'static str,
}

/// Counters of the process.
pub struct Metrics {
    registry: Registry,
    calls: Counter,
    steps: Counter,
    failed_steps: Counter,
    volumes: Family<Ended, Counter>,
    bytes: Counter,
    leading: Gauge,
    not_written: Family<NotWritten, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pvferry_controller");
        let metrics = Self {
            calls: Counter::default(),
            steps: Counter::default(),
            failed_steps: Counter::default(),
            volumes: Family::default(),
            bytes: Counter::default(),
            leading: Gauge::default(),
            not_written: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "api_calls",
            "Calls to API servers, without watches",
            metrics.calls.clone(),
        );
        registry.register(
            "reconciliations",
            "Reconciliations of migrations",
            metrics.steps.clone(),
        );
        registry.register(
            "reconciliation_errors",
            "Reconciliations that failed",
            metrics.failed_steps.clone(),
        );
        registry.register(
            "volume_attempts",
            "Finished attempts to copy a volume",
            metrics.volumes.clone(),
        );
        registry.register("sent_bytes", "Bytes of file content sent", metrics.bytes.clone());
        registry.register("leader", "1 while this instance is the leader", metrics.leading.clone());
        registry.register(
            "status_write_failures",
            "Statuses of migrations that were not written, or not completely",
            metrics.not_written.clone(),
        );
        // A rate needs the zero before the first one.
        for outcome in ["completed", "failed"] {
            let _ = metrics.volumes.get_or_create(&Ended { outcome });
        }
        for reason in ["Conflict", "Forbidden", "Invalid", "Pruned"] {
            let _ = metrics.not_written.get_or_create(&NotWritten { reason });
        }
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// In OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn called(&self) {
        self.calls.inc();
    }

    pub(crate) fn stepped(&self, well: bool) {
        self.steps.inc();
        if !well {
            self.failed_steps.inc();
        }
    }

    pub(crate) fn ended(&self, outcome: &'static str, bytes: u64) {
        self.volumes.get_or_create(&Ended { outcome }).inc();
        self.bytes.inc_by(bytes);
    }

    pub(crate) fn status_not_written(&self, reason: &'static str) {
        self.not_written.get_or_create(&NotWritten { reason }).inc();
    }

    pub(crate) fn leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }
}
