//! The end of a try: recorded, told, and what it needed removed.

use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        networking::v1::Ingress,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::SignedDuration,
};
use kube::ResourceExt as _;
use pod::{Report, Text};
use serde_json::json;

use super::{
    Step,
    objects::{self, is_ours},
    ownership::recorded,
    proof::missing_report,
    transfer::Current,
};
use crate::{
    api::{EndpointKind, VolumePhase},
    build::{self, Role},
    cluster::Cluster,
    error::Result,
    observe::{self, Failure},
    plan::Planned,
};

/// The pause before the second try, in seconds; it doubles with each.
const FIRST_PAUSE: i64 = 5;
/// The longest.
const LONGEST_PAUSE: i64 = 300;
/// Seconds that the garbage collector may take to remove a pod whose Secret is gone; then the pod is removed directly.
const COLLECTED: i64 = 10;

/// Bytes of a message that the status of a volume keeps: a migration may have 500 volumes.
const SHOWN: usize = 300;

impl Step<'_> {
    /// A volume has arrived, as both ends report: all of it, or in a stage run all but what changed meanwhile.
    pub(super) async fn arrived(
        &mut self,
        volume: &Planned,
        pod: &Pod,
        report: &Report,
    ) -> Result<()> {
        let container = build::sync_container(volume);
        let (started, ended) = observe::times(pod, &container);
        let attempt = self.status.volumes.get(volume.index).map_or(1, |status| status.attempts);
        let changed = signed(report.error_count());
        let reason = if changed > 0 { "SourceChanged" } else { "Completed" };
        let mut told = figures(report);
        merge(
            &mut told,
            json!({
                "phase": VolumePhase::Succeeded,
                "reason": reason,
                "message": sentence(report),
                "pod": pod.name_any(),
                "container": container,
                "attempt": attempt,
                "exitCode": report.exit_code.number(),
                "progress": "100%",
                "rate": rate(report),
                "eta": "",
                "digest": report.digest,
                "changed": changed,
                "errors": errors(report),
                "startTime": started,
                "completionTime": ended,
            }),
        );
        self.tell(volume, told).await?;
        if let Some(status) = self.status.volumes.get_mut(volume.index) {
            status.phase = VolumePhase::Succeeded;
            status.reported_at = None;
            // An entry in a directory that vanished before it was listed may be of somebody else.
            let is_equal = report.is_success() || report.all_listed;
            let target = recorded(pod, volume);
            status.owned &= status.target == target;
            if self.migration.spec.transfer.delete && is_equal && target.is_some() {
                status.own(self.migration.spec.transfer.overwrite);
            }
            status.target = target;
            status.reason = reason.into();
            status.message.clear();
            status.changed = changed;
            status.bytes_total = signed(report.bytes_total);
            status.bytes_done = status.bytes_total;
            status.rate = 0;
        }
        self.context.metrics.ended("completed", report.bytes_literal);
        let note = format!("{} copied to {}: {}", volume.claim, volume.target, sentence(report));
        self.context.events.normal(&self.migration, "VolumeCopied", note).await;
        Ok(())
    }

    /// A try of a volume failed.
    pub(super) async fn failed(
        &mut self,
        volume: &Planned,
        pod: &Pod,
        failure: &Failure,
    ) -> Result<()> {
        let container = build::sync_container(volume);
        let (started, ended) = observe::times(pod, &container);
        let place = json!({
            "pod": pod.name_any(), "container": container, "startTime": started, "completionTime": ended,
        });
        self.failed_with(volume, failure, place).await
    }

    /// What has not arrived of a transfer, has failed.
    pub(super) async fn fail_all(&mut self, current: &mut Current, failure: &Failure) {
        let missing = Failure {
            retryable: failure.retryable,
            ..missing_report(&format!("{}: {}", failure.reason, failure.message))
        };
        for volume in &current.volumes {
            if !self.is_open(volume.index) {
                continue;
            }
            let failure = if self.is_moving(volume.index) { failure } else { &missing };
            if let Err(error) = self.failed_with(volume, failure, json!({})).await {
                tracing::warn!("cannot record a failure: {error}");
            }
        }
        current.transfer.ending = true;
    }

    async fn failed_with(
        &mut self,
        volume: &Planned,
        failure: &Failure,
        place: serde_json::Value,
    ) -> Result<()> {
        let limit = self.migration.spec.limits.attempts;
        let Some(status) = self.status.volumes.get_mut(volume.index) else { return Ok(()) };
        let again = failure.retryable && status.attempts < limit;
        status.phase = if again { VolumePhase::Retrying } else { VolumePhase::Failed };
        status.reason = failure.reason.to_string();
        status.message = Text::within(&failure.message, SHOWN).into();
        status.reported_at = None;
        status.rate = 0;
        let attempts = status.attempts;
        if again {
            let doubled = FIRST_PAUSE << (attempts - 1).clamp(0, 10);
            let pause = SignedDuration::from_secs(doubled.min(LONGEST_PAUSE));
            status.retry_at = Some(Time(self.now + pause));
        }
        let mut told = failure.report.as_deref().map_or_else(|| json!({}), figures);
        let errors = failure.report.as_deref().map(errors).unwrap_or_default();
        merge(&mut told, place);
        merge(
            &mut told,
            json!({
                "phase": if again { VolumePhase::Retrying } else { VolumePhase::Failed },
                "attempt": attempts,
                "reason": failure.reason,
                "message": failure.message,
                "exitCode": failure.exit_code,
                "rate": "",
                "eta": "",
                "digest": null,
                "errors": errors,
            }),
        );
        self.context.metrics.ended("failed", 0);
        let next = if again { "; retrying" } else { "" };
        let note = format!(
            "{}, attempt {attempts} of {limit}: {}: {}{next}",
            volume.claim, failure.reason, failure.message
        );
        let reason = if again { "VolumeRetrying" } else { "VolumeFailed" };
        self.context.events.warning(&self.migration, reason, note).await;
        self.tell(volume, told).await
    }

    /// Removes a pod of the transfer: what is there of it until it is gone. One of that name that somebody else made stays. The garbage
    /// collector removes one whose Secret is gone, and has some seconds to do it.
    async fn remove_pod(
        &self,
        cluster: &Cluster,
        namespace: &str,
        current: &Current,
        role: Role,
    ) -> Result<Option<Pod>> {
        let name = current.names.of(role);
        let made = match role {
            Role::Source => current.transfer.source_created,
            Role::Destination => current.transfer.destination_created,
        };
        let informer = cluster.informers().current::<Pod>().await;
        let known = informer.and_then(|pods| pods.get(namespace, &name));
        let pod = match known {
            Some(known) if !observe::is_lost(&known, self.now) => Some(Pod::clone(&known)),
            // It was known once: the watch has seen it go.
            None if informer.is_some() && made => None,
            _ => cluster.read(namespace, &name).await?,
        };
        match pod {
            Some(pod) if !is_ours(&pod, &current.names, role) => Ok(None),
            // It was removed, and goes when its containers have ended.
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => Ok(Some(pod)),
            Some(pod) if self.is_collected(current, &pod) => Ok(Some(pod)),
            Some(pod) => {
                let uid = self.migration.uid().unwrap_or_default();
                let removed = cluster.delete(&pod, &uid).await?;
                // One that has ended is gone at once.
                let stays = |pod: &Pod| !observe::is_over(pod) || !pod.finalizers().is_empty();
                Ok(removed.filter(stays))
            }
            None => Ok(None),
        }
    }

    /// Whether the garbage collector may still be about to remove a pod.
    fn is_collected(&self, current: &Current, pod: &Pod) -> bool {
        let since = current.transfer.deleted.as_ref();
        !pod.owner_references().is_empty()
            && since.is_some_and(|since| observe::seconds_since(since, self.now) <= COLLECTED)
    }

    /// Removes the Secrets, and with them all that they own. What was made without them is removed by itself.
    async fn remove_owners(&self, current: &Current) -> Result<()> {
        let selector = current.names.selector();
        objects::delete_secrets(&self.source, current.source_namespace(), &selector).await?;
        let far = current.destination_namespace();
        objects::delete_secrets(&self.destination, far, &selector).await?;
        match current.transfer.identities {
            Some(_) => Ok(()),
            None => self.remove_endpoint(current).await,
        }
    }

    /// Removes what a transfer needed; true once its pods are gone, or one that is lost can do nothing without the other.
    pub(super) async fn remove(&mut self, current: &mut Current) -> Result<bool> {
        if current.transfer.deleted.is_none() {
            self.remove_owners(current).await?;
            current.transfer.deleted = Some(Time(self.now));
        }
        if let Some(since) = &current.transfer.deleted {
            self.due_after(since, COLLECTED + 1);
        }
        let (near, far) = (current.source_namespace(), current.destination_namespace());
        let client = self.remove_pod(&self.source, near, current, Role::Source).await?;
        let server = self.remove_pod(&self.destination, far, current, Role::Destination).await?;
        let going = [&client, &server].into_iter().flatten();
        let since: Vec<_> =
            going.filter_map(|pod| pod.metadata.deletion_timestamp.clone()).collect();
        for since in since {
            self.due_after(&since, observe::OVERDUE + 1);
        }
        match (client, server) {
            (None, None) => {}
            (Some(lost), None) | (None, Some(lost)) if observe::is_lost(&lost, self.now) => {
                let note = format!(
                    "pod {} still exists a minute after its deletion: its node does not respond",
                    lost.name_any()
                );
                self.context.events.warning(&self.migration, "NodeLost", note).await;
            }
            (Some(going), _) | (None, Some(going)) => {
                self.status.message = format!("waiting for pod {} to terminate", going.name_any());
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes what the destination pod was reached by.
    async fn remove_endpoint(&self, current: &Current) -> Result<()> {
        let (cluster, namespace) = (&self.destination, current.destination_namespace());
        let name = current.names.of(Role::Destination);
        let uid = self.migration.uid().unwrap_or_default();
        if let Some(service) = cluster.look::<Service>(&self.name, namespace, &name).await? {
            cluster.delete(&service, &uid).await?;
        }
        match self.migration.spec.endpoint.kind {
            EndpointKind::Ingress => {
                if let Some(ingress) = cluster.get::<Ingress>(namespace, &name).await? {
                    cluster.delete(&ingress, &uid).await?;
                }
            }
            EndpointKind::Route => {
                let (kind, selector) = (build::route_resource(), current.names.selector());
                cluster.delete_labelled(&kind, namespace, &selector).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The figures of a report, as the progress resource has them.
fn figures(report: &Report) -> serde_json::Value {
    json!({
        "bytesDone": signed(report.bytes_literal.saturating_add(report.bytes_matched).min(report.bytes_total)),
        "bytesTotal": signed(report.bytes_total),
        "bytesSent": signed(report.bytes_literal),
        "wireBytes": signed(report.wire_sent.saturating_add(report.wire_received)),
        "entries": signed(report.entries),
        "filesWritten": signed(report.files_written),
        "filesDeleted": signed(report.files_deleted),
    })
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    if let (Some(into), serde_json::Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The first errors of a report, one text each.
fn errors(report: &Report) -> Vec<String> {
    report.errors.iter().map(|error| format!("{}: {}", error.name, error.what)).collect()
}

fn sentence(report: &Report) -> String {
    let figures = format!(
        "{} written, {} deleted, {} of {} sent",
        super::counted(usize::try_from(report.files_written).unwrap_or(usize::MAX), "file"),
        report.files_deleted,
        super::progress::size(report.bytes_literal),
        super::progress::size(report.bytes_total),
    );
    match signed(report.error_count()) {
        0 => figures,
        count => format!("{figures}; {}", changed_entries(count)),
    }
}

/// What becomes of entries that changed at the source during a stage run.
pub(super) fn changed_entries(count: i64) -> String {
    let entries = if count == 1 { "entry" } else { "entries" };
    format!("{count} {entries} changed during the run; the next run or the cutover will copy them")
}

fn rate(report: &Report) -> String {
    if report.seconds < 0.01 {
        return String::new();
    }
    format!("{}/s", super::progress::size((report.bytes_total as f64 / report.seconds) as u64))
}
