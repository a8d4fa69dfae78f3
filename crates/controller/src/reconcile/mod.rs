//! One step of a migration.
//!
//! ```text
//! Pending ─► Preparing ─► [Quiescing] ─► Transferring ─► CleaningUp ─► Completed | Failed
//!                │                                                          │
//!                └── not as it must be: Failed              a larger `run` ─► Preparing
//! ```
//!
//! All that is remembered is in the status. It is read afresh before each step, or is what this process wrote last, and is written with its
//! version after it, so a controller that was killed anywhere goes on from there, and of two that both take themselves for the leader
//! only one gets on.
//! What a step makes has a name that follows from the status as it was written before.

mod begin;
mod cleanup;
mod conditions;
mod in_use;
mod latest;
mod objects;
mod own_pods;
mod ownership;
mod patience;
mod pod_watch;
mod policies;
mod prepare;
mod progress;
mod proof;
mod quiesce;
mod reach;
mod reached;
mod reserve;
mod retry;
mod rollback;
mod same_volume;
mod settle;
mod status_write;
mod target_use;
mod throttle;
mod transfer;
mod unreadable;
mod unwritten;
mod vanished;
mod watched;

pub(crate) use begin::VolumeSlots;
pub(crate) use latest::Latest;
pub(crate) use patience::Patience;
pub(crate) use pod_watch::PodWatches;
pub(crate) use policies::Policies;
pub(crate) use throttle::Throttle;
pub(crate) use unreadable::report as report_unreadable;
pub(crate) use vanished::{Listing, Vanished};

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};

use crate::{
    api::{
        DirectVolumeMigration, DirectVolumeMigrationStatus, Leftovers, Mode, Phase, Quiesce,
        RunSpec, violation,
    },
    build::Defaults,
    cluster::{Cluster, Clusters},
    error::{Error, Result},
    events::Events,
    identity::Issuer,
    informers::{Name, Watched},
    metrics::Metrics,
    plan::{self, Planned},
    reconciler::Clock,
};
use status_write::write_status;

/// Keeps a migration until its objects in all namespaces are gone.
const FINALIZER: &str = "pvferry.io/cleanup";
/// How often a migration is looked at whose waiting nothing ends that is watched: at first, and at last.
const POLL: Duration = Duration::from_secs(5);
const LONGEST_POLL: Duration = Duration::from_secs(60);
/// How soon after a change of its own.
const SOON: Duration = Duration::from_millis(200);
/// After a call that failed: at first, and at last.
const AGAIN: Duration = Duration::from_secs(3);
const LONGEST_AGAIN: Duration = Duration::from_secs(300);
/// While a kubeconfig cannot be used. A pause is up to one and a half times as long.
const LONGEST_WITHOUT_SECRET: Duration = Duration::from_secs(20);

/// What every step needs.
pub(crate) struct Context {
    pub(crate) clusters: Clusters,
    pub(crate) issuer: Arc<dyn Issuer>,
    pub(crate) defaults: Defaults,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Events,
    pub(crate) slots: VolumeSlots,
    pub(crate) watches: PodWatches,
    pub(crate) latest: Latest,
    pub(crate) patience: Patience,
    pub(crate) policies: Policies,
    pub(crate) logs: Throttle,
    pub(crate) vanished: Vanished,
    pub(crate) clock: Clock,
}

impl Context {
    /// The migration waits for nothing any more.
    fn forget(&self, name: &Name) {
        self.clusters.release(name);
        self.patience.reset(name);
        self.policies.forget(name);
    }
}

/// One step of one migration.
struct Step<'a> {
    context: &'a Context,
    migration: DirectVolumeMigration,
    status: DirectVolumeMigrationStatus,
    /// When the status first differed from what is written, if it did before this step.
    unwritten_since: Option<Timestamp>,
    volumes: Vec<Planned>,
    source: Cluster,
    /// The source again, where the destination is `lost`.
    destination: Cluster,
    /// Why the destination cannot be used, in a rollback.
    lost: Option<Error>,
    now: Timestamp,
    name: Name,
    /// Everything is read from the server: what is decided cannot be taken back.
    live: bool,
    /// Something is due then, though nothing changes.
    due: Option<Timestamp>,
}

