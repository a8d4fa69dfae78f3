//! What the watches of pods have seen, in the status.
//!
//! A restarted controller goes on from the version in the status. So that version is written together with the pods that were seen
//! until then.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{
    Step,
    pod_watch::{Seen, User},
    reached::{ReachedClaims, end},
    target_use::UsedTargets,
};
use crate::{api::PodWatch, build::Role, cluster::Cluster, error::Result, plan::Planned};

impl Step<'_> {
    fn watched_cluster(&self, role: Role) -> &Cluster {
        match role {
            Role::Source => &self.source,
            Role::Destination => &self.destination,
        }
    }

    fn watches(&mut self, role: Role) -> &mut Vec<PodWatch> {
        match role {
            Role::Source => &mut self.status.source_watches,
            Role::Destination => &mut self.status.target_watches,
        }
    }

    fn seen(&self, role: Role, watch: &PodWatch) -> Seen {
        let uid = self.migration.metadata.uid.clone().unwrap_or_default();
        let cluster = self.watched_cluster(role);
        let mut seen = self.context.watches.look(cluster, &uid, self.status.run, role, watch);
        let is_own =
            |user: &User| user.candidate.as_ref().is_some_and(|c| self.is_own_candidate(c));
        seen.users.retain(|user| !is_own(user));
        seen
    }

    /// Watches the pods that can reach the targets of volumes that begin, from a list in which none does.
    pub(super) async fn watch_targets(&mut self, volumes: &[Planned]) -> Result<()> {
        let reached = self.reached(Role::Destination, volumes).await?;
        let watched = |namespace: &String| {
            self.status.target_watches.iter().any(|watch| watch.namespace == *namespace)
        };
        let namespaces: Vec<_> = reached.namespaces().into_iter().filter(|n| !watched(n)).collect();
        for namespace in namespaces {
            let informer = self.destination.informers().current::<Pod>().await;
            let listed = informer.and_then(|pods| pods.list_at(&namespace));
            let mut used = UsedTargets::default();
            let version = match listed {
                Some((pods, version)) => {
                    let users = pods.iter().filter(|pod| self.is_user(pod));
                    users.for_each(|pod| used.enter(&reached, &namespace, pod));
                    version
                }
                None => {
                    let (pods, version) = self.users_at(&self.destination, &namespace).await?;
                    pods.iter().for_each(|pod| used.enter(&reached, &namespace, pod));
                    version
                }
            };
            self.refuse_used_targets(&used)?;
            let watch = PodWatch { namespace, version, ..PodWatch::default() };
            self.status.target_watches.push(watch);
        }
        Ok(())
    }

    /// Enters into the status what the watches have seen since the last step; false where they have not seen all that was there when
    /// the last volume was committed.
    pub(super) async fn look_at_watches(&mut self) -> Result<bool> {
        let mut complete = true;
        for role in [Role::Source, Role::Destination] {
            let mut watches = self.watches(role).clone();
            let seen: Vec<Seen> = watches.iter().map(|watch| self.seen(role, watch)).collect();
            let own = |volume: &Planned| end(role, volume).clone();
            let own: BTreeSet<_> = self.volumes.iter().map(own).collect();
            let others =
                seen.iter().flat_map(|seen| &seen.users).any(|user| !own.contains(&user.claim));
            // A claim of others can be on the same storage.
            let reached = if others {
                self.reached(role, &self.volumes).await?
            } else {
                ReachedClaims::of(role, &self.volumes)
            };
            for (watch, seen) in watches.iter_mut().zip(seen) {
                complete &=
                    watch.until.is_empty() || seen.gap.is_some() || seen.reaches(&watch.until);
                for User { claim, pod, .. } in &seen.users {
                    for reached in reached.by(claim) {
                        self.enter_user(role, reached.index, &reached.describe(pod));
                    }
                }
                watch.gap = seen.gap.unwrap_or_default();
            }
            *self.watches(role) = watches;
        }
        Ok(complete)
    }

    /// Enters the pods that use the storage of the volumes through other claims at the end of a run. No pod of this migration is in their
    /// namespaces that would say how far their watch has to be.
    pub(super) async fn look_at_other_claims(&mut self) -> Result<()> {
        for role in [Role::Source, Role::Destination] {
            if self.watches(role).is_empty() {
                continue;
            }
            let reached = self.reached(role, &self.volumes).await?;
            let namespaces: BTreeSet<_> =
                reached.others().map(|other| other.claim.namespace.clone()).collect();
            for namespace in namespaces {
                let (pods, _) = self.users_at(self.watched_cluster(role), &namespace).await?;
                for (index, pod) in pods.iter().flat_map(|pod| reached.used_by(&namespace, pod)) {
                    self.enter_user(role, index, &pod);
                }
            }
        }
        Ok(())
    }

    fn enter_user(&mut self, role: Role, index: usize, pod: &str) {
        let Some(status) = self.status.volumes.get_mut(index) else { return };
        let used_by = match role {
            Role::Source => &mut status.used_by,
            Role::Destination => &mut status.target_used_by,
        };
        if used_by.is_empty() {
            pod.clone_into(used_by);
        }
    }

    /// The watch of the namespace has to see this version of a pod of a transfer, in which a volume was committed.
    pub(super) fn watch_until(&mut self, role: Role, namespace: &str, pod: &Pod) {
        let committed = pod.resource_version().unwrap_or_default();
        let of = |watch: &&mut PodWatch| watch.namespace == namespace;
        if let Some(watch) = self.watches(role).iter_mut().find(of) {
            let later = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
            if watch.until.is_empty() || later(&committed) > later(&watch.until) {
                watch.until = committed;
            }
        }
    }

    /// Enters how far the watches are, with what they have seen until then.
    pub(super) async fn remember_watches(&mut self) {
        let ends = [Role::Source, Role::Destination];
        let version = |step: &Self, role, watch: &PodWatch| step.seen(role, watch).version;
        let versions = ends.map(|role| {
            let watches = self.watches(role).clone();
            watches.iter().map(|watch| version(self, role, watch)).collect::<Vec<_>>()
        });
        // What they have seen is not known to be entered: a restarted controller looks at it once more.
        if let Err(error) = self.look_at_watches().await {
            tracing::debug!("claims on the same storage: {error}");
            return;
        }
        for (role, versions) in ends.into_iter().zip(versions) {
            for (watch, version) in self.watches(role).iter_mut().zip(versions) {
                watch.version = version;
            }
        }
    }
}
