//! The two transfer pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, NodeAffinity,
        NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource,
        Pod, PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile,
        SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::{
        api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString,
    },
};

use super::{Address, HEALTH_PORT, Names, PORT, Role, SERVE, SYNC_PREFIX, TUNNEL, files};
use crate::{
    api::{DirectVolumeMigration, DirectVolumeMigrationSpec, PodDefaults, PodSettings},
    plan::Planned,
};

/// What the controller was started with.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// The image of the data plane.
    pub image: String,
    /// Migrations may set the fields that [`crate::api::POD_FIELDS`] and [`crate::api::ENDPOINT_FIELDS`] list.
    pub allow_privileged_fields: bool,
    /// What pods are like where a migration does not say.
    pub pods: PodDefaults,
}

const IDENTITY: &str = "/identity";
/// Entries that the source does not have stay, and fail the transfer.
const KEEP: &str = "--max-delete=0";
/// Where a sync container shares files with the tunnel. The tunnel has a directory for each volume below it.
const RUN: &str = "/run/pvferry";

/// Reads whatever its owner let nobody read. `DAC_READ_SEARCH` would do, but the profile `baseline` does not admit it; and there is
/// nothing to write to: volumes and root are mounted read-only.
const SOURCE_CAPABILITIES: [&str; 1] = ["DAC_OVERRIDE"];
/// Writes anywhere, and gives files their owners, modes, devices and file capabilities.
const DESTINATION_CAPABILITIES: [&str; 6] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"];

/// The pod that sends `volumes` to the server at `address`; bound to `node` where a volume is in use there.
#[must_use]
pub fn source_pod(
    migration: &DirectVolumeMigration,
    defaults: &Defaults,
    names: &Names,
    volumes: &[&Planned],
    address: &Address,
    node: Option<&str>,
) -> Pod {
    let spec = &migration.spec;
    let settings = settings(spec, defaults, Role::Source);
    let count = volumes.len() + 1;
    let mut containers = vec![tunnel(spec, &settings, volumes, address)];
    containers.extend(volumes.iter().map(|volume| sync(spec, &settings, volume)));
    let files = volumes.iter().flat_map(|volume| files::identity_files(&volume.name));
    let mut mounts = vec![files::identity_volume(names, Role::Source, files.collect())];
    mounts.extend(volumes.iter().map(|volume| files::run_volume(volume)));
    mounts.extend(volumes.iter().map(|v| claim_volume(&v.name, &v.claim.name, Role::Source)));
    let namespace = volumes.first().map_or("", |v| &v.claim.namespace);
    let metadata = names.metadata(Role::Source, namespace);
    pod(spec, settings, metadata, with_count(containers, count), mounts, Role::Source, node)
}

/// The pod that receives `volumes`.
#[must_use]
pub fn destination_pod(
    migration: &DirectVolumeMigration,
    defaults: &Defaults,
    names: &Names,
    volumes: &[&Planned],
) -> Pod {
    let spec = &migration.spec;
    let settings = settings(spec, defaults, Role::Destination);
    let mut args = words(&["serve", "--listen", &format!(":{PORT}"), "--identity", IDENTITY]);
    args.extend(words(&["--metrics", &format!(":{HEALTH_PORT}"), "--log-format", "json"]));
    args.extend(words(&["--exit-when", &volumes.len().to_string()]));
    for volume in volumes {
        args.extend(words(&["--volume", &format!("{0}=/volumes/{0}", volume.name)]));
        args.extend(permissions(spec, volume));
    }
    let mut mounted = vec![mount("identity", IDENTITY, true)];
    mounted.extend(volumes.iter().map(|v| mount(&v.name, &format!("/volumes/{}", v.name), false)));
    let container = Container {
        ports: Some(vec![port("transfer", PORT), port("health", HEALTH_PORT)]),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/readyz".into()),
                port: IntOrString::Int(HEALTH_PORT),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(1),
            failure_threshold: Some(30),
            ..Probe::default()
        }),
        ..container(spec, &settings, SERVE, args, mounted, &DESTINATION_CAPABILITIES)
    };
    let mut mounts = vec![files::identity_volume(names, Role::Destination, Vec::new())];
    mounts.extend(volumes.iter().map(|v| claim_volume(&v.name, &v.target.name, Role::Destination)));
    let namespace = volumes.first().map_or("", |v| &v.target.namespace);
    let metadata = names.metadata(Role::Destination, namespace);
    pod(spec, settings, metadata, with_count(vec![container], 1), mounts, Role::Destination, None)
}

