//! Which PersistentVolumes lead to the same storage.
//!
//! Two claims can reach one volume of a storage system through two PersistentVolumes, and one directory can lie in another. Known are volumes
//! of CSI drivers by driver and handle, directories of NFS servers and of nodes by their path, and all others by the fields of their source.
//! Links and mounts within a server or a node cannot be known.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PersistentVolume, PersistentVolumeSpec};
use serde_json::Value;

/// An attribute that differs between clusters for the same volume.
const PROVISIONER: &str = "storage.kubernetes.io/csiProvisionerIdentity";
/// The driver whose volumes are directories of NFS servers, whatever their handles say.
const NFS_DRIVER: &str = "nfs.csi.k8s.io";
/// Fields of a source that say how a volume is mounted, and not which volume it is.
const NOT_IDENTIFYING: [&str; 20] = [
    "cachingMode",
    "chapAuthDiscovery",
    "chapAuthSession",
    "fsType",
    "gateway",
    "group",
    "initiatorName",
    "iscsiInterface",
    "keyring",
    "kind",
    "portals",
    "protectionDomain",
    "readOnly",
    "secretFile",
    "secretName",
    "secretNamespace",
    "secretRef",
    "sslEnabled",
    "targetPortal",
    "user",
];

/// What a PersistentVolume leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// A volume of a CSI driver.
    Csi {
        /// Name of the driver.
        driver: String,
        /// Handle of the volume.
        handle: String,
        /// Attributes of the volume.
        attributes: BTreeMap<String, String>,
    },
    /// A directory of a file server.
    Share {
        /// Address of the server.
        server: String,
        /// Names from the root of the server to the directory.
        path: Vec<String>,
    },
    /// A directory or device of a node.
    Node {
        /// Labels of the nodes, each with its values. Every node if there are none.
        nodes: Vec<Labels>,
        /// Names from the root of the node.
        path: Vec<String>,
    },
    /// Anything else: the kind of its source, and the fields that identify it.
    Other(String, Value),
}

/// Labels with the values that a node can have.
type Labels = BTreeMap<String, BTreeSet<String>>;

impl Storage {
    /// Of a PersistentVolume; `None` if it has no source.
    #[must_use]
    pub fn of(volume: &PersistentVolume) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        if let Some(nfs) = &spec.nfs {
            return Some(share(&nfs.server, &[&nfs.path]));
        }
        if let Some(csi) = &spec.csi {
            let mut attributes = csi.volume_attributes.clone().unwrap_or_default();
            if let (NFS_DRIVER, Some(server), Some(path)) =
                (&*csi.driver, attributes.get("server"), attributes.get("share"))
            {
                let below = attributes.get("subdir").map_or("", |below| below);
                return Some(share(server, &[path, below]));
            }
            attributes.remove(PROVISIONER);
            let (driver, handle) = (csi.driver.clone(), csi.volume_handle.clone());
            return Some(Self::Csi { driver, handle, attributes });
        }
        let local = spec.local.as_ref().map(|local| &local.path);
        if let Some(path) = local.or(spec.host_path.as_ref().map(|host| &host.path)) {
            return Some(Self::Node { nodes: nodes(spec), path: names(&[path]) });
        }
        other(spec)
    }

    /// Whether what is written through one shows in the other: they are the same, or one lies in the other. `one_cluster`: both volumes are of
    /// one cluster. In two clusters the same driver and handle can mean two volumes: there the attributes have to be equal, too; and two
    /// clusters share no nodes.
    #[must_use]
    pub fn overlaps(&self, other: &Self, one_cluster: bool) -> bool {
        match (self, other) {
            (
                Self::Csi { driver, handle, .. },
                Self::Csi { driver: other_driver, handle: other_handle, .. },
            ) if one_cluster => driver == other_driver && handle == other_handle,
            (
                Self::Share { server, path },
                Self::Share { server: other_server, path: other_path },
            ) => server == other_server && is_nested(path, other_path),
            (Self::Node { nodes, path }, Self::Node { nodes: other_nodes, path: other_path }) => {
                one_cluster && is_nested(path, other_path) && can_meet(nodes, other_nodes)
            }
            (Self::Other(..), Self::Other(..)) if !one_cluster => false,
            _ => self == other,
        }
    }
}

fn share(server: &str, path: &[&str]) -> Storage {
    let server = server.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    Storage::Share { server, path: names(path) }
}

/// The names of a path, one after another. `..` goes up in the text alone.
fn names(parts: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for name in parts.iter().flat_map(|part| part.split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name.to_owned()),
        }
    }
    names
}

