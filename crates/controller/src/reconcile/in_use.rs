//! Whether pods use the volumes: at the source before and during a cutover, at the destination during every run.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt as _;
use serde_json::json;

use super::{Step, conditions};
use crate::{
    api::{Mode, PodWatch, Quiesce, VolumePhase},
    build::Role,
    error::{Error, Result},
    informers::TEMPLATE_HASH,
    plan::Planned,
};

/// Pods that a message lists by name.
const LISTED: usize = 3;

impl Step<'_> {
    /// The volumes at the source that pods use now, each with a description of such a pod; and the version of that list, for each namespace.
    pub(super) async fn users_of_sources(&self) -> Result<(Vec<(Planned, String)>, Vec<PodWatch>)> {
        let (mut used, mut watches) = (BTreeMap::new(), Vec::new());
        let reached = self.reached(Role::Source, &self.volumes).await?;
        for namespace in reached.namespaces() {
            let (pods, version) = self.users_at(&self.source, &namespace).await?;
            for (index, pod) in pods.iter().flat_map(|pod| reached.used_by(&namespace, pod)) {
                used.entry(index).or_insert(pod);
            }
            watches.push(PodWatch { namespace, version, ..PodWatch::default() });
        }
        let volume = |(index, pod): (usize, String)| Some((self.volumes.get(index)?.clone(), pod));
        Ok((used.into_iter().filter_map(volume).collect(), watches))
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

    /// What a pod wrote to a volume during a cutover may not have arrived, so the cutover fails. It also fails if nobody can say
    /// whether a pod did.
    pub(super) async fn fail_used(&mut self) -> Result<()> {
        for volume in self.volumes.clone() {
            let Some(status) = self.status.volumes.get(volume.index) else { continue };
            let gap = gap(&self.status.source_watches, &volume.claim.namespace);
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

    /// What a pod wrote to a target during a run may have been overwritten, or have changed what was copied. A cutover fails for that. A stage
    /// run says so, and does not take what the pod wrote for its own.
    pub(super) async fn settle_use_of_targets(&mut self) -> Result<()> {
        let (mut used, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        let is_cutover = self.is_cutover();
        for volume in self.volumes.clone() {
            let gap = gap(&self.status.target_watches, &volume.target.namespace);
            let Some(status) = self.status.volumes.get_mut(volume.index) else { continue };
            let (reason, what) = if !status.target_used_by.is_empty() {
                let pod = &status.target_used_by;
                let target = &volume.target;
                let what = format!("pod {pod} used {target} at the destination during the run");
                status.disown();
                used.insert(what.clone());
                ("UsedMeanwhile", what)
            } else if !gap.is_empty() {
                let namespace = &volume.target.namespace;
                let what = format!(
                    "the pods of namespace {namespace} at the destination could not be watched without a gap: {gap}"
                );
                unknown.insert(what.clone());
                ("UseUnknown", what)
            } else {
                continue;
            };
            if is_cutover && status.phase == VolumePhase::Succeeded {
                self.fail_success(&volume, reason, what).await?;
            }
        }
        let known = |c: &Condition| c.type_ == conditions::TARGETS_UNUSED;
        if !used.is_empty() {
            let what = listed(&used);
            self.condition(conditions::TARGETS_UNUSED, Some(false), "UsedMeanwhile", &what);
            if !is_cutover {
                self.context.events.warning(&self.migration, "UsedMeanwhile", what).await;
            }
        } else if !unknown.is_empty() {
            let what = listed(&unknown);
            self.condition(conditions::TARGETS_UNUSED, None, "UseUnknown", &what);
        } else if self.status.conditions.iter().any(known) {
            let what = "no pod used the claims at the destination during the run";
            self.condition(conditions::TARGETS_UNUSED, Some(true), "Unused", what);
        }
        Ok(())
    }

    /// Fails a volume for what is wrong beside its copy.
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

/// Why the watch of the pods of a namespace may have missed changes. The watch of another namespace counts, too: it can have claims on the
/// same storage.
fn gap(watches: &[PodWatch], namespace: &str) -> String {
    let own = watches.iter().find(|watch| watch.namespace == namespace && !watch.gap.is_empty());
    let any = own.or_else(|| watches.iter().find(|watch| !watch.gap.is_empty()));
    any.map(|watch| watch.gap.clone()).unwrap_or_default()
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
    let hash = pod.labels().get(TEMPLATE_HASH);
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(&format!("-{hash}")));
    match deployment {
        Some(deployment) if owner.kind == "ReplicaSet" => {
            format!("{name} (Deployment/{deployment})")
        }
        _ => format!("{name} ({}/{})", owner.kind, owner.name),
    }
}
