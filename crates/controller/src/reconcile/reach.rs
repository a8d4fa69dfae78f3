//! Which nodes can reach the claims of a volume. Pods are scheduled as a whole: two volumes of two nodes in one pod would never start.

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};

use super::Step;
use crate::{
    cluster::Cluster,
    error::Result,
    plan::{self, Candidate, Claim, Ready},
    topology::Reach,
};

impl Step<'_> {
    /// The candidates with what is known of the nodes that can reach them. Nothing is asked about one that has nobody to share a pod with.
    pub(super) async fn reach_of(&self, candidates: Vec<Candidate>) -> Result<Vec<Ready>> {
        let mut all = Vec::new();
        for (at, candidate) in candidates.iter().enumerate() {
            let shares =
                |(other, it): (usize, &Candidate)| other != at && plan::could_share(it, candidate);
            let reach = if candidates.iter().enumerate().any(shares) {
                [
                    self.reach(&self.source, &candidate.0.claim).await?,
                    self.reach(&self.destination, &candidate.0.target).await?,
                ]
            } else {
                Default::default()
            };
            all.push(Ready { volume: candidate.0.clone(), node: candidate.1.clone(), reach });
        }
        Ok(all)
    }

    async fn reach(&self, cluster: &Cluster, claim: &Claim) -> Result<Reach> {
        let claim: Option<PersistentVolumeClaim> =
            self.look(cluster, &claim.namespace, &claim.name).await?;
        let Some(spec) = claim.and_then(|claim| claim.spec) else { return Ok(Reach::Unknown) };
        if let Some(name) = spec.volume_name.filter(|name| !name.is_empty()) {
            let volume = permitted(self.look::<PersistentVolume>(cluster, "", &name).await)?;
            return Ok(volume.map_or(Reach::Unknown, |volume| Reach::of_volume(&volume)));
        }
        let Some(name) = spec.storage_class_name.filter(|name| !name.is_empty()) else {
            return Ok(Reach::Unknown);
        };
        let class = permitted(self.look::<StorageClass>(cluster, "", &name).await)?;
        Ok(class.map_or(Reach::Unknown, |class| Reach::of_class(&class)))
    }
}

/// What was read. A cluster that does not let the controller read it keeps nothing from being moved: that volume shares no pod.
pub(super) fn permitted<K>(read: Result<Option<K>>) -> Result<Option<K>> {
    match read {
        Err(error) if error.code() == Some(403) => Ok(None),
        other => other,
    }
}
