//! `DirectVolumeMigration`: which volumes go where.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DirectVolumeMigrationStatus, Pods,
    bounds::{KEY, LABEL, LINE, RATE, SIZE, SUBDOMAIN, SUBDOMAIN_OR_EMPTY},
};

/// Volumes to copy, their destination, and options of the copy.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "pvferry.io",
    version = "v1alpha1",
    kind = "DirectVolumeMigration",
    plural = "directvolumemigrations",
    shortname = "pvm",
    category = "pvferry",
    namespaced,
    doc = "DirectVolumeMigration copies the content of PersistentVolumeClaims to another namespace or cluster.",
    status = "DirectVolumeMigrationStatus",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Volumes", type_ = "string", json_path = ".status.volumesDone"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.rate"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].reason",
        priority = 1
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[kube(
    validation = Rule::new("!has(self.status) || !(self.status.phase in ['Preparing', 'Quiescing', 'Transferring', 'CleaningUp']) || (self.spec.pods == oldSelf.spec.pods && self.spec.transfer == oldSelf.spec.transfer)")
        .message("pods and transfer cannot be changed during a run; wait until it completes or fails")
)]
#[x_kube(
    validation = Rule::new("self.source == oldSelf.source && self.destination == oldSelf.destination && self.endpoint == oldSelf.endpoint")
        .message("source, destination and endpoint are immutable; create another migration"),
    validation = Rule::new("(has(self.source.cluster) == has(self.destination.cluster) && (!has(self.source.cluster) || (self.source.cluster.kubeconfigSecret == self.destination.cluster.kubeconfigSecret && self.source.cluster.key == self.destination.cluster.key))) || self.endpoint.type != 'ClusterIP'")
        .message("endpoint.type ClusterIP cannot be reached from another cluster; use NodePort, LoadBalancer, Ingress or Route"),
    validation = Rule::new("self.volumes == oldSelf.volumes")
        .message("volumes are immutable; create another migration for other volumes"),
)]
#[serde(rename_all = "camelCase")]
pub struct DirectVolumeMigrationSpec {
    /// Namespace and cluster of the source volumes.
    pub source: Side,
    /// Namespace and cluster that the volumes are copied to.
    pub destination: Destination,
    /// PersistentVolumeClaims to copy.
    #[x_kube(validation = Rule::new("self.size() >= 1").message("at least one volume is required"))]
    #[schemars(length(min = 1, max = 500))]
    pub volumes: Vec<Volume>,
    /// Purpose of the run: `Stage` copies while the application keeps running, `Cutover` is the last copy, `Rollback` restores
    /// the replicas of workloads that a cutover scaled to zero.
    #[serde(default)]
    pub mode: Mode,
    /// Number of the run. Increase it to start another run. A change of `mode` also starts a run.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("run can only be increased"))]
    pub run: i64,
    /// What a cutover does with workloads that mount the source volumes: `None` changes nothing, `ScaleToZero` scales Deployments
    /// and StatefulSets to zero.
    #[serde(default)]
    pub quiesce: Quiesce,
    /// Allow a cutover while pods use the source claims. What these pods write after it was read is not copied.
    #[serde(default)]
    pub acknowledge_in_use: bool,
    /// How the source pods reach the destination pods.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// Options of the copy.
    #[serde(default)]
    pub transfer: Transfer,
    /// Settings of the transfer pods.
    #[serde(default)]
    pub pods: Pods,
    /// Limits on parallelism, attempts and time.
    #[serde(default)]
    pub limits: Limits,
}

fn one() -> i64 {
    1
}

/// A namespace of a cluster.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Source namespace of volumes that do not set `namespace`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: String,
    /// Source cluster. By default the cluster of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterReference>,
}

/// The namespace that receives.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Destination namespace of volumes that do not set `target.namespace`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: String,
    /// Destination cluster. By default the cluster of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterReference>,
    /// Create destination namespaces that do not exist.
    #[serde(default)]
    pub create_namespace: bool,
}

/// A cluster that the kubeconfig in a Secret describes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterReference {
    /// Name of the Secret with the kubeconfig of the cluster, in the namespace of this resource. The kubeconfig must embed its credentials.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub kubeconfig_secret: String,
    /// Key of the kubeconfig in the Secret.
    #[serde(default = "kubeconfig")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY))]
    pub key: String,
}

fn kubeconfig() -> String {
    "kubeconfig".into()
}

/// A PersistentVolumeClaim to copy.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name of the source PersistentVolumeClaim.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub name: String,
    /// Namespace of the source PersistentVolumeClaim. By default `source.namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: Option<String>,
    /// Destination PersistentVolumeClaim, if it differs from the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Read both sides again after the copy and compare their digests. By default as `transfer.verify` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
}

