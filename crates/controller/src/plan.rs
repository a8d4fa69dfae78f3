//! From a specification to volumes with every default filled in.

use std::collections::BTreeSet;

use crate::{
    api::{DirectVolumeMigration, DirectVolumeMigrationSpec, Volume, violation},
    topology::Reach,
};

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
    /// Entries that the source does not have stay at the destination, and fail the transfer: the claim is not this migration's.
    pub keep_extraneous: bool,
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
        keep_extraneous: false,
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
    if let Some(why) = violation(spec) {
        return Err(why);
    }
    let (mut claims, mut targets) = (BTreeSet::new(), BTreeSet::new());
    for volume in volumes(spec) {
        if !claims.insert(volume.claim.clone()) {
            return Err(format!("PVC {} is listed twice", volume.claim));
        }
        if !targets.insert(volume.target.clone()) {
            return Err(format!("two volumes have the same destination PVC {}", volume.target));
        }
    }
    if spec.source.cluster == spec.destination.cluster {
        check_one_cluster(&volumes(spec))?;
    }
    if spec.pods.user.id.is_some() && volumes(spec).iter().any(|volume| volume.verify) {
        return Err(
            "verify compares file ownership, which pods with pods.user.id do not preserve: set verify to false".into()
        );
    }
    Ok(())
}

/// Why a name in `spec` is not one that an object can have. Names are parts of the paths that API servers are asked for, so nothing is asked for
/// before they are checked.
///
/// # Errors
/// A sentence.
pub fn check_names(spec: &DirectVolumeMigrationSpec) -> Result<(), String> {
    let mut namespaces = vec![&spec.source.namespace, &spec.destination.namespace];
    let clusters = [&spec.source.cluster, &spec.destination.cluster].into_iter().flatten();
    let mut names: Vec<&String> = clusters.map(|cluster| &cluster.kubeconfig_secret).collect();
    for volume in &spec.volumes {
        names.push(&volume.name);
        namespaces.extend(&volume.namespace);
        if let Some(target) = &volume.target {
            names.extend(&target.name);
            names.extend(target.storage_class.iter().filter(|class| !class.is_empty()));
            namespaces.extend(&target.namespace);
        }
    }
    if let Some(wrong) = namespaces.into_iter().find(|name| !is_label(name) || name.len() > 63) {
        return Err(format!("{wrong:?} is not a valid name of a namespace"));
    }
    match names.into_iter().find(|name| name.len() > 253 || !name.split('.').all(is_label)) {
        Some(wrong) => Err(format!("{wrong:?} is not a valid name of an object")),
        None => Ok(()),
    }
}

/// Lower-case letters, digits and dashes; at both ends no dash.
fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain) && text.ends_with(plain) && text.chars().all(|c| plain(c) || c == '-')
}

/// Why volumes cannot be moved where source and destination are the same cluster: a claim would be written while it is read.
///
/// # Errors
/// A sentence.
pub fn check_one_cluster(volumes: &[Planned]) -> Result<(), String> {
    let claims: BTreeSet<_> = volumes.iter().map(|volume| &volume.claim).collect();
    for volume in volumes {
        if volume.claim == volume.target {
            return Err(format!("source and destination are the same PVC {}", volume.claim));
        }
        if claims.contains(&volume.target) {
            return Err(format!("PVC {} is both a source and a destination", volume.target));
        }
    }
    Ok(())
}

/// A volume that can start, and the node where it is in use by a pod that cannot share it with another node.
pub type Candidate = (Planned, Option<String>);

/// The first of `candidates` that there is room for: `room` in all, and on each node what `node_room` says.
#[must_use]
pub fn select(
    candidates: Vec<Candidate>,
    room: usize,
    node_room: impl Fn(Option<&str>) -> usize,
) -> Vec<Candidate> {
    let mut selected: Vec<Candidate> = Vec::new();
    for (volume, node) in candidates {
        let on_node = selected.iter().filter(|(_, other)| *other == node).count();
        if selected.len() < room && on_node < node_room(node.as_deref()) {
            selected.push((volume, node));
        }
    }
    selected
}

/// A volume that starts, with the nodes that can reach it at the source and at the destination.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The volume.
    pub volume: Planned,
    /// The node that the source pod must run on.
    pub node: Option<String>,
    /// Which nodes can reach the claim at the source, and the one at the destination.
    pub reach: [Reach; 2],
}

/// Splits volumes into groups that share a pair of pods: of one pair of namespaces, of one node, and such that one node can reach all
/// of them at each end.
#[must_use]
pub fn group(ready: &[Ready]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for one in ready {
        if !groups.iter_mut().any(|group| group.take(one)) {
            groups.push(Group {
                namespaces: namespaces(&one.volume),
                node: one.node.clone(),
                reach: one.reach.clone(),
                volumes: vec![one.volume.index],
            });
        }
    }
    groups
}

