//! How transfer pods run: in a migration, and as defaults of the controller.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    LocalObjectReference, ResourceRequirements, SELinuxOptions, Toleration,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::unknown_defaults;

/// Settings of the transfer pods.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// User that the transfer pods run as.
    #[serde(default)]
    pub user: User,
    #[serde(flatten)]
    #[allow(missing_docs, reason = "a comment would become the description of the whole block")]
    pub both: PodSettings,
    /// Settings of the source pods. A field that is set here takes precedence over the same field of `pods`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PodSettings>,
    /// Settings of the destination pods. A field that is set here takes precedence over the same field of `pods`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<PodSettings>,
}

/// User that the transfer pods run as.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// User and group ID of the containers, for namespaces under the `restricted` profile: file ownership is not preserved, and files
    /// that this user cannot read are skipped and listed. By default the containers run as root with few capabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub id: Option<i64>,
}

/// Settings of transfer pods. Each unset field takes the default of the controller.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// Image of the transfer containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Pull policy of the transfer image: `Always`, `IfNotPresent` or `Never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Secrets with registry credentials, in the namespace of the transfer pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Resource requests and limits of each transfer container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels of the nodes that the transfer pods can run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the transfer pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// PriorityClass of the transfer pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// ServiceAccount of the transfer pods. Its token is never mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// SELinux context of the transfer containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SELinuxOptions>,
    /// Labels of the transfer pods, in addition to those that the controller sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl PodSettings {
    /// These settings; each field that is unset as in `general`.
    #[must_use]
    pub fn or(self, general: &Self) -> Self {
        fn list<T: Clone>(own: Vec<T>, general: &[T]) -> Vec<T> {
            if own.is_empty() { general.to_vec() } else { own }
        }
        type Map = BTreeMap<String, String>;
        fn map(own: Map, general: &Map) -> Map {
            if own.is_empty() { general.clone() } else { own }
        }
        Self {
            image: self.image.or_else(|| general.image.clone()),
            image_pull_policy: self.image_pull_policy.or_else(|| general.image_pull_policy.clone()),
            image_pull_secrets: list(self.image_pull_secrets, &general.image_pull_secrets),
            resources: self.resources.or_else(|| general.resources.clone()),
            node_selector: map(self.node_selector, &general.node_selector),
            tolerations: list(self.tolerations, &general.tolerations),
            priority_class_name: self
                .priority_class_name
                .or_else(|| general.priority_class_name.clone()),
            service_account_name: self
                .service_account_name
                .or_else(|| general.service_account_name.clone()),
            se_linux_options: self.se_linux_options.or_else(|| general.se_linux_options.clone()),
            labels: map(self.labels, &general.labels),
        }
    }
}

/// Defaults of the controller for transfer pods: the content of the file of `--pod-defaults`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodDefaults {
    #[serde(flatten)]
    #[allow(missing_docs, reason = "a comment would become the description of the whole block")]
    pub both: PodSettings,
    /// Settings of the source pods, before those of `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PodSettings>,
    /// Settings of the destination pods, before those of `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<PodSettings>,
    /// Ports of name servers that source pods may send queries to.
    #[serde(default = "dns_ports")]
    pub dns_ports: Vec<u16>,
    /// Hosts that any migration may choose for an Ingress or a Route: names, or wildcards `*.DOMAIN`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoint_hosts: Vec<String>,
}

impl PodDefaults {
    /// Reads the file of `--pod-defaults`.
    ///
    /// # Errors
    /// A sentence, where a field is not valid or not known.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: serde_json::Value =
            serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if let Some(field) = unknown_defaults(&fields).first() {
            return Err(format!("unknown field {field}"));
        }
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
}

impl Default for PodDefaults {
    fn default() -> Self {
        Self {
            both: PodSettings::default(),
            source: None,
            destination: None,
            dns_ports: dns_ports(),
            endpoint_hosts: Vec::new(),
        }
    }
}

/// The standard port, and that of the name servers of OpenShift: a network policy sees the port of the pod behind a Service.
fn dns_ports() -> Vec<u16> {
    vec![53, 5353]
}
