//! What watches know of a cluster: one watch for each kind of object, shared by all migrations.
//!
//! A migration that waits is not looked at now and then: it is woken by a change of what it waits for. A step that reads an object here
//! registers for its changes in the same breath, so that none is missed; it stays registered until its run has ended. Watches begin
//! when the first step asks for a kind, and end when no migration is under way in the cluster.
//!
//! What is read here can be old. So absence is confirmed by the server, and so is whatever ends a volume or a run: see
//! [`Cluster::look`](crate::cluster::Cluster::look). Where a watch is not permitted or has lost its server, reads go to the server.

mod concerns;
mod informer;
mod kinds;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service},
    storage::v1::StorageClass,
};
use kube::Client;

pub(crate) use concerns::{Concerns, Key, Name, Wakes};
pub(crate) use informer::{Informer, jittered, list};
pub(crate) use kinds::{TEMPLATE_HASH, Watched, is_trimmed, mounted};

/// Watches go on for so long when no migration needs them any more.
const IDLE: Duration = Duration::from_secs(120);

/// The watches of a cluster.
pub(crate) struct Informers {
    client: Client,
    /// Seconds that one call of a watch lasts.
    call: u32,
    concerns: Arc<Concerns>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    namespaces: Informer<Namespace>,
    services: Informer<Service>,
    nodes: Informer<Node>,
}

impl Informers {
    /// No watch yet. Migrations that a change concerns are put into `wakes`.
    pub(crate) fn new(client: Client, call: u32, wakes: Arc<Wakes>) -> Self {
        Self {
            client,
            call,
            concerns: Arc::new(Concerns::new(wakes)),
            pods: Informer::default(),
            claims: Informer::default(),
            volumes: Informer::default(),
            classes: Informer::default(),
            namespaces: Informer::default(),
            services: Informer::default(),
            nodes: Informer::default(),
        }
    }

    /// The watch of a kind, if it knows what there is now. It begins here.
    pub(crate) async fn current<K: Watched>(&self) -> Option<&Informer<K>> {
        let informer = K::informer(self);
        informer.begin(&self.client, self.call, &self.concerns);
        informer.is_current().await.then_some(informer)
    }

    /// The server has answered with this object.
    pub(crate) fn learn<K: Watched>(&self, object: &K) {
        K::informer(self).learn(object);
    }

    /// Registers a migration for the changes of what `key` says.
    pub(crate) fn register(&self, key: Key, migration: &Name) {
        self.concerns.register(key, migration);
    }

    /// The migration is under way in this cluster.
    pub(crate) fn need(&self, migration: &Name) {
        self.concerns.need(migration);
    }

    /// Whether a migration is under way in this cluster.
    pub(crate) fn is_needed(&self) -> bool {
        self.concerns.is_needed()
    }

    /// The migration waits for nothing here any more. Ends the watches if it was the last, and none comes soon.
    pub(crate) fn release(self: &Arc<Self>, migration: &Name) {
        if self.concerns.release(migration) && !self.is_needed() {
            tokio::spawn(end_when_idle(Arc::downgrade(self), self.concerns.times_needed()));
        }
    }

    /// Wakes every migration that is under way here.
    pub(crate) fn wake_all(&self) {
        self.concerns.all_changed();
    }

    /// Whether every watch that has begun knows what there is.
    pub(crate) fn are_current(&self) -> bool {
        self.pods.is_not_lost()
            && self.claims.is_not_lost()
            && self.volumes.is_not_lost()
            && self.classes.is_not_lost()
            && self.namespaces.is_not_lost()
            && self.services.is_not_lost()
            && self.nodes.is_not_lost()
    }

    fn end(&self) {
        self.pods.end();
        self.claims.end();
        self.volumes.end();
        self.classes.end();
        self.namespaces.end();
        self.services.end();
        self.nodes.end();
    }
}

async fn end_when_idle(informers: Weak<Informers>, times_needed: u64) {
    tokio::time::sleep(IDLE).await;
    if let Some(informers) = informers.upgrade()
        && !informers.is_needed()
        && informers.concerns.times_needed() == times_needed
    {
        informers.end();
    }
}
