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

use super::{Context, Step, conditions, in_use::describe};
use crate::{
    api::{DirectVolumeMigration, Phase, Quiesce},
    cluster::{Cluster, Kind},
    error::{Error, Result},
    informers::{Key, mounted},
    plan::{self, Claim},
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
    /// Scales to zero what mounts the volumes, and waits until no pod does. From then on the pods are watched.
    pub(super) async fn quiesce(&mut self) -> Result<Action> {
        if let Some(error) = self.still_stopping().await? {
            return Err(error);
        }
        if self.scales_to_zero() {
            for namespace in self.source_namespaces() {
                let claims = self.claims_in(&namespace);
                let claims: BTreeSet<&str> = claims.iter().map(|claim| &**claim).collect();
                self.stop::<Deployment>(&namespace, &claims).await?;
                self.stop::<StatefulSet>(&namespace, &claims).await?;
            }
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
                "Scaled {} {namespace}/{} from {} to 0 replicas",
                K::kind(&()),
                workload.name_any(),
                workload.replicas()
            );
            self.context.events.normal(&self.migration, "WorkloadScaledDown", note).await;
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
        let message = match started {
            0 => "Nothing to restore: no workloads were scaled down".to_owned(),
            _ => format!("Restored the replicas of {}", super::counted(started, "workload")),
        };
        self.condition(conditions::QUIESCED, Some(false), "RolledBack", &message);
        self.condition(conditions::SUCCEEDED, None, "RolledBack", &message);
        self.context.events.normal(&self.migration, "RolledBack", message.clone()).await;
        self.status.completion_time = Some(Time(self.now));
        // What the transfer has left behind goes now, beside the application that starts.
        Ok(self.enter(Phase::RolledBack, message))
    }

    async fn start<K: Workload>(&self, namespace: &str) -> Result<usize> {
        let stopped = stopped_by::<K>(&self.migration, &self.source, namespace).await?;
        for (workload, had) in &stopped {
            // Who was scaled by somebody meanwhile keeps that.
            let replicas = if workload.replicas() == 0 { *had } else { workload.replicas() };
            let patch = json!({
                "metadata": {
                    "resourceVersion": workload.resource_version(),
                    "annotations": { REPLICAS: null, QUIESCED_BY: null },
                },
                "spec": { "replicas": replicas },
            });
            self.patch(workload, patch).await?;
        }
        Ok(stopped.len())
    }

    async fn patch<K: Workload>(&self, workload: &K, patch: serde_json::Value) -> Result<()> {
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

/// The workloads that a migration has stopped, each with the replicas that it had.
async fn stopped_by<K: Workload>(
    migration: &DirectVolumeMigration,
    cluster: &Cluster,
    namespace: &str,
) -> Result<Vec<(K, i32)>> {
    let workloads: Vec<K> = cluster.list(Some(namespace), "").await?;
    let had = |workload: &K| {
        let annotations = workload.annotations();
        let ours = annotations.get(QUIESCED_BY) == migration.uid().as_ref();
        annotations.get(REPLICAS).filter(|_| ours)?.parse().ok()
    };
    Ok(workloads
        .into_iter()
        .filter_map(|workload| had(&workload).map(|had| (workload, had)))
        .collect())
}

/// Says which workloads stay stopped when a migration is removed that has stopped them. Whether the application has moved or is
/// to go on where it was, only its owner knows.
pub(super) async fn tell_of_stopped(
    context: &Context,
    migration: &DirectVolumeMigration,
    cluster: &Cluster,
) -> Result<()> {
    if migration.spec.quiesce == Quiesce::None {
        return Ok(());
    }
    let volumes = plan::volumes(&migration.spec);
    let namespaces: BTreeSet<_> = volumes.iter().map(|volume| &volume.claim.namespace).collect();
    for namespace in namespaces {
        let deployments = stopped_by::<Deployment>(migration, cluster, namespace).await?;
        let sets = stopped_by::<StatefulSet>(migration, cluster, namespace).await?;
        let deployments = deployments.iter().map(|(w, had)| ("deployment", w.name_any(), had));
        let sets = sets.iter().map(|(w, had)| ("statefulset", w.name_any(), had));
        for (kind, name, had) in deployments.chain(sets) {
            let note = format!(
                "{kind} {namespace}/{name} is still scaled to zero; to restore it: \
                 kubectl -n {namespace} scale {kind} {name} --replicas={had}"
            );
            context.events.warning(migration, "WorkloadLeftScaledDown", note).await;
        }
    }
    Ok(())
}
