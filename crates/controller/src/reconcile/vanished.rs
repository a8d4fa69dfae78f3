//! Migrations that are gone before they were cleaned up: somebody removed their finalizer.
//!
//! Their objects bear only a uid, and another controller can have created those of a uid that is unknown here. So the migration itself says
//! what to remove: the watch had it, and reports that it is gone.

use std::{collections::HashSet, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt as _, runtime::watcher::Event};
use parking_lot::Mutex;

use super::{Context, cleanup};
use crate::{
    api::{DirectVolumeMigration, Leftovers},
    error::Result,
    reconciler::Guarded,
};

/// Between two attempts, and before the last one: a step that was under way has ended by then.
const PAUSE: Duration = Duration::from_secs(5);
/// Attempts in which a cluster can be reached again, as many as before a finalizer is removed.
const ATTEMPTS: i64 = cleanup::DEADLINE / 5;

/// The migrations that are gone, by uid.
#[derive(Default)]
pub(crate) struct Vanished {
    /// Cleaned up by this process, and not reported as gone yet.
    cleaned: Mutex<HashSet<String>>,
    /// Being cleaned up.
    pending: Mutex<HashSet<String>>,
}

impl Vanished {
    /// The finalizer of this migration is about to be removed: nothing of it is left.
    pub(super) fn expect(&self, uid: &str) {
        self.cleaned.lock().insert(uid.to_owned());
    }

    /// Whether objects of the migration are being removed.
    pub(super) fn is_pending(&self, uid: &str) -> bool {
        self.pending.lock().contains(uid)
    }
}

/// The migrations of a list that is under way.
#[derive(Default)]
pub(crate) struct Listing(HashSet<String>);

impl Listing {
    /// The migrations that are gone according to an event, of those that were known before it.
    pub(crate) fn gone(
        &mut self,
        event: &Event<Guarded>,
        known: impl FnOnce() -> Vec<DirectVolumeMigration>,
    ) -> Vec<DirectVolumeMigration> {
        match event {
            Event::Delete(object) => object.0.iter().cloned().collect(),
            Event::Apply(_) => Vec::new(),
            Event::Init => {
                self.0.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.0.extend(object.uid());
                Vec::new()
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.0);
                let is_gone = |known: &DirectVolumeMigration| {
                    known.uid().is_some_and(|uid| !listed.contains(&uid))
                };
                known().into_iter().filter(is_gone).collect()
            }
        }
    }
}

impl Context {
    /// The migration is gone. True if objects of it can be left.
    pub(crate) fn vanish(&self, migration: &DirectVolumeMigration) -> bool {
        let uid = migration.uid().unwrap_or_default();
        self.slots.release(&uid);
        self.watches.forget(&uid);
        self.latest.forget(migration);
        let name = (migration.namespace().unwrap_or_default(), migration.name_any());
        self.forget(&name);
        // A new one of the same name, if it has been stepped already, registers again for what it waits for.
        self.clusters.wakes().wake([name]);
        let left = !self.vanished.cleaned.lock().remove(&uid) && !cleanup::is_untouched(migration);
        if left {
            self.vanished.pending.lock().insert(uid);
        }
        left
    }

    /// Removes what is left of a migration that is gone.
    pub(crate) async fn clean_vanished(&self, mut migration: DirectVolumeMigration) {
        let uid = migration.uid().unwrap_or_default();
        let status = migration.status.clone().unwrap_or_default();
        if let (false, Some(run_spec)) = (status.phase.is_final(), &status.run_spec) {
            run_spec.restore(&mut migration.spec);
        }
        // Its last status can be older than its Secrets.
        let (run, transfers) = (status.run, status.transfers_started);
        migration.status.get_or_insert_default().leftovers = Some(Leftovers { run, transfers });
        let name =
            format!("{}/{}", migration.namespace().unwrap_or_default(), migration.name_any());
        tracing::warn!(migration = name, "deleted without its finalizer: removing what is left");
        let mut outcome = Ok(Some(String::new()));
        let mut cleaned = 0;
        for _ in 0..ATTEMPTS {
            outcome = self.clean_once(&migration, &uid, self.clock.now()).await;
            cleaned = if matches!(outcome, Ok(None)) { cleaned + 1 } else { 0 };
            if cleaned > 1 {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        match outcome {
            Ok(None) => {}
            Ok(Some(left)) => cleanup::give_up(self, &migration, left).await,
            Err(error) => cleanup::give_up(self, &migration, error.to_string()).await,
        }
        self.vanished.pending.lock().remove(&uid);
        // Migrations that wait for its claims look at them again.
        let destination = migration.spec.destination.cluster.as_ref();
        let home = migration.namespace().unwrap_or_default();
        if let Ok(cluster) = self.clusters.find(&home, destination).await {
            cluster.informers().wake_all();
        }
    }

    async fn clean_once(
        &self,
        migration: &DirectVolumeMigration,
        uid: &str,
        now: Timestamp,
    ) -> Result<Option<String>> {
        let (namespace, name) = (migration.namespace().unwrap_or_default(), migration.name_any());
        let home = self.clusters.home();
        let there: Option<DirectVolumeMigration> = home.get(&namespace, &name).await?;
        if there.is_some_and(|there| there.uid().as_deref() == Some(uid)) {
            return Ok(None);
        }
        cleanup::clean_up_ends(self, migration, now).await
    }
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;

    use super::*;

    fn migration(uid: &str) -> DirectVolumeMigration {
        let mut migration = DirectVolumeMigration::new("m", serde_json::from_str("{\"source\":{\"namespace\":\"a\"},\"destination\":{\"namespace\":\"b\"},\"volumes\":[]}").unwrap());
        migration.metadata.uid = Some(uid.into());
        migration
    }

    fn guarded(uid: &str) -> Guarded {
        DeserializeGuard(Ok(migration(uid)))
    }

    fn gone(listing: &mut Listing, event: &Event<Guarded>) -> Vec<String> {
        let known = || vec![migration("1"), migration("2")];
        listing.gone(event, known).into_iter().filter_map(|gone| gone.uid()).collect()
    }

    #[test]
    fn what_a_list_does_not_have_is_gone_and_what_it_has_is_not() {
        let mut listing = Listing::default();
        for event in [Event::Init, Event::InitApply(guarded("2")), Event::InitApply(guarded("3"))] {
            assert_eq!(gone(&mut listing, &event), [""; 0]);
        }
        assert_eq!(gone(&mut listing, &Event::InitDone), ["1"]);
        assert_eq!(gone(&mut listing, &Event::Apply(guarded("4"))), [""; 0]);
        assert_eq!(gone(&mut listing, &Event::Delete(guarded("4"))), ["4"]);
    }

    #[test]
    fn a_list_that_was_begun_again_counts_alone() {
        let mut listing = Listing::default();
        for event in [Event::Init, Event::InitApply(guarded("1")), Event::Init] {
            gone(&mut listing, &event);
        }
        gone(&mut listing, &Event::InitApply(guarded("2")));
        assert_eq!(gone(&mut listing, &Event::InitDone), ["1"]);
    }
}
