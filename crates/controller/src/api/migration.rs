//! `DirectVolumeMigration`: which volumes go where.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DirectVolumeMigrationStatus;

/// Moves the content of persistent volumes from one namespace to another, in the same cluster or in another one.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "pvferry.io",
    version = "v1alpha1",
    kind = "DirectVolumeMigration",
    plural = "directvolumemigrations",
    shortname = "dvm",
    category = "pvferry",
    namespaced,
    status = "DirectVolumeMigrationStatus",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Volumes", type_ = "string", json_path = ".status.volumesDone"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.rate"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[x_kube(
    validation = Rule::new("self.source == oldSelf.source && self.destination == oldSelf.destination && self.endpoint == oldSelf.endpoint")
        .message("source, destination and endpoint cannot be changed; make another migration"),
    validation = Rule::new("(has(self.source.cluster) == has(self.destination.cluster) && (!has(self.source.cluster) || (self.source.cluster.kubeconfigSecret == self.destination.cluster.kubeconfigSecret && self.source.cluster.key == self.destination.cluster.key))) || self.endpoint.type != 'ClusterIP'")
        .message("a ClusterIP is not reached from another cluster: choose NodePort, LoadBalancer, Ingress or Route"),
    validation = Rule::new("self.volumes == oldSelf.volumes")
        .message("volumes cannot be changed; make another migration for others"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectVolumeMigrationSpec {
    /// Where the volumes are.
    pub source: Side,
    /// Where their content goes.
    pub destination: Destination,
    /// The volumes, by their claims.
    #[x_kube(validation = Rule::new("self.size() >= 1").message("name at least one volume"))]
    #[schemars(length(min = 1, max = 500))]
    pub volumes: Vec<Volume>,
    /// What this run is for.
    #[serde(default)]
    pub mode: Mode,
    /// Counts runs: a larger number starts the next one, and so does another mode. A stage run may be repeated as often as one likes.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("runs are counted upwards"))]
    pub run: i64,
    /// What a cutover does with the workloads that mount the volumes at the source.
    #[serde(default)]
    pub quiesce: Quiesce,
    /// How the source reaches the destination.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// How content is transferred.
    #[serde(default)]
    pub transfer: Transfer,
    /// How the transfer pods run.
    #[serde(default)]
    pub pods: Pods,
    /// How much happens at once, and how long it may take.
    #[serde(default)]
    pub limits: Limits,
}

fn one() -> i64 {
    1
}

/// A namespace of a cluster.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Side {
    /// The namespace of claims that name none of their own.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Another cluster than the one this resource is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterReference>,
}

/// The namespace that receives.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// The namespace of targets that name none of their own.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Another cluster than the one this resource is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterReference>,
    /// Make namespaces that are missing.
    #[serde(default)]
    pub create_namespace: bool,
}

/// A cluster, by a Secret with a kubeconfig in the namespace of this resource.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterReference {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub kubeconfig_secret: String,
    /// The key in it.
    #[serde(default = "kubeconfig")]
    pub key: String,
}

fn kubeconfig() -> String {
    "kubeconfig".into()
}

/// A volume that is to be moved.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// The name of the claim.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace, where it is not that of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What it becomes, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Compare digests of both ends after the transfer, where that differs from the migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
}

/// The claim at the destination. One that is there already is used, and never changed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Its name, where it is not that of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its namespace, where it is not that of the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its storage class; the one of the source where nothing is said, and the cluster's default where this is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Its access modes; those of the source where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_modes: Option<Vec<String>>,
    /// Its size, at least that of the source, which it is where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
}

/// What a run is for.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Mode {
    /// Copies while the application goes on. Only the difference moves the next time.
    #[default]
    Stage,
    /// The last run: the application is stopped first, where `quiesce` says so.
    Cutover,
    /// Gives the workloads at the source back the replicas that a cutover took. Moves nothing.
    Rollback,
}

/// What happens to workloads that mount the volumes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Quiesce {
    /// Nothing: whoever migrates sees to it.
    #[default]
    None,
    /// Deployments and StatefulSets are scaled to zero, and what they had is kept on them.
    ScaleToZero,
}

/// How the source reaches the destination.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[x_kube(
    validation = Rule::new("!(self.type in ['Ingress', 'Route']) || has(self.host)")
        .message("an Ingress or a Route needs a host name"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// What is put in front of the destination pod.
    #[serde(default, rename = "type")]
    pub kind: EndpointKind,
    /// The name or address that the source connects to: of a node for a NodePort, of the router for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port, where it is not the one that follows from the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The class of an Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Annotations of the Service, Ingress or Route, for whatever stands behind it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Kinds of endpoint. TLS goes through all of them unopened.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum EndpointKind {
    /// A Service inside of the cluster.
    #[default]
    ClusterIP,
    /// A port of each node.
    NodePort,
    /// A load balancer of the cloud.
    LoadBalancer,
    /// An Ingress whose controller passes TLS through by the name in it.
    Ingress,
    /// An OpenShift Route with passthrough termination.
    Route,
}

/// How content is transferred.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Transfer {
    /// Remove what the source does not have.
    #[serde(default = "yes")]
    pub delete: bool,
    /// Compare content, not size and time.
    #[serde(default)]
    pub checksum: bool,
    /// Compare digests of both ends after the transfer.
    #[serde(default)]
    pub verify: bool,
    /// An empty source is meant.
    #[serde(default)]
    pub allow_empty_source: bool,
    /// Names to leave out, with rsync's patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Bytes a second for each volume, such as `20M`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?[KMG]?$"))]
    pub bandwidth: Option<String>,
    /// Connections for each volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub streams: Option<i32>,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            delete: true,
            checksum: false,
            verify: false,
            allow_empty_source: false,
            exclude: Vec::new(),
            bandwidth: None,
            streams: None,
        }
    }
}

fn yes() -> bool {
    true
}

/// How transfer pods run.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pods {
    /// As whom.
    #[serde(default)]
    pub user: User,
    /// The image, where it is not the one that the controller was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When it is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Secrets that it is pulled with, in the namespaces of the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Requests and limits of each container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Nodes that the pods may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that they bear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Their priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// As whom transfer pods run.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    /// The user and group of a pod without root, for namespaces under the `restricted` profile. Owners are not kept then, and what
    /// this user cannot read is named and not moved. Root, with the few capabilities that it takes, where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub id: Option<i64>,
}

/// Limits of a migration.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Volumes that are moved at a time.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 100))]
    pub parallel: i32,
    /// Volumes of one source node that are moved at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub parallel_per_node: Option<i32>,
    /// Tries for each volume and run.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 20))]
    pub attempts: i32,
    /// Seconds that pods may take to start.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 10))]
    pub start_seconds: i64,
    /// Seconds that one try may take from then on; no limit where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60))]
    pub run_seconds: Option<i64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parallel: four(),
            parallel_per_node: None,
            attempts: three(),
            start_seconds: five_minutes(),
            run_seconds: None,
        }
    }
}

fn four() -> i32 {
    4
}

fn three() -> i32 {
    3
}

fn five_minutes() -> i64 {
    300
}
