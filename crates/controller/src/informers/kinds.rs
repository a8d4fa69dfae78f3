//! The kinds that are watched, and what is kept of each object: what steps read, so that a cluster with many pods fits into memory, and so
//! that changes of anything else wake nobody.

use std::fmt::Debug;

use k8s_openapi::api::{
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service},
    storage::v1::StorageClass,
};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::{Informer, Informers, Key, Name};
use crate::build::{CREATED_BY, MANAGER, MIGRATION, MIGRATION_UID, PROVISIONED_BY, RESERVED_BY};

/// The label of a pod with the ReplicaSet that it is from.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";
/// Bytes of labels and annotations that are kept of a claim.
const METADATA: usize = 2 << 10;
/// The annotation of a claim in memory whose labels and annotations were too large to keep.
const TRIMMED: &str = "pvferry.io/trimmed";

/// Whether labels and annotations of a claim are missing here. Only the server has them.
pub(crate) fn is_trimmed(claim: &PersistentVolumeClaim) -> bool {
    claim.annotations().contains_key(TRIMMED)
}

/// A kind with a watch.
pub(crate) trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + PartialEq + Send + Sync + 'static
{
    /// Only the objects of this controller.
    const OURS: bool = false;

    /// The watch of this kind.
    fn informer(of: &Informers) -> &Informer<Self>;

    /// The objects of this kind in a namespace, if it has one.
    fn api(client: Client, namespace: &str) -> Api<Self>;

    /// Removes what no step reads.
    fn trim(&mut self);

    /// What changes with this object.
    fn keys(&self) -> Vec<Key> {
        let namespace = self.meta().namespace.as_deref().unwrap_or_default();
        vec![Key::object::<Self>(namespace, &self.name_any())]
    }
}

/// The migration that an object of ours belongs to, by its annotation.
pub(super) fn owner(object: &impl Resource) -> Option<Name> {
    let annotation = object.meta().annotations.as_ref()?.get(MIGRATION)?;
    let (namespace, name) = annotation.split_once('/')?;
    Some((namespace.to_owned(), name.to_owned()))
}

fn is_ours(object: &impl Resource) -> bool {
    let labels = object.meta().labels.as_ref();
    labels
        .and_then(|labels| labels.get("app.kubernetes.io/managed-by"))
        .is_some_and(|by| by == MANAGER)
}

/// The claims that a pod mounts, those included that are made for it alone.
pub(crate) fn mounted(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter_map(|volume| {
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        let own =
            || volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name));
        claim.or_else(own)
    })
}

impl Watched for Pod {
    fn informer(of: &Informers) -> &Informer<Self> {
        &of.pods
    }

    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }

    /// Of pods of others: who uses which claim, where, and whether it still runs.
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        if is_ours(self) {
            return;
        }
        self.metadata.annotations = None;
        self.metadata.finalizers = None;
        self.metadata.resource_version = None;
        if let Some(labels) = &mut self.metadata.labels {
            labels.retain(|key, _| key == TEMPLATE_HASH || key == MIGRATION_UID);
        }
        if let Some(spec) = &mut self.spec {
            let mut volumes = spec.volumes.take().unwrap_or_default();
            volumes.retain(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some());
            for ephemeral in volumes.iter_mut().filter_map(|volume| volume.ephemeral.as_mut()) {
                ephemeral.volume_claim_template = None;
            }
            *spec = k8s_openapi::api::core::v1::PodSpec {
                volumes: Some(volumes),
                node_name: spec.node_name.take(),
                ..Default::default()
            };
        }
        if let Some(status) = &mut self.status {
            *status = k8s_openapi::api::core::v1::PodStatus {
                phase: status.phase.take(),
                ..Default::default()
            };
        }
    }

    fn keys(&self) -> Vec<Key> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        mounted(self).map(|claim| Key::users(namespace, &claim)).collect()
    }
}

impl Watched for PersistentVolumeClaim {
    fn informer(of: &Informers) -> &Informer<Self> {
        &of.claims
    }

    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }

    /// Whoever can create a claim decides how large its metadata is. A claim that is created is made after all of it: see [`is_trimmed`].
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.owner_references = None;
        self.metadata.finalizers = None;
        if let Some(status) = &mut self.status {
            *status = k8s_openapi::api::core::v1::PersistentVolumeClaimStatus {
                phase: status.phase.take(),
                capacity: status.capacity.take(),
                ..Default::default()
            };
        }
        let annotations = self.metadata.annotations.get_or_insert_default();
        let labels = self.metadata.labels.get_or_insert_default();
        let both = annotations.iter().chain(labels.iter());
        let bytes: usize = both.map(|(key, value)| key.len() + value.len()).sum();
        if bytes > METADATA {
            labels.clear();
            annotations.retain(|key, _| key == RESERVED_BY || key == CREATED_BY);
            annotations.insert(TRIMMED.into(), String::new());
        }
    }
}

