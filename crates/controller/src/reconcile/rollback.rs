//! A rollback starts the workloads again that a cutover has stopped.
//!
//! It knows them from the status. What is not found, or cannot be started, is an application that is still down: that rollback has failed.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::apps::v1::{Deployment, StatefulSet},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{ResourceExt as _, runtime::controller::Action};
use serde_json::json;

use super::{
    Context, Step, conditions,
    quiesce::{QUIESCED_BY, QUIESCED_IN_RUN, REPLICAS, Workload},
};
use crate::{
    api::{DirectVolumeMigration, Phase, Quiesce, StoppedWorkload},
    cluster::Cluster,
    error::Result,
    plan,
};

/// What has become of the workloads.
#[derive(Default)]
struct Outcome {
    /// Have the replicas that they had.
    restored: usize,
    /// Run with other replicas.
    different: Vec<String>,
    /// Do not run.
    down: Vec<String>,
    /// Stay in the status: the next rollback looks at them again.
    left: Vec<StoppedWorkload>,
}

impl Step<'_> {
    /// Gives workloads what a cutover of this migration took from them.
    pub(super) async fn roll_back(&mut self) -> Result<Action> {
        let mut outcome = Outcome::default();
        let mut namespaces = self.source_namespaces();
        namespaces.extend(self.status.stopped.iter().map(|stopped| stopped.namespace.clone()));
        for namespace in namespaces {
            self.start::<Deployment>(&namespace, &mut outcome).await?;
            self.start::<StatefulSet>(&namespace, &mut outcome).await?;
        }
        let Outcome { restored, different, down, left } = outcome;
        self.status.stopped = left;
        self.status.completion_time = Some(Time(self.now));
        for what in different {
            self.context.events.warning(&self.migration, "WorkloadDiffers", what).await;
        }
        let message = match restored {
            0 => "Nothing to restore: no workloads were scaled down".to_owned(),
            _ => format!("Restored the replicas of {}", super::counted(restored, "workload")),
        };
        // What the transfer has left behind goes now, beside the application that starts.
        if down.is_empty() {
            self.condition(conditions::QUIESCED, Some(false), "RolledBack", &message);
            self.condition(conditions::SUCCEEDED, None, "RolledBack", &message);
            self.context.events.normal(&self.migration, "RolledBack", message.clone()).await;
            return Ok(self.enter(Phase::RolledBack, message));
        }
        let restored = super::counted(restored, "workload");
        let message =
            format!("Restored the replicas of {restored}; not started: {}", down.join("; "));
        self.condition(conditions::QUIESCED, Some(false), "RollbackIncomplete", &message);
        self.condition(conditions::SUCCEEDED, Some(false), "RollbackIncomplete", &message);
        self.context.events.warning(&self.migration, "RollbackIncomplete", message.clone()).await;
        Ok(self.enter(Phase::Failed, message))
    }

    /// Starts the workloads of a kind in a namespace.
    async fn start<K: Workload>(&self, namespace: &str, outcome: &mut Outcome) -> Result<()> {
        let there: Vec<K> = self.source.list(Some(namespace), "").await?;
        for stopped in stopped_here::<K>(&self.migration, namespace, &self.status.stopped, &there) {
            let workload = there.iter().find(|workload| workload.name_any() == stopped.name);
            let called = format!("{} {namespace}/{}", stopped.kind, stopped.name);
            let had = stopped.replicas;
            let now = workload.map_or(0, Workload::replicas);
            let down = match workload {
                None => format!("{called} not found, it had {had} replicas"),
                Some(other) if other.uid().unwrap_or_default() != stopped.uid && now == 0 => {
                    format!("{called} was replaced and has 0 replicas, it had {had}")
                }
                Some(other) if now == 0 && is_held_by_another(other, &self.migration) => {
                    format!("{called} was stopped by another migration, too")
                }
                Some(_) if now == 0 && had == 0 => {
                    format!("{called} has 0 replicas, and no readable annotation {REPLICAS}")
                }
                Some(workload) => {
                    self.restore(workload, if now == 0 { had } else { now }).await?;
                    // Who was scaled by somebody meanwhile keeps that.
                    if now == 0 || now == had {
                        outcome.restored += 1;
                    } else {
                        let what = format!("{called} has {now} replicas, before the cutover {had}");
                        outcome.different.push(what);
                    }
                    continue;
                }
            };
            outcome.down.push(down);
            outcome.left.push(stopped);
        }
        Ok(())
    }

    async fn restore<K: Workload>(&self, workload: &K, replicas: i32) -> Result<()> {
        let ours = workload.annotations().get(QUIESCED_BY) == self.migration.uid().as_ref();
        if !ours && workload.replicas() == replicas {
            return Ok(());
        }
        let patch = json!({
            "metadata": {
                "resourceVersion": workload.resource_version(),
                "annotations": { REPLICAS: null, QUIESCED_BY: null, QUIESCED_IN_RUN: null },
            },
            "spec": { "replicas": replicas },
        });
        self.patch(workload, patch).await
    }
}

