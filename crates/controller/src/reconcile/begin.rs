//! Which volumes begin now.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{Step, prepare};
use crate::{
    api::{ActiveTransfer, VolumePhase, VolumeStatus},
    error::{Error, Result},
    plan::{self, Claim, Planned},
};

/// The volumes of a run that begins.
pub(super) fn fresh(volumes: &[Planned]) -> Vec<VolumeStatus> {
    let status =
        |v: &Planned| VolumeStatus { claim: v.claim.to_string(), ..VolumeStatus::default() };
    volumes.iter().map(status).collect()
}

impl Step<'_> {
    /// Enters into the status what begins now; true where that is something. Its objects are made in the next step, when this
    /// is written.
    pub(super) async fn begin_transfers(&mut self) -> Result<bool> {
        let limits = &self.migration.spec.limits;
        let active: usize = self.status.transfers.iter().map(|t| t.volumes.len()).sum();
        let room = count(limits.parallel).saturating_sub(active);
        let due = |v: &VolumeStatus| match v.phase {
            VolumePhase::Pending => true,
            VolumePhase::Retrying => v.retry_at.as_ref().is_none_or(|at| at.0 <= self.now),
            _ => false,
        };
        // A try that has ended may still have its pods, which hold its claims.
        let held: BTreeSet<usize> =
            self.status.transfers.iter().flat_map(|t| t.volumes.iter().copied()).collect();
        let waiting: Vec<Planned> = self
            .volumes
            .iter()
            .filter(|v| {
                !held.contains(&v.index) && self.status.volumes.get(v.index).is_some_and(due)
            })
            .cloned()
            .collect();
        if room == 0 || waiting.is_empty() {
            return Ok(false);
        }
        let nodes = self.nodes_of(&waiting).await?;
        let ready: Vec<_> = waiting
            .into_iter()
            .map(|v| {
                let node = nodes.get(&v.claim).cloned();
                (v, node)
            })
            .collect();
        let per_node = limits.parallel_per_node.map_or(usize::MAX, count);
        let groups = plan::group(&ready, room, |node| {
            let there: usize = self
                .status
                .transfers
                .iter()
                .filter(|t| t.node.as_deref() == node)
                .map(|t| t.volumes.len())
                .sum();
            per_node.saturating_sub(there)
        });
        let begun = !groups.is_empty();
        for group in groups {
            self.status.transfers_begun += 1;
            for index in &group.volumes {
                if let Some(volume) = self.status.volumes.get_mut(*index) {
                    volume.phase = VolumePhase::Starting;
                    volume.attempts += 1;
                    volume.retry_at = None;
                    volume.reason.clear();
                }
            }
            self.status.transfers.push(ActiveTransfer {
                number: self.status.transfers_begun,
                token: token()?,
                volumes: group.volumes,
                node: group.node,
                begun: Some(Time(self.now)),
                ..ActiveTransfer::default()
            });
        }
        Ok(begun)
    }

    /// The nodes at which volumes are in use that one node at a time may mount.
    async fn nodes_of(&self, volumes: &[Planned]) -> Result<BTreeMap<Claim, String>> {
        let mut nodes = BTreeMap::new();
        let namespaces: BTreeSet<_> = volumes.iter().map(|v| v.claim.namespace.clone()).collect();
        for namespace in namespaces {
            let pods: Vec<Pod> = prepare::users(&self.source, &namespace).await?;
            for volume in volumes.iter().filter(|v| v.claim.namespace == namespace) {
                let Some(pod) =
                    pods.iter().find(|pod| prepare::mounted(pod).any(|c| c == volume.claim.name))
                else {
                    continue;
                };
                let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
                    continue;
                };
                let claim: Option<PersistentVolumeClaim> =
                    self.source.get(&namespace, &volume.claim.name).await?;
                let modes = claim.and_then(|claim| claim.spec?.access_modes).unwrap_or_default();
                let has = |mode: &str| modes.iter().any(|m| m == mode);
                if has("ReadWriteMany") || has("ReadOnlyMany") {
                    continue;
                }
                if has("ReadWriteOncePod") {
                    let name = pod.metadata.name.clone().unwrap_or_default();
                    let what = format!(
                        "the claim {} may be mounted by one pod only, and {name} has it",
                        volume.claim
                    );
                    return Err(Error::Waiting("ClaimInUse", what));
                }
                nodes.insert(volume.claim.clone(), node);
            }
        }
        Ok(nodes)
    }
}

fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// Something that nobody can know beforehand.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    match rustix::rand::getrandom(&mut bytes, flags) {
        Ok(16) => Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        _ => Err(Error::SetUp("the kernel gives no random bytes".into())),
    }
}