/// Does what is next.
pub(crate) async fn reconcile(cached: &DirectVolumeMigration, context: &Context) -> Result<Action> {
    let outcome = Box::pin(step(cached, context)).await;
    if let Err(error) = &outcome {
        context.report_unwritten(cached, error).await;
    }
    context.metrics.stepped(outcome.is_ok());
    outcome
}

/// After a failed step.
pub(crate) fn after_error(context: &Context, migration: &Name, error: &Error) -> Action {
    let name = format!("{}/{}", migration.0, migration.1);
    let longest = match error {
        // It was reported, which is not repeated for each attempt.
        Error::StatusNotWritten(_) => LONGEST_POLL,
        _ => {
            tracing::warn!(migration = name, "{error}");
            LONGEST_AGAIN
        }
    };
    Action::requeue(context.patience.next(migration, AGAIN, longest))
}

async fn step(cached: &DirectVolumeMigration, context: &Context) -> Result<Action> {
    let name = (cached.namespace().unwrap_or_default(), cached.name_any());
    let home = context.clusters.home();
    let (mut migration, unwritten) = match context.latest.of(cached) {
        Some(latest) => latest,
        None => match home.get::<DirectVolumeMigration>(&name.0, &name.1).await? {
            Some(read) => {
                context.latest.learn(&read);
                (read, None)
            }
            None => {
                context.forget(&name);
                return Ok(Action::await_change());
            }
        },
    };
    if migration.metadata.deletion_timestamp.is_some() {
        context.slots.release(&migration.uid().unwrap_or_default());
        context.watches.forget(&migration.uid().unwrap_or_default());
        context.latest.forget(&migration);
        return cleanup::finalize(context, migration, &name).await;
    }
    // What has begun under a definition without bounds goes on.
    let phase = migration.status.as_ref().map(|status| status.phase).unwrap_or_default();
    let is_next = phase == Phase::Pending || phase.is_final();
    let why = plan::check_names(&migration.spec).err();
    if let Some(why) = why.or_else(|| violation(&migration.spec).filter(|_| is_next)) {
        return refuse(context, migration, why, &name).await;
    }
    if !migration.finalizers().iter().any(|held| held == FINALIZER) {
        migration = add_finalizer(context, &migration).await?;
    }
    let spec = &migration.spec;
    let before = migration.status.clone().unwrap_or_default();
    let wanted = spec.run != before.run || spec.mode != before.mode;
    let quiet = before.phase.is_final() && before.leftovers.is_none();
    if quiet && !wanted && before.observed_generation == migration.generation() {
        context.forget(&name);
        return Ok(Action::await_change());
    }
    let (source, destination, lost) = match clusters(context, &migration).await {
        Ok(found) => found,
        Err(error) => return unreachable(context, migration, before, error, &name).await,
    };
    let unwritten_since = unwritten.as_ref().map(|unwritten| unwritten.since);
    let known = unwritten.map_or_else(|| before.clone(), |unwritten| unwritten.status);
    if let (false, Some(run_spec)) = (before.phase.is_final(), &before.run_spec) {
        run_spec.restore(&mut migration.spec);
    }
    let volumes = plan::volumes(&migration.spec);
    let now = context.clock.now();
    for cluster in [&source, &destination] {
        cluster.informers().need(&name);
    }
    let mut step = Step {
        context,
        migration,
        status: known.clone(),
        unwritten_since,
        volumes,
        source,
        destination,
        lost,
        now,
        name,
        live: false,
        due: None,
    };
    // On the heap: a phase keeps much over its calls, and a task of the controller has a stack of 2 MiB.
    let outcome = Box::pin(step.take()).await;
    let outcome = step.handle_outcome(outcome).await;
    step.status.observed_generation = step.observed_generation();
    if step.status.phase != Phase::Transferring {
        context.slots.release(&step.migration.uid().unwrap_or_default());
        context.watches.forget(&step.migration.uid().unwrap_or_default());
    }
    step.summarise();
    if step.status != before {
        match step.unwritten().filter(|_| outcome.is_ok()) {
            Some(unwritten) => context.latest.keep(&step.migration, unwritten),
            None => {
                if step.status.phase == Phase::Transferring {
                    step.remember_watches().await;
                }
                step.save().await?;
            }
        }
    }
    // What cannot be written is tried less and less often.
    if step.status != known {
        context.patience.reset(&step.name);
    }
    outcome
}

