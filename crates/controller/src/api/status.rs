//! Status of a migration.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mode, RunSpec, VolumePhase, progress::is_zero};

/// Status of the migration.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectVolumeMigrationStatus {
    /// Generation of the specification that the controller handled last.
    #[serde(default)]
    pub observed_generation: i64,
    /// Number of the current or last run.
    #[serde(default)]
    pub run: i64,
    /// Mode of the current or last run.
    #[serde(default)]
    pub mode: Mode,
    /// Current phase of the run.
    #[serde(default)]
    pub phase: Phase,
    /// Human-readable message about the phase.
    #[serde(default)]
    pub message: String,
    /// Number of volumes that were copied, and of all volumes, for example `2/5`.
    #[serde(default)]
    pub volumes_done: String,
    /// Percentage of the bytes that are at the destination, for example `40%`.
    #[serde(default)]
    pub progress: String,
    /// Current rate of all volumes together, for example `58.5 MiB/s`.
    #[serde(default)]
    pub rate: String,
    /// Start of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// End of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Duration of the run after its end, for example `1m15s`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub duration: String,
    /// Number of transfers that the run started.
    #[serde(default)]
    pub transfers_started: i64,
    /// Transfers whose pods exist or are being created.
    #[serde(default)]
    pub transfers: Vec<ActiveTransfer>,
    /// Objects that may remain of a run that a rollback ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<Leftovers>,
    /// Fields of the specification as they were at the start of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_spec: Option<RunSpec>,
    /// Watches of the pods in the source namespaces, from the moment at which no pod used the volumes of a cutover.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_watches: Vec<PodWatch>,
    /// Watches of the pods at the destination, from the moment at which no pod used the volumes that started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_watches: Vec<PodWatch>,
    /// Time since which the run waits for pods that use destination claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_in_use_since: Option<Time>,
    /// Workloads that a cutover scaled to zero. A rollback starts them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<StoppedWorkload>,
    /// Pods that use source volumes during a cutover and that `acknowledgeInUse` accepts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acknowledged: Vec<String>,
    /// Status of each volume, in the order of `spec.volumes`.
    #[serde(default)]
    pub volumes: Vec<VolumeStatus>,
    /// Conditions `Validated`, `Prepared`, `Quiesced`, `Succeeded`; `TargetsUnused` if a pod used a destination claim, and `CleanedUp` after a rollback.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Phase of a run.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Phase {
    /// The run has not started.
    #[default]
    Pending,
    /// Claims are checked, and created at the destination.
    Preparing,
    /// Workloads are being scaled to zero.
    Quiescing,
    /// Transfer pods copy the volumes.
    Transferring,
    /// Transfer pods, Services and Secrets are being deleted.
    CleaningUp,
    /// Every volume was copied, and both sides report the same manifest.
    Completed,
    /// At least one volume failed.
    Failed,
    /// The replicas of the workloads at the source were restored.
    RolledBack,
}

impl Phase {
    /// True if only another run changes the phase.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::RolledBack)
    }
}

/// A run whose objects may still exist.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Leftovers {
    /// Number of the run that left the objects.
    pub run: i64,
    /// Number of transfers that this run started.
    pub transfers: i64,
}

/// A watch of the pods of a namespace.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodWatch {
    /// Namespace that is watched.
    pub namespace: String,
    /// Resource version up to which every change was seen.
    #[serde(default)]
    pub version: String,
    /// Resource version at which the last volume of the namespace was committed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// Why the watch may have missed changes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gap: String,
}

