//! The process around the steps: watches, leader election, the end.

use std::{
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, channel::mpsc, future::BoxFuture, stream};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    runtime::{
        Controller, PredicateConfig, WatchStreamExt as _,
        reflector::{self, ObjectRef},
        watcher,
    },
};

use crate::{
    api::DirectVolumeMigration,
    build::{Defaults, MANAGER},
    cluster::{Cluster, Clusters},
    error::{Error, Result},
    home::Home,
    identity::Issuer,
    leader::Leadership,
    metrics::Metrics,
    reconcile::Listing,
    reconciler::{Clock, Guarded, Parts, Reconciler},
};

/// Migrations that are stepped at a time.
const CONCURRENCY: u16 = 16;
/// Migrations without finalizer that are cleaned up at a time.
const CLEANED_AT_ONCE: usize = 4;
/// A call that takes longer is given up.
const CALL: Duration = Duration::from_secs(30);

/// How long it may take to release the leadership.
const RELEASE: Duration = Duration::from_secs(1);

/// How the controller runs.
pub struct Settings {
    /// Images and the like.
    pub defaults: Defaults,
    /// Makes identities.
    pub issuer: Arc<dyn Issuer>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The namespace of the Lease; without one nobody else runs.
    pub lease_namespace: Option<String>,
    /// The name of this instance.
    pub instance: String,
    /// Migrations of this namespace only.
    pub namespace: Option<String>,
    /// Maximum volumes transferred at once across all migrations.
    pub parallel: Option<usize>,
}

/// Runs until `stop`, against the API server of `home`.
///
/// # Errors
/// Where there can be no client for it, and where the leadership was lost: then another instance goes on, and this one must not.
pub async fn run(
    settings: Settings,
    home: Home,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()> + Send + Sync + Clone + 'static,
) -> Result<()> {
    let mut config = home.config;
    config.read_timeout = Some(CALL * 10);
    config.write_timeout = Some(CALL);
    config.connect_timeout = Some(CALL);
    let client = Client::try_from(config)
        .map_err(|error| Error::SetUp(format!("cannot connect to the API server: {error}")))?;
    ready();
    let Some(namespace) = &settings.lease_namespace else {
        tokio::select! {
            () = work(&settings, client) => {}
            () = stop => {}
        }
        return Ok(());
    };
    let leadership = Leadership::new(client.clone(), namespace, MANAGER, &settings.instance);
    tokio::select! {
        () = leadership.acquire() => {}
        () = stop.clone() => return Ok(()),
    }
    tracing::info!("acquired the leader election lease");
    settings.metrics.leading(true);
    let outcome = tokio::select! {
        () = work(&settings, client) => Ok(()),
        // Steps under way end here, as they would with the process: the next leader goes on from what is written.
        () = stop => Ok(()),
        () = leadership.keep() => Err(Error::SetUp("lost the leader election lease".into())),
    };
    settings.metrics.leading(false);
    if outcome.is_ok() {
        let _ = tokio::time::timeout(RELEASE, leadership.release()).await;
    }
    outcome
}

/// Steps the migrations of a cluster, as the only instance that does, until it is dropped.
pub async fn work(settings: &Settings, client: Client) {
    let reconciler = Reconciler::new(Parts {
        clusters: Clusters::new(Cluster::new(client.clone(), Arc::clone(&settings.metrics))),
        issuer: Arc::clone(&settings.issuer),
        defaults: settings.defaults.clone(),
        metrics: Arc::clone(&settings.metrics),
        instance: settings.instance.clone(),
        parallel: settings.parallel,
        clock: Clock::default(),
    });
    serve(reconciler, client, settings.namespace.clone()).await;
}

/// Steps the migrations of a namespace, or of all, whenever something has changed for them, until it is dropped.
pub async fn serve(reconciler: Reconciler, client: Client, only: Option<String>) {
    // One by one: a resource that cannot be read is reported, and hides no other.
    let migrations: Api<Guarded> = match &only {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    // Those of other namespaces belong to another instance.
    let waking = reconciler.clone();
    let woken = stream::unfold((waking, only), async |(waking, only)| {
        let (namespace, name) = waking.woken().await;
        let ours = only.as_ref().is_none_or(|only| *only == namespace);
        Some((ours.then(|| ObjectRef::new(&name).within(&namespace)), (waking, only)))
    });
    let (reader, writer) = reflector::store::<Guarded>();
    let (send, vanished) = mpsc::unbounded();
    let (known, seeing, cleaning) = (reader.clone(), reconciler.clone(), reconciler.clone());
    let mut listing = Listing::default();
    let known = move || known.state().iter().filter_map(|known| known.0.clone().ok()).collect();
    let changed = watcher(migrations, watcher::Config::default())
        .default_backoff()
        .inspect(move |event| {
            let Ok(event) = event else { return };
            // Before the events of a migration that takes its name.
            for gone in listing.gone(event, &known) {
                if seeing.vanish(&gone) {
                    let _ = send.unbounded_send(gone);
                }
            }
        })
        .reflect(writer)
        .applied_objects()
        .predicate_filter(means_something, PredicateConfig::default());
    let steps = Controller::for_stream(changed, reader)
        .with_config(kube::runtime::controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(woken.filter_map(std::future::ready))
        .run(
            async |object, reconciler| reconciler.step_if_readable(&object).await,
            |object, error, reconciler| {
                let namespace = object.namespace().unwrap_or_default();
                reconciler.after_error(&namespace, &object.name_any(), error)
            },
            Arc::new(reconciler),
        )
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::debug!("{error}");
            }
        });
    tokio::join!(steps, clean_up(cleaning, vanished));
}

/// Removes what is left of migrations that are gone.
fn clean_up(
    reconciler: Reconciler,
    vanished: mpsc::UnboundedReceiver<DirectVolumeMigration>,
) -> BoxFuture<'static, ()> {
    let clean = move |migration| reconciler.clone().clean_vanished(migration);
    Box::pin(vanished.for_each_concurrent(CLEANED_AT_ONCE, clean))
}

/// What a change has to change for a step to be due: not the status, which the controller itself writes. An annotation is a way to ask for a
/// step.
fn means_something(migration: &Guarded) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (migration.meta().generation, &migration.meta().deletion_timestamp.is_some()).hash(&mut hasher);
    (migration.finalizers(), migration.annotations()).hash(&mut hasher);
    Some(hasher.finish())
}
