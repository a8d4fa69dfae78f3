//! The newest version of each migration that is under way: what this process wrote last, or what the watch has brought since.
//!
//! A step begins from it without a call. It is never older than the last write of this process, and that write was made over the
//! version before it; a write of somebody else makes the write at the end of the step fail. What ends a run is read afresh.

use std::collections::HashMap;

use kube::ResourceExt as _;
use parking_lot::Mutex;

use crate::api::{DirectVolumeMigration, Phase};

/// What was written last, by the uid of the migration.
#[derive(Default)]
pub(crate) struct Latest {
    written: Mutex<HashMap<String, DirectVolumeMigration>>,
}

impl Latest {
    /// The newest version, if this process has written one from which the next step can begin.
    pub(super) fn of(&self, cached: &DirectVolumeMigration) -> Option<DirectVolumeMigration> {
        let written = self.written.lock();
        let written = written.get(&cached.uid()?)?;
        let newest = if version(cached)? > version(written)? { cached } else { written };
        let under_way = newest.status.as_ref()?.phase == Phase::Transferring;
        under_way.then(|| newest.clone())
    }

    /// The server has answered a write with this.
    pub(super) fn wrote(&self, migration: &DirectVolumeMigration) {
        let Some(uid) = migration.uid() else { return };
        self.written.lock().insert(uid, migration.clone());
    }

    /// Nobody knows what became of a write, or the migration needs none for now.
    pub(super) fn forget(&self, migration: &DirectVolumeMigration) {
        if let Some(uid) = migration.uid() {
            self.written.lock().remove(&uid);
        }
    }
}

/// Versions of one object are numbers that grow.
fn version(migration: &DirectVolumeMigration) -> Option<u64> {
    migration.resource_version()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(version: &str, phase: &str) -> DirectVolumeMigration {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "m", "uid": "u", "resourceVersion": version },
            "spec": {
                "source": { "namespace": "a" }, "destination": { "namespace": "b" },
                "volumes": [{ "name": "data" }],
            },
            "status": { "phase": phase },
        }))
        .unwrap()
    }

    fn newest(written: &str, cached: &str, phase: &str) -> Option<String> {
        let latest = Latest::default();
        latest.wrote(&migration(written, phase));
        latest.of(&migration(cached, phase))?.resource_version()
    }

    #[test]
    fn a_step_begins_from_the_newer_of_what_was_written_and_what_was_watched() {
        assert_eq!(newest("9", "10", "Transferring").as_deref(), Some("10"));
        assert_eq!(newest("10", "9", "Transferring").as_deref(), Some("10"));
    }

    #[test]
    fn a_step_that_can_end_a_run_or_whose_version_cannot_be_compared_reads_the_migration() {
        assert_eq!(newest("9", "10", "CleaningUp"), None);
        assert_eq!(newest("9", "10", "Completed"), None);
        assert_eq!(newest("9", "x", "Transferring"), None);
        let latest = Latest::default();
        assert!(latest.of(&migration("1", "Transferring")).is_none());
        latest.wrote(&migration("1", "Transferring"));
        latest.forget(&migration("1", "Transferring"));
        assert!(latest.of(&migration("1", "Transferring")).is_none());
    }
}