impl Watched for PersistentVolume {
    fn informer(of: &Informers) -> &Informer<Self> {
        &of.volumes
    }

    fn api(client: Client, _: &str) -> Api<Self> {
        Api::all(client)
    }

    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        // Who provisioned it.
        if let Some(annotations) = &mut self.metadata.annotations {
            annotations.retain(|key, _| key == PROVISIONED_BY);
        }
        self.metadata.resource_version = None;
        self.status = None;
        // What it is, where it is, and which claim it belongs to stays.
        if let Some(spec) = &mut self.spec {
            spec.access_modes = None;
            spec.capacity = None;
            spec.mount_options = None;
            spec.persistent_volume_reclaim_policy = None;
            spec.storage_class_name = None;
            spec.volume_mode = None;
        }
    }
}

impl Watched for StorageClass {
    fn informer(of: &Informers) -> &Informer<Self> {
        &of.classes
    }

    fn api(client: Client, _: &str) -> Api<Self> {
        Api::all(client)
    }

    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.parameters = None;
    }
}

impl Watched for Namespace {
    fn informer(of: &Informers) -> &Informer<Self> {
        &of.namespaces
    }

    fn api(client: Client, _: &str) -> Api<Self> {
        Api::all(client)
    }

    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.metadata.resource_version = None;
    }
}

impl Watched for Service {
    const OURS: bool = true;

    fn informer(of: &Informers) -> &Informer<Self> {
        &of.services
    }

    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }

    fn trim(&mut self) {
        self.metadata.managed_fields = None;
    }

    /// Those that they belong to know them by an annotation.
    fn keys(&self) -> Vec<Key> {
        Vec::new()
    }
}

impl Watched for Node {
    fn informer(of: &Informers) -> &Informer<Self> {
        &of.nodes
    }

    fn api(client: Client, _: &str) -> Api<Self> {
        Api::all(client)
    }

    /// Kubelets report often; addresses seldom change.
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.metadata.labels = None;
        self.metadata.resource_version = None;
        self.spec = None;
        if let Some(status) = &mut self.status {
            *status = k8s_openapi::api::core::v1::NodeStatus {
                addresses: status.addresses.take(),
                ..Default::default()
            };
        }
    }

    fn keys(&self) -> Vec<Key> {
        vec![Key::all::<Self>()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn claim(annotation: usize, labels: usize) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some("data".into());
        claim.metadata.resource_version = Some("7".into());
        claim.metadata.annotations = Some(BTreeMap::from([
            ("a".to_owned(), "y".repeat(annotation)),
            (RESERVED_BY.to_owned(), "home/m/1".to_owned()),
            (CREATED_BY.to_owned(), "1".to_owned()),
        ]));
        claim.metadata.labels = Some((0..labels).map(|n| (n.to_string(), "l".into())).collect());
        claim.metadata.finalizers = Some(vec!["example.com/f".repeat(10); 1000]);
        claim
    }

    #[test]
    fn a_claim_with_large_metadata_is_kept_in_a_few_hundred_bytes_with_its_reservation() {
        for (annotation, labels) in [(250_000, 0), (0, 10_000)] {
            let mut claim = claim(annotation, labels);
            let before = serde_json::to_vec(&claim).unwrap().len();
            claim.trim();
            let after = serde_json::to_vec(&claim).unwrap().len();
            assert!(before > 100_000 && after < 400, "{before} bytes became {after}");
            assert_eq!(claim.annotations()[RESERVED_BY], "home/m/1");
            assert_eq!(claim.annotations()[CREATED_BY], "1");
            assert!(is_trimmed(&claim) && claim.resource_version().as_deref() == Some("7"));
        }
    }

    #[test]
    fn annotations_and_labels_of_a_usual_size_are_kept() {
        let mut claim = claim(1000, 10);
        claim.trim();
        assert!(!is_trimmed(&claim));
        assert_eq!((claim.annotations().len(), claim.labels().len()), (3, 10));
    }

    #[test]
    fn a_pod_of_others_keeps_the_label_that_names_its_replica_set_alone() {
        let mut pod = Pod::default();
        let labels: BTreeMap<String, String> =
            (0..1000).map(|n| (n.to_string(), "l".into())).collect();
        pod.metadata.labels = Some(labels);
        pod.labels_mut().insert(TEMPLATE_HASH.into(), "h".into());
        pod.trim();
        assert_eq!(pod.labels().len(), 1);
        assert_eq!(pod.labels()[TEMPLATE_HASH], "h");
    }
}