/// Both clusters. A rollback needs the source alone: there the error of the destination comes along.
async fn clusters(
    context: &Context,
    migration: &DirectVolumeMigration,
) -> Result<(Cluster, Cluster, Option<Error>)> {
    let namespace = migration.namespace().unwrap_or_default();
    let spec = &migration.spec;
    let source = context.clusters.find(&namespace, spec.source.cluster.as_ref()).await?;
    match context.clusters.find(&namespace, spec.destination.cluster.as_ref()).await {
        Ok(destination) => Ok((source, destination, None)),
        Err(error) if spec.mode == Mode::Rollback => Ok((source.clone(), source, Some(error))),
        Err(error) => Err(error),
    }
}

/// A cluster cannot even be found: said in the status, and tried again.
async fn unreachable(
    context: &Context,
    migration: DirectVolumeMigration,
    mut status: DirectVolumeMigrationStatus,
    error: Error,
    name: &Name,
) -> Result<Action> {
    let before = status.clone();
    status.message = error.to_string();
    let generation = migration.generation();
    conditions::set(
        &mut status.conditions,
        conditions::VALIDATED,
        Some(false),
        error.reason(),
        &error.to_string(),
        generation,
        context.clock.now(),
    );
    if status != before {
        context.events.warning(&migration, error.reason(), error.to_string()).await;
        write_status(context, &migration, &status).await?;
        context.patience.reset(name);
    }
    // A Secret that is created or corrected is used soon, however long that took.
    Ok(Action::requeue(context.patience.next(name, AGAIN * 3, LONGEST_WITHOUT_SECRET)))
}

/// Fails a migration for which nothing can be asked.
async fn refuse(
    context: &Context,
    migration: DirectVolumeMigration,
    why: String,
    name: &Name,
) -> Result<Action> {
    context.forget(name);
    let before = migration.status.clone().unwrap_or_default();
    let (now, generation) = (context.clock.now(), migration.generation());
    let mut status = before.clone();
    (status.run, status.mode) = (migration.spec.run, migration.spec.mode);
    (status.phase, status.observed_generation) = (Phase::Failed, generation);
    status.message = why;
    for kind in [conditions::VALIDATED, conditions::SUCCEEDED] {
        let (all, why) = (&mut status.conditions, &status.message);
        conditions::set(all, kind, Some(false), "InvalidSpec", why, generation, now);
    }
    if status != before {
        context.events.warning(&migration, "InvalidSpec", status.message.clone()).await;
        write_status(context, &migration, &status).await?;
    }
    Ok(Action::await_change())
}

async fn add_finalizer(
    context: &Context,
    migration: &DirectVolumeMigration,
) -> Result<DirectVolumeMigration> {
    let mut finalizers = migration.finalizers().to_vec();
    finalizers.push(FINALIZER.into());
    set_finalizers(context, migration, &finalizers).await
}

/// With the version that was read: nobody else's finalizer is lost.
async fn set_finalizers(
    context: &Context,
    migration: &DirectVolumeMigration,
    finalizers: &[String],
) -> Result<DirectVolumeMigration> {
    let patch = serde_json::json!({ "metadata": {
        "finalizers": finalizers,
        "resourceVersion": migration.resource_version(),
    }});
    let api = api(context, migration);
    let name = migration.name_any();
    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map_err(Error::api("set finalizers"))
}