fn namespaces(volume: &Planned) -> (String, String) {
    (volume.claim.namespace.clone(), volume.target.namespace.clone())
}

/// Whether two volumes could share a pair of pods, if one node can reach both.
#[must_use]
pub fn could_share(one: &Candidate, other: &Candidate) -> bool {
    one.1 == other.1 && namespaces(&one.0) == namespaces(&other.0)
}

/// Volumes that share a pair of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    namespaces: (String, String),
    reach: [Reach; 2],
    /// The node that the source pod must run on.
    pub node: Option<String>,
    /// Their places in the specification.
    pub volumes: Vec<usize>,
}

impl Group {
    /// Takes the volume in, if it can share the pods.
    fn take(&mut self, ready: &Ready) -> bool {
        let [near, far] = &self.reach;
        let [source, destination] = &ready.reach;
        if self.node != ready.node
            || self.namespaces != namespaces(&ready.volume)
            || self.volumes.len() >= VOLUMES_A_POD
        {
            return false;
        }
        let (Some(near), Some(far)) = (near.and(source), far.and(destination)) else {
            return false;
        };
        self.reach = [near, far];
        self.volumes.push(ready.volume.index);
        true
    }
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
            keep_extraneous: false,
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

    fn ready(index: usize, namespace: &str, node: Option<&str>, reach: [Reach; 2]) -> Ready {
        Ready { volume: volume(index, namespace), node: node.map(str::to_owned), reach }
    }

    fn grouped(ready: &[Ready]) -> Vec<Vec<usize>> {
        group(ready).into_iter().map(|group| group.volumes).collect()
    }

    #[test]
    fn groups_share_namespaces_and_node() {
        let anywhere = || [Reach::Anywhere, Reach::Anywhere];
        let groups = grouped(&[
            ready(0, "a", None, anywhere()),
            ready(1, "b", None, anywhere()),
            ready(2, "a", Some("n1"), anywhere()),
            ready(3, "a", None, anywhere()),
        ]);
        assert_eq!(groups, [vec![0, 3], vec![1], vec![2]]);
    }

    #[test]
    fn volumes_of_two_nodes_get_two_pods_at_either_end() {
        let on = |node: &str| Reach::Some(node.into());
        for end in [0, 1] {
            let reach = |of: Reach| {
                let mut both = [Reach::Anywhere, Reach::Anywhere];
                both[end] = of;
                both
            };
            let groups = grouped(&[
                ready(0, "a", None, reach(on("n1"))),
                ready(1, "a", None, reach(on("n2"))),
                ready(2, "a", None, reach(on("n1"))),
                ready(3, "a", None, reach(Reach::Anywhere)),
                ready(4, "a", None, reach(Reach::Unknown)),
                ready(5, "a", None, reach(Reach::Unknown)),
            ]);
            assert_eq!(groups, [vec![0, 2, 3], vec![1], vec![4], vec![5]]);
        }
    }

    /// A volume that every node can reach does not let two into one pod that no node can reach both of.
    #[test]
    fn a_group_is_bound_to_the_nodes_of_the_first_that_is_bound() {
        let on = |node: &str| [Reach::Some(node.into()), Reach::Anywhere];
        let groups = grouped(&[
            ready(0, "a", None, [Reach::Anywhere, Reach::Anywhere]),
            ready(1, "a", None, on("n1")),
            ready(2, "a", None, on("n2")),
        ]);
        assert_eq!(groups, [vec![0, 1], vec![2]]);
    }

    #[test]
    fn a_pod_carries_no_more_volumes_than_their_messages_have_room_for() {
        let anywhere = || [Reach::Anywhere, Reach::Anywhere];
        let all: Vec<_> = (0..20).map(|index| ready(index, "a", None, anywhere())).collect();
        assert_eq!(grouped(&all).iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 4]);
    }

    #[test]
    fn no_more_start_than_there_is_room_for() {
        let of = |room, node_room| {
            let all = (0..50).map(|i| (volume(i, "a"), None)).collect();
            select(all, room, |_| node_room).len()
        };
        assert_eq!((of(5, 100), of(20, 3), of(0, 3)), (5, 3, 0));
        let two_nodes = (0..6).map(|i| (volume(i, "a"), Some(format!("n{}", i / 4)))).collect();
        let selected = select(two_nodes, 10, |_| 2);
        let indices: Vec<_> = selected.iter().map(|(volume, _)| volume.index).collect();
        assert_eq!(indices, [0, 1, 4, 5]);
    }
}
