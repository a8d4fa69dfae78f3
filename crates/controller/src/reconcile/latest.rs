//! The newest version of each migration that is under way: what this process wrote last, or what the watch has brought since.
//!
//! A step begins from it without a call. It is never older than the last write of this process, and that write was made over the
//! version before it; a write of somebody else makes the write at the end of the step fail. What ends a run is read afresh.
//!
//! Beside it, a status that is not written yet, because everything that is new in it can be found out again ([`super::unwritten`]).

use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use parking_lot::Mutex;

use crate::api::{DirectVolumeMigration, DirectVolumeMigrationStatus, Phase};

/// What was written last, by the uid of the migration.
#[derive(Default)]
pub(crate) struct Latest {
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    written: DirectVolumeMigration,
    unwritten: Option<Unwritten>,
}

/// A status that is not written yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unwritten {
    pub(super) status: DirectVolumeMigrationStatus,
    /// When it first differed from what is written.
    pub(super) since: Timestamp,
}

impl Latest {
    /// The newest version, if this process has written one from which the next step can begin; and what is not written of its status.
    pub(super) fn of(
        &self,
        cached: &DirectVolumeMigration,
    ) -> Option<(DirectVolumeMigration, Option<Unwritten>)> {
        let known = self.known.lock();
        let Known { written, unwritten } = known.get(&cached.uid()?)?;
        let newest = if version(cached)? > version(written)? { cached } else { written };
        let under_way = newest.status.as_ref()?.phase == Phase::Transferring;
        // It goes on from this status and no other one.
        let unwritten = unwritten.clone().filter(|_| newest.status == written.status);
        under_way.then(|| (newest.clone(), unwritten))
    }

    /// The server has answered a read or a write with this.
    pub(super) fn learn(&self, migration: &DirectVolumeMigration) {
        let Some(uid) = migration.uid() else { return };
        let known = Known { written: migration.clone(), unwritten: None };
        self.known.lock().insert(uid, known);
    }

    /// The next step of the migration begins from a status that is not written.
    pub(super) fn keep(&self, migration: &DirectVolumeMigration, unwritten: Unwritten) {
        let Some(uid) = migration.uid() else { return };
        if let Some(known) = self.known.lock().get_mut(&uid) {
            known.unwritten = Some(unwritten);
        }
    }

    /// Nobody knows what became of a write, or the migration needs none for now.
    pub(super) fn forget(&self, migration: &DirectVolumeMigration) {
        if let Some(uid) = migration.uid() {
            self.known.lock().remove(&uid);
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
        latest.learn(&migration(written, phase));
        latest.of(&migration(cached, phase))?.0.resource_version()
    }

    #[test]
    fn a_status_that_is_not_written_counts_until_another_one_is_written() {
        let latest = Latest::default();
        let written = migration("9", "Transferring");
        let mut status = written.status.clone().unwrap();
        status.message = "waiting for a node".into();
        let unwritten = Unwritten { status, since: Timestamp::UNIX_EPOCH };
        latest.learn(&written);
        latest.keep(&written, unwritten.clone());
        let of = |migration: &DirectVolumeMigration| latest.of(migration).unwrap().1;
        // The specification may have changed, and the finalizers.
        assert_eq!(of(&migration("8", "Transferring")), Some(unwritten.clone()));
        assert_eq!(of(&migration("10", "Transferring")), Some(unwritten));
        let mut other = migration("10", "Transferring");
        other.status.as_mut().unwrap().run = 7;
        assert_eq!(of(&other), None);
        latest.learn(&written);
        assert_eq!(of(&migration("9", "Transferring")), None);
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
        latest.learn(&migration("1", "Transferring"));
        latest.forget(&migration("1", "Transferring"));
        assert!(latest.of(&migration("1", "Transferring")).is_none());
    }
}