/// What the server permits the source of `volume`: what the specification asks for and no more, whatever a source pod that
/// was taken over asks for.
fn permissions(spec: &DirectVolumeMigrationSpec, volume: &Planned) -> Vec<String> {
    let (transfer, name) = (&spec.transfer, &volume.name);
    let mut args = Vec::new();
    if transfer.delete {
        args.push(format!("--allow-delete={name}"));
        if volume.keep_extraneous {
            args.push(format!("--max-delete={name}=0"));
        }
    }
    if transfer.allow_empty_source {
        args.push(format!("--allow-empty-source={name}"));
    }
    args
}

/// The settings of the pods of `role`. What a migration sets takes precedence over the defaults, and what is set for a role over what is
/// set for both.
fn settings(spec: &DirectVolumeMigrationSpec, defaults: &Defaults, role: Role) -> PodSettings {
    let (own, default) = match role {
        Role::Source => (&spec.pods.source, &defaults.pods.source),
        Role::Destination => (&spec.pods.destination, &defaults.pods.destination),
    };
    let image = PodSettings { image: Some(defaults.image.clone()), ..PodSettings::default() };
    own.clone()
        .unwrap_or_default()
        .or(&spec.pods.both)
        .or(&default.clone().unwrap_or_default())
        .or(&defaults.pods.both)
        .or(&image)
}

fn sync(spec: &DirectVolumeMigrationSpec, settings: &PodSettings, volume: &Planned) -> Container {
    let path = format!("/volumes/{}", volume.name);
    let socket = format!("unix:{RUN}/{}", pod::TUNNEL_SOCKET);
    let mut args = words(&["sync", &path, "--volume", &volume.name, "--via", &socket]);
    args.extend(words(&[
        "--marker-dir",
        RUN,
        "--progress",
        "json",
        "--json",
        "--log-format",
        "json",
    ]));
    let transfer = &spec.transfer;
    for (flag, wanted) in [
        ("--delete", transfer.delete),
        ("--checksum", transfer.checksum),
        ("--verify", volume.verify),
        ("--allow-empty-source", transfer.allow_empty_source),
        // Who is not root gives away nothing.
        ("--no-owner", spec.pods.user.id.is_some()),
    ] {
        if wanted {
            args.push(flag.into());
        }
    }
    if transfer.delete && volume.keep_extraneous {
        args.push(KEEP.into());
    }
    for pattern in &transfer.exclude {
        // The kubelet would take a dollar for the beginning of a variable.
        args.push(format!("--exclude={}", pattern.replace('$', "$$")));
    }
    if let Some(rate) = &transfer.bandwidth {
        args.push(format!("--bwlimit={rate}"));
    }
    if let Some(streams) = transfer.streams {
        args.push(format!("--streams={streams}"));
    }
    // How long pods may take to start is how long a container may wait for the others.
    args.push(format!("--wait={}", spec.limits.start_seconds));
    let mounts =
        vec![mount(&files::run_name(volume), RUN, false), mount(&volume.name, &path, true)];
    container(spec, settings, &sync_container(volume), args, mounts, &SOURCE_CAPABILITIES)
}

/// Whether the sync container of a volume deletes nothing at the destination.
#[must_use]
pub fn keeps_extraneous(source: &Pod, volume: &Planned) -> bool {
    has_argument(source, &sync_container(volume), KEEP)
}

/// Whether a destination pod permits the source to delete entries of a volume without a limit.
#[must_use]
pub fn permits_deletion(destination: &Pod, volume: &Planned) -> bool {
    let name = &volume.name;
    has_argument(destination, SERVE, &format!("--allow-delete={name}"))
        && !has_argument(destination, SERVE, &format!("--max-delete={name}=0"))
}

fn has_argument(pod: &Pod, container: &str, argument: &str) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut args = containers
        .filter(|found| found.name == container)
        .flat_map(|found| found.args.iter().flatten());
    args.any(|found| found == argument)
}

/// The name of the sync container of a volume.
#[must_use]
pub fn sync_container(volume: &Planned) -> String {
    format!("{SYNC_PREFIX}{}", volume.name)
}

/// A socket, an identity and a directory for each volume: the containers of other volumes have no part in them.
fn tunnel(
    spec: &DirectVolumeMigrationSpec,
    settings: &PodSettings,
    volumes: &[&Planned],
    address: &Address,
) -> Container {
    let mut args = words(&["tunnel", "--connect", &address.to_string(), "--identity", IDENTITY]);
    args.extend(words(&["--log-format", "json", "--exit-when", &volumes.len().to_string()]));
    args.push(format!("--idle={}", spec.limits.start_seconds));
    let mut mounts = vec![mount("identity", IDENTITY, true)];
    for volume in volumes {
        let directory = format!("{RUN}/{}", volume.name);
        args.push(format!("--volume={}={directory}", volume.name));
        mounts.push(mount(&files::run_name(volume), &directory, false));
    }
    container(spec, settings, TUNNEL, args, mounts, &[])
}