/// Destination PersistentVolumeClaim. An existing one is reused.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Name of the destination claim. By default the name of the source claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub name: Option<String>,
    /// Namespace of the destination claim. By default `destination.namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: Option<String>,
    /// Storage class of a new destination claim. By default the class of the source claim. An empty string selects the default class of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = SUBDOMAIN_OR_EMPTY))]
    pub storage_class: Option<String>,
    /// Access modes of a new destination claim. By default the access modes of the source claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_modes: Option<Vec<String>>,
    /// Size of a new destination claim, at least the size of the source claim, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SIZE))]
    pub size: Option<String>,
}

/// Purpose of a run.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Mode {
    /// Copies while the application keeps running. The next run copies the changes only.
    #[default]
    Stage,
    /// Copies for the last time. With `quiesce: ScaleToZero` the application is stopped first.
    Cutover,
    /// Restores the replicas of workloads that a cutover scaled to zero. Copies nothing.
    Rollback,
}

/// What a cutover does with workloads that mount the volumes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Quiesce {
    /// Does nothing: a cutover fails if a pod uses one of the claims, unless `acknowledgeInUse` is set.
    #[default]
    None,
    /// Scales Deployments and StatefulSets to zero; an annotation on them keeps the replicas.
    ScaleToZero,
}

/// How the source pods reach the destination pods.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[x_kube(
    validation = Rule::new("!(self.type in ['Ingress', 'Route']) || has(self.host)")
        .message("endpoint.type Ingress and Route require endpoint.host"),
    validation = Rule::new("!has(self.host) || !self.host.contains('*') || (self.type in ['Ingress', 'Route'] && self.host.startsWith('*.') && !self.host.substring(1).contains('*'))")
        .message("a wildcard host requires endpoint.type Ingress or Route and starts with `*.`"),
)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// How a destination pod is exposed to source pods: `ClusterIP`, `NodePort` and `LoadBalancer` create a Service of that type, `Ingress`
    /// an Ingress with TLS passthrough, `Route` an OpenShift Route with passthrough termination.
    #[serde(default, rename = "type")]
    pub kind: EndpointKind,
    /// Host name or address that source pods connect to: of a node for NodePort, of the router for Ingress and Route. For Ingress and
    /// Route a wildcard such as `*.apps.example.com` gives each transfer its own host; with a plain host name only one transfer runs at a
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub host: Option<String>,
    /// Port that source pods connect to. By default the port of the Service, the node port, or 443 for Ingress and Route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// IngressClass of the Ingress, if `type` is `Ingress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Annotations of the Service, Ingress or Route of each transfer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Kinds of endpoint. None of them terminates TLS.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum EndpointKind {
    /// A Service of type ClusterIP, for source pods in the same cluster.
    #[default]
    ClusterIP,
    /// A Service of type NodePort.
    NodePort,
    /// A Service of type LoadBalancer.
    LoadBalancer,
    /// An Ingress with TLS passthrough.
    Ingress,
    /// An OpenShift Route with passthrough termination.
    Route,
}

/// Options of the copy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// Delete files at the destination that are not in the source.
    #[serde(default = "yes")]
    pub delete: bool,
    /// Also delete files in a destination claim that existed before the migration and contains files that are not in the source.
    #[serde(default)]
    pub overwrite: bool,
    /// Compare file content instead of size and modification time.
    #[serde(default)]
    pub checksum: bool,
    /// Read both sides again after the copy and compare their digests.
    #[serde(default)]
    pub verify: bool,
    /// Allow an empty source. It is refused by default, because it is usually a missing mount.
    #[serde(default)]
    pub allow_empty_source: bool,
    /// Files to exclude, as rsync patterns. Excluded files are not deleted at the destination either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 1024), regex(pattern = LINE)))]
    pub exclude: Vec<String>,
    /// Maximum bytes per second of each volume, for example `20M`. Without a unit the number is in KiB. No limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = RATE))]
    pub bandwidth: Option<String>,
    /// Number of parallel connections of each volume. Helps on links with high latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub streams: Option<i32>,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            delete: true,
            overwrite: false,
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

/// Limits of a migration.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Maximum volumes of this migration copied at once.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 100))]
    pub parallel: i32,
    /// Maximum volumes of one source node copied at once. No limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub parallel_per_node: Option<i32>,
    /// Maximum attempts per volume and run.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 20))]
    pub attempts: i32,
    /// Maximum seconds from the start of a transfer until its pods run, and maximum seconds for which a run waits for pods that use a destination claim.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 10))]
    pub start_seconds: i64,
    /// Maximum seconds of one attempt after its pods run. No limit by default.
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
