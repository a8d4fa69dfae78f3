//! Whose the content of a claim at the destination is.
//!
//! Entries that the source does not have are deleted only where everything in the claim is from this migration: it created the claim, and
//! its volume was provisioned for it, or a run has made the claim equal to the source. Both hold for one claim and one PersistentVolume, by
//! their uids. A claim of the same name on another volume is a claim that existed before.
//!
//! What is deleted depends on it, so the claim is read from the server once the destination pod has it mounted: from then on it cannot be
//! replaced without force. The claims are compared once more at the end of the run, so that a run that filled a claim which is gone fails.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use kube::ResourceExt;

use super::{Step, reach::permitted, transfer::Current};
use crate::{
    api::{BoundClaim, VolumePhase},
    build::{self, PROVISIONED_BY, TARGETS},
    error::{Error, Result},
    observe::Failure,
    plan::{Claim, Planned},
    topology,
};

/// The claims of a transfer at the destination, by the index of their volume.
type Targets = BTreeMap<usize, BoundClaim>;

impl Step<'_> {
    /// Protects the targets of a transfer whose destination pod is created next. A claim can still be unbound: see [`Self::bind_targets`].
    pub(super) async fn protect_targets(&self, current: &mut Current) -> Result<()> {
        for volume in &mut current.volumes {
            let Claim { namespace, name } = &volume.target;
            let claim: Option<PersistentVolumeClaim> =
                self.look(&self.destination, namespace, name).await?;
            let claim = claim.ok_or_else(|| missing(volume))?;
            let owned = match self.bound(&claim).await? {
                (bound, Some(persistent)) => self.is_owned(volume, &claim, &bound, &persistent),
                (bound, None) if bound.volume.is_empty() => {
                    self.is_created(volume, &claim) && self.is_provisioned(&claim).await?
                }
                (bound, None) => self.is_filled(volume, &bound),
            };
            volume.keep_extraneous = self.keeps_extraneous(owned);
        }
        Ok(())
    }

    /// Protects the targets of a transfer whose destination pod has them mounted, and returns them. The failure says that the destination pod
    /// permits more than that.
    pub(super) async fn bind_targets(
        &self,
        current: &mut Current,
        server: &Pod,
    ) -> Result<Result<Targets, Failure>> {
        let claims = self.claims_now(current.destination_namespace(), &current.volumes).await?;
        // A claim that was created is bound by now.
        self.check_volumes(self.check_one_cluster().await?).await?;
        self.check_reserved_storage(&current.volumes).await?;
        let mut targets = Targets::new();
        for volume in &mut current.volumes {
            let claim = claims.get(&volume.target.name).ok_or_else(|| missing(volume))?;
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(missing(volume));
            }
            let (bound, persistent) = self.bound(claim).await?;
            let owned = match &persistent {
                Some(persistent) => self.is_owned(volume, claim, &bound, persistent),
                None => self.is_filled(volume, &bound),
            };
            volume.keep_extraneous = self.keeps_extraneous(owned);
            if volume.keep_extraneous && build::permits_deletion(server, volume) {
                let what = format!(
                    "PVC {} is not bound to the expected PersistentVolume; the next attempt deletes nothing there",
                    volume.target
                );
                return Ok(Err(Failure::new("TargetReplaced", what, true)));
            }
            targets.insert(volume.index, bound);
        }
        Ok(Ok(targets))
    }

    fn keeps_extraneous(&self, owned: bool) -> bool {
        !owned && !self.migration.spec.transfer.overwrite
    }

    /// The claims of these volumes at the destination, by name, as the server has them.
    async fn claims_now(
        &self,
        namespace: &str,
        volumes: &[Planned],
    ) -> Result<BTreeMap<String, PersistentVolumeClaim>> {
        if let [volume] = volumes {
            let name = &volume.target.name;
            let claim: Option<PersistentVolumeClaim> =
                self.destination.read(namespace, name).await?;
            return Ok(claim.map(|claim| (name.clone(), claim)).into_iter().collect());
        }
        let all: Vec<PersistentVolumeClaim> = self.destination.list_trimmed(namespace).await?;
        Ok(all.into_iter().map(|claim| (claim.name_any(), claim)).collect())
    }

    /// What a claim is bound to, and the PersistentVolume if the controller may read it.
    async fn bound(
        &self,
        claim: &PersistentVolumeClaim,
    ) -> Result<(BoundClaim, Option<PersistentVolume>)> {
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
        let mut bound = BoundClaim {
            uid: claim.uid().unwrap_or_default(),
            volume: volume.unwrap_or_default(),
            ..BoundClaim::default()
        };
        if bound.volume.is_empty() {
            return Ok((bound, None));
        }
        let persistent = self.look::<PersistentVolume>(&self.destination, "", &bound.volume).await;
        let persistent = permitted(persistent)?;
        bound.volume_uid = persistent.as_ref().and_then(ResourceExt::uid).unwrap_or_default();
        Ok((bound, persistent))
    }

    fn is_owned(
        &self,
        volume: &Planned,
        claim: &PersistentVolumeClaim,
        bound: &BoundClaim,
        persistent: &PersistentVolume,
    ) -> bool {
        self.is_filled(volume, bound)
            || (self.is_created(volume, claim) && is_provisioned_for(claim, persistent))
    }

    /// Whether a run has made this claim equal to the source.
    fn is_filled(&self, volume: &Planned, bound: &BoundClaim) -> bool {
        let status = self.status.volumes.get(volume.index);
        status.is_some_and(|status| status.owned && status.target.as_ref() == Some(bound))
    }

    /// Whether this migration created this claim.
    fn is_created(&self, volume: &Planned, claim: &PersistentVolumeClaim) -> bool {
        let created = self.status.volumes.get(volume.index).map(|status| &status.created);
        created.is_some_and(|created| !created.is_empty() && claim.uid().as_ref() == Some(created))
    }

    /// Whether the class of an unbound claim has a provisioner, so that its volume will most likely be new.
    async fn is_provisioned(&self, claim: &PersistentVolumeClaim) -> Result<bool> {
        let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone());
        let Some(class) = class.filter(|class| !class.is_empty()) else { return Ok(false) };
        let class = permitted(self.look::<StorageClass>(&self.destination, "", &class).await)?;
        Ok(class.is_some_and(|class| class.provisioner != topology::NO_PROVISIONER))
    }

    /// Fails volumes that were copied to a claim which is not the one of that name any more.
    pub(super) async fn fail_replaced(&mut self) -> Result<()> {
        let succeeded = |volume: &&Planned| {
            let status = self.status.volumes.get(volume.index);
            status.is_some_and(|status| status.phase == VolumePhase::Succeeded)
        };
        let volumes: Vec<Planned> = self.volumes.iter().filter(succeeded).cloned().collect();
        let namespaces: BTreeSet<_> = volumes.iter().map(|v| v.target.namespace.clone()).collect();
        for namespace in namespaces {
            let here = volumes.iter().filter(|volume| volume.target.namespace == namespace);
            let here: Vec<Planned> = here.cloned().collect();
            let claims = self.claims_now(&namespace, &here).await?;
            for volume in &here {
                // One that is being deleted is gone as soon as no pod of the transfer holds it.
                let stays =
                    |claim: &&PersistentVolumeClaim| claim.metadata.deletion_timestamp.is_none();
                let now = match claims.get(&volume.target.name).filter(stays) {
                    Some(claim) => Some(self.bound(claim).await?.0),
                    None => None,
                };
                let status = self.status.volumes.get(volume.index);
                let copied = status.and_then(|status| status.target.clone());
                if now.is_some() && now == copied {
                    continue;
                }
                let state = if now.is_some() { "replaced" } else { "deleted" };
                let what = format!(
                    "PVC {} was {state} during the run: the volume of the earlier PVC has what was copied; increment spec.run",
                    volume.target
                );
                self.fail_success(volume, "TargetReplaced", what).await?;
            }
        }
        Ok(())
    }
}

