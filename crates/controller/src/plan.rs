//! From a specification to volumes with every default filled in.

use std::collections::BTreeSet;

use crate::api::{DirectVolumeMigration, DirectVolumeMigrationSpec, Volume};

/// Volumes that one pod carries at most: their termination messages share 12 KiB.
pub const VOLUMES_A_POD: usize = 8;

/// A volume of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its place in the specification.
    pub index: usize,
    /// The claim at the source.
    pub claim: Claim,
    /// The claim at the destination.
    pub target: Claim,
    /// Whether digests are compared at the end.
    pub verify: bool,
    /// What the containers and the session call it; unique within the migration.
    pub name: String,
}

/// A claim by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The volumes of `spec`, in its order.
#[must_use]
pub fn volumes(spec: &DirectVolumeMigrationSpec) -> Vec<Planned> {
    spec.volumes.iter().enumerate().map(|(index, volume)| planned(spec, index, volume)).collect()
}

fn planned(spec: &DirectVolumeMigrationSpec, index: usize, volume: &Volume) -> Planned {
    let target = volume.target.clone().unwrap_or_default();
    Planned {
        index,
        claim: Claim {
            namespace: volume.namespace.clone().unwrap_or_else(|| spec.source.namespace.clone()),
            name: volume.name.clone(),
        },
        target: Claim {
            namespace: target.namespace.unwrap_or_else(|| spec.destination.namespace.clone()),
            name: target.name.unwrap_or_else(|| volume.name.clone()),
        },
        verify: volume.verify.unwrap_or(spec.transfer.verify),
        name: label(index, &volume.name),
    }
}

/// A name that is a DNS label, for containers and for the session: as much of the claim's as there is room for.
fn label(index: usize, claim: &str) -> String {
    let plain: String =
        claim.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let short = plain.get(..40).unwrap_or(&plain).trim_end_matches('-');
    format!("{short}-{index}").to_ascii_lowercase()
}

/// Why `spec` cannot be carried out, whatever the cluster holds. What one resource can say of itself is checked by its
/// schema; this is the rest.
///
/// # Errors
/// A sentence.
pub fn check(migration: &DirectVolumeMigration) -> Result<(), String> {
    let spec = &migration.spec;
    let (mut claims, mut targets) = (BTreeSet::new(), BTreeSet::new());
    let same_cluster = spec.source.cluster == spec.destination.cluster;
    for volume in volumes(spec) {
        if !claims.insert(volume.claim.clone()) {
            return Err(format!("the claim {} is named twice", volume.claim));
        }
        if !targets.insert(volume.target.clone()) {
            return Err(format!("two volumes would become the claim {}", volume.target));
        }
        if same_cluster && volume.claim == volume.target {
            return Err(format!("the claim {} would be moved onto itself", volume.claim));
        }
    }
    if spec.pods.user.id.is_some() && volumes(spec).iter().any(|volume| volume.verify) {
        return Err(
            "digests cover owners, which pods without root do not keep: leave out verify".into()
        );
    }
    match targets.intersection(&claims).next() {
        Some(both) if same_cluster => Err(format!("the claim {both} is a source and a target")),
        _ => Ok(()),
    }
}

/// Splits volumes that may begin into groups that share a pair of pods: of one pair of namespaces and of one node, and no
/// more than `room` of them in all.
#[must_use]
pub fn group(
    ready: &[(Planned, Option<String>)],
    mut room: usize,
    node_room: impl Fn(Option<&str>) -> usize,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (volume, node) in ready {
        if room == 0 {
            break;
        }
        let on_node: usize =
            groups.iter().filter(|g| g.node == *node).map(|g| g.volumes.len()).sum();
        if on_node >= node_room(node.as_deref()) {
            continue;
        }
        room -= 1;
        let fits = |g: &&mut Group| {
            g.node == *node
                && g.namespaces.0 == volume.claim.namespace
                && g.namespaces.1 == volume.target.namespace
                && g.volumes.len() < VOLUMES_A_POD
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.volumes.push(volume.index),
            None => groups.push(Group {
                namespaces: (volume.claim.namespace.clone(), volume.target.namespace.clone()),
                node: node.clone(),
                volumes: vec![volume.index],
            }),
        }
    }
    groups
}

/// Volumes that share a pair of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    namespaces: (String, String),
    /// The node that the source pod must run on.
    pub node: Option<String>,
    /// Their places in the specification.
    pub volumes: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(index: usize, namespace: &str) -> Planned {
        let claim = |ns: &str| Claim { namespace: ns.into(), name: format!("claim-{index}") };
        Planned {
            index,
            claim: claim(namespace),
            target: claim("new"),
            verify: false,
            name: label(index, "claim"),
        }
    }

    #[test]
    fn a_label_is_a_label_whatever_the_claim_is_called() {
        assert_eq!(label(3, "data"), "data-3");
        assert_eq!(label(0, "data.of.db-0"), "data-of-db-0-0");
        let long = label(499, &"a.".repeat(120));
        assert!(long.len() <= 63 && long.ends_with("-499"), "{long}");
    }

    #[test]
    fn groups_share_namespaces_and_node() {
        let ready = [
            (volume(0, "a"), None),
            (volume(1, "b"), None),
            (volume(2, "a"), Some("n1".into())),
            (volume(3, "a"), None),
        ];
        let groups = group(&ready, 10, |_| 10);
        let volumes: Vec<_> = groups.iter().map(|g| g.volumes.clone()).collect();
        assert_eq!(volumes, [vec![0, 3], vec![1], vec![2]]);
    }

    #[test]
    fn no_more_begin_than_there_is_room_for() {
        let ready: Vec<_> = (0..50).map(|i| (volume(i, "a"), None)).collect();
        let of = |room, node_room| {
            group(&ready, room, |_| node_room).iter().map(|g| g.volumes.len()).collect::<Vec<_>>()
        };
        assert_eq!(of(5, 100), [5]);
        assert_eq!(of(20, 100), [8, 8, 4]);
        assert_eq!(of(20, 3), [3]);
        assert_eq!(of(0, 3), [0; 0]);
    }
}
