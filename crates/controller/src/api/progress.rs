//! `DirectVolumeMigrationProgress`: how far one volume is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Volume that the progress is about.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "pvferry.io",
    version = "v1alpha1",
    kind = "DirectVolumeMigrationProgress",
    plural = "directvolumemigrationprogresses",
    shortname = "pvmp",
    category = "pvferry",
    namespaced,
    doc = "DirectVolumeMigrationProgress shows the progress and result of one volume of a DirectVolumeMigration. Only the controller writes it.",
    status = "DirectVolumeMigrationProgressStatus",
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claim"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Bytes", type_ = "string", json_path = ".status.bytes"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.rate"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.eta"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".status.attempt"),
    printcolumn(name = "Exit", type_ = "integer", json_path = ".status.exitCode"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct DirectVolumeMigrationProgressSpec {
    /// Name of the DirectVolumeMigration that copies the volume.
    pub migration: String,
    /// Source claim, as `NAMESPACE/NAME`.
    pub claim: String,
    /// Destination claim, as `NAMESPACE/NAME`.
    pub target: String,
}

/// Progress and result of the volume.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectVolumeMigrationProgressStatus {
    /// Number of the current or last run.
    #[serde(default)]
    pub run: i64,
    /// Current phase of the volume.
    #[serde(default)]
    pub phase: VolumePhase,
    /// Reason for the phase, in CamelCase.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Human-readable message about the phase.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Source pod of the last attempt.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Sync container of the volume in the source pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// Number of the last attempt in this run. The first is 1.
    #[serde(default)]
    pub attempt: i32,
    /// Exit code of the sync container in the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Percentage of the bytes that are at the destination, for example `40%`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// Current rate, for example `58.5 MiB/s`. After the copy, the average.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rate: String,
    /// Estimated time left, for example `1m15s`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub eta: String,
    /// Bytes of file content at the destination and in all, for example `12.0 MiB/65.4 MiB`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bytes: String,
    /// Duration of the last attempt, for example `1m15s`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub duration: String,
    /// Bytes of file content at the destination.
    #[serde(default)]
    pub bytes_done: i64,
    /// Bytes of file content at the source.
    #[serde(default)]
    pub bytes_total: i64,
    /// Bytes of file content that were sent.
    #[serde(default)]
    pub bytes_sent: i64,
    /// Bytes exchanged with the peer in both directions, before TLS.
    #[serde(default)]
    pub wire_bytes: i64,
    /// Files, directories and other entries that were compared.
    #[serde(default)]
    pub entries: i64,
    /// Files that were written at the destination.
    #[serde(default)]
    pub files_written: i64,
    /// Entries that were deleted at the destination.
    #[serde(default)]
    pub files_deleted: i64,
    /// Digest of the manifest that both sides agree on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Entries that changed at the source during a stage run. The next run or the cutover will copy them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changed: i64,
    /// First entries that failed or changed, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Start of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// End of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
pub(super) fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Phase of a volume.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum VolumePhase {
    /// The volume waits for its turn.
    #[default]
    Pending,
    /// The transfer pods are starting.
    Starting,
    /// The volume is being copied.
    Running,
    /// The last attempt failed; another one follows.
    Retrying,
    /// The volume was copied and both sides report the same manifest.
    Succeeded,
    /// The volume was not copied.
    Failed,
}

impl VolumePhase {
    /// True if nothing more happens to it in this run.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}