fn is_nested(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// The nodes of a volume, as alternatives. An expression that is not a list of values restricts nothing here.
fn nodes(spec: &PersistentVolumeSpec) -> Vec<Labels> {
    let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    required
        .map(|required| required.node_selector_terms.iter().map(labels).collect())
        .unwrap_or_default()
}

fn labels(term: &NodeSelectorTerm) -> Labels {
    let all = term.match_expressions.iter().flatten().chain(term.match_fields.iter().flatten());
    let lists = all.filter(|expression| expression.operator == "In");
    lists.map(|list| (list.key.clone(), list.values.iter().flatten().cloned().collect())).collect()
}

/// Whether one node can be of both: a node has one value of a label.
fn can_meet(one: &[Labels], other: &[Labels]) -> bool {
    let agree = |one: &Labels, other: &Labels| {
        one.iter().all(|(key, values)| other.get(key).is_none_or(|o| !values.is_disjoint(o)))
    };
    one.is_empty()
        || other.is_empty()
        || one.iter().any(|one| other.iter().any(|other| agree(one, other)))
}

/// A volume of a kind that has no rule of its own, by the fields of its source.
fn other(spec: &PersistentVolumeSpec) -> Option<Storage> {
    let source = PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    };
    let Ok(Value::Object(fields)) = serde_json::to_value(source) else { return None };
    let (kind, mut fields) = fields.into_iter().next()?;
    if let Value::Object(fields) = &mut fields {
        fields.retain(|name, _| !NOT_IDENTIFYING.contains(&name.as_str()));
    }
    Some(Storage::Other(kind, fields))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn storage(spec: Value) -> Storage {
        let volume = json!({ "metadata": { "name": "v" }, "spec": spec });
        Storage::of(&serde_json::from_value(volume).unwrap()).unwrap()
    }

    fn local(kind: &str, path: &str, key: &str, nodes: &[&str]) -> Storage {
        let mut spec = json!({ kind: { "path": path } });
        if !nodes.is_empty() {
            spec["nodeAffinity"] = json!({ "required": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": key, "operator": "In", "values": nodes }] },
            ]}});
        }
        storage(spec)
    }

    #[test]
    fn directories_of_a_node_overlap_if_they_are_nested_on_a_node_that_both_can_be_on() {
        let at = |path: &str, nodes: &[&str]| local("local", path, "kubernetes.io/hostname", nodes);
        let one = at("/data/a", &["n1"]);
        for (other, overlaps) in [
            (at("/data/a", &["n1"]), true),
            (at("/data//./b/../a/", &["n1"]), true),
            (at("/data", &["n1", "n2"]), true),
            (at("/", &["n1"]), true),
            (at("/data/a/b", &["n1"]), true),
            (at("/data/ab", &["n1"]), false),
            (at("/data/b", &["n1"]), false),
            (at("/data/a", &["n2"]), false),
            (at("/data/a", &[]), true),
            (local("hostPath", "/data/a", "", &[]), true),
            (local("local", "/data/a", "zone", &["z"]), true),
        ] {
            assert_eq!(one.overlaps(&other, true), overlaps, "{other:?}");
            assert_eq!(other.overlaps(&one, true), overlaps, "{other:?}");
            assert!(!one.overlaps(&other, false), "{other:?}");
        }
    }

    #[test]
    fn directories_of_a_file_server_overlap_in_any_cluster_and_through_its_csi_driver() {
        let nfs = |server: &str, path: &str| {
            storage(json!({ "nfs": { "server": server, "path": path } }))
        };
        let csi = |server: &str, share: &str, subdir: &str| {
            storage(json!({ "csi": { "driver": "nfs.csi.k8s.io", "volumeHandle": "any",
                "volumeAttributes": { "server": server, "share": share, "subdir": subdir } }}))
        };
        let one = nfs("nas", "/export/a");
        for (other, overlaps) in [
            (nfs("NAS.", "/export/a/"), true),
            (nfs("nas", "/export"), true),
            (nfs("nas", "/export/ab"), false),
            (nfs("other", "/export/a"), false),
            (csi("nas", "/export", "a"), true),
            (csi("nas", "/export", "b"), false),
        ] {
            for one_cluster in [false, true] {
                assert_eq!(one.overlaps(&other, one_cluster), overlaps, "{other:?}");
            }
        }
    }

    #[test]
    fn other_volumes_are_known_by_the_fields_that_identify_them() {
        let iscsi = |portal: &str, lun: i32, fs: &str| {
            storage(json!({ "iscsi": {
                "targetPortal": portal, "iqn": "iqn.2026-11.example:a", "lun": lun, "fsType": fs,
            }}))
        };
        let fc = |wwn: &str| storage(json!({ "fc": { "targetWWNs": [wwn], "lun": 1 } }));
        let one = iscsi("a:3260", 1, "ext4");
        assert!(one.overlaps(&iscsi("b:3260", 1, "xfs"), true));
        assert!(!one.overlaps(&iscsi("a:3260", 2, "ext4"), true));
        assert!(fc("a").overlaps(&fc("a"), true) && !fc("a").overlaps(&fc("b"), true));
        assert!(!one.overlaps(&fc("a"), true));
    }
}
