//! Claims that are one volume under two names: two PersistentVolumes can lead to the same storage.
//!
//! A volume that is its own target would be written while it is read, and two volumes with one target would overwrite each other.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{Step, reach::permitted};
use crate::{
    build::Role,
    cluster::Cluster,
    error::{Error, Result},
    plan::{Claim, Planned},
    storage::Storage,
};

impl Step<'_> {
    /// No target that exists leads to the storage of a source, or to that of another target.
    pub(super) async fn check_volumes(&self, one_cluster: bool) -> Result<()> {
        let targets = self.storages(&self.destination, |volume| &volume.target).await?;
        for (at, (one, storage)) in targets.iter().enumerate() {
            let mut others = targets.iter().take(at);
            if let Some((other, _)) = others.find(|(_, o)| o.overlaps(storage, true)) {
                let what = format!(
                    "destination PVCs {other} and {one} are the same volume, or one contains the other"
                );
                return Err(Error::Invalid("InvalidSpec", what));
            }
        }
        if targets.is_empty() {
            return Ok(());
        }
        for (claim, source) in self.storages(&self.source, |volume| &volume.claim).await? {
            let same = targets.iter().find(|(_, target)| target.overlaps(&source, one_cluster));
            if let Some((target, _)) = same {
                let what = format!(
                    "source PVC {claim} and destination PVC {target} are the same volume, or one contains the other"
                );
                return Err(Error::Invalid("SourceIsTarget", what));
            }
        }
        Ok(())
    }

    /// No other migration writes to the storage of these targets through another claim.
    pub(super) async fn check_reserved_storage(&self, volumes: &[Planned]) -> Result<()> {
        let reached = self.reached(Role::Destination, volumes).await?;
        for other in reached.others() {
            let Claim { namespace, name } = &other.claim;
            let claim: Option<PersistentVolumeClaim> =
                self.destination.read(namespace, name).await?;
            if let Some(claim) = claim {
                self.check_reservation(&claim)?;
            }
        }
        Ok(())
    }

    async fn storages<'a>(
        &'a self,
        cluster: &Cluster,
        claim: impl Fn(&'a Planned) -> &'a Claim,
    ) -> Result<Vec<(&'a Claim, Storage)>> {
        let mut all = Vec::new();
        for claim in self.volumes.iter().map(claim) {
            let Some(found) = self.known_claim(cluster, claim).await? else { continue };
            if let Some(storage) = self.storage_of(cluster, &found).await? {
                all.push((claim, storage));
            }
        }
        Ok(all)
    }

    /// A claim, if there is one. One that its watch does not know is to be created, or has just been and is not bound.
    pub(super) async fn known_claim(
        &self,
        cluster: &Cluster,
        claim: &Claim,
    ) -> Result<Option<PersistentVolumeClaim>> {
        let Claim { namespace, name } = claim;
        if !self.live
            && let Some(claims) = cluster.informers().current::<PersistentVolumeClaim>().await
        {
            return Ok(claims
                .get(namespace, name)
                .map(|known| PersistentVolumeClaim::clone(&known)));
        }
        cluster.read(namespace, name).await
    }

    pub(super) async fn storage_of(
        &self,
        cluster: &Cluster,
        claim: &PersistentVolumeClaim,
    ) -> Result<Option<Storage>> {
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        let volume = permitted(self.look::<PersistentVolume>(cluster, "", &name).await)?;
        Ok(volume.as_ref().and_then(Storage::of))
    }
}
