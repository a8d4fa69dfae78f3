//! Events of a migration, for `kubectl describe`, and the same in the log.
//!
//! Each stands for itself: kube's recorder counts events of one reason as one and keeps the first text, so that of ten volumes nine would
//! not be reported. They are of the core group, whose first and last time `kubectl` sorts by; those of `events.k8s.io` may not have them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, Resource, ResourceExt as _, api::PostParams, core::PartialObjectMeta};
use parking_lot::Mutex;

use crate::{
    api::{DirectVolumeMigration, DirectVolumeMigrationStatus},
    build::MANAGER,
    error::clip,
};

/// The same is not told again sooner.
const QUIET: Duration = Duration::from_secs(300);
/// Texts that are remembered for that.
const REMEMBERED: usize = 1000;

/// What an event can be about.
pub(crate) trait About: Resource<DynamicType = ()> {
    /// The run that is under way, or would be next.
    fn run(&self) -> Option<i64>;
}

impl About for DirectVolumeMigration {
    fn run(&self) -> Option<i64> {
        let under_way =
            |status: &&DirectVolumeMigrationStatus| status.run > 0 && !status.phase.is_final();
        Some(self.status.as_ref().filter(under_way).map_or(self.spec.run, |status| status.run))
    }
}

/// A migration of which nothing but its metadata can be read.
impl About for PartialObjectMeta<DirectVolumeMigration> {
    fn run(&self) -> Option<i64> {
        None
    }
}

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

    /// Something went as it should, or is waited for.
    pub(crate) async fn normal(&self, about: &impl About, reason: &str, note: String) {
        self.publish(about, "Normal", reason, note).await;
    }

    /// Something needs somebody.
    pub(crate) async fn warning(&self, about: &impl About, reason: &str, note: String) {
        self.publish(about, "Warning", reason, note).await;
    }

    async fn publish(&self, about: &impl About, kind: &str, reason: &str, note: String) {
        let note = String::from(clip(&with_run(about, note)));
        if !self.is_new(about.uid(), &note) {
            return;
        }
        let namespace = about.namespace().unwrap_or_default();
        let migration = format!("{namespace}/{}", about.name_any());
        match kind {
            "Normal" => tracing::info!(migration, reason, "{note}"),
            _ => tracing::warn!(migration, reason, "{note}"),
        }
        let event = event(&self.instance, about, kind, reason, note, Timestamp::now());
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
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

/// The note with the number of the run: what happens again in the next run is not the same, and is published again.
fn with_run(about: &impl About, note: String) -> String {
    match about.run() {
        Some(run) if !note.starts_with("Run ") => format!("Run {run}: {note}"),
        _ => note,
    }
}

/// An event of the core group.
fn event(
    instance: &str,
    about: &impl About,
    kind: &str,
    reason: &str,
    note: String,
    now: Timestamp,
) -> Event {
    let object = about.name_any();
    let head = object.get(..200).unwrap_or(&object).trim_end_matches(['.', '-']);
    Event {
        metadata: ObjectMeta {
            // Events of one second come in the order of their names.
            name: Some(format!("{head}.{:016x}", now.as_nanosecond())),
            namespace: about.namespace(),
            ..ObjectMeta::default()
        },
        type_: Some(kind.into()),
        reason: Some(reason.into()),
        message: Some(note),
        action: Some("Reconcile".into()),
        event_time: Some(MicroTime(now)),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        involved_object: about.object_ref(&()),
        source: Some(EventSource { component: Some(MANAGER.into()), host: None }),
        reporting_component: Some(MANAGER.into()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration() -> DirectVolumeMigration {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "shop", "namespace": "home", "uid": "u-1" },
            "spec": {
                "source": { "namespace": "a" }, "destination": { "namespace": "b" },
                "volumes": [{ "name": "data" }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn an_event_has_the_times_by_which_kubectl_sorts_and_names_its_object() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let event_of = |now| {
            let event =
                event("instance-1", &migration(), "Normal", "RunStarted", "run 1".into(), now);
            serde_json::to_value(event).unwrap()
        };
        let event = event_of(now);
        assert_eq!(event["firstTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(event["lastTimestamp"], event["firstTimestamp"]);
        assert_eq!(event["involvedObject"]["uid"], "u-1");
        assert_eq!(event["involvedObject"]["namespace"], event["metadata"]["namespace"]);
        assert_eq!(event["count"], 1);
        let later = now + std::time::Duration::from_nanos(1);
        let next = event_of(later);
        assert!(next["metadata"]["name"].as_str() > event["metadata"]["name"].as_str(), "{next}");
    }

    #[test]
    fn the_same_text_of_two_runs_is_two_events() {
        let mut migration = migration();
        let text = || "shop/data copied".to_owned();
        let status = |run: i64, phase: &str| {
            serde_json::from_value(serde_json::json!({ "run": run, "phase": phase })).unwrap()
        };
        assert_eq!(with_run(&migration, text()), "Run 1: shop/data copied");
        migration.spec.run = 3;
        migration.status = Some(status(2, "Transferring"));
        assert_eq!(with_run(&migration, text()), "Run 2: shop/data copied");
        migration.status = Some(status(2, "Completed"));
        assert_eq!(with_run(&migration, text()), "Run 3: shop/data copied");
        assert_eq!(with_run(&migration, "Run 3 started".into()), "Run 3 started");
    }
}
