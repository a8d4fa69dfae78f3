//! Changes of a status that can wait until the next one is written.
//!
//! While a transfer is under way its status changes a few times within seconds: pods are made, they wait for a node, containers start. The next
//! step finds all of that out again from the pods, should the controller end before it is written. So it is written together with the next
//! change that cannot be found out again, or after a few seconds, for people to see what a transfer waits for.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Step, latest::Unwritten};
use crate::api::{DirectVolumeMigrationStatus, Phase, VolumePhase};

/// How long a change waits at most.
const LONGEST: SignedDuration = SignedDuration::from_secs(5);

impl Step<'_> {
    /// The status, if it can be written later.
    pub(super) fn unwritten(&self) -> Option<Unwritten> {
        let written = self.migration.status.as_ref()?;
        let under_way = |status: &DirectVolumeMigrationStatus| status.phase == Phase::Transferring;
        if !under_way(written)
            || !under_way(&self.status)
            || essence(written) != essence(&self.status)
        {
            return None;
        }
        let since = self.unwritten_since.unwrap_or(self.now);
        let unwritten = Unwritten { status: self.status.clone(), since };
        (self.now < due(since)).then_some(unwritten)
    }

    /// A step is due when the status has to be written.
    pub(super) fn write_in_time(&mut self) {
        if self.migration.status.as_ref() != Some(&self.status)
            && let Some(unwritten) = self.unwritten()
        {
            self.due_at(due(unwritten.since));
        }
    }
}

fn due(since: Timestamp) -> Timestamp {
    since.checked_add(LONGEST).unwrap_or(since)
}

/// A status without what the next step finds out again.
fn essence(status: &DirectVolumeMigrationStatus) -> DirectVolumeMigrationStatus {
    let mut essence = status.clone();
    essence.message.clear();
    essence.conditions.clear();
    for transfer in &mut essence.transfers {
        transfer.identities = None;
        transfer.deleted = None;
        transfer.source_created = false;
        transfer.destination_created = false;
        transfer.running_since = None;
        transfer.nodes = None;
    }
    for volume in &mut essence.volumes {
        if volume.phase == VolumePhase::Running {
            volume.phase = VolumePhase::Starting;
        }
        volume.reported_at = None;
    }
    essence
}
