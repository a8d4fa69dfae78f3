//! Writes the status, and reports where that fails: all that a user sees of a migration, and all that it remembers, is in the status.

use kube::{ResourceExt as _, api::PostParams};

use super::{Context, Step, api};
use crate::{
    api::{DirectVolumeMigration, DirectVolumeMigrationStatus},
    error::{Error, Result},
    events::About,
};

/// Attempts of a write while other clients change something else of the migration.
const SAVES: usize = 8;
/// The reason of the event.
const REASON: &str = "StatusNotWritten";

pub(super) async fn write_status(
    context: &Context,
    migration: &DirectVolumeMigration,
    status: &DirectVolumeMigrationStatus,
) -> Result<()> {
    // Until it is answered, nobody knows which version is the newest.
    context.latest.forget(migration);
    let mut written = migration.clone();
    written.status = Some(status.clone());
    written.metadata.managed_fields = None;
    let api = api(context, migration);
    let saved = api.replace_status(&migration.name_any(), &PostParams::default(), &written).await;
    let saved = saved.map_err(Error::StatusNotWritten)?;
    context.latest.learn(&saved);
    if !is_kept(status, &saved) {
        let what = "the API server does not keep all fields of the status: the CRDs are older than the controller; apply those of its version";
        context.metrics.status_not_written("Pruned");
        context.events.warning(migration, "StatusIncomplete", what.into()).await;
    }
    Ok(())
}

/// Whether the server keeps all of a status that was written. It drops fields that the schema does not have.
fn is_kept(status: &DirectVolumeMigrationStatus, saved: &DirectVolumeMigration) -> bool {
    // As text, times have whole seconds on both sides.
    let text = |status| serde_json::to_string(status).ok();
    saved.status.as_ref().and_then(text) == text(status)
}

impl Context {
    /// Reports an error of a write of the status of `about`, if it is one: once for each reason, until it is some minutes old.
    pub(super) async fn report_unwritten(&self, about: &impl About, error: &Error) {
        if !matches!(error, Error::StatusNotWritten(_)) {
            return;
        }
        self.metrics.status_not_written(error.reason());
        let advice = match error.code() {
            Some(403) => {
                "; grant the controller the permission to update directvolumemigrations/status"
            }
            Some(400 | 422) => {
                "; the CRDs may be older than the controller: apply those of its version"
            }
            Some(409) => "; another client or controller writes this status",
            _ => "",
        };
        self.events.warning(about, REASON, format!("{error}{advice}")).await;
    }
}

impl Step<'_> {
    /// Writes the status, over that from which the step began and no other one.
    pub(super) async fn save(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for _ in 0..SAVES {
            outcome = write_status(self.context, &self.migration, &self.status).await;
            if !outcome.as_ref().is_err_and(Error::is_conflict) {
                return outcome;
            }
            let (namespace, name) = (self.migration.namespace(), self.migration.name_any());
            let home = self.context.clusters.home();
            let fresh: Option<DirectVolumeMigration> =
                home.get(&namespace.unwrap_or_default(), &name).await?;
            match fresh {
                Some(fresh) if fresh.status == self.migration.status => self.migration = fresh,
                // Another client was quicker: what this step saw does not count.
                Some(_) => return outcome,
                None => return Ok(()),
            }
        }
        outcome
    }
}
