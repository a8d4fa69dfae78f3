//! Workloads at the source that a cutover stops.
//!
//! What they had is kept in the status, and on themselves as an annotation together with who took it: an annotation is written with the
//! replicas, in one call, and the status is not lost with a manifest that is applied again.

use std::collections::BTreeSet;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::PodSpec,
    },
};
use kube::{
    Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;

use super::{Step, conditions, in_use::describe};
use crate::{
    api::{Phase, StoppedWorkload},
    cluster::Kind,
    error::{Error, Result},
    informers::{Key, mounted},
    plan::Claim,
};

/// The replicas that a workload had.
pub(super) const REPLICAS: &str = "pvferry.io/replicas";
/// The migration that took them.
pub(super) const QUIESCED_BY: &str = "pvferry.io/quiesced-by";
/// The run of that migration in which it took them.
pub(super) const QUIESCED_IN_RUN: &str = "pvferry.io/quiesced-in-run";

/// What is scaled.
pub(super) trait Workload: Kind + Resource<Scope = NamespaceResourceScope> {
    fn replicas(&self) -> i32;
    /// Whether its pods mount one of these claims.
    fn mounts(&self, claims: &BTreeSet<&str>) -> bool;
}

impl Workload for Deployment {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn mounts(&self, claims: &BTreeSet<&str>) -> bool {
        let pod = self.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        pod.is_some_and(|pod| names_one(pod, claims))
    }
}

impl Workload for StatefulSet {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn mounts(&self, claims: &BTreeSet<&str>) -> bool {
        let Some(spec) = &self.spec else { return false };
        claims.iter().any(|claim| is_of_template(self, claim))
            || spec.template.spec.as_ref().is_some_and(|pod| names_one(pod, claims))
    }
}

/// Claims of the templates of a StatefulSet are named TEMPLATE-SET-ORDINAL.
fn is_of_template(set: &StatefulSet, claim: &str) -> bool {
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    let mut heads =
        templates.map(|template| format!("{}-{}-", template.name_any(), set.name_any()));
    heads.any(|head| claim.strip_prefix(&*head).is_some_and(|n| n.parse::<u32>().is_ok()))
}

/// A StatefulSet that deletes its claims when it is scaled down would delete the source.
fn check_retention(set: &StatefulSet, claims: &BTreeSet<&str>) -> Result<()> {
    let policy =
        set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deletes = policy.is_some_and(|policy| policy.when_scaled.as_deref() == Some("Delete"));
    let Some(claim) = claims.iter().find(|claim| deletes && is_of_template(set, claim)) else {
        return Ok(());
    };
    let namespace = set.namespace().unwrap_or_default();
    let what = format!(
        "StatefulSet {namespace}/{} deletes PVC {namespace}/{claim} when it is scaled to zero: set \
         spec.persistentVolumeClaimRetentionPolicy.whenScaled to Retain",
        set.name_any()
    );
    Err(Error::Invalid("ClaimNotRetained", what))
}

fn names_one(pod: &PodSpec, claims: &BTreeSet<&str>) -> bool {
    pod.volumes.iter().flatten().any(|volume| {
        volume
            .persistent_volume_claim
            .as_ref()
            .is_some_and(|claim| claims.contains(&*claim.claim_name))
    })
}

impl Step<'_> {
    /// Scales to zero what mounts the volumes, and waits until no pod does. From then on the pods are watched.
    pub(super) async fn quiesce(&mut self) -> Result<Action> {
        if let Some(error) = self.still_stopping().await? {
            return Err(error);
        }
        if self.scales_to_zero() {
            self.stop_workloads().await?;
        }
        let (used, watches) = self.users_of_sources().await?;
        match used.first() {
            Some((volume, pod)) if self.scales_to_zero() => {
                return Err(still_in_use(&volume.claim, pod));
            }
            Some(_) => {
                self.refuse_users(&used)?;
                let what = self.status.acknowledged.join("; ");
                self.condition(conditions::QUIESCED, Some(false), "InUseAcknowledged", &what);
            }
            None => {
                let what = "no pod uses the source volumes";
                self.condition(conditions::QUIESCED, Some(true), "Quiesced", what);
            }
        }
        // Claims can be deleted with the pods that were stopped.
        for volume in &self.volumes {
            self.source_claim(volume).await?;
        }
        self.status.source_watches = watches;
        Ok(self.enter(Phase::Transferring, "copying volumes"))
    }

    /// Whether nothing has to be done but to wait for pods that are being deleted.
    async fn still_stopping(&self) -> Result<Option<Error>> {
        let mut first = None;
        if !self.scales_to_zero() {
            return Ok(None);
        }
        for volume in &self.volumes {
            let Claim { namespace, name } = &volume.claim;
            self.source.informers().register(Key::users(namespace, name), &self.name);
        }
        for namespace in self.source_namespaces() {
            let claims = self.claims_in(&namespace);
            for pod in self.users(&self.source, &namespace).await? {
                let Some(claim) = mounted(&pod).find(|claim| claims.contains(claim)) else {
                    continue;
                };
                if pod.metadata.deletion_timestamp.is_none() {
                    return Ok(None);
                }
                let claim = Claim { namespace: namespace.clone(), name: claim };
                first.get_or_insert_with(|| still_in_use(&claim, &describe(&pod)));
            }
        }
        Ok(first)
    }

    /// Scales to zero what mounts the volumes.
    async fn stop_workloads(&mut self) -> Result<()> {
        let mut all = Vec::new();
        for namespace in self.source_namespaces() {
            let claims = self.claims_in(&namespace);
            let claims: BTreeSet<&str> = claims.iter().map(|claim| &**claim).collect();
            let mut deployments: Vec<Deployment> = self.source.list(Some(&namespace), "").await?;
            let mut sets: Vec<StatefulSet> = self.source.list(Some(&namespace), "").await?;
            deployments.retain(|deployment| deployment.mounts(&claims));
            sets.retain(|set| set.mounts(&claims));
            // All are looked at before the first is scaled.
            sets.iter().try_for_each(|set| check_retention(set, &claims))?;
            all.push((deployments, sets));
        }
        for (deployments, sets) in all {
            self.stop(&deployments).await?;
            self.stop(&sets).await?;
        }
        Ok(())
    }

    async fn stop<K: Workload>(&mut self, workloads: &[K]) -> Result<()> {
        for workload in workloads {
            let annotations = workload.annotations();
            let ours = annotations.get(QUIESCED_BY) == self.migration.uid().as_ref();
            let run = self.status.run.to_string();
            let running = workload.replicas() > 0;
            // Who scales it up again during a run undoes a step of that run: what it had at first counts. Between two runs
            // the application was in use again, and what it had last counts.
            let keeps = ours && (!running || annotations.get(QUIESCED_IN_RUN) == Some(&run));
            let known = annotations.get(REPLICAS).filter(|_| keeps);
            let known = known.and_then(|text| text.parse().ok());
            let Some(replicas) = known.or(running.then(|| workload.replicas())) else { continue };
            let replicas = self.note_stopped(workload, replicas, keeps || !running);
            if !running {
                continue;
            }
            let patch = json!({
                "metadata": {
                    "resourceVersion": workload.resource_version(),
                    "annotations": {
                        REPLICAS: replicas.to_string(),
                        QUIESCED_BY: self.migration.uid(),
                        QUIESCED_IN_RUN: run,
                    },
                },
                "spec": { "replicas": 0 },
            });
            self.patch(workload, patch).await?;
            let note = format!(
                "Scaled {} {}/{} from {} to 0 replicas",
                K::kind(&()),
                workload.namespace().unwrap_or_default(),
                workload.name_any(),
                workload.replicas()
            );
            self.context.events.normal(&self.migration, "WorkloadScaledDown", note).await;
        }
        Ok(())
    }

    /// Enters into the status that a workload is stopped; returns the replicas that it had. `keeps` prefers those that the
    /// status holds.
    fn note_stopped<K: Workload>(&mut self, workload: &K, replicas: i32, keeps: bool) -> i32 {
        let uid = workload.uid().unwrap_or_default();
        if let Some(known) = self.status.stopped.iter_mut().find(|stopped| stopped.uid == uid) {
            if !keeps {
                known.replicas = replicas;
            }
            return known.replicas;
        }
        self.status.stopped.push(StoppedWorkload {
            kind: K::kind(&()).into_owned(),
            namespace: workload.namespace().unwrap_or_default(),
            name: workload.name_any(),
            uid,
            replicas,
        });
        replicas
    }

    pub(super) async fn patch<K: Workload>(
        &self,
        workload: &K,
        patch: serde_json::Value,
    ) -> Result<()> {
        let namespace = workload.namespace().unwrap_or_default();
        let name = workload.name_any();
        let api = self.source.api::<K>(&namespace);
        let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(Error::api(format!("scale {} {namespace}/{name}", K::kind(&()))))
    }

    pub(super) fn source_namespaces(&self) -> BTreeSet<String> {
        self.volumes.iter().map(|volume| volume.claim.namespace.clone()).collect()
    }

    fn claims_in(&self, namespace: &str) -> BTreeSet<String> {
        let here = self.volumes.iter().filter(|volume| volume.claim.namespace == namespace);
        here.map(|volume| volume.claim.name.clone()).collect()
    }
}

fn still_in_use(claim: &Claim, pod: &str) -> Error {
    Error::Waiting("StillInUse", format!("pod {pod} still uses PVC {claim}"))
}
