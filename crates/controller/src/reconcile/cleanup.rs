//! Nothing stays but what arrived: at the end of a run, and when a migration is removed.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        networking::v1::{Ingress, NetworkPolicy},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{ResourceExt as _, runtime::controller::Action};

use super::{
    AGAIN, Context, FINALIZER, POLL, Step, conditions, objects, prepare::OTHERS_FAILED, progress,
    reserve, rollback, set_finalizers, settle,
};
use crate::{
    api::{DirectVolumeMigration, EndpointKind, Phase, VolumePhase, VolumeStatus},
    build::{self, Names, Role},
    cluster::{Cluster, Kind},
    error::Result,
    informers::Name,
    observe,
    plan::{self, Planned},
};

/// Seconds after which a migration goes though a cluster cannot be cleaned up.
pub(super) const DEADLINE: i64 = 300;

impl Step<'_> {
    pub(super) async fn clean_up(&mut self) -> Result<Action> {
        if let Some(left) =
            clean(&self.migration, &self.source, &self.destination, self.now).await?
        {
            self.status.message = format!("waiting for {left} to be deleted");
            return Ok(self.poll());
        }
        self.status.transfers.clear();
        self.status.leftovers = None;
        if self.status.conditions.iter().any(|condition| condition.type_ == conditions::CLEANED_UP)
        {
            let message = "nothing of the transfer is left";
            self.condition(conditions::CLEANED_UP, Some(true), "CleanedUp", message);
        }
        self.status.completion_time = Some(Time(self.now));
        let all = self.status.volumes.len();
        let known = self.volumes.iter().map(|volume| volume.claim.to_string());
        if all == 0 || !known.eq(self.status.volumes.iter().map(|volume| volume.claim.clone())) {
            let message = "the volumes in the status are not those in the specification";
            self.condition(conditions::SUCCEEDED, Some(false), "StatusInconsistent", message);
            return Ok(self.enter(Phase::Failed, message));
        }
        let failed: Vec<_> =
            self.status.volumes.iter().filter(|v| v.phase != VolumePhase::Succeeded).collect();
        let own = failed.iter().find(|volume| volume.reason != OTHERS_FAILED);
        let Some(first) = own.or(failed.first()) else {
            let mut message = format!("{all} of {all} volumes migrated and verified");
            let changed = self.status.volumes.iter().map(|volume| volume.changed);
            match changed.fold(0, i64::saturating_add) {
                0 => {}
                count => message = format!("{message}; {}", settle::changed_entries(count)),
            }
            if !self.status.acknowledged.is_empty() {
                let pods = self.status.acknowledged.join("; ");
                message = format!("{message}; acknowledgeInUse: {pods}");
            }
            if self.is_cutover() {
                // The application starts at the destination, and what it writes there exists nowhere else.
                self.status.volumes.iter_mut().for_each(VolumeStatus::disown);
            }
            self.condition(conditions::SUCCEEDED, Some(true), "Completed", &message);
            self.context.events.normal(&self.migration, "RunCompleted", message.clone()).await;
            return Ok(self.enter(Phase::Completed, message));
        };
        let message = if all == 0 || self.status.transfers_started == 0 {
            self.status.message.clone()
        } else {
            let what = match first.message.as_str() {
                "" => String::new(),
                what => format!(": {what}"),
            };
            format!(
                "{} of {all} volumes failed; {}: {}{what}",
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

impl Step<'_> {
    /// Removes what a run has left behind that a rollback ended. The application runs already: what cannot be removed is reported, and
    /// tried again.
    pub(super) async fn clean_leftovers(&mut self) -> Result<Action> {
        let cleaned = match self.lost.take() {
            Some(lost) => Err(lost),
            None => clean(&self.migration, &self.source, &self.destination, self.now).await,
        };
        match cleaned {
            Ok(None) => {
                self.status.leftovers = None;
                let message = "all objects of the transfer were deleted";
                self.condition(conditions::CLEANED_UP, Some(true), "CleanedUp", message);
                Ok(Action::await_change())
            }
            Ok(Some(left)) => {
                let message = format!("waiting for {left} to be deleted");
                self.condition(conditions::CLEANED_UP, Some(false), "Waiting", &message);
                Ok(self.poll())
            }
            Err(error) => {
                let message = error.to_string();
                self.condition(conditions::CLEANED_UP, Some(false), error.reason(), &message);
                self.context.events.warning(&self.migration, error.reason(), message).await;
                Ok(self.poll())
            }
        }
    }
}

/// Removes everything that bears the migration's labels; says what is still there, if anything. What one cluster refuses does not
/// keep the other from being cleaned.
async fn clean(
    migration: &DirectVolumeMigration,
    source: &Cluster,
    destination: &Cluster,
    now: Timestamp,
) -> Result<Option<String>> {
    let near = clean_end(migration, source, now, Role::Source).await;
    let far = clean_end(migration, destination, now, Role::Destination).await;
    Ok(near?.or(far?))
}

/// Removes what is left at the destination, and gives back its claims.
async fn release_end(
    migration: &DirectVolumeMigration,
    cluster: &Cluster,
    now: Timestamp,
) -> Result<Option<String>> {
    let left = clean_end(migration, cluster, now, Role::Destination).await?;
    if left.is_none() {
        reserve::release(migration, cluster).await?;
    }
    Ok(left)
}

async fn clean_end(
    migration: &DirectVolumeMigration,
    cluster: &Cluster,
    now: Timestamp,
    role: Role,
) -> Result<Option<String>> {
    let volumes = plan::volumes(&migration.spec);
    let namespace = |volume: &Planned| match role {
        Role::Source => volume.claim.namespace.clone(),
        Role::Destination => volume.target.namespace.clone(),
    };
    let namespaces: BTreeSet<_> = volumes.iter().map(namespace).collect();
    let uid = migration.uid().unwrap_or_default();
    let selector = build::selector(&uid);
    let status = migration.status.clone().unwrap_or_default();
    let has_secrets = !status.transfers.is_empty() || status.leftovers.is_some();
    let mut left = None;
    for namespace in &namespaces {
        // A pod whose node is lost goes when that comes back, or is removed.
        let lost = |pod: &Pod| observe::is_lost(pod, now);
        let pods: Vec<Pod> = cluster.list(Some(namespace), &selector).await?;
        // Anybody can give a pod a label.
        let own = |pod: &Pod| Names::transfer_of(migration, &pod.name_any()).is_some();
        let pods = pods.into_iter().filter(own).collect();
        let pod = remove(cluster, pods, &uid, lost).await?;
        if pod.is_some() {
            // What it needs goes after it, and is not asked for again and again until then.
            left = left.or(pod);
            continue;
        }
        if has_secrets {
            objects::delete_secrets(cluster, namespace, &selector).await?;
        }
        left = left.or(remove_all(cluster, namespace, &uid, never::<NetworkPolicy>).await?);
        if role == Role::Source {
            // Nothing is in front of a source pod.
            continue;
        }
        left = left.or(remove_all(cluster, namespace, &uid, never::<Service>).await?);
        match migration.spec.endpoint.kind {
            EndpointKind::Ingress => {
                left = left.or(remove_all(cluster, namespace, &uid, never::<Ingress>).await?);
            }
            EndpointKind::Route => {
                cluster.delete_labelled(&build::route_resource(), namespace, &selector).await?;
            }
            _ => {}
        }
    }
    Ok(left)
}

fn never<K>(_: &K) -> bool {
    false
}

/// Removes what is of the migration `uid`; says what of it is still there and not `given_up`.
async fn remove_all<K: Kind>(
    cluster: &Cluster,
    namespace: &str,
    uid: &str,
    given_up: impl Fn(&K) -> bool,
) -> Result<Option<String>> {
    let all = cluster.list::<K>(Some(namespace), &build::selector(uid)).await?;
    remove(cluster, all, uid, given_up).await
}

/// As [`remove_all`], of these objects.
async fn remove<K: Kind>(
    cluster: &Cluster,
    all: Vec<K>,
    uid: &str,
    given_up: impl Fn(&K) -> bool,
) -> Result<Option<String>> {
    let mut left = None;
    for object in all {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        if cluster.delete(&object, uid).await?.is_some_and(|there| !given_up(&there)) {
            left = Some(format!("{} {namespace}/{name}", K::kind(&())));
        }
    }
    Ok(left)
}

/// Nothing was created before the first run, nor for names that nothing can have.
pub(super) fn is_untouched(migration: &DirectVolumeMigration) -> bool {
    migration.status.as_ref().is_none_or(|status| status.run == 0)
        || plan::check_names(&migration.spec).is_err()
}

/// Removes what a migration has created at both ends, and gives back its claims; says what is still there, if anything.
pub(super) async fn clean_up_ends(
    context: &Context,
    migration: &DirectVolumeMigration,
    now: Timestamp,
) -> Result<Option<String>> {
    // Each end by itself: where one cannot be found any more, the keys at the other go all the same.
    let spec = &migration.spec;
    let home = migration.namespace().unwrap_or_default();
    let near = match context.clusters.find(&home, spec.source.cluster.as_ref()).await {
        Ok(cluster) => clean_end(migration, &cluster, now, Role::Source).await,
        Err(error) => Err(error),
    };
    let far = match context.clusters.find(&home, spec.destination.cluster.as_ref()).await {
        Ok(cluster) => release_end(migration, &cluster, now).await,
        Err(error) => Err(error),
    };
    let left = near.and_then(|near| far.map(|far| near.or(far)));
    if matches!(left, Ok(None)) {
        progress::end_with_migration(context, migration, now).await;
    }
    left
}

/// A migration is being removed.
pub(super) async fn finalize(
    context: &Context,
    migration: DirectVolumeMigration,
    name: &Name,
) -> Result<Action> {
    let now = context.clock.now();
    let held = migration.finalizers();
    if !held.iter().any(|held| held == FINALIZER) {
        context.forget(name);
        return Ok(Action::await_change());
    }
    if is_untouched(&migration) {
        return let_go(context, &migration, name).await;
    }
    let home = migration.namespace().unwrap_or_default();
    let spec = &migration.spec;
    let left = clean_up_ends(context, &migration, now).await;
    let since = migration.metadata.deletion_timestamp.as_ref();
    let late = since.is_some_and(|since| observe::seconds_since(since, now) > DEADLINE);
    match left {
        Ok(None) => {}
        // Pods that go wake the migration.
        Ok(Some(_)) if !late => {
            let pause = context.patience.next(name, AGAIN / 3, POLL);
            return Ok(Action::requeue(pause));
        }
        Err(error) if !late => return Err(error),
        Ok(left) => give_up(context, &migration, left.unwrap_or_default()).await,
        Err(error) => give_up(context, &migration, error.to_string()).await,
    }
    if let Ok(cluster) = context.clusters.find(&home, spec.source.cluster.as_ref()).await
        && let Err(error) = rollback::tell_of_stopped(context, &migration, &cluster).await
    {
        tracing::warn!("cannot list the workloads that are still scaled to zero: {error}");
    }
    let_go(context, &migration, name).await
}

/// Removes the finalizer.
async fn let_go(
    context: &Context,
    migration: &DirectVolumeMigration,
    name: &Name,
) -> Result<Action> {
    let held = migration.finalizers();
    let others: Vec<String> = held.iter().filter(|held| *held != FINALIZER).cloned().collect();
    context.vanished.expect(&migration.uid().unwrap_or_default());
    match set_finalizers(context, migration, &others).await {
        Err(error) if error.code() == Some(404) => {}
        other => drop(other?),
    }
    context.forget(name);
    Ok(Action::await_change())
}

pub(super) async fn give_up(context: &Context, migration: &DirectVolumeMigration, what: String) {
    let note =
        format!("objects with the labels of this migration remain after {DEADLINE} s: {what}");
    context.events.warning(migration, "CleanupFailed", note).await;
}
