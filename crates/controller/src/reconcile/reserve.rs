//! Claims at the destination are reserved: one migration at a time writes to a claim, from its first run until it is deleted.
//!
//! The reservation is an annotation of the claim, written over the version that was read: of two migrations that want a claim at
//! the same time one gets it.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::Step;
use crate::{
    api::DirectVolumeMigration,
    build::{CREATED_BY, RESERVED_BY, reservation},
    cluster::Cluster,
    error::{Error, Result},
    plan,
};

impl Step<'_> {
    /// A claim that another migration writes to is not for this one.
    pub(super) fn check_reservation(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        let held = claim.annotations().get(RESERVED_BY);
        let Some(other) = held.filter(|held| **held != reservation(&self.migration)) else {
            return Ok(());
        };
        let (name, uid) = other.rsplit_once('/').unwrap_or((other, ""));
        let claim_name = format!("{}/{}", claim.namespace().unwrap_or_default(), claim.name_any());
        if self.context.vanished.is_pending(uid) {
            let what = format!(
                "claim {claim_name} is reserved by migration {name} ({uid}), which was deleted and is being cleaned up"
            );
            return Err(Error::Waiting("TargetReserved", what));
        }
        let what = format!(
            "claim {claim_name} is reserved by migration {name} ({uid}): delete that migration first, or remove the annotation \
             {RESERVED_BY} if it no longer exists"
        );
        Err(Error::Invalid("TargetReserved", what))
    }

    /// Reserves an existing claim for this migration.
    pub(super) async fn reserve(
        &mut self,
        index: usize,
        claim: &PersistentVolumeClaim,
    ) -> Result<()> {
        // A controller that ended between creating the claim and writing the status knows it by its annotation. Later an annotation proves
        // nothing: it is copied with a claim.
        let by_us = claim.annotations().get(CREATED_BY) == self.migration.metadata.uid.as_ref();
        if let Some(status) = self.status.volumes.get_mut(index)
            && by_us
            && status.created.is_empty()
            && status.target.is_none()
            && !status.foreign_content
        {
            status.created = claim.uid().unwrap_or_default();
        }
        if claim.annotations().contains_key(RESERVED_BY) {
            return Ok(());
        }
        annotate(&self.destination, claim, &json!(reservation(&self.migration))).await
    }
}

/// Gives back what a migration that is being deleted has reserved.
pub(super) async fn release(
    migration: &DirectVolumeMigration,
    destination: &Cluster,
) -> Result<()> {
    for volume in plan::volumes(&migration.spec) {
        let target = &volume.target;
        let claim: Option<PersistentVolumeClaim> =
            destination.get(&target.namespace, &target.name).await?;
        if let Some(claim) = claim
            && claim.annotations().get(RESERVED_BY) == Some(&reservation(migration))
        {
            annotate(destination, &claim, &Value::Null).await?;
        }
    }
    Ok(())
}

async fn annotate(cluster: &Cluster, claim: &PersistentVolumeClaim, value: &Value) -> Result<()> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let patch = json!({ "metadata": {
        "resourceVersion": claim.resource_version(),
        "annotations": { RESERVED_BY: value },
    }});
    let api = cluster.api::<PersistentVolumeClaim>(&namespace);
    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched
        .map(drop)
        .map_err(Error::api(format!("reserve PersistentVolumeClaim {namespace}/{name}")))
}