fn is_held_by_another(workload: &impl Workload, migration: &DirectVolumeMigration) -> bool {
    let by = workload.annotations().get(QUIESCED_BY);
    by.is_some() && by != migration.uid().as_ref()
}

/// The workloads of a kind in a namespace that a migration has stopped: those of its status, and those `there` that bear its annotation
/// because a controller ended before it wrote the status. Their replicas are 0 if the annotation cannot be read.
fn stopped_here<K: Workload>(
    migration: &DirectVolumeMigration,
    namespace: &str,
    known: &[StoppedWorkload],
    there: &[K],
) -> Vec<StoppedWorkload> {
    let kind = K::kind(&());
    let of = |stopped: &&StoppedWorkload| stopped.kind == kind && stopped.namespace == namespace;
    let mut all: Vec<StoppedWorkload> = known.iter().filter(of).cloned().collect();
    for workload in there {
        let (annotations, name) = (workload.annotations(), workload.name_any());
        let ours =
            annotations.get(QUIESCED_BY).is_some_and(|by| Some(by) == migration.uid().as_ref());
        if ours && !all.iter().any(|stopped| stopped.name == name) {
            let replicas = annotations.get(REPLICAS).and_then(|text| text.parse().ok());
            all.push(StoppedWorkload {
                kind: kind.to_string(),
                namespace: namespace.to_owned(),
                uid: workload.uid().unwrap_or_default(),
                replicas: replicas.unwrap_or(0),
                name,
            });
        }
    }
    all
}

/// Says which workloads stay stopped when a migration is removed that has stopped them. Whether the application has moved or is
/// to go on where it was, only its owner knows.
pub(super) async fn tell_of_stopped(
    context: &Context,
    migration: &DirectVolumeMigration,
    cluster: &Cluster,
) -> Result<()> {
    let status = migration.status.as_ref();
    let stopped = status.map(|status| &*status.stopped).unwrap_or_default();
    // The specification can have changed since the cutover.
    let of_run = status.and_then(|status| status.run_spec.as_ref()).map(|spec| spec.quiesce);
    let never = |quiesce: Quiesce| quiesce == Quiesce::None;
    if stopped.is_empty() && never(migration.spec.quiesce) && of_run.is_none_or(never) {
        return Ok(());
    }
    let volumes = plan::volumes(&migration.spec);
    let mut namespaces: BTreeSet<_> =
        volumes.iter().map(|volume| &volume.claim.namespace).collect();
    namespaces.extend(stopped.iter().map(|stopped| &stopped.namespace));
    for namespace in namespaces {
        tell_of_kind::<Deployment>(context, migration, cluster, namespace).await?;
        tell_of_kind::<StatefulSet>(context, migration, cluster, namespace).await?;
    }
    Ok(())
}

async fn tell_of_kind<K: Workload>(
    context: &Context,
    migration: &DirectVolumeMigration,
    cluster: &Cluster,
    namespace: &str,
) -> Result<()> {
    let there: Vec<K> = cluster.list(Some(namespace), "").await?;
    let known = migration.status.as_ref().map(|status| &*status.stopped).unwrap_or_default();
    for stopped in stopped_here::<K>(migration, namespace, known, &there) {
        let is_down =
            |workload: &&K| workload.name_any() == stopped.name && workload.replicas() == 0;
        if !there.iter().any(|workload| is_down(&workload)) {
            continue;
        }
        let (kind, name, had) = (stopped.kind.to_lowercase(), stopped.name, stopped.replicas);
        let note = format!(
            "{kind} {namespace}/{name} is still scaled to zero; to restore it: \
             kubectl -n {namespace} scale {kind} {name} --replicas={had}"
        );
        context.events.warning(migration, "WorkloadLeftScaledDown", note).await;
    }
    Ok(())
}
