//! Volumes that failed begin again while other volumes of their group are still being copied.
//!
//! The pods of the group keep the claims of the failed volume mounted until the group ends. A new pair of pods can mount them beside
//! these if it runs on the same nodes, or if the claims can be mounted on several nodes. A claim that one pod only may mount is
//! waited for. The failed container has ended, and `serve` locks the volume for as long as it writes to it.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::Step;
use crate::{
    api::{ActiveTransfer, PodNodes, VolumePhase, VolumeStatus},
    cluster::Cluster,
    error::Result,
    plan::{Claim, Planned},
};

/// A volume that begins again beside its group, and the nodes that its pods must run on.
pub(super) struct Retry {
    pub(super) volume: Planned,
    pub(super) source: Option<String>,
    pub(super) destination: Option<String>,
}

/// How a claim that a pod has mounted can be mounted by a second one.
enum Sharing {
    Anywhere,
    SameNode,
    Never,
}

impl Step<'_> {
    /// Volumes whose content is being copied, or whose pods are starting. Others of their groups have ended, and take up no slot.
    pub(super) fn active(&self) -> usize {
        self.status.transfers.iter().map(|transfer| self.active_in(transfer)).sum()
    }

    /// As [`Self::active`], of one transfer.
    pub(super) fn active_in(&self, transfer: &ActiveTransfer) -> usize {
        transfer.volumes.iter().filter(|index| self.is_moving(**index)).count()
    }

    /// Enters into the status on which nodes the pods of a transfer run.
    pub(super) fn place(transfer: &mut ActiveTransfer, client: &Pod, server: &Pod) {
        let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        if transfer.nodes.is_none()
            && let (Some(source), Some(destination)) = (node(client), node(server))
        {
            transfer.nodes = Some(PodNodes { source, destination });
        }
    }

    /// Volumes whose next attempt is due, of transfers that go on for the sake of others.
    pub(super) fn due_beside_their_groups(&self) -> Vec<(Planned, PodNodes)> {
        let running = self.status.transfers.iter().filter(|transfer| !transfer.ending);
        let placed = running.filter_map(|transfer| Some((transfer, transfer.nodes.clone()?)));
        let of_one = |(transfer, nodes): (&ActiveTransfer, PodNodes)| {
            let due = transfer.volumes.iter().filter(|index| {
                self.status.volumes.get(**index).is_some_and(|volume| self.is_retry_due(volume))
            });
            let planned = due.filter_map(|index| self.volumes.get(*index).cloned());
            planned.map(|volume| (volume, nodes.clone())).collect::<Vec<_>>()
        };
        placed.flat_map(of_one).collect()
    }

    pub(super) fn is_retry_due(&self, volume: &VolumeStatus) -> bool {
        volume.phase == VolumePhase::Retrying
            && volume.retry_at.as_ref().is_none_or(|at| at.0 <= self.now)
    }

    /// Where a volume can begin again now; `None` while the pods of its group keep a claim to themselves.
    pub(super) async fn retry(&self, volume: Planned, nodes: PodNodes) -> Result<Option<Retry>> {
        let near = self.sharing(&self.source, &volume.claim).await?;
        let far = self.sharing(&self.destination, &volume.target).await?;
        let pin = |sharing: &Sharing, node: String| match sharing {
            Sharing::Anywhere => None,
            Sharing::SameNode | Sharing::Never => Some(node),
        };
        if matches!(near, Sharing::Never) || matches!(far, Sharing::Never) {
            return Ok(None);
        }
        let (source, destination) = (pin(&near, nodes.source), pin(&far, nodes.destination));
        Ok(Some(Retry { volume, source, destination }))
    }

    async fn sharing(&self, cluster: &Cluster, claim: &Claim) -> Result<Sharing> {
        let Claim { namespace, name } = claim;
        let claim: Option<PersistentVolumeClaim> = self.look(cluster, namespace, name).await?;
        let modes = claim.and_then(|claim| claim.spec?.access_modes).unwrap_or_default();
        let has = |mode: &str| modes.iter().any(|m| m == mode);
        Ok(if has("ReadWriteMany") {
            Sharing::Anywhere
        } else if has("ReadWriteOncePod") {
            Sharing::Never
        } else {
            Sharing::SameNode
        })
    }
}
