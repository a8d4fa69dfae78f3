//! Runs steps of migrations, with everything that a step needs.
//!
//! The process calls it for each change that it watches; a test calls it step by step, with clusters and a clock of its own.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use kube::{core::DeserializeGuard, runtime::controller::Action};

use crate::{
    api::DirectVolumeMigration,
    build::Defaults,
    cluster::Clusters,
    error::{Error, Result},
    events::Events,
    identity::Issuer,
    informers::Name,
    metrics::Metrics,
    reconcile::{
        Context, Latest, Patience, PodWatches, Policies, Throttle, Vanished, VolumeSlots,
        after_error, reconcile, report_unreadable,
    },
};

/// A migration, or its metadata and why the rest cannot be read.
pub(crate) type Guarded = DeserializeGuard<DirectVolumeMigration>;

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that shows what `now` returns.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time that it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    /// The clock of this machine.
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

/// What a [`Reconciler`] is made of.
pub struct Parts {
    /// The clusters that migrations refer to.
    pub clusters: Clusters,
    /// Issues identities.
    pub issuer: Arc<dyn Issuer>,
    /// Images and permissions.
    pub defaults: Defaults,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The name of this instance, for events.
    pub instance: String,
    /// Maximum volumes transferred at once across all migrations.
    pub parallel: Option<usize>,
    /// Tells the time.
    pub clock: Clock,
}

/// Runs steps of migrations. It holds nothing that the next one would miss: another instance may run the next step.
#[derive(Clone)]
pub struct Reconciler {
    context: Arc<Context>,
}

impl Reconciler {
    /// A reconciler of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let client = parts.clusters.home().client();
        let context = Context {
            events: Events::new(client, parts.instance),
            slots: VolumeSlots::new(parts.parallel, Arc::clone(parts.clusters.wakes())),
            clusters: parts.clusters,
            issuer: parts.issuer,
            defaults: parts.defaults,
            metrics: parts.metrics,
            watches: PodWatches::default(),
            latest: Latest::default(),
            patience: Patience::default(),
            policies: Policies::default(),
            logs: Throttle::default(),
            vanished: Vanished::default(),
            clock: parts.clock,
        };
        Self { context: Arc::new(context) }
    }

    /// Runs the next step of a migration, and says when the one after it is due.
    ///
    /// # Errors
    /// Where a call failed; [`Self::after_error`] says when to try again.
    pub async fn step(&self, migration: Arc<DirectVolumeMigration>) -> Result<Action> {
        reconcile(&migration, &self.context).await
    }

    /// Runs the next step of a migration. One that cannot be read is reported, and keeps no other from its step.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub(crate) async fn step_if_readable(&self, object: &Guarded) -> Result<Action> {
        match &object.0 {
            Ok(migration) => reconcile(migration, &self.context).await,
            Err(invalid) => {
                report_unreadable(&self.context, &invalid.metadata, &invalid.error).await
            }
        }
    }

    /// When to try again after a step that failed.
    #[must_use]
    pub fn after_error(&self, namespace: &str, name: &str, error: &Error) -> Action {
        after_error(&self.context, &(namespace.to_owned(), name.to_owned()), error)
    }

    /// The migration is gone. True if objects of it can be left: see [`Self::clean_vanished`].
    pub(crate) fn vanish(&self, migration: &DirectVolumeMigration) -> bool {
        self.context.vanish(migration)
    }

    /// Removes what is left of a migration that is gone.
    pub(crate) fn clean_vanished(self, migration: DirectVolumeMigration) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.context.clean_vanished(migration).await })
    }

    /// The next migration that is due because of a change of something that it waits for.
    pub(crate) async fn woken(&self) -> Name {
        self.context.clusters.wakes().next().await
    }
}
