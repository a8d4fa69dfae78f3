//! Events of a migration, for `kubectl describe`.

use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{api::DirectVolumeMigration, build::MANAGER, error::clip};

/// Publishes events. That one could not be published is logged, and holds nothing up.
pub(crate) struct Events(Recorder);

impl Events {
    pub(crate) fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: MANAGER.into(), instance: Some(instance) };
        Self(Recorder::new(client, reporter))
    }

    /// Something went as it should.
    pub(crate) async fn normal(&self, about: &DirectVolumeMigration, reason: &str, note: String) {
        self.publish(about, EventType::Normal, reason, note).await;
    }

    /// Something did not.
    pub(crate) async fn warning(&self, about: &DirectVolumeMigration, reason: &str, note: String) {
        self.publish(about, EventType::Warning, reason, note).await;
    }

    async fn publish(
        &self,
        about: &DirectVolumeMigration,
        type_: EventType,
        reason: &str,
        note: String,
    ) {
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(clip(note)),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, &about.object_ref(&())).await {
            tracing::warn!("cannot publish an event: {error}");
        }
    }
}
