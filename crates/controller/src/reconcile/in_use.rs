//! Whether pods use the volumes at the source, before and during a cutover.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::json;

use super::{Step, conditions};
use crate::{
    api::{Mode, Quiesce, SourceWatch, VolumePhase},
    error::{Error, Result},
    informers::mounted,
    plan::{Claim, Planned},
};

/// Pods that a message lists by name.
const LISTED: usize = 3;

impl Step<'_> {
    /// The source claims that pods use now, each with a description of such a pod; and the version of that list, for each namespace.
    pub(super) async fn users_of_sources(
        &self,
    ) -> Result<(Vec<(Planned, String)>, Vec<SourceWatch>)> {
        let (mut used, mut watches) = (Vec::new(), Vec::new());
        for namespace in self.source_namespaces() {
            let (pods, version) = self.users_at(&self.source, &namespace).await?;
            for volume in self.volumes.iter().filter(|v| v.claim.namespace == namespace) {
                let mounts = |pod: &&Pod| mounted(pod).any(|claim| claim == volume.claim.name);
                if let Some(pod) = pods.iter().find(mounts) {
                    used.push((volume.clone(), describe(pod)));
                }
            }
            watches.push(SourceWatch { namespace, version, ..SourceWatch::default() });
        }
        Ok((used, watches))
    }

    /// A cutover that stops nothing, beside an application that writes, would lose what it writes.
    pub(super) async fn check_in_use(&mut self) -> Result<()> {
        let spec = &self.migration.spec;
        if self.status.mode != Mode::Cutover || spec.quiesce != Quiesce::None {
            return Ok(());
        }
        let (used, _) = self.users_of_sources().await?;
        self.refuse_users(&used)
    }

    /// Fails for claims in use, unless that is acknowledged: then it is kept for the end of the run.
    pub(super) fn refuse_users(&mut self, used: &[(Planned, String)]) -> Result<()> {
        if used.is_empty() {
            return Ok(());
        }
        let sentences: BTreeSet<_> = used
            .iter()
            .map(|(volume, pod)| format!("pod {pod} uses PVC {}", volume.claim))
            .collect();
        if !self.migration.spec.acknowledge_in_use {
            return Err(Error::Invalid("ClaimInUse", listed(&sentences)));
        }
        self.status.acknowledged.extend(sentences);
        self.status.acknowledged.sort();
        self.status.acknowledged.dedup();
        Ok(())
    }

    /// Enters into the status what the watches have seen since the last step; false where they have not seen all that was there when
    /// the last volume was committed.
    pub(super) fn look_at_watches(&mut self) -> bool {
        let uid = self.migration.metadata.uid.clone().unwrap_or_default();
        let run = self.status.run;
        let mut complete = true;
        let mut watches = std::mem::take(&mut self.status.source_watches);
        for watch in &mut watches {
            let seen = self.context.watches.look(&self.source, &uid, run, watch);
            complete &= watch.until.is_empty() || seen.gap.is_some() || seen.reaches(&watch.until);
            self.enter_users(&seen.users);
            watch.gap = seen.gap.unwrap_or_default();
            watch.version = seen.version;
        }
        self.status.source_watches = watches;
        complete
    }

    fn enter_users(&mut self, users: &[(Claim, String)]) {
        for (claim, pod) in users {
            let of = |volume: &&Planned| volume.claim == *claim;
            let Some(index) = self.volumes.iter().find(of).map(|volume| volume.index) else {
                continue;
            };
            if let Some(status) = self.status.volumes.get_mut(index)
                && status.used_by.is_empty()
            {
                status.used_by.clone_from(pod);
            }
        }
    }

    /// The watch of the namespace has to see this version of a source pod, in which a volume was committed.
    pub(super) fn watch_until(&mut self, namespace: &str, pod: &Pod) {
        let committed = pod.resource_version().unwrap_or_default();
        let of = |watch: &&mut SourceWatch| watch.namespace == namespace;
        if let Some(watch) = self.status.source_watches.iter_mut().find(of) {
            let later = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
            if watch.until.is_empty() || later(&committed) > later(&watch.until) {
                watch.until = committed;
            }
        }
    }

    /// What a pod wrote to a volume during a cutover may not have arrived: that is no success. Nor is it one where nobody can say
    /// whether a pod did.
    pub(super) async fn fail_used(&mut self) -> Result<()> {
        for volume in self.volumes.clone() {
            let Some(status) = self.status.volumes.get(volume.index) else { continue };
            let of = |watch: &&SourceWatch| watch.namespace == volume.claim.namespace;
            let gap = self.status.source_watches.iter().find(of).map_or("", |watch| &watch.gap);
            let (reason, what) = if !status.used_by.is_empty() {
                let what = format!(
                    "pod {} used PVC {} during the cutover: its writes may be missing; stop the pod, then increment spec.run",
                    status.used_by, volume.claim
                );
                ("UsedMeanwhile", what)
            } else if !gap.is_empty() {
                let what = format!(
                    "the watch of pods in namespace {:?} was interrupted: {gap}; increment spec.run",
                    volume.claim.namespace
                );
                ("UseUnknown", what)
            } else {
                continue;
            };
            if self.migration.spec.acknowledge_in_use {
                self.status.acknowledged.push(what);
            } else if status.phase == VolumePhase::Succeeded {
                self.condition(conditions::QUIESCED, Some(false), reason, &what);
                self.fail_success(&volume, reason, what).await?;
            }
        }
        self.status.acknowledged.sort();
        self.status.acknowledged.dedup();
        Ok(())
    }

    /// Fails a volume that was copied, because something else is wrong.
    pub(super) async fn fail_success(
        &mut self,
        volume: &Planned,
        reason: &str,
        what: String,
    ) -> Result<()> {
        let told = json!({ "phase": VolumePhase::Failed, "reason": reason, "message": what });
        self.tell(volume, told).await?;
        if let Some(status) = self.status.volumes.get_mut(volume.index) {
            status.phase = VolumePhase::Failed;
            status.reason = reason.into();
        }
        self.context.events.warning(&self.migration, reason, what).await;
        Ok(())
    }
}

/// The first of the sentences, and how many there are more.
fn listed(sentences: &BTreeSet<String>) -> String {
    let first: Vec<_> = sentences.iter().take(LISTED).cloned().collect();
    let more = sentences.len().saturating_sub(LISTED);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{rest}", first.join("; "))
}

/// A pod by its name and what it belongs to: `web-0 (StatefulSet/web)`.
pub(super) fn describe(pod: &Pod) -> String {
    let name = pod.name_any();
    let Some(owner) = pod.owner_references().iter().find(|owner| owner.controller == Some(true))
    else {
        return name;
    };
    // A Deployment names its ReplicaSets after itself and a hash, which their pods have as a label.
    let hash = pod.labels().get("pod-template-hash");
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(&format!("-{hash}")));
    match deployment {
        Some(deployment) if owner.kind == "ReplicaSet" => {
            format!("{name} (Deployment/{deployment})")
        }
        _ => format!("{name} ({}/{})", owner.kind, owner.name),
    }
}
