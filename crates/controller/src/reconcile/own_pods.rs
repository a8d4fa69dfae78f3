//! Which pods are transfer pods of a migration.
//!
//! Anybody who creates pods can give them any label. A pod that only bears the uid of the migration would be overlooked as a user of its claims. A
//! transfer pod has a name that no other pod of the namespace can have while it exists, and the token of its transfer, which nobody knows before the
//! transfer starts.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::Step;
use crate::build::{self, Names};

/// What a pod shows that bears the uid of a migration.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    name: String,
    token: String,
}

impl Candidate {
    /// `None` for a pod that does not bear the uid of the migration.
    pub(super) fn of(pod: &Pod, migration: &str) -> Option<Self> {
        build::is_of(pod, migration).then(|| Self {
            name: pod.name_any(),
            token: build::token(pod).cloned().unwrap_or_default(),
        })
    }
}

impl Step<'_> {
    /// Whether a pod is of a transfer of this migration.
    pub(super) fn is_own(&self, pod: &Pod) -> bool {
        let candidate = Candidate::of(pod, &self.migration.uid().unwrap_or_default());
        candidate.is_some_and(|candidate| self.is_own_candidate(&candidate))
    }

    /// As [`Self::is_own`]. Of transfers that have ended, whose pods can be reported late, the status keeps no token: there the name decides.
    pub(super) fn is_own_candidate(&self, candidate: &Candidate) -> bool {
        let Some((run, number)) = Names::transfer_of(&self.migration, &candidate.name) else {
            return false;
        };
        let status = &self.status;
        let mut active = status.transfers.iter().filter(|_| run == status.run);
        match active.find(|transfer| transfer.number == number) {
            Some(transfer) => transfer.token == candidate.token,
            None => run <= status.run,
        }
    }
}
