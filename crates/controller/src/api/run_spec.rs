//! Fields of the specification that a run keeps from its start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DirectVolumeMigrationSpec, Pods, Quiesce, Transfer};

/// Fields of the specification as they were at the start of a run: changes take effect with the next run.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunSpec {
    /// Copy of `spec.quiesce`.
    #[serde(default)]
    pub quiesce: Quiesce,
    /// Copy of `spec.acknowledgeInUse`.
    #[serde(default)]
    pub acknowledge_in_use: bool,
    /// Copy of `spec.transfer`.
    #[serde(default)]
    pub transfer: Transfer,
    /// Copy of `spec.pods`.
    #[serde(default)]
    pub pods: Pods,
}

impl RunSpec {
    /// That of a run that starts now.
    #[must_use]
    pub fn of(spec: &DirectVolumeMigrationSpec) -> Self {
        Self {
            quiesce: spec.quiesce,
            acknowledge_in_use: spec.acknowledge_in_use,
            transfer: spec.transfer.clone(),
            pods: spec.pods.clone(),
        }
    }

    /// Puts its fields in place of those of `spec`.
    pub fn restore(&self, spec: &mut DirectVolumeMigrationSpec) {
        let Self { quiesce, acknowledge_in_use, transfer, pods } = self.clone();
        (spec.quiesce, spec.acknowledge_in_use) = (quiesce, acknowledge_in_use);
        (spec.transfer, spec.pods) = (transfer, pods);
    }
}
