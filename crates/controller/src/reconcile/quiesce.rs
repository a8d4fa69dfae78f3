//! Workloads at the source: stopped for a cutover, and started again by a rollback.
//!
//! What they had is kept on themselves, as an annotation, together with who took it: so that nothing is lost with this
//! controller, and nobody else's zero is undone.

use std::collections::BTreeSet;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::PodSpec,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;

use super::{Step, conditions, prepare};
use crate::{
    api::Phase,
    cluster::Kind,
    error::{Error, Result},
};

/// The replicas that a workload had.
const REPLICAS: &str = "pvferry.io/replicas";
/// The migration that took them.
const QUIESCED_BY: &str = "pvferry.io/quiesced-by";

/// What is scaled.
trait Workload: Kind + Resource<Scope = NamespaceResourceScope> {
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
        // Claims of its templates are named TEMPLATE-SET-ORDINAL.
        let own = |claim: &&str| {
            spec.volume_claim_templates.iter().flatten().any(|template| {
                let head = format!("{}-{}-", template.name_any(), self.name_any());
                claim.strip_prefix(&*head).is_some_and(|n| n.parse::<u32>().is_ok())
            })
        };
        claims.iter().any(own)
            || spec.template.spec.as_ref().is_some_and(|pod| names_one(pod, claims))
    }
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
    /// Scales to zero what mounts the volumes, and waits until nobody does.
    pub(super) async fn quiesce(&mut self) -> Result<Action> {
        for namespace in self.source_namespaces() {
            let claims = self.claims_in(&namespace);
            let claims: BTreeSet<&str> = claims.iter().map(|claim| &**claim).collect();
            self.stop::<Deployment>(&namespace, &claims).await?;
            self.stop::<StatefulSet>(&namespace, &claims).await?;
            for pod in prepare::users(&self.source, &namespace).await? {
                if let Some(claim) = prepare::mounted(&pod).find(|claim| claims.contains(claim)) {
                    let what = format!(
                        "the pod {namespace}/{} still uses the claim {claim}",
                        pod.name_any()
                    );
                    return Err(Error::Waiting("StillInUse", what));
                }
            }
        }
        self.condition(conditions::QUIESCED, Some(true), "Quiesced", "nobody uses the volumes");
        Ok(self.enter(Phase::Transferring, "volumes are on their way"))
    }

    async fn stop<K: Workload>(&self, namespace: &str, claims: &BTreeSet<&str>) -> Result<()> {
        let workloads: Vec<K> = self.source.list(Some(namespace), "").await?;
        for workload in workloads.iter().filter(|w| w.replicas() > 0 && w.mounts(claims)) {
            // Who was scaled up again by somebody keeps what it had at first.
            let annotations = workload.annotations();
            let known = annotations
                .get(REPLICAS)
                .filter(|_| annotations.get(QUIESCED_BY) == self.migration.uid().as_ref());
            let had = known.cloned().unwrap_or_else(|| workload.replicas().to_string());
            let patch = json!({
                "metadata": {
                    "resourceVersion": workload.resource_version(),
                    "annotations": {
                        REPLICAS: had,
                        QUIESCED_BY: self.migration.uid(),
                    },
                },
                "spec": { "replicas": 0 },
            });
            self.patch(workload, patch).await?;
            let note = format!(
                "{} {namespace}/{} scaled from {} to 0",
                K::kind(&()),
                workload.name_any(),
                workload.replicas()
            );
            self.context.events.normal(&self.migration, "WorkloadStopped", note).await;
        }
        Ok(())
    }

    /// Gives workloads what a cutover of this migration took from them.
    pub(super) async fn roll_back(&mut self) -> Result<Action> {
        let mut started = 0;
        for namespace in self.source_namespaces() {
            started += self.start::<Deployment>(&namespace).await?;
            started += self.start::<StatefulSet>(&namespace).await?;
        }
        let message = format!("{started} workloads have their replicas again");
        self.condition(conditions::QUIESCED, Some(false), "RolledBack", &message);
        self.condition(conditions::SUCCEEDED, None, "RolledBack", &message);
        self.context.events.normal(&self.migration, "RolledBack", message.clone()).await;
        self.status.ended = Some(Time(self.now));
        Ok(self.enter(Phase::RolledBack, message))
    }

    async fn start<K: Workload>(&self, namespace: &str) -> Result<usize> {
        let workloads: Vec<K> = self.source.list(Some(namespace), "").await?;
        let mut started = 0;
        for workload in &workloads {
            let annotations = workload.annotations();
            let had = annotations.get(REPLICAS).and_then(|had| had.parse::<i32>().ok());
            let Some(had) = had else { continue };
            if annotations.get(QUIESCED_BY) != self.migration.uid().as_ref() {
                continue;
            }
            // Who was scaled by somebody meanwhile keeps that.
            let replicas = if workload.replicas() == 0 { had } else { workload.replicas() };
            let patch = json!({
                "metadata": {
                    "resourceVersion": workload.resource_version(),
                    "annotations": { REPLICAS: null, QUIESCED_BY: null },
                },
                "spec": { "replicas": replicas },
            });
            self.patch(workload, patch).await?;
            started += 1;
        }
        Ok(started)
    }

    async fn patch<K: Workload>(&self, workload: &K, patch: serde_json::Value) -> Result<()> {
        let namespace = workload.namespace().unwrap_or_default();
        let name = workload.name_any();
        let api = self.source.api::<K>(&namespace);
        let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(Error::api(format!("scale {} {namespace}/{name}", K::kind(&()))))
    }

    fn source_namespaces(&self) -> BTreeSet<String> {
        self.volumes.iter().map(|volume| volume.claim.namespace.clone()).collect()
    }

    fn claims_in(&self, namespace: &str) -> BTreeSet<String> {
        let here = self.volumes.iter().filter(|volume| volume.claim.namespace == namespace);
        here.map(|volume| volume.claim.name.clone()).collect()
    }
}
