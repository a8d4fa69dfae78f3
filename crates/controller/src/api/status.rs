//! How far a migration is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mode, RunSpec, VolumePhase, progress::is_zero};

/// Status of a migration.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectVolumeMigrationStatus {
    /// Generation of the specification that was handled last.
    #[serde(default)]
    pub observed_generation: i64,
    /// Number of the run.
    #[serde(default)]
    pub run: i64,
    /// Mode of the run.
    #[serde(default)]
    pub mode: Mode,
    /// Current phase.
    #[serde(default)]
    pub phase: Phase,
    /// Human-readable message.
    #[serde(default)]
    pub message: String,
    /// Volumes copied, of all, for example `2/5`.
    #[serde(default)]
    pub volumes_done: String,
    /// Share of the bytes that are at the destination, for example `40%`.
    #[serde(default)]
    pub progress: String,
    /// Current rate, for example `58.5 MiB/s`.
    #[serde(default)]
    pub rate: String,
    /// Start of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// End of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Transfers started in this run.
    #[serde(default)]
    pub transfers_begun: i64,
    /// Active transfers.
    #[serde(default)]
    pub transfers: Vec<ActiveTransfer>,
    /// Objects of a run that a rollback ended, which may still be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<Leftovers>,
    /// What the run holds on to from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_spec: Option<RunSpec>,
    /// Watches of the pods at the source, from the moment at which no pod used the volumes of a cutover.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_watches: Vec<SourceWatch>,
    /// Pods that use the volumes of a cutover, which `acknowledgeInUse` accepts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acknowledged: Vec<String>,
    /// Volumes, in the order of the specification.
    #[serde(default)]
    pub volumes: Vec<VolumeStatus>,
    /// Conditions `Validated`, `Prepared`, `Quiesced`, `Succeeded` and, after a rollback, `CleanedUp`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Phase of a run.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Phase {
    /// Nothing was done yet.
    #[default]
    Pending,
    /// Claims are looked at, and made at the destination.
    Preparing,
    /// Workloads are being stopped.
    Quiescing,
    /// Volumes are on their way.
    Transferring,
    /// Pods, Services and Secrets are being removed.
    CleaningUp,
    /// Every volume arrived, proved by the manifests of both ends.
    Completed,
    /// At least one did not.
    Failed,
    /// The workloads at the source have their replicas again.
    RolledBack,
}

impl Phase {
    /// True where only another run leads on.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::RolledBack)
    }
}

/// A run whose objects may still exist.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Leftovers {
    /// The run.
    pub run: i64,
    /// Transfers that it has begun.
    pub transfers: i64,
}

/// A watch of the pods of a source namespace during a cutover.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceWatch {
    /// The namespace.
    pub namespace: String,
    /// Every change up to this resource version was seen.
    #[serde(default)]
    pub version: String,
    /// The resource version at which the last volume of the namespace was committed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// Why changes may have been missed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gap: String,
}

/// A pair of transfer pods.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveTransfer {
    /// Number of the transfer within the run.
    pub number: i64,
    /// Random label value of the objects of the transfer, which tells them from objects that existed before. It is not a secret.
    #[serde(default)]
    pub token: String,
    /// Indices of the volumes in the specification.
    pub volumes: Vec<usize>,
    /// Node that the source pod must run on, because a volume is in use there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Node that the destination pod must run on, because the pod of an earlier attempt has the claim mounted there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_node: Option<String>,
    /// Nodes that the pods run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<PodNodes>,
    /// Start of the transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Time>,
    /// The Secrets with the identities of the pods, once they were created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<IdentityUids>,
    /// Whether the source pod was created: if it does not exist any more, it is lost.
    #[serde(default)]
    pub source_made: bool,
    /// Whether the destination pod was created.
    #[serde(default)]
    pub destination_made: bool,
    /// Time when all containers of the source pod ran for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since: Option<Time>,
    /// Whether all its volumes have ended and its objects are being deleted.
    #[serde(default)]
    pub ending: bool,
    /// Time when the Secrets were deleted, which own the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Time>,
}

/// Uids of the Secrets of a transfer. They own its pods and its Service, which are deleted with them.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct IdentityUids {
    /// Uid of the Secret of the source pod.
    pub source: String,
    /// Uid of the Secret of the destination pod.
    pub destination: String,
}

/// Nodes of a pair of transfer pods.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct PodNodes {
    /// Node of the source pod.
    pub source: String,
    /// Node of the destination pod.
    pub destination: String,
}

/// Status of a volume.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// `NAMESPACE/NAME` of the claim at the source.
    pub claim: String,
    /// Current phase.
    #[serde(default)]
    pub phase: VolumePhase,
    /// Attempts in this run.
    #[serde(default)]
    pub attempts: i32,
    /// Reason for the phase, as one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Everything in the claim at the destination is from this migration: it created the claim, or a run has made it equal to the source.
    #[serde(default)]
    pub owned: bool,
    /// Entries that changed at the source during a stage run. The next run or the cutover will copy them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changed: i64,
    /// The pod that used the claim during the cutover.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub used_by: String,
    /// Time at which the source had reported that the volume is copied. The report of the destination is awaited.
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
    /// Bytes per second.
    #[serde(default)]
    pub rate: i64,
}
