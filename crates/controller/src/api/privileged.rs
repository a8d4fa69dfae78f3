//! The fields of a migration that decide what runs, with which permissions, and under whose name. A migration may set them only with the
//! permission of the operator of the controller. The check, the table in `docs/OPERATIONS.md` and the tests follow from this list.

use super::{DirectVolumeMigrationSpec, Endpoint, EndpointKind, PodSettings};

/// A field of the settings of pods, which a migration has for both ends and for each.
#[derive(Debug, Clone, Copy)]
pub struct PodField {
    /// Its name.
    pub name: &'static str,
    /// What it decides.
    pub decides: &'static str,
    is_set: fn(&PodSettings) -> bool,
}

/// A field of the endpoint.
#[derive(Debug, Clone, Copy)]
pub struct EndpointField {
    /// Its name.
    pub name: &'static str,
    /// What it decides.
    pub decides: &'static str,
    /// Whether it is set to something that `hosts` do not permit.
    is_privileged: fn(&Endpoint, hosts: &[String]) -> bool,
}

/// The fields of `pods`, `pods.source` and `pods.destination`.
pub const POD_FIELDS: &[PodField] = &[
    PodField {
        name: "image",
        decides: "the program that runs, as root unless `pods.user.id` is set",
        is_set: |pods| pods.image.is_some(),
    },
    PodField {
        name: "imagePullPolicy",
        decides: "whether an image that already exists on the node runs without a pull",
        is_set: |pods| pods.image_pull_policy.is_some(),
    },
    PodField {
        name: "imagePullSecrets",
        decides: "which registry credentials pull the image",
        is_set: |pods| !pods.image_pull_secrets.is_empty(),
    },
    PodField {
        name: "tolerations",
        decides: "access to tainted nodes",
        is_set: |pods| !pods.tolerations.is_empty(),
    },
    PodField {
        name: "priorityClassName",
        decides: "which pods are preempted",
        is_set: |pods| pods.priority_class_name.is_some(),
    },
    PodField {
        name: "serviceAccountName",
        decides: "permissions that are granted to the service account, for example by Pod Security or SCC",
        is_set: |pods| pods.service_account_name.is_some(),
    },
    PodField {
        name: "seLinuxOptions",
        decides: "the confinement of the containers",
        is_set: |pods| pods.se_linux_options.is_some(),
    },
    PodField {
        name: "labels",
        decides: "which Services and network policies select the pods",
        is_set: |pods| !pods.labels.is_empty(),
    },
];

/// The fields of `endpoint`.
pub const ENDPOINT_FIELDS: &[EndpointField] = &[
    EndpointField {
        name: "host",
        decides: "for Ingress and Route: the host name whose traffic goes to the transfer. Hosts listed in `endpointHosts` of the defaults are permitted",
        is_privileged: |endpoint, hosts| {
            let routed = matches!(endpoint.kind, EndpointKind::Ingress | EndpointKind::Route);
            routed && endpoint.host.as_deref().is_some_and(|host| !permits(hosts, host))
        },
    },
    EndpointField {
        name: "annotations",
        decides: "what controllers of load balancers, routers and certificates do",
        is_privileged: |endpoint, _| !endpoint.annotations.is_empty(),
    },
];

impl DirectVolumeMigrationSpec {
    /// The fields that are set and that only the operator of the controller may set, by their paths. `hosts` are those that any migration may
    /// choose.
    #[must_use]
    pub fn privileged_fields(&self, hosts: &[String]) -> Vec<String> {
        let blocks = [
            ("pods", Some(&self.pods.both)),
            ("pods.source", self.pods.source.as_ref()),
            ("pods.destination", self.pods.destination.as_ref()),
        ];
        let set = |(block, settings): (&'static str, Option<&PodSettings>)| {
            let fields = POD_FIELDS.iter().filter(|field| settings.is_some_and(field.is_set));
            fields.map(|field| format!("{block}.{}", field.name)).collect::<Vec<_>>()
        };
        let endpoint = ENDPOINT_FIELDS.iter();
        let endpoint = endpoint.filter(|field| (field.is_privileged)(&self.endpoint, hosts));
        let endpoint = endpoint.map(|field| format!("endpoint.{}", field.name));
        blocks.into_iter().flat_map(set).chain(endpoint).collect()
    }
}

/// Whether one of `hosts` is `host`, or a wildcard `*.DOMAIN` above it.
fn permits(hosts: &[String], host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    hosts.iter().any(|permitted| {
        let permitted = permitted.to_ascii_lowercase();
        let below = permitted.strip_prefix('*').is_some_and(|domain| {
            domain.starts_with('.') && host.len() > domain.len() && host.ends_with(domain)
        });
        below || permitted == host
    })
}

/// The list as the rows of a table.
#[must_use]
pub fn privileged_table() -> String {
    let row = |path: String, decides: &str| format!("| {path} | {decides} |\n");
    let pods = POD_FIELDS.iter().map(|field| row(format!("`pods.{}`", field.name), field.decides));
    let endpoint = ENDPOINT_FIELDS.iter();
    let endpoint = endpoint.map(|field| row(format!("`endpoint.{}`", field.name), field.decides));
    pods.chain(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_permits_hosts_below_its_domain_and_nothing_else() {
        let hosts = ["*.move.example".to_owned(), "one.example".to_owned()];
        for host in ["a.move.example", "*.move.example", "A.b.Move.example", "one.example"] {
            assert!(permits(&hosts, host), "{host}");
        }
        for host in ["move.example", ".move.example", "evilmove.example", "two.example", ""] {
            assert!(!permits(&hosts, host), "{host}");
        }
        assert!(!permits(&["*".to_owned()], "any.example"));
    }
}
