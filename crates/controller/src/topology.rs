//! Which nodes can reach a volume, as far as it decides whether volumes can share a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::{core::v1::PersistentVolume, storage::v1::StorageClass};

/// The provisioner of classes whose volumes somebody creates by hand, each where its disk is.
pub(crate) const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Labels by which the scheduler keeps pods to the zone of a volume, besides its node affinity.
const ZONES: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// The nodes that can reach a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reach {
    /// Every node.
    #[default]
    Anywhere,
    /// The nodes that this describes. Equal descriptions are the same nodes; different ones can be.
    Some(String),
    /// Nobody knows yet.
    Unknown,
}

impl Reach {
    /// Of a volume that exists: by its node affinity, and by its zone.
    #[must_use]
    pub fn of_volume(volume: &PersistentVolume) -> Self {
        let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
        let labels = volume.metadata.labels.iter().flatten();
        let zones: BTreeMap<_, _> =
            labels.filter(|(key, _)| ZONES.contains(&key.as_str())).collect();
        if affinity.is_none() && zones.is_empty() {
            return Self::Anywhere;
        }
        serde_json::to_string(&(affinity, zones)).map_or(Self::Unknown, Self::Some)
    }

    /// Of a volume that a class will provision. One that waits for its first consumer is provisioned where the pod is, and so are all of
    /// that class; others are bound to a place that nobody knows yet.
    #[must_use]
    pub fn of_class(class: &StorageClass) -> Self {
        let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        if waits && class.provisioner != NO_PROVISIONER {
            let name = class.metadata.name.as_deref().unwrap_or_default();
            return Self::Some(format!("class {name}"));
        }
        Self::Unknown
    }

    /// The nodes that can reach both volumes, if that is certain.
    #[must_use]
    pub fn and(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => None,
            (Self::Anywhere, reach) | (reach, Self::Anywhere) => Some(reach.clone()),
            (one, two) => (one == two).then(|| one.clone()),
        }
    }
}
