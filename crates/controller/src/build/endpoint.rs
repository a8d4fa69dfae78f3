//! What is in front of a destination pod, and how it is reached from the source.

use std::{fmt, net::IpAddr};

use k8s_openapi::{
    api::{
        core::v1::{Node, Service, ServicePort, ServiceSpec},
        networking::v1::{
            HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
            IngressServiceBackend, IngressSpec, ServiceBackendPort,
        },
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::json;

use super::{Names, PORT, Role};
use crate::api::{DirectVolumeMigration, Endpoint, EndpointKind};

/// Where a source connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name, or an address.
    pub host: String,
    /// The port.
    pub port: i32,
}

impl Address {
    /// Whether name servers have to be asked for it.
    #[must_use]
    pub fn is_a_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The Service of a destination pod, and the Ingress or Route in front of it.
#[derive(Debug, Clone)]
pub struct EndpointObjects {
    /// The Service.
    pub service: Service,
    /// An Ingress, where one was asked for.
    pub ingress: Option<Ingress>,
    /// A Route, where one was asked for.
    pub route: Option<DynamicObject>,
}

/// The kind of Routes, which only OpenShift knows.
#[must_use]
pub fn route_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("route.openshift.io", "v1", "Route"))
}

/// What makes the destination pod of `names` in `namespace` reachable.
#[must_use]
pub fn endpoint_objects(
    migration: &DirectVolumeMigration,
    names: &Names,
    namespace: &str,
) -> EndpointObjects {
    let endpoint = &migration.spec.endpoint;
    let mut metadata = names.metadata(Role::Destination, namespace);
    metadata.annotations.get_or_insert_default().extend(endpoint.annotations.clone());
    let service = Service {
        metadata: metadata.clone(),
        spec: Some(ServiceSpec {
            selector: Some(names.labels(Role::Destination)),
            type_: Some(
                match endpoint.kind {
                    EndpointKind::NodePort => "NodePort",
                    EndpointKind::LoadBalancer => "LoadBalancer",
                    EndpointKind::ClusterIP | EndpointKind::Ingress | EndpointKind::Route => {
                        "ClusterIP"
                    }
                }
                .into(),
            ),
            ports: Some(vec![ServicePort {
                name: Some("transfer".into()),
                port: PORT,
                target_port: Some(IntOrString::Int(PORT)),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    let host = host_of(migration, names).unwrap_or_default();
    let ingress = (endpoint.kind == EndpointKind::Ingress).then(|| {
        ingress(metadata.clone(), endpoint.class.clone(), &host, &names.of(Role::Destination))
    });
    let route = (endpoint.kind == EndpointKind::Route)
        .then(|| route(&metadata, &host, &names.of(Role::Destination)));
    EndpointObjects { service, ingress, route }
}

/// The host that a transfer is reached by: routers tell transfers apart by it, so behind a wildcard each has its own.
#[must_use]
pub fn host_of(migration: &DirectVolumeMigration, names: &Names) -> Option<String> {
    let host = migration.spec.endpoint.host.clone()?;
    Some(match host.strip_prefix("*.") {
        Some(domain) => format!("{}.{domain}", names.of(Role::Destination)),
        None => host,
    })
}

/// Whether two transfers at a time would be reached by the same host, so that the router cannot tell them apart.
#[must_use]
pub fn shares_host(endpoint: &Endpoint) -> bool {
    let routed = matches!(endpoint.kind, EndpointKind::Ingress | EndpointKind::Route);
    routed && !endpoint.host.as_deref().is_some_and(|host| host.starts_with("*."))
}

/// The controllers that can pass TLS through are told so by their own annotations; rules are matched by the name in it.
fn ingress(mut metadata: ObjectMeta, class: Option<String>, host: &str, service: &str) -> Ingress {
    let known = [
        ("nginx.ingress.kubernetes.io/ssl-passthrough", "true"),
        ("nginx.ingress.kubernetes.io/backend-protocol", "HTTPS"),
        ("haproxy.org/ssl-passthrough", "true"),
    ];
    let annotations = metadata.annotations.get_or_insert_default();
    for (key, value) in known {
        annotations.entry(key.into()).or_insert_with(|| value.into());
    }
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: service.into(),
            port: Some(ServiceBackendPort { number: Some(PORT), ..ServiceBackendPort::default() }),
        }),
        ..IngressBackend::default()
    };
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: class,
            rules: Some(vec![IngressRule {
                host: Some(host.into()),
                http: Some(HTTPIngressRuleValue {
                    paths: vec![HTTPIngressPath {
                        path: Some("/".into()),
                        path_type: "Prefix".into(),
                        backend,
                    }],
                }),
            }]),
            ..IngressSpec::default()
        }),
        status: None,
    }
}

fn route(metadata: &ObjectMeta, host: &str, service: &str) -> DynamicObject {
    let mut route = DynamicObject::new(service, &route_resource()).data(json!({
        "spec": {
            "host": host,
            "port": { "targetPort": "transfer" },
            "tls": { "termination": "passthrough" },
            "to": { "kind": "Service", "name": service },
        }
    }));
    route.metadata = metadata.clone();
    route
}

/// Where the source connects to, once that is known. `nodes` are those of the destination, for a NodePort without a host.
#[must_use]
pub fn reached(
    migration: &DirectVolumeMigration,
    names: &Names,
    service: &Service,
    nodes: &[Node],
) -> Option<Address> {
    let endpoint = &migration.spec.endpoint;
    let spec = service.spec.as_ref()?;
    let host = host_of(migration, names);
    let at = |host: Option<String>, port: i32| {
        Some(Address { host: host?, port: endpoint.port.unwrap_or(port) })
    };
    match endpoint.kind {
        EndpointKind::ClusterIP => {
            // By number: a transfer does not have to wait for the cluster's DNS.
            at(
                host.or_else(|| {
                    spec.cluster_ip.clone().filter(|ip| ip != "None" && !ip.is_empty())
                }),
                PORT,
            )
        }
        EndpointKind::NodePort => {
            let port = spec.ports.as_ref()?.first()?.node_port?;
            at(host.or_else(|| nodes.iter().find_map(node_address)), port)
        }
        EndpointKind::LoadBalancer => {
            let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
            let first = balancer.ingress.as_ref()?.first()?;
            at(host.or_else(|| first.ip.clone()).or_else(|| first.hostname.clone()), PORT)
        }
        EndpointKind::Ingress | EndpointKind::Route => at(host, 443),
    }
}

/// The address of a node that other clusters are most likely to reach.
fn node_address(node: &Node) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    ["ExternalIP", "InternalIP"].iter().find_map(|wanted| {
        addresses.iter().find(|address| address.type_ == *wanted).map(|found| found.address.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_version_6_has_brackets() {
        let shown = |host: &str| Address { host: host.into(), port: 8443 }.to_string();
        assert_eq!(shown("10.0.0.1"), "10.0.0.1:8443");
        assert_eq!(shown("fd00::1"), "[fd00::1]:8443");
        assert_eq!(shown("far.example"), "far.example:8443");
    }
}
