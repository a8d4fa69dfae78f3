//! How far a migration is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mode, VolumePhase};

/// How far a migration is.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectVolumeMigrationStatus {
    /// The generation of the specification that was looked at last.
    #[serde(default)]
    pub observed_generation: i64,
    /// The run that this is about.
    #[serde(default)]
    pub run: i64,
    /// Its mode.
    #[serde(default)]
    pub mode: Mode,
    /// Where it stands.
    #[serde(default)]
    pub phase: Phase,
    /// The same in a sentence.
    #[serde(default)]
    pub message: String,
    /// Volumes that are done, of all: `2/5`.
    #[serde(default)]
    pub volumes_done: String,
    /// Bytes, as a share: `40%`.
    #[serde(default)]
    pub progress: String,
    /// Bytes a second, for people.
    #[serde(default)]
    pub rate: String,
    /// When this run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Transfers that were begun in this run; each has a number.
    #[serde(default)]
    pub transfers_begun: i64,
    /// Transfers that are under way.
    #[serde(default)]
    pub transfers: Vec<ActiveTransfer>,
    /// The volumes, in the order of the specification.
    #[serde(default)]
    pub volumes: Vec<VolumeStatus>,
    /// `Validated`, `Prepared`, `Quiesced`, `Succeeded`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Where a run stands.
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

/// A pair of transfer pods.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveTransfer {
    /// Its number within the run.
    pub number: i64,
    /// What its pods bear and nobody else knows beforehand.
    #[serde(default)]
    pub token: String,
    /// Indices of its volumes in the specification.
    pub volumes: Vec<usize>,
    /// The node that the source pod is bound to, because a volume is in use there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Time>,
    /// The source pod was made: if it is not there any more, it is lost.
    #[serde(default)]
    pub source_made: bool,
    /// As above, of the destination pod.
    #[serde(default)]
    pub destination_made: bool,
    /// When the source pod's containers all ran for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since: Option<Time>,
    /// Every volume of it is settled: its objects are being removed.
    #[serde(default)]
    pub ending: bool,
}

/// Where a volume stands.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// `NAMESPACE/NAME` of its claim at the source.
    pub claim: String,
    /// Where it stands.
    #[serde(default)]
    pub phase: VolumePhase,
    /// Tries in this run.
    #[serde(default)]
    pub attempts: i32,
    /// Why it stands where it stands, in one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The next try begins no earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
    /// Bytes that are there, and of all.
    #[serde(default)]
    pub bytes_done: i64,
    /// Bytes of file content at the source.
    #[serde(default)]
    pub bytes_total: i64,
    /// Bytes a second.
    #[serde(default)]
    pub rate: i64,
}
