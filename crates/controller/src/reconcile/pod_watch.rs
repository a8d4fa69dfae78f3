//! Watches the pods of namespaces: at the source during a cutover, at the destination during every run.
//!
//! What a pod writes after the application was stopped may be missing at the destination, however short the pod lives: so pods
//! are not looked at now and then, but watched without a gap. The watch starts with the version of the list in which no pod used
//! a volume. It is complete once it has seen a version of the source pod in which the sync container had ended: changes
//! arrive in the order in which they were made. A gap, for example because the server has forgotten the versions since, is
//! not taken for silence: the run fails.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{WatchEvent, WatchParams},
};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::{in_use::describe, own_pods::Candidate};
use crate::{api::PodWatch, build::Role, cluster::Cluster, informers::mounted, plan::Claim};

/// Seconds that one call of a watch lasts. The server ends it with a bookmark, so that the version stays young where no pod changes.
const CALL: u32 = 25;
/// The pause after a call that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What a watch has seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Every change up to this version was seen.
    pub(super) version: String,
    /// Claims with the pods that were made with them, in the order of the watch.
    pub(super) users: Vec<User>,
    /// Why changes may have been missed.
    pub(super) gap: Option<String>,
}

/// A claim and a pod that was made with it.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) claim: Claim,
    pub(super) pod: String,
    /// The pod bears the uid of the migration: its next step knows whether it is a transfer pod.
    pub(super) candidate: Option<Candidate>,
}

impl Seen {
    /// Whether every change up to `version` was seen.
    pub(super) fn reaches(&self, version: &str) -> bool {
        match (self.version.parse::<u64>(), version.parse::<u64>()) {
            (Ok(seen), Ok(wanted)) => seen >= wanted,
            _ => self.version == version,
        }
    }
}

/// Uid of the migration, its run, the end, the namespace.
type Key = (String, i64, &'static str, String);

/// The watches of all migrations.
#[derive(Default)]
pub(crate) struct PodWatches {
    running: Mutex<HashMap<Key, Watch>>,
}

struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PodWatches {
    /// What the watch `from` has seen; it starts where there is none yet.
    pub(super) fn look(
        &self,
        cluster: &Cluster,
        uid: &str,
        run: i64,
        role: Role,
        from: &PodWatch,
    ) -> Seen {
        let key = (uid.to_owned(), run, role.word(), from.namespace.clone());
        let mut running = self.running.lock();
        let watch = running.entry(key).or_insert_with(|| {
            let seen = Seen { version: from.version.clone(), ..Seen::default() };
            let seen = Arc::new(Mutex::new(seen));
            let follow = follow(
                cluster.api(&from.namespace),
                from.namespace.clone(),
                uid.to_owned(),
                Arc::clone(&seen),
            );
            Watch { seen, task: tokio::spawn(follow).abort_handle() }
        });
        watch.seen.lock().clone()
    }

    /// Ends the watches of a migration.
    pub(super) fn forget(&self, uid: &str) {
        self.running.lock().retain(|(of, ..), _| of != uid);
    }
}

/// Follows the pods of a namespace until there is a gap.
async fn follow(pods: Api<Pod>, namespace: String, uid: String, seen: Arc<Mutex<Seen>>) {
    let params = WatchParams::default().timeout(CALL);
    loop {
        let version = seen.lock().version.clone();
        let ended = match pods.watch(&params, &version).await {
            Ok(changes) => {
                pin_mut!(changes);
                loop {
                    match changes.next().await {
                        Some(Ok(change)) => {
                            if let Err(gap) = record(&change, &namespace, &uid, &seen) {
                                break Err(gap);
                            }
                        }
                        Some(Err(error)) => break Err(error),
                        None => break Ok(()),
                    }
                }
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => {}
            // Forgotten versions, or a watch that is not permitted.
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 410) => {
                seen.lock().gap = Some(status.message.clone());
                return;
            }
            Err(error) => {
                tracing::debug!("watch of the pods in {namespace}: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A pod that is made names its claims; that it ended since, or is gone, changes nothing. Those that were there when the watch
/// started had ended.
fn record(
    change: &WatchEvent<Pod>,
    namespace: &str,
    uid: &str,
    seen: &Mutex<Seen>,
) -> Result<(), kube::Error> {
    let version = match change {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => {
            pod.resource_version().unwrap_or_default()
        }
        WatchEvent::Bookmark(mark) => mark.metadata.resource_version.clone(),
        WatchEvent::Error(status) => return Err(kube::Error::Api(status.clone())),
    };
    let mut seen = seen.lock();
    if let WatchEvent::Added(pod) = change {
        let user = |name: String| User {
            claim: Claim { namespace: namespace.to_owned(), name },
            pod: describe(pod),
            candidate: Candidate::of(pod, uid),
        };
        seen.users.extend(mounted(pod).map(user));
    }
    seen.version = version;
    Ok(())
}
