//! What must be there before anything moves: claims, namespaces, classes.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, PersistentVolumeClaim, Pod},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, ResourceExt as _, api::PostParams, runtime::controller::Action};

use super::{Step, conditions, target_use::Invalid};
use crate::{
    api::{Mode, Phase, VolumePhase},
    build::{MANAGER, bytes, capacity, target_claim},
    cluster::Cluster,
    error::{Error, Result},
    informers::{Key, is_trimmed},
    observe,
    plan::{self, Claim, Planned},
};

/// The reason of a volume that nothing is wrong with, in a run that did not start because of others.
pub(super) const OTHERS_FAILED: &str = "OthersFailed";

impl Step<'_> {
    pub(super) async fn prepare(&mut self) -> Result<Action> {
        if self.status.mode == Mode::Rollback {
            return self.roll_back().await;
        }
        let before = self.status.clone();
        match Box::pin(self.prepare_volumes()).await {
            // What a watch knows can be old: a run does not fail for that.
            Err(Error::Invalid(..)) if !self.live => {
                self.status = before;
                self.live = true;
                Box::pin(self.prepare_volumes()).await
            }
            outcome => outcome,
        }
    }

    async fn prepare_volumes(&mut self) -> Result<Action> {
        let one_cluster = self.check_one_cluster().await?;
        plan::check(&self.migration).map_err(|why| Error::Invalid("InvalidSpec", why))?;
        self.check_permission()?;
        self.check_namespaces().await?;
        // All are looked at before the first is made.
        let (mut missing, mut existing) = (Vec::new(), Vec::new());
        let (mut invalid, mut waiting) = (Vec::new(), None);
        for volume in &self.volumes {
            match self.look_at(volume).await {
                Ok((_, Some(target))) => existing.push((volume.index, target)),
                Ok((source, None)) => missing.push((volume.clone(), source)),
                Err(Error::Invalid(reason, why)) => invalid.push((volume.index, reason, why)),
                Err(error @ Error::Waiting(..)) => waiting = waiting.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        self.fail_volumes(&invalid)?;
        if let Some(error) = waiting {
            return Err(error);
        }
        self.check_volumes(one_cluster).await?;
        let taken: Vec<_> =
            existing.iter().filter_map(|(index, _)| self.volumes.get(*index).cloned()).collect();
        self.check_reserved_storage(&taken).await?;
        let overdue = self.check_use_of_targets(&self.volumes.clone()).await?;
        self.fail_volumes(&overdue)?;
        self.check_in_use().await?;
        self.condition(conditions::VALIDATED, Some(true), "Valid", "all claims can be copied");
        for (index, target) in existing {
            self.reserve(index, &target).await?;
        }
        self.make_targets(&missing).await?;
        self.make_progresses().await?;
        self.condition(
            conditions::PREPARED,
            Some(true),
            "Prepared",
            "all destination claims exist",
        );
        if self.is_cutover() {
            return Ok(self.enter(Phase::Quiescing, "scaling workloads to zero at the source"));
        }
        Ok(self.enter(Phase::Transferring, "copying volumes"))
    }

    /// The claim of a volume at the source, and the one at the destination where that exists.
    async fn look_at(
        &self,
        volume: &Planned,
    ) -> Result<(PersistentVolumeClaim, Option<PersistentVolumeClaim>)> {
        let source = self.source_claim(volume).await?;
        let target = self.target(volume, &source).await?;
        if target.is_none() {
            self.check_class(volume, &source).await?;
        }
        Ok((source, target))
    }

    /// Fails the volumes that cannot be copied, each for its own reason; the others only were not started. The error lists all.
    fn fail_volumes(&mut self, invalid: &[Invalid]) -> Result<()> {
        let Some((_, first, _)) = invalid.first() else { return Ok(()) };
        for (index, volume) in self.status.volumes.iter_mut().enumerate() {
            let own = invalid.iter().find(|(at, ..)| *at == index);
            volume.phase = VolumePhase::Failed;
            volume.reason = own.map_or(OTHERS_FAILED, |(_, reason, _)| reason).into();
        }
        let all: Vec<&str> = invalid.iter().map(|(.., why)| &**why).collect();
        Err(Error::Invalid(first, all.join("; ")))
    }

    /// The controller creates pods in any namespace, as root: a user who can create a migration must not choose what runs in them.
    pub(super) fn check_permission(&self) -> Result<()> {
        let spec = &self.migration.spec;
        let fields = spec.privileged_fields(&self.context.defaults.pods.endpoint_hosts);
        match fields.first() {
            Some(field) if !self.context.defaults.allow_privileged_fields => {
                let what = format!(
                    "{field} is not permitted: the controller runs without --allow-privileged-fields"
                );
                Err(Error::Invalid("NotPermitted", what))
            }
            _ => Ok(()),
        }
    }

    async fn check_namespaces(&self) -> Result<()> {
        let spec = &self.migration.spec;
        let sources: BTreeSet<_> = self.volumes.iter().map(|v| &v.claim.namespace).collect();
        let targets: BTreeSet<_> = self.volumes.iter().map(|v| &v.target.namespace).collect();
        for name in sources {
            let namespace =
                self.look::<Namespace>(&self.source, "", name).await?.ok_or_else(|| {
                    Error::Invalid(
                        "NamespaceNotFound",
                        format!("source namespace {name:?} not found"),
                    )
                })?;
            self.check_profile(&namespace, name)?;
        }
        for name in targets {
            match self.look::<Namespace>(&self.destination, "", name).await? {
                Some(namespace) => self.check_profile(&namespace, name)?,
                None if spec.destination.create_namespace => {
                    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                    let namespace = Namespace { metadata, ..Namespace::default() };
                    let params =
                        PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
                    let api: Api<Namespace> = Api::all(self.destination.client());
                    let made = api.create(&params, &namespace).await;
                    made.map_err(Error::api(format!("create Namespace {name}")))?;
                }
                None => {
                    let what = format!(
                        "destination namespace {name:?} not found; set destination.createNamespace to create it"
                    );
                    return Err(Error::Invalid("NamespaceNotFound", what));
                }
            }
        }
        Ok(())
    }

    /// A namespace under a profile that would refuse the pods: said now, with what helps.
    fn check_profile(&self, namespace: &Namespace, name: &str) -> Result<()> {
        let labels = namespace.metadata.labels.as_ref();
        let level = labels.and_then(|all| all.get("pod-security.kubernetes.io/enforce"));
        if level.is_some_and(|level| level == "restricted")
            && self.migration.spec.pods.user.id.is_none()
        {
            let what = format!(
                "namespace {name:?} enforces Pod Security \"restricted\": set pods.user.id to a user that can read and write the \
                 volumes; file ownership is then not preserved"
            );
            return Err(Error::Invalid("RootNotAllowed", what));
        }
        Ok(())
    }

    pub(super) async fn source_claim(&self, volume: &Planned) -> Result<PersistentVolumeClaim> {
        let Claim { namespace, name } = &volume.claim;
        let claim: Option<PersistentVolumeClaim> = self.look(&self.source, namespace, name).await?;
        let claim = claim.ok_or_else(|| {
            Error::Invalid("ClaimNotFound", format!("PVC {} not found", volume.claim))
        })?;
        if claim.metadata.deletion_timestamp.is_some() {
            let what = format!("PVC {} is being deleted", volume.claim);
            return Err(Error::Invalid("ClaimNotFound", what));
        }
        let spec = claim.spec.clone().unwrap_or_default();
        if spec.volume_mode.as_deref() == Some("Block") {
            let what = format!("PVC {} has volumeMode Block, which is not supported", volume.claim);
            return Err(Error::Invalid("BlockVolume", what));
        }
        match claim.status.as_ref().and_then(|status| status.phase.as_deref()) {
            Some("Bound") => Ok(claim),
            Some("Lost") => {
                let what = format!("PVC {} has lost its PersistentVolume", volume.claim);
                Err(Error::Invalid("ClaimLost", what))
            }
            _ => {
                let what = format!("PVC {} is not bound to a PersistentVolume", volume.claim);
                Err(Error::Waiting("ClaimNotBound", what))
            }
        }
    }

    /// Makes the claims that do not exist, and publishes one event for all of them.
    async fn make_targets(&mut self, missing: &[(Planned, PersistentVolumeClaim)]) -> Result<()> {
        let mut made = Vec::new();
        let mut outcome = Ok(());
        for (volume, source) in missing {
            outcome = self.make_target(volume, source).await;
            if outcome.is_err() {
                break;
            }
            made.push(volume.target.to_string());
        }
        if !made.is_empty() {
            let note = format!("Created PVC {}", made.join(", "));
            self.context.events.normal(&self.migration, "ClaimCreated", note).await;
        }
        outcome
    }

    async fn make_target(
        &mut self,
        volume: &Planned,
        source: &PersistentVolumeClaim,
    ) -> Result<()> {
        let whole = if is_trimmed(source) {
            let Claim { namespace, name } = &volume.claim;
            let read: Option<PersistentVolumeClaim> = self.source.read(namespace, name).await?;
            // One that is gone, or is another one now, is looked at again in the next step.
            let same = read.filter(|read| read.uid() == source.uid());
            Some(same.ok_or_else(|| {
                let what = format!("PVC {} was replaced by another client", volume.claim);
                Error::Waiting("SourceReplaced", what)
            })?)
        } else {
            None
        };
        let claim = target_claim(&self.migration, volume, whole.as_ref().unwrap_or(source));
        let Some(made) = self.destination.create_new(&claim).await? else {
            // It is looked at like any other that exists.
            let what = format!("PVC {} was just created by another client", volume.target);
            return Err(Error::Waiting("TargetExists", what));
        };
        if let Some(status) = self.status.volumes.get_mut(volume.index) {
            status.created = made.uid().unwrap_or_default();
            status.foreign_content = false;
        }
        Ok(())
    }

    /// Source and destination may be one cluster under two names. True where they are one.
    pub(super) async fn check_one_cluster(&self) -> Result<bool> {
        let spec = &self.migration.spec;
        let one = spec.source.cluster == spec.destination.cluster
            || self.identity(&self.source).await? == self.identity(&self.destination).await?;
        match plan::check_one_cluster(&self.volumes) {
            Err(why) if one => Err(Error::Invalid("SourceIsTarget", why)),
            _ => Ok(one),
        }
    }

    /// What tells a cluster from every other one.
    async fn identity(&self, cluster: &Cluster) -> Result<String> {
        let found = self.look::<Namespace>(cluster, "", "kube-system").await?;
        found.and_then(|found| found.metadata.uid).ok_or_else(|| {
            Error::Invalid("ClusterNotUsable", "namespace \"kube-system\" not found".into())
        })
    }

    /// The target if it exists; an error where it cannot take the volume.
    async fn target(
        &self,
        volume: &Planned,
        source: &PersistentVolumeClaim,
    ) -> Result<Option<PersistentVolumeClaim>> {
        let Claim { namespace, name } = &volume.target;
        let informers = self.destination.informers();
        informers.register(Key::object::<PersistentVolumeClaim>(namespace, name), &self.name);
        // One that the watch does not know most likely does not exist: to create it tells.
        if !self.live
            && let Some(claims) = informers.current::<PersistentVolumeClaim>().await
            && claims.get(namespace, name).is_none()
        {
            return Ok(None);
        }
        // Who has reserved it is read from the server.
        let target: Option<PersistentVolumeClaim> = self.destination.read(namespace, name).await?;
        let Some(target) = target else { return Ok(None) };
        if target.metadata.deletion_timestamp.is_some() {
            let what = format!("PVC {} is being deleted", volume.target);
            return Err(Error::Waiting("TargetTerminating", what));
        }
        let (has, needs) = (capacity(&target), capacity(source));
        if bytes(&has) < bytes(&needs) {
            let what = format!(
                "PVC {} has {}, but source PVC {} has {}",
                volume.target, has.0, volume.claim, needs.0
            );
            return Err(Error::Invalid("TargetTooSmall", what));
        }
        self.check_reservation(&target)?;
        Ok(Some(target))
    }

    /// A claim that is to be made: its class and its size.
    async fn check_class(&self, volume: &Planned, source: &PersistentVolumeClaim) -> Result<()> {
        let claim = target_claim(&self.migration, volume, source);
        let spec = claim.spec.unwrap_or_default();
        if let Some(class) = spec.storage_class_name.filter(|class| !class.is_empty())
            && self.look::<StorageClass>(&self.destination, "", &class).await?.is_none()
        {
            let what = format!(
                "storage class {class:?} of PVC {} not found at the destination",
                volume.target
            );
            return Err(Error::Invalid("StorageClassNotFound", what));
        }
        let asked =
            spec.resources.and_then(|r| r.requests?.get("storage").cloned()).unwrap_or_default();
        let needs = capacity(source);
        if bytes(&asked) < bytes(&needs) {
            let what = format!(
                "PVC {} would have {}, less than the {} of source PVC {}",
                volume.target, asked.0, needs.0, volume.claim
            );
            return Err(Error::Invalid("TargetTooSmall", what));
        }
        Ok(())
    }

    /// Pods that have not ended, other than those of this migration.
    pub(super) async fn users(&self, cluster: &Cluster, namespace: &str) -> Result<Vec<Arc<Pod>>> {
        let mut pods = cluster.look_at_all::<Pod>(namespace).await?;
        pods.retain(|pod| self.is_user(pod));
        Ok(pods)
    }

    /// Whether a pod has not ended and is not of this migration.
    pub(super) fn is_user(&self, pod: &Pod) -> bool {
        !observe::is_over(pod) && !self.is_own(pod)
    }

    /// As [`Self::users`], from the server, with the version of the list.
    pub(super) async fn users_at(
        &self,
        cluster: &Cluster,
        namespace: &str,
    ) -> Result<(Vec<Pod>, String)> {
        let (pods, version) = cluster.list_with_version::<Pod>(Some(namespace), "").await?;
        Ok((pods.into_iter().filter(|pod| self.is_user(pod)).collect(), version))
    }
}