fn api(context: &Context, migration: &DirectVolumeMigration) -> Api<DirectVolumeMigration> {
    context.clusters.home().api(&migration.namespace().unwrap_or_default())
}

impl Step<'_> {
    async fn take(&mut self) -> Result<Action> {
        let spec = &self.migration.spec;
        let wanted = spec.run != self.status.run || spec.mode != self.status.mode;
        if spec.mode == Mode::Rollback && self.status.mode != Mode::Rollback {
            // The application does not wait for what a transfer leaves behind.
            return self.begin_run().await;
        }
        match self.status.phase {
            phase if phase == Phase::Pending || (phase.is_final() && wanted) => {
                self.begin_run().await
            }
            Phase::Preparing => Box::pin(self.prepare()).await,
            Phase::Quiescing => Box::pin(self.quiesce()).await,
            Phase::Transferring => Box::pin(self.transfer()).await,
            Phase::CleaningUp => Box::pin(self.clean_up()).await,
            Phase::RolledBack | Phase::Failed if self.status.leftovers.is_some() => {
                Box::pin(self.clean_leftovers()).await
            }
            Phase::Pending | Phase::Completed | Phase::Failed | Phase::RolledBack => {
                Ok(Action::await_change())
            }
        }
    }

    /// The generation that the run is about. While it has not ended, one that asks for another run is not observed: nobody must take the end
    /// of this run for the end of that one.
    fn observed_generation(&self) -> i64 {
        let spec = &self.migration.spec;
        if spec.run == self.status.run && spec.mode == self.status.mode {
            self.migration.generation()
        } else {
            self.status.observed_generation
        }
    }

    async fn begin_run(&mut self) -> Result<Action> {
        let spec = &self.migration.spec;
        let leftovers = self.leftovers();
        // A change of the mode alone has the number of the run before, whose pods may still be there under their names.
        let of_this_run = leftovers.filter(|left| left.run == spec.run);
        self.status = DirectVolumeMigrationStatus {
            run: spec.run,
            mode: spec.mode,
            phase: Phase::Preparing,
            message: "checking claims".into(),
            start_time: Some(Time(self.now)),
            conditions: std::mem::take(&mut self.status.conditions),
            volumes: begin::fresh(&self.volumes, &self.status.volumes),
            run_spec: Some(RunSpec::of(spec)),
            stopped: std::mem::take(&mut self.status.stopped),
            transfers_started: of_this_run.map_or(0, |left| left.transfers),
            leftovers,
            ..DirectVolumeMigrationStatus::default()
        };
        self.condition(conditions::SUCCEEDED, None, "Running", "the run is in progress");
        let (run, mode) = (self.status.run, self.status.mode);
        let volumes = counted(self.volumes.len(), "volume");
        let note = format!("Run {run} ({mode:?}) started: {volumes}");
        self.context.events.normal(&self.migration, "RunStarted", note).await;
        Ok(Action::requeue(SOON))
    }

    /// What the run before may have left behind.
    fn leftovers(&self) -> Option<Leftovers> {
        match self.status.phase {
            Phase::Transferring | Phase::CleaningUp => {
                Some(Leftovers { run: self.status.run, transfers: self.status.transfers_started })
            }
            _ => self.status.leftovers,
        }
    }

    /// Goes on to a phase.
    fn enter(&mut self, phase: Phase, message: impl Into<String>) -> Action {
        self.status.phase = phase;
        self.status.message = message.into();
        Action::requeue(SOON)
    }

    /// Where a step could not be taken: says why. Only what nobody but a person can change ends the run.
    async fn handle_outcome(&mut self, outcome: Result<Action>) -> Result<Action> {
        let outcome = outcome.map_err(Error::waiting_for_quota);
        let error = match outcome {
            Err(error @ (Error::Invalid(..) | Error::Waiting(..))) => error,
            Err(error) if error.is_refusal() && self.status.phase == Phase::Preparing => error,
            Err(error) if !error.is_conflict() => {
                // The calls of a step come after one another: what those before have done stands.
                self.status.message = error.to_string();
                return Err(error);
            }
            other => return other,
        };
        let text = error.to_string();
        let is_known = self.status.message == text;
        let which = match self.status.phase {
            Phase::Quiescing => conditions::QUIESCED,
            Phase::Transferring => conditions::PREPARED,
            _ => conditions::VALIDATED,
        };
        self.condition(which, Some(false), error.reason(), &text);
        let events = &self.context.events;
        if !is_known && error.ends_by_itself() {
            events.normal(&self.migration, error.reason(), text.clone()).await;
        } else if !is_known {
            events.warning(&self.migration, error.reason(), text.clone()).await;
        }
        if matches!(error, Error::Waiting(..)) {
            self.status.message = text;
            // Nobody watches quotas.
            let watched = error.reason() != "QuotaExceeded";
            return Ok(if watched { self.rest() } else { self.poll() });
        }
        self.fail_run(error.reason(), &text);
        Ok(self.enter(Phase::CleaningUp, text))
    }

    /// Until a watch wakes the migration, or until something is due.
    fn rest(&self) -> Action {
        let watched = |cluster: &Cluster| cluster.informers().are_current();
        if !watched(&self.source) || !watched(&self.destination) {
            return self.poll();
        }
        self.within(patience::jittered(patience::SAFETY_NET))
    }

    /// For a while, which grows for as long as nothing changes, or until something is due.
    fn poll(&self) -> Action {
        self.within(self.context.patience.next(&self.name, POLL, LONGEST_POLL))
    }

    fn within(&self, pause: Duration) -> Action {
        let left = |due: Timestamp| due.duration_since(self.now).max(SignedDuration::ZERO);
        let due = self.due.and_then(|due| Duration::try_from(left(due)).ok());
        Action::requeue(due.map_or(pause, |due| pause.min(due + SOON)))
    }

    /// Something is due at `when`, at the latest. What was due before now was looked at in this step.
    fn due_at(&mut self, when: Timestamp) {
        if when <= self.now {
            return;
        }
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }

    /// Something is due `seconds` after `since`.
    fn due_after(&mut self, since: &Time, seconds: i64) {
        if let Ok(when) = since.0.checked_add(SignedDuration::from_secs(seconds)) {
            self.due_at(when);
        }
    }

    /// An object that the migration waits for, as its watch knows it; from the server, where something is decided for good.
    async fn look<K: Watched>(
        &self,
        cluster: &Cluster,
        namespace: &str,
        name: &str,
    ) -> Result<Option<K>> {
        if self.live {
            return cluster.read(namespace, name).await;
        }
        cluster.look(&self.name, namespace, name).await
    }

    /// Nothing more is begun in this run.
    fn fail_run(&mut self, reason: &str, message: &str) {
        for volume in &mut self.status.volumes {
            if !volume.phase.is_final() {
                volume.phase = crate::api::VolumePhase::Failed;
                volume.reason = reason.into();
            }
        }
        self.condition(conditions::SUCCEEDED, Some(false), reason, message);
    }

    fn condition(&mut self, kind: &str, is: Option<bool>, reason: &str, message: &str) {
        let generation = self.observed_generation();
        let conditions = &mut self.status.conditions;
        conditions::set(conditions, kind, is, reason, message, generation, self.now);
    }

    fn is_cutover(&self) -> bool {
        self.status.mode == Mode::Cutover
    }

    fn scales_to_zero(&self) -> bool {
        self.is_cutover() && self.migration.spec.quiesce == Quiesce::ScaleToZero
    }
}

/// A number of things: `1 volume`, `2 volumes`.
fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// The generation of a specification.
trait Generation {
    fn generation(&self) -> i64;
}

impl Generation for DirectVolumeMigration {
    fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }
}