/// Whether a volume was made for this claim, and is empty because of that. One that existed before can be bound to a new claim with what
/// it holds. Provisioners name a volume after the uid of its claim, which nobody knows before there is the claim.
fn is_provisioned_for(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let Some(uid) = claim.uid() else { return false };
    let of = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    volume.annotations().contains_key(PROVISIONED_BY)
        && volume.name_any().ends_with(&uid)
        && of.is_some_and(|of| of.uid.as_ref() == Some(&uid))
        && volume.creation_timestamp() >= claim.creation_timestamp()
}

/// Records on a source pod which claims it fills, by the index of their volume.
pub(super) fn record(pod: &mut Pod, targets: &Targets) {
    if let Ok(text) = serde_json::to_string(targets) {
        pod.metadata.annotations.get_or_insert_default().insert(TARGETS.into(), text);
    }
}

/// The claim that a source pod fills with a volume.
pub(super) fn recorded(pod: &Pod, volume: &Planned) -> Option<BoundClaim> {
    let text = pod.annotations().get(TARGETS)?;
    serde_json::from_str::<Targets>(text).ok()?.remove(&volume.index)
}

fn missing(volume: &Planned) -> Error {
    let what = format!("PVC {} was deleted during the run", volume.target);
    Error::Invalid("TargetReplaced", what)
}
