//! Which nodes can reach the claims of a volume. Pods are scheduled as a whole: two volumes of two nodes in one pod would never start.

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::Api;

use super::Step;
use crate::{
    cluster::Cluster,
    error::{Error, Result},
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
                    reach(&self.source, &candidate.0.claim).await?,
                    reach(&self.destination, &candidate.0.target).await?,
                ]
            } else {
                Default::default()
            };
            all.push(Ready { volume: candidate.0.clone(), node: candidate.1.clone(), reach });
        }
        Ok(all)
    }
}

async fn reach(cluster: &Cluster, claim: &Claim) -> Result<Reach> {
    let claim: Option<PersistentVolumeClaim> = cluster.get(&claim.namespace, &claim.name).await?;
    let Some(spec) = claim.and_then(|claim| claim.spec) else { return Ok(Reach::Unknown) };
    if let Some(name) = spec.volume_name.filter(|name| !name.is_empty()) {
        let api: Api<PersistentVolume> = Api::all(cluster.client());
        let volume = known(api.get_opt(&name).await, "PersistentVolume", &name)?;
        return Ok(volume.map_or(Reach::Unknown, |volume| Reach::of_volume(&volume)));
    }
    let Some(name) = spec.storage_class_name.filter(|name| !name.is_empty()) else {
        return Ok(Reach::Unknown);
    };
    let api: Api<StorageClass> = Api::all(cluster.client());
    let class = known(api.get_opt(&name).await, "StorageClass", &name)?;
    Ok(class.map_or(Reach::Unknown, |class| Reach::of_class(&class)))
}

/// What was read. A cluster that does not let the controller read it keeps nothing from being moved: that volume shares no pod.
fn known<K>(read: kube::Result<Option<K>>, kind: &str, name: &str) -> Result<Option<K>> {
    match read.map_err(Error::api(format!("read {kind} {name}"))) {
        Err(error) if error.code() == Some(403) => Ok(None),
        other => other,
    }
}
