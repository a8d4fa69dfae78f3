//! Events of a migration, for `kubectl describe`, and the same in the log.
//!
//! Each stands for itself: kube's recorder counts events of one reason as one and keeps the first text, so that of ten volumes
//! that arrived nine would not be told.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::events::v1::Event,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, Resource as _, ResourceExt as _, api::PostParams};
use parking_lot::Mutex;

use crate::{api::DirectVolumeMigration, build::MANAGER, error::clip};

/// The same is not told again sooner.
const QUIET: Duration = Duration::from_secs(300);
/// Texts that are remembered for that.
const REMEMBERED: usize = 1000;

/// Publishes events. That one could not be published is logged, and holds nothing up.
pub(crate) struct Events {
    client: Client,
    instance: String,
    told: Mutex<HashMap<(Option<String>, String), Instant>>,
}

impl Events {
    pub(crate) fn new(client: Client, instance: String) -> Self {
        Self { client, instance, told: Mutex::default() }
    }

    /// Something went as it should.
    pub(crate) async fn normal(&self, about: &DirectVolumeMigration, reason: &str, note: String) {
        self.publish(about, "Normal", reason, note).await;
    }

    /// Something did not.
    pub(crate) async fn warning(&self, about: &DirectVolumeMigration, reason: &str, note: String) {
        self.publish(about, "Warning", reason, note).await;
    }

    async fn publish(&self, about: &DirectVolumeMigration, kind: &str, reason: &str, note: String) {
        let note = clip(note);
        if !self.is_new(about.uid(), &note) {
            return;
        }
        let migration = format!("{}/{}", about.namespace().unwrap_or_default(), about.name_any());
        match kind {
            "Normal" => tracing::info!(migration, reason, "{note}"),
            _ => tracing::warn!(migration, reason, "{note}"),
        }
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", about.name_any())),
                namespace: about.namespace(),
                ..ObjectMeta::default()
            },
            type_: Some(kind.into()),
            reason: Some(reason.into()),
            note: Some(note),
            action: Some("Reconcile".into()),
            event_time: Some(MicroTime(Timestamp::now())),
            regarding: Some(about.object_ref(&())),
            reporting_controller: Some(MANAGER.into()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        let events: Api<Event> =
            Api::namespaced(self.client.clone(), &about.namespace().unwrap_or_default());
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::warn!("cannot publish an event: {error}");
        }
    }

    fn is_new(&self, uid: Option<String>, note: &str) -> bool {
        let (mut told, now) = (self.told.lock(), Instant::now());
        if told.len() >= REMEMBERED {
            told.retain(|_, at| now.duration_since(*at) < QUIET);
        }
        let key = (uid, note.to_owned());
        let is_new = told.get(&key).is_none_or(|at| now.duration_since(*at) >= QUIET);
        if is_new {
            told.insert(key, now);
        }
        is_new
    }
}
