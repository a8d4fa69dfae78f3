//! Claims through which the volumes of a migration are reached: their own, and others on the same storage.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use super::{Step, in_use::describe};
use crate::{
    build::Role,
    cluster::Cluster,
    error::Result,
    informers::{Key, mounted},
    plan::{Claim, Planned},
    storage::Storage,
};

/// A claim that leads to the volume at `index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) index: usize,
    pub(super) claim: Claim,
    /// It is the claim of the volume itself.
    pub(super) own: bool,
}

/// All claims of one cluster that lead to volumes of a migration.
#[derive(Debug, Default)]
pub(super) struct ReachedClaims(Vec<Reached>);

impl ReachedClaims {
    /// The claims of the volumes themselves, at one end.
    pub(super) fn of(role: Role, volumes: &[Planned]) -> Self {
        let own = |volume: &Planned| Reached {
            index: volume.index,
            claim: end(role, volume).clone(),
            own: true,
        };
        Self(volumes.iter().map(own).collect())
    }

    /// The claims in a namespace.
    pub(super) fn within<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Reached> {
        self.0.iter().filter(move |reached| reached.claim.namespace == namespace)
    }

    pub(super) fn namespaces(&self) -> std::collections::BTreeSet<String> {
        self.0.iter().map(|reached| reached.claim.namespace.clone()).collect()
    }

    /// Of other claims on the same storage alone.
    pub(super) fn others(&self) -> impl Iterator<Item = &Reached> {
        self.0.iter().filter(|reached| !reached.own)
    }

    /// The volumes that a claim leads to.
    pub(super) fn by<'a>(&'a self, claim: &'a Claim) -> impl Iterator<Item = &'a Reached> {
        self.0.iter().filter(move |reached| reached.claim == *claim)
    }

    /// The volumes that a pod of a namespace reaches, each with a description of the pod.
    pub(super) fn used_by(&self, namespace: &str, pod: &Pod) -> Vec<(usize, String)> {
        let claims: Vec<String> = mounted(pod).collect();
        let used = self.within(namespace).filter(|reached| claims.contains(&reached.claim.name));
        used.map(|reached| (reached.index, reached.describe(&describe(pod)))).collect()
    }
}

impl Reached {
    /// A pod that mounts this claim, as messages about the claim of the volume describe it.
    pub(super) fn describe(&self, pod: &str) -> String {
        if self.own { pod.to_owned() } else { format!("{pod} (through claim {})", self.claim) }
    }
}

impl Step<'_> {
    /// The claims through which `volumes` are reached at one end. The migration is woken by pods that use one of them.
    pub(super) async fn reached(&self, role: Role, volumes: &[Planned]) -> Result<ReachedClaims> {
        let cluster = match role {
            Role::Source => &self.source,
            Role::Destination => &self.destination,
        };
        let ReachedClaims(mut all) = ReachedClaims::of(role, volumes);
        let persistent = match cluster.look_at_all::<PersistentVolume>("").await {
            Ok(persistent) => persistent,
            // A cluster that does not let the controller read them keeps nothing from being moved.
            Err(error) if error.code() == Some(403) => Vec::new(),
            Err(error) => return Err(error),
        };
        let bound = |volume| Some((claim_of(volume)?, Storage::of(volume)?, volume));
        let bound: Vec<_> = persistent.iter().filter_map(|volume| bound(volume)).collect();
        for volume in volumes {
            let own = end(role, volume);
            let Some(storage) = self.storage(cluster, own).await? else { continue };
            let same = bound.iter().filter(|(_, other, _)| storage.overlaps(other, true));
            for (claim, _, other) in same.filter(|(claim, ..)| claim != own) {
                if is_bound(cluster, claim, other).await {
                    all.push(Reached { index: volume.index, claim: claim.clone(), own: false });
                }
            }
        }
        for Reached { claim, .. } in &all {
            cluster.informers().register(Key::users(&claim.namespace, &claim.name), &self.name);
        }
        Ok(ReachedClaims(all))
    }

    /// The storage behind a claim, if it is bound and the controller may read its PersistentVolume.
    async fn storage(&self, cluster: &Cluster, claim: &Claim) -> Result<Option<Storage>> {
        match self.known_claim(cluster, claim).await? {
            Some(claim) => self.storage_of(cluster, &claim).await,
            None => Ok(None),
        }
    }
}

/// The claim of a volume at one end.
pub(super) fn end(role: Role, volume: &Planned) -> &Claim {
    match role {
        Role::Source => &volume.claim,
        Role::Destination => &volume.target,
    }
}

/// The claim that a PersistentVolume says it is bound to.
fn claim_of(volume: &PersistentVolume) -> Option<Claim> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Claim { namespace: claim.namespace.clone()?, name: claim.name.clone()? })
}

/// Whether the claim is bound to this PersistentVolume, which can also be left from an earlier claim.
async fn is_bound(cluster: &Cluster, claim: &Claim, volume: &PersistentVolume) -> bool {
    let Some(claims) = cluster.informers().current::<PersistentVolumeClaim>().await else {
        return true;
    };
    let claim = claims.get(&claim.namespace, &claim.name);
    let bound = claim.as_ref().and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
    bound.is_some() && bound == volume.metadata.name
}
