//! The claims at the destination.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::names::{CREATED_BY, DOMAIN, MIGRATION, RESERVED_BY, labels, reservation};
use crate::{
    api::{DirectVolumeMigration, Target},
    plan::Planned,
};

/// Labels and annotations under these domains, and under their subdomains, record what a controller of the source cluster did, or make
/// one of the destination cluster act on the claim: fill, prune, or refuse it. OPERATIONS lists them.
const OF_CONTROLLERS: [&str; 7] = [
    DOMAIN,
    "argoproj.io",
    "helm.sh",
    "kubevirt.io",
    "toolkit.fluxcd.io",
    "trident.netapp.io",
    "volsync.backube",
];

/// So do annotations under these. Their labels say what an application is, and it may select by them.
const OF_KUBERNETES: [&str; 2] = ["kubernetes.io", "k8s.io"];

/// By these, the release that the claim belongs to takes it over.
const RELEASE_NAME: &str = "meta.helm.sh/release-name";
const RELEASE_NAMESPACE: &str = "meta.helm.sh/release-namespace";

/// The claim that a volume becomes, made after `source`, its claim at the source.
///
/// It has no owner and none of the labels of a migration, by which leftovers are deleted: it is data, and is never removed.
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
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(volume.target.name.clone()),
            namespace: Some(volume.target.namespace.clone()),
            labels: Some(copied_labels(source)),
            annotations: Some(annotations(migration, source, &volume.target.namespace)),
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

/// The labels of the source, which its application may select by; none that a migration sets.
fn copied_labels(source: &PersistentVolumeClaim) -> BTreeMap<String, String> {
    let mut copied = source.metadata.labels.clone().unwrap_or_default();
    let of_a_migration = labels("");
    copied.retain(|key, value| {
        !is_in_any(key, &OF_CONTROLLERS) && of_a_migration.get(key) != Some(value)
    });
    copied
}

fn annotations(
    migration: &DirectVolumeMigration,
    source: &PersistentVolumeClaim,
    namespace: &str,
) -> BTreeMap<String, String> {
    let mut annotations = source.metadata.annotations.clone().unwrap_or_default();
    let release = annotations.remove(RELEASE_NAME);
    let release_namespace = annotations.remove(RELEASE_NAMESPACE);
    annotations
        .retain(|key, _| !is_in_any(key, &OF_CONTROLLERS) && !is_in_any(key, &OF_KUBERNETES));
    // Helm refuses a claim of a release of another namespace. In its own, the release goes with the claim.
    let own = source.metadata.namespace.clone();
    if let (Some(release), true) = (release, release_namespace == own) {
        annotations.insert(RELEASE_NAME.into(), release);
        annotations.insert(RELEASE_NAMESPACE.into(), namespace.to_owned());
    }
    let metadata = &migration.metadata;
    let home = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    annotations.insert(MIGRATION.into(), format!("{home}/{name}"));
    annotations.insert(CREATED_BY.into(), metadata.uid.clone().unwrap_or_default());
    annotations.insert(RESERVED_BY.into(), reservation(migration));
    annotations
}

fn is_in_any(key: &str, domains: &[&str]) -> bool {
    domains.iter().any(|domain| is_in(key, domain))
}

/// Whether the prefix of a label or annotation is `domain` or a subdomain of it.
fn is_in(key: &str, domain: &str) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
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
