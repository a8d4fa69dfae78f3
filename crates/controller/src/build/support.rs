//! What a pair of pods needs around it: identities, network policies, the claims at the destination.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{
            PersistentVolumeClaim, PersistentVolumeClaimSpec, Secret, VolumeResourceRequirements,
        },
        networking::v1::{
            NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPort,
            NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{Address, HEALTH_PORT, Names, PORT, Role, labels};
use crate::{
    api::{DirectVolumeMigration, Target},
    identity::Credentials,
    plan::Planned,
};

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

/// What a transfer pod may talk to: the destination is reached on two ports and asks nobody; the source is reached by nobody,
/// and asks the server and whoever resolves its name.
#[must_use]
pub fn network_policy(
    names: &Names,
    role: Role,
    namespace: &str,
    address: Option<&Address>,
) -> NetworkPolicy {
    let port = |number: i32, protocol: &str| NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        protocol: Some(protocol.into()),
        ..NetworkPolicyPort::default()
    };
    let (ingress, egress) = if role == Role::Source {
        let mut ports = vec![port(53, "UDP"), port(53, "TCP"), port(PORT, "TCP")];
        if let Some(address) = address.filter(|address| address.port != PORT) {
            ports.push(port(address.port, "TCP"));
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

/// The claim that a volume becomes, made after `source`, its claim at the source.
///
/// It carries no owner and is never removed: what arrived belongs to whoever asked for it.
#[must_use]
pub fn target_claim(
    migration: &DirectVolumeMigration,
    volume: &Planned,
    source: &PersistentVolumeClaim,
) -> PersistentVolumeClaim {
    let target: Target = migration
        .spec
        .volumes
        .get(volume.index)
        .and_then(|volume| volume.target.clone())
        .unwrap_or_default();
    let spec = source.spec.clone().unwrap_or_default();
    let class = match target.storage_class {
        Some(class) if class.is_empty() => None,
        Some(class) => Some(class),
        None => spec.storage_class_name.clone(),
    };
    let uid = migration.metadata.uid.clone().unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(volume.target.name.clone()),
            namespace: Some(volume.target.namespace.clone()),
            labels: Some({
                // What the application selects by comes along.
                let mut all = labels(&uid);
                all.extend(source.metadata.labels.clone().unwrap_or_default());
                all
            }),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: target.access_modes.or_else(|| spec.access_modes.clone()),
            storage_class_name: class,
            volume_mode: spec.volume_mode.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    target.size.map_or_else(|| capacity(source), Quantity),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// What a claim has, or at least what it asks for.
#[must_use]
pub fn capacity(claim: &PersistentVolumeClaim) -> Quantity {
    let has =
        claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage").cloned());
    let asks = || {
        let resources = claim.spec.as_ref()?.resources.as_ref()?;
        resources.requests.as_ref()?.get("storage").cloned()
    };
    has.or_else(asks).unwrap_or_else(|| Quantity("1Gi".into()))
}

/// A quantity of storage in bytes, rounded up; `None` where it is none.
#[must_use]
pub fn bytes(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: f64 = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        _ => unit
            .strip_prefix(['e', 'E'])
            .and_then(|e| e.parse().ok())
            .map(|e: i32| 10f64.powi(e))?,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    (bytes.is_finite() && bytes >= 0.0).then(|| bytes.ceil() as u128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_bytes() {
        let of = |text: &str| bytes(&Quantity(text.into()));
        assert_eq!(of("10Gi"), Some(10 << 30));
        assert_eq!(of("1.5k"), Some(1500));
        assert_eq!(of("1500m"), Some(2));
        assert_eq!(of("1e3"), Some(1000));
        assert_eq!(of("12"), Some(12));
        for wrong in ["", "Gi", "1Xi", "-1", "1.2.3"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
