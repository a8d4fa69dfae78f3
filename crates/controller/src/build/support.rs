//! What a pair of pods needs around it: identities and network policies.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::Secret,
        networking::v1::{
            IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule,
            NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{Address, HEALTH_PORT, Names, PORT, Role};
use crate::{
    api::{DirectVolumeMigration, EndpointKind},
    identity::{Credentials, Identities},
};

/// The identity of the destination, as the Secret that its pod mounts.
#[must_use]
pub fn destination_secret(names: &Names, namespace: &str, made: &Identities) -> Secret {
    let Credentials { certificate, key } = &made.destination;
    let files = [("ca.crt", &made.authority), ("tls.crt", certificate), ("tls.key", key)];
    let files = files.map(|(name, text)| (name.to_owned(), text));
    secret(names, Role::Destination, namespace, "kubernetes.io/tls", files)
}

/// The identities of the volumes of a source, in one Secret: to have one for each volume takes no further call.
#[must_use]
pub fn source_secret(names: &Names, namespace: &str, made: &Identities) -> Secret {
    let of_volumes = made.volumes.iter().flat_map(|(volume, Credentials { certificate, key })| {
        [(format!("{volume}.crt"), certificate), (format!("{volume}.key"), key)]
    });
    let files = of_volumes.chain([("ca.crt".to_owned(), &made.authority)]);
    secret(names, Role::Source, namespace, "Opaque", files)
}

fn secret<'a>(
    names: &Names,
    role: Role,
    namespace: &str,
    type_: &str,
    files: impl IntoIterator<Item = (String, &'a String)>,
) -> Secret {
    let bytes = |(name, text): (String, &String)| (name, ByteString(text.as_bytes().to_vec()));
    Secret {
        metadata: names.metadata(role, namespace),
        type_: Some(type_.into()),
        immutable: Some(true),
        data: Some(files.into_iter().map(bytes).collect()),
        ..Secret::default()
    }
}

/// Whom a source pod may send to, if that is known before it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The destination pods of the migration in a namespace of the same cluster. Network plugins see the pod behind a Service.
    Pods(String),
    /// An address in another cluster, or what it is translated to if the kubeconfig leads to the same cluster.
    Address(IpAddr, String),
}

impl Peer {
    /// The peer of the source pods of `migration`, whose server in `namespace` is reached at `address`. None where that is a name, or where
    /// plugins differ in what they see of an address in the same cluster.
    #[must_use]
    pub fn of(
        migration: &DirectVolumeMigration,
        namespace: &str,
        address: &Address,
    ) -> Option<Self> {
        let spec = &migration.spec;
        let namespace = namespace.to_owned();
        if spec.source.cluster != spec.destination.cluster {
            return Some(Self::Address(address.host.parse().ok()?, namespace));
        }
        let by_service =
            spec.endpoint.kind == EndpointKind::ClusterIP && spec.endpoint.host.is_none();
        by_service.then_some(Self::Pods(namespace))
    }

    /// A part of the name of a policy.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Pods(namespace) => namespace.clone(),
            Self::Address(address, _) => address.to_string().replace([':', '.'], "-"),
        }
    }

    fn peers(&self, names: &Names) -> Vec<NetworkPolicyPeer> {
        let (Self::Pods(namespace) | Self::Address(_, namespace)) = self;
        let labels =
            |labels| LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
        let name = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), namespace.clone())]);
        let pods = NetworkPolicyPeer {
            namespace_selector: Some(labels(name)),
            pod_selector: Some(labels(names.labels(Role::Destination))),
            ..NetworkPolicyPeer::default()
        };
        let Self::Address(address, _) = self else { return vec![pods] };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let block = IPBlock { cidr: format!("{address}/{bits}"), except: None };
        let block = NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() };
        vec![block, pods]
    }
}

/// What a transfer pod may talk to: the destination is reached on two ports and asks nobody; the source is reached by nobody, and
/// connects to the server at `address`, to `peer` alone if that is known, and, where it is a name, to name servers on `dns_ports`.
#[must_use]
pub fn network_policy(
    names: &Names,
    role: Role,
    namespace: &str,
    address: Option<&Address>,
    peer: Option<&Peer>,
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
        let to = peer.map(|peer| peer.peers(names));
        let mut rules = vec![NetworkPolicyEgressRule { ports: Some(ports), to }];
        if address.is_none_or(Address::is_a_name) {
            let of = |number: &u16| ["UDP", "TCP"].map(|protocol| port((*number).into(), protocol));
            let ports = dns_ports.iter().flat_map(of).collect();
            rules.push(NetworkPolicyEgressRule { ports: Some(ports), to: None });
        }
        (vec![], rules)
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
