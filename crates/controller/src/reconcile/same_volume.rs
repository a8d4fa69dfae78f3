//! Claims that are one volume under two names: two PersistentVolumes can lead to the same volume of a storage system.
//!
//! A volume that is its own target would be written while it is read, and two volumes with one target would overwrite each other. Known are
//! volumes of CSI drivers, by driver and handle, and of NFS, by server and path. In two clusters the same driver and handle can mean two
//! volumes: there the attributes of the volume have to be equal, too.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{Step, reach::permitted};
use crate::{
    cluster::Cluster,
    error::{Error, Result},
    plan::Claim,
};

/// An attribute that differs between clusters for the same volume.
const PROVISIONER: &str = "storage.kubernetes.io/csiProvisionerIdentity";

/// What tells a volume of a storage system from every other one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    Csi { driver: String, handle: String, attributes: BTreeMap<String, String> },
    Nfs { server: String, path: String },
}

impl Identity {
    fn of(volume: &PersistentVolume) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        if let Some(nfs) = &spec.nfs {
            return Some(Self::Nfs { server: nfs.server.clone(), path: nfs.path.clone() });
        }
        let csi = spec.csi.as_ref()?;
        let mut attributes = csi.volume_attributes.clone().unwrap_or_default();
        attributes.remove(PROVISIONER);
        let (driver, handle) = (csi.driver.clone(), csi.volume_handle.clone());
        Some(Self::Csi { driver, handle, attributes })
    }

    fn is_same(&self, other: &Self, one_cluster: bool) -> bool {
        match (self, other) {
            (
                Self::Csi { driver, handle, .. },
                Self::Csi { driver: other_driver, handle: other_handle, .. },
            ) if one_cluster => driver == other_driver && handle == other_handle,
            _ => self == other,
        }
    }
}

impl Step<'_> {
    /// No existing target is one of the sources, nor another target.
    pub(super) async fn check_volumes(
        &self,
        targets: &[(usize, PersistentVolumeClaim)],
        one_cluster: bool,
    ) -> Result<()> {
        let mut known: Vec<(&Claim, Identity)> = Vec::new();
        for (index, target) in targets {
            let Some(volume) = self.volumes.get(*index) else { continue };
            let Some(identity) = self.identity_of(&self.destination, target).await? else {
                continue;
            };
            if let Some((other, _)) = known.iter().find(|(_, known)| known.is_same(&identity, true))
            {
                let what =
                    format!("destination PVCs {other} and {} are the same volume", volume.target);
                return Err(Error::Invalid("InvalidSpec", what));
            }
            known.push((&volume.target, identity));
        }
        if known.is_empty() {
            return Ok(());
        }
        for volume in &self.volumes {
            let Claim { namespace, name } = &volume.claim;
            let claim: Option<PersistentVolumeClaim> =
                self.look(&self.source, namespace, name).await?;
            let Some(claim) = claim else { continue };
            let Some(identity) = self.identity_of(&self.source, &claim).await? else { continue };
            let same = known.iter().find(|(_, known)| known.is_same(&identity, one_cluster));
            if let Some((target, _)) = same {
                let what = format!(
                    "source PVC {} and destination PVC {target} are the same volume",
                    volume.claim
                );
                return Err(Error::Invalid("SourceIsTarget", what));
            }
        }
        Ok(())
    }

    async fn identity_of(
        &self,
        cluster: &Cluster,
        claim: &PersistentVolumeClaim,
    ) -> Result<Option<Identity>> {
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        let volume = permitted(self.look::<PersistentVolume>(cluster, "", &name).await)?;
        Ok(volume.as_ref().and_then(Identity::of))
    }
}