fn container(
    spec: &DirectVolumeMigrationSpec,
    settings: &PodSettings,
    name: &str,
    args: Vec<String>,
    mounts: Vec<VolumeMount>,
    capabilities: &[&str],
) -> Container {
    let root = spec.pods.user.id.is_none();
    Container {
        name: name.into(),
        image: settings.image.clone(),
        image_pull_policy: settings.image_pull_policy.clone(),
        args: Some(args),
        volume_mounts: Some(mounts),
        resources: Some(settings.resources.clone().unwrap_or_else(resources)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: (root && !capabilities.is_empty()).then(|| words(capabilities)),
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Enough to be scheduled honestly; no limit on processors, for a transfer should end.
fn resources() -> ResourceRequirements {
    let quantities = |cpu: Option<&str>, memory: &str| {
        let mut map = BTreeMap::from([("memory".to_owned(), Quantity(memory.into()))]);
        if let Some(cpu) = cpu {
            map.insert("cpu".into(), Quantity(cpu.into()));
        }
        Some(map)
    };
    ResourceRequirements {
        requests: quantities(Some("50m"), "64Mi"),
        limits: quantities(None, "512Mi"),
        ..ResourceRequirements::default()
    }
}

fn pod(
    spec: &DirectVolumeMigrationSpec,
    settings: PodSettings,
    mut metadata: ObjectMeta,
    containers: Vec<Container>,
    volumes: Vec<Volume>,
    role: Role,
    node: Option<&str>,
) -> Pod {
    let user = spec.pods.user.id;
    // The kubelet gives the files of a volume this group, and widens their modes: never at a source.
    let group = user.filter(|_| role == Role::Destination);
    // The labels by which the controller, Services and network policies know the pod stay as they are.
    let mut labels = settings.labels;
    labels.extend(metadata.labels.take().unwrap_or_default());
    metadata.labels = Some(labels);
    Pod {
        metadata,
        spec: Some(PodSpec {
            containers,
            volumes: Some(volumes),
            restart_policy: Some("Never".into()),
            // Nobody in a transfer pod has anything to say to the API.
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_user: Some(user.unwrap_or(0)),
                run_as_group: Some(user.unwrap_or(0)),
                run_as_non_root: Some(user.is_some()),
                fs_group: group,
                // A volume of many files is not walked a second time only to change groups.
                fs_group_change_policy: group.map(|_| "OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    ..SeccompProfile::default()
                }),
                se_linux_options: settings.se_linux_options,
                ..PodSecurityContext::default()
            }),
            affinity: node.map(on_node),
            node_selector: some_map(settings.node_selector),
            tolerations: some_list(settings.tolerations),
            priority_class_name: settings.priority_class_name,
            service_account_name: settings.service_account_name,
            image_pull_secrets: some_list(settings.image_pull_secrets),
            termination_grace_period_seconds: Some(30),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn some_list<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn some_map(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

/// Binds a pod to a node.
pub fn bind(pod: &mut Pod, node: &str) {
    if let Some(spec) = &mut pod.spec {
        spec.affinity = Some(on_node(node));
    }
}

/// An affinity and no `nodeName`: the scheduler still says why where it does not fit.
fn on_node(node: &str) -> Affinity {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![node.into()]),
        }]),
        ..NodeSelectorTerm::default()
    };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Termination messages of one pod share a limit, which each container has to know.
fn with_count(mut containers: Vec<Container>, count: usize) -> Vec<Container> {
    for container in &mut containers {
        container.env = Some(vec![EnvVar {
            name: pod::env::CONTAINERS.into(),
            value: Some(count.to_string()),
            ..EnvVar::default()
        }]);
    }
    containers
}

/// A source is read-only as a volume, not only in its container: then the kubelet changes neither groups and modes nor SELinux labels
/// of its files. CSI drivers still attach and stage the disk writable, for an application beside the transfer.
fn claim_volume(name: &str, claim: &str, role: Role) -> Volume {
    Volume {
        name: name.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.into(),
            read_only: (role == Role::Source).then_some(true),
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort { name: Some(name.into()), container_port: number, ..ContainerPort::default() }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
