//! Nothing stays but what arrived: at the end of a run, and when a migration is removed.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        core::v1::{Pod, Secret, Service},
        networking::v1::{Ingress, NetworkPolicy},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{ResourceExt as _, runtime::controller::Action};

use super::{AGAIN, Context, FINALIZER, Step, conditions, set_finalizers};
use crate::{
    api::{DirectVolumeMigration, EndpointKind, Phase, VolumePhase},
    build,
    cluster::{Cluster, Kind},
    error::Result,
    observe,
    plan::{self, Planned},
};

/// Seconds after which a migration goes though a cluster cannot be cleaned up.
const DEADLINE: i64 = 300;

impl Step<'_> {
    pub(super) async fn clean_up(&mut self) -> Result<Action> {
        if !clean(&self.migration, &self.source, &self.destination).await? {
            return Ok(Action::requeue(super::SOON * 5));
        }
        self.status.transfers.clear();
        self.status.ended = Some(Time(self.now));
        let all = self.status.volumes.len();
        let known = self.volumes.iter().map(|volume| volume.claim.to_string());
        if all == 0 || !known.eq(self.status.volumes.iter().map(|volume| volume.claim.clone())) {
            let message = "the status does not tell of the volumes of the specification";
            self.condition(conditions::SUCCEEDED, Some(false), "StatusUnfit", message);
            return Ok(self.enter(Phase::Failed, message));
        }
        let failed: Vec<_> =
            self.status.volumes.iter().filter(|v| v.phase != VolumePhase::Succeeded).collect();
        let Some(first) = failed.first() else {
            let message =
                format!("all {all} volumes arrived, proved by the manifests of both ends");
            self.condition(conditions::SUCCEEDED, Some(true), "Completed", &message);
            self.context.events.normal(&self.migration, "RunCompleted", message.clone()).await;
            return Ok(self.enter(Phase::Completed, message));
        };
        let message = if all == 0 || self.status.transfers_begun == 0 {
            self.status.message.clone()
        } else {
            format!(
                "{} of {all} volumes did not arrive, the first: {}: {}",
                failed.len(),
                first.claim,
                first.reason
            )
        };
        let reason =
            if first.reason.is_empty() { "Failed".to_owned() } else { first.reason.clone() };
        self.condition(conditions::SUCCEEDED, Some(false), &reason, &message);
        self.context.events.warning(&self.migration, "RunFailed", message.clone()).await;
        Ok(self.enter(Phase::Failed, message))
    }
}

/// Removes everything that bears the migration's labels; true once it is gone. What one cluster refuses does not keep the other
/// from being cleaned.
async fn clean(
    migration: &DirectVolumeMigration,
    source: &Cluster,
    destination: &Cluster,
) -> Result<bool> {
    let near = clean_end(migration, source, |volume| &volume.claim.namespace).await;
    let far = clean_end(migration, destination, |volume| &volume.target.namespace).await;
    Ok(near? & far?)
}

async fn clean_end(
    migration: &DirectVolumeMigration,
    cluster: &Cluster,
    namespace: impl Fn(&Planned) -> &String,
) -> Result<bool> {
    let selector = build::selector(&migration.uid().unwrap_or_default());
    let volumes = plan::volumes(&migration.spec);
    let namespaces: BTreeSet<_> = volumes.iter().map(namespace).collect();
    let status = migration.status.clone().unwrap_or_default();
    let names: Vec<_> = (1..=status.transfers_begun)
        .map(|number| build::Names::new(migration, status.run, number, ""))
        .collect();
    let mut gone = true;
    for namespace in namespaces {
        gone &= remove_all::<Pod>(cluster, namespace, &selector).await?;
        for name in &names {
            // By name: to list Secrets is to read them.
            cluster.delete::<Secret>(namespace, &name.source()).await?;
            cluster.delete::<Secret>(namespace, &name.destination()).await?;
        }
        gone &= remove_all::<NetworkPolicy>(cluster, namespace, &selector).await?;
        gone &= remove_all::<Service>(cluster, namespace, &selector).await?;
        match migration.spec.endpoint.kind {
            EndpointKind::Ingress => {
                gone &= remove_all::<Ingress>(cluster, namespace, &selector).await?;
            }
            EndpointKind::Route => {
                for name in &names {
                    let kind = build::route_resource();
                    cluster.delete_dynamic(namespace, &name.destination(), &kind).await?;
                }
            }
            _ => {}
        }
    }
    Ok(gone)
}

async fn remove_all<K: Kind>(cluster: &Cluster, namespace: &str, selector: &str) -> Result<bool> {
    let mut gone = true;
    for object in cluster.list::<K>(Some(namespace), selector).await? {
        gone &= cluster.delete::<K>(namespace, &object.name_any()).await?;
    }
    Ok(gone)
}

/// A migration is being removed.
pub(super) async fn finalize(
    context: &Context,
    migration: DirectVolumeMigration,
) -> Result<Action> {
    let held = migration.finalizers();
    if !held.iter().any(|held| held == FINALIZER) {
        return Ok(Action::await_change());
    }
    // Each end by itself: where one cannot be found any more, the keys at the other go all the same.
    let spec = &migration.spec;
    let home = migration.namespace().unwrap_or_default();
    let near = match context.clusters.find(&home, spec.source.cluster.as_ref()).await {
        Ok(cluster) => clean_end(&migration, &cluster, |volume| &volume.claim.namespace).await,
        Err(error) => Err(error),
    };
    let far = match context.clusters.find(&home, spec.destination.cluster.as_ref()).await {
        Ok(cluster) => clean_end(&migration, &cluster, |volume| &volume.target.namespace).await,
        Err(error) => Err(error),
    };
    let cleaned = near.and_then(|near| far.map(|far| near & far));
    let since = migration.metadata.deletion_timestamp.as_ref();
    let late =
        since.is_some_and(|since| observe::seconds_since(since, Timestamp::now()) > DEADLINE);
    match cleaned {
        Ok(true) => {}
        Ok(false) if !late => return Ok(Action::requeue(AGAIN / 3)),
        Err(error) if !late => return Err(error),
        Ok(false) | Err(_) => {
            let note = format!(
                "after {DEADLINE} s some objects of the migration are still there; they bear its labels"
            );
            context.events.warning(&migration, "CleanUpGivenUp", note).await;
        }
    }
    let others: Vec<String> = held.iter().filter(|held| *held != FINALIZER).cloned().collect();
    match set_finalizers(context, &migration, &others).await {
        Err(error) if error.code() == Some(404) => {}
        other => other?,
    }
    Ok(Action::await_change())
}
