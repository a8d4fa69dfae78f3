//! `DirectVolumeMigrationProgress`: how far one volume is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The story of one volume of a migration. Written by the controller alone.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "pvferry.io",
    version = "v1alpha1",
    kind = "DirectVolumeMigrationProgress",
    plural = "directvolumemigrationprogresses",
    shortname = "dvmp",
    category = "pvferry",
    namespaced,
    status = "DirectVolumeMigrationProgressStatus",
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claim"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.rate"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.eta"),
    printcolumn(name = "Try", type_ = "integer", json_path = ".status.attempt"),
    printcolumn(name = "Exit", type_ = "integer", json_path = ".status.exitCode"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct DirectVolumeMigrationProgressSpec {
    /// The migration.
    pub migration: String,
    /// `NAMESPACE/NAME` of the claim at the source.
    pub claim: String,
    /// `NAMESPACE/NAME` of the claim at the destination.
    pub target: String,
}

/// How far a volume is, and how it ended.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectVolumeMigrationProgressStatus {
    /// The run that this is about.
    #[serde(default)]
    pub run: i64,
    /// Where it stands.
    #[serde(default)]
    pub phase: VolumePhase,
    /// Why, in one word: of the container, the pod, or the controller.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The source pod of the last try.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Its sync container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The number of the last try, from 1.
    #[serde(default)]
    pub attempt: i32,
    /// The exit code of the sync container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Bytes that are there, of all, as a share: `40%`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// Bytes a second, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rate: String,
    /// Time that is left, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub eta: String,
    /// Bytes that are there.
    #[serde(default)]
    pub bytes_done: i64,
    /// Bytes of file content at the source.
    #[serde(default)]
    pub bytes_total: i64,
    /// Bytes of file content that were sent.
    #[serde(default)]
    pub bytes_sent: i64,
    /// Bytes on the wire, in both directions, before TLS.
    #[serde(default)]
    pub wire_bytes: i64,
    /// Entries that were looked at.
    #[serde(default)]
    pub entries: i64,
    /// Files that were written.
    #[serde(default)]
    pub files_written: i64,
    /// Entries that were deleted.
    #[serde(default)]
    pub files_deleted: i64,
    /// The digest that both ends agree on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The first entries that could not be treated as asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// When the last try began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
}

/// Where a volume stands.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum VolumePhase {
    /// It waits for its turn.
    #[default]
    Pending,
    /// Its pods are being made.
    Starting,
    /// Its content is on its way.
    Running,
    /// The last try failed, and another one will follow.
    Retrying,
    /// It arrived, proved by the manifests of both ends.
    Succeeded,
    /// It did not.
    Failed,
}

impl VolumePhase {
    /// True where nothing more happens to it in this run.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}
