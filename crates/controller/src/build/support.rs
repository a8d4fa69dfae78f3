//! What a pair of pods needs around it: identities and network policies.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::Secret,
        networking::v1::{
            NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPort,
            NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{Address, HEALTH_PORT, Names, PORT, Role};
use crate::identity::Credentials;

/// The identity of one end, as the Secret that its pod mounts.
#[must_use]
pub fn identity_secret(
    names: &Names,
    role: Role,
    namespace: &str,
    credentials: &Credentials,
) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    Secret {
        metadata: names.metadata(role, namespace),
        type_: Some("kubernetes.io/tls".into()),
        immutable: Some(true),
        data: Some(BTreeMap::from([
            ("ca.crt".to_owned(), bytes(&credentials.authority)),
            ("tls.crt".to_owned(), bytes(&credentials.certificate)),
            ("tls.key".to_owned(), bytes(&credentials.key)),
        ])),
        ..Secret::default()
    }
}

/// What a transfer pod may talk to: the destination is reached on two ports and asks nobody; the source is reached by nobody, and
/// connects to the server at `address` and, where that is a name, to name servers on `dns_ports`.
#[must_use]
pub fn network_policy(
    names: &Names,
    role: Role,
    namespace: &str,
    address: Option<&Address>,
    dns_ports: &[u16],
) -> NetworkPolicy {
    let port = |number: i32, protocol: &str| NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        protocol: Some(protocol.into()),
        ..NetworkPolicyPort::default()
    };
    let (ingress, egress) = if role == Role::Source {
        let mut ports = vec![port(PORT, "TCP")];
        if let Some(address) = address.filter(|address| address.port != PORT) {
            ports.push(port(address.port, "TCP"));
        }
        if address.is_none_or(Address::is_a_name) {
            for number in dns_ports {
                ports.extend(["UDP", "TCP"].map(|protocol| port((*number).into(), protocol)));
            }
        }
        (vec![], vec![NetworkPolicyEgressRule { ports: Some(ports), to: None }])
    } else {
        let ports = vec![port(PORT, "TCP"), port(HEALTH_PORT, "TCP")];
        (vec![NetworkPolicyIngressRule { ports: Some(ports), from: None }], vec![])
    };
    NetworkPolicy {
        metadata: names.metadata(role, namespace),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(names.labels(role)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    }
}