/// A transfer: a source pod, a destination pod and their volumes.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveTransfer {
    /// Number of the transfer within the run.
    pub number: i64,
    /// Random label value of the objects of the transfer, which tells them from objects that existed before. It is not a secret.
    #[serde(default)]
    pub token: String,
    /// Indices of the volumes in `spec.volumes`.
    pub volumes: Vec<usize>,
    /// Node that the source pod must run on, because a pod uses a volume there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Node that the destination pod must run on, because the pod of an earlier attempt mounts the claim there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_node: Option<String>,
    /// Nodes that the transfer pods run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<PodNodes>,
    /// Start of the transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// UIDs of the Secrets with the identities of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<IdentityUids>,
    /// Whether the source pod was created. If it no longer exists, it is lost.
    #[serde(default)]
    pub source_created: bool,
    /// Whether the destination pod was created. If it no longer exists, it is lost.
    #[serde(default)]
    pub destination_created: bool,
    /// Time at which all containers of the source pod ran for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since: Option<Time>,
    /// Whether all volumes of the transfer have finished and its objects are being deleted.
    #[serde(default)]
    pub ending: bool,
    /// Time at which the Secrets that own the pods were deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Time>,
}

/// UIDs of the Secrets of a transfer. They own its pods and its Service, which are deleted with them.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct IdentityUids {
    /// UID of the Secret of the source pod.
    pub source: String,
    /// UID of the Secret of the destination pod.
    pub destination: String,
}

/// Nodes of the transfer pods.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct PodNodes {
    /// Node that the source pod runs on.
    pub source: String,
    /// Node that the destination pod runs on.
    pub destination: String,
}

/// A workload that a cutover scaled to zero.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoppedWorkload {
    /// `Deployment` or `StatefulSet`.
    pub kind: String,
    /// Namespace of the workload.
    pub namespace: String,
    /// Name of the workload.
    pub name: String,
    /// Uid of the workload.
    pub uid: String,
    /// Replicas that the workload had before the cutover.
    pub replicas: i32,
}

/// A claim and the PersistentVolume that it is bound to.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoundClaim {
    /// UID of the claim.
    pub uid: String,
    /// Name of the PersistentVolume.
    pub volume: String,
    /// UID of the PersistentVolume, if the controller can read it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub volume_uid: String,
}

/// Status of one volume.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// Source claim, as `NAMESPACE/NAME`.
    pub claim: String,
    /// Current phase of the volume.
    #[serde(default)]
    pub phase: VolumePhase,
    /// Number of attempts in this run.
    #[serde(default)]
    pub attempts: i32,
    /// Reason for the phase, in CamelCase.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Human-readable message about the failure of the last attempt.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// UID of the destination claim, if this migration created it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// Destination claim that the volume was copied to last, and its PersistentVolume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<BoundClaim>,
    /// Whether this migration wrote everything in `target`: a run has made it equal to the source.
    #[serde(default)]
    pub owned: bool,
    /// Whether other pods can have written to the destination claim, because one used it or a cutover completed. Later runs delete nothing there until
    /// one completes with `overwrite`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub foreign_content: bool,
    /// Entries that changed at the source during a stage run. The next run or the cutover will copy them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changed: i64,
    /// Pod that used the source claim during the cutover.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub used_by: String,
    /// Pod that used the destination claim during the run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target_used_by: String,
    /// Time at which the source reported that the volume is copied. The controller waits for the report of the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<Time>,
    /// Earliest start of the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
    /// Bytes of file content at the destination.
    #[serde(default)]
    pub bytes_done: i64,
    /// Bytes of file content at the source.
    #[serde(default)]
    pub bytes_total: i64,
    /// Current rate in bytes per second.
    #[serde(default)]
    pub rate: i64,
}

impl VolumeStatus {
    /// Other pods can have written to the destination claim: it counts as one that existed before.
    pub(crate) fn disown(&mut self) {
        self.owned = false;
        self.created.clear();
        self.foreign_content = true;
    }

    /// A run has made the destination claim equal to the source. Later runs may delete there, unless other pods have written to the claim and the run
    /// did not have `overwrite`.
    pub(crate) fn own(&mut self, overwrite: bool) {
        if overwrite || !self.foreign_content {
            self.owned = true;
            self.foreign_content = false;
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(value: &bool) -> bool {
    !value
}
