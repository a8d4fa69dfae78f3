//! The pods and claims of a transfer, made from nothing but the migration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use controller::{
    api::DirectVolumeMigration,
    build::{self, Address, Defaults, Names, Role},
    identity::{Credentials, Identities},
    plan,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

fn migration(more: Value) -> DirectVolumeMigration {
    let mut spec = json!({
        "source": { "namespace": "a" }, "destination": { "namespace": "b" },
        "volumes": [{ "name": "data" }, { "name": "media" }],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "pvferry.io/v1alpha1", "kind": "DirectVolumeMigration",
        "metadata": { "name": "shop", "namespace": "home", "uid": "0123456789" },
        "spec": spec,
    }))
    .unwrap()
}

/// The source pod and the destination pod of a migration.
fn pods(migration: &DirectVolumeMigration, defaults: &Defaults) -> (Pod, Pod) {
    let volumes = plan::volumes(&migration.spec);
    let chosen: Vec<_> = volumes.iter().collect();
    let names = Names::new(migration, 1, 1, "secret");
    let address = Address { host: "10.0.0.7".into(), port: build::PORT };
    (
        build::source_pod(migration, defaults, &names, &chosen, &address, None),
        build::destination_pod(migration, defaults, &names, &chosen),
    )
}

fn defaults() -> Defaults {
    Defaults { image: "pvferry:1".into(), allow_privileged_fields: true, ..Defaults::default() }
}

/// A group of the file system, and labels of SELinux, would be written to the files of the application.
#[test]
fn a_source_claim_is_mounted_read_only_and_without_a_group_for_every_user() {
    for more in [json!({}), json!({ "pods": { "user": { "id": 4711 } } })] {
        let migration = migration(more.clone());
        let (source, _) = pods(&migration, &defaults());
        let spec = source.spec.unwrap();
        let security = spec.security_context.unwrap();
        assert_eq!(security.fs_group, None, "{more}");
        assert_eq!(security.fs_group_change_policy, None, "{more}");
        let mut claims = 0;
        for volume in spec.volumes.unwrap() {
            let Some(claim) = volume.persistent_volume_claim else { continue };
            claims += 1;
            assert_eq!(claim.read_only, Some(true), "{more}: {}", claim.claim_name);
            let mounts = spec.containers.iter().flat_map(|c| c.volume_mounts.iter().flatten());
            for mount in mounts.filter(|mount| mount.name == volume.name) {
                assert_eq!(mount.read_only, Some(true), "{more}: {}", mount.mount_path);
            }
        }
        assert_eq!(claims, 2);
    }
}

/// What a source may do is the server's to decide: a source pod that was taken over asks for what it likes.
#[test]
fn the_server_permits_each_source_what_the_specification_says_and_no_more() {
    let permissions = |transfer: Value, keep_extraneous: bool| {
        let migration = migration(json!({ "transfer": transfer }));
        let mut volumes = plan::volumes(&migration.spec);
        volumes[0].keep_extraneous = keep_extraneous;
        let chosen: Vec<_> = volumes.iter().collect();
        let names = Names::new(&migration, 1, 1, "secret");
        let pod = build::destination_pod(&migration, &defaults(), &names, &chosen);
        let args = pod.spec.unwrap().containers.remove(0).args.unwrap();
        let limits = ["--allow", "--max", "--no-delta"];
        let is_limit = |arg: &String| limits.iter().any(|limit| arg.starts_with(limit));
        args.into_iter().filter(is_limit).collect::<Vec<_>>()
    };
    assert_eq!(
        permissions(json!({}), false),
        ["--allow-delete=data-0", "--allow-delete=media-1"],
        "the default of transfer.delete"
    );
    assert_eq!(permissions(json!({ "delete": false }), true), [""; 0]);
    assert_eq!(
        permissions(json!({ "allowEmptySource": true }), true),
        [
            "--allow-delete=data-0",
            "--max-delete=data-0=0",
            "--allow-empty-source=data-0",
            "--allow-delete=media-1",
            "--allow-empty-source=media-1",
        ]
    );
}

#[test]
fn a_destination_claim_is_mounted_writable_with_the_group_of_the_user() {
    let migration = migration(json!({ "pods": { "user": { "id": 4711 } } }));
    let (_, destination) = pods(&migration, &defaults());
    let spec = destination.spec.unwrap();
    assert_eq!(spec.security_context.unwrap().fs_group, Some(4711));
    let claims = spec.volumes.unwrap().into_iter().filter_map(|v| v.persistent_volume_claim);
    assert!(claims.map(|claim| claim.read_only).all(|read_only| read_only.is_none()));
}

/// The files of a Secret belong to root, and to the group of the file system where there is one: a source pod has none.
#[test]
fn a_user_without_a_group_can_read_the_identity() {
    let migration = migration(json!({ "pods": { "user": { "id": 4711 } } }));
    let (source, destination) = pods(&migration, &defaults());
    let mode = |pod: Pod| {
        let volumes = pod.spec.unwrap().volumes.unwrap();
        volumes.into_iter().find_map(|volume| volume.secret).unwrap().default_mode.unwrap()
    };
    assert_eq!(format!("{:o}", mode(source)), "444");
    assert_eq!(format!("{:o}", mode(destination)), "440");
}

/// A sync container that was taken over has neither a key nor a file of another one.
#[test]
fn a_sync_container_shares_its_own_directory_with_the_tunnel_alone_and_has_no_identity() {
    for user in USERS {
        let [source, _] = pods_of_user(user);
        let spec = source.spec.unwrap();
        assert_eq!(spec.share_process_namespace, None);
        let mounts = |name: &str| {
            let container = spec.containers.iter().find(|container| container.name == name);
            let mounts = container.unwrap().volume_mounts.clone().unwrap().into_iter();
            mounts.map(|mount| (mount.name, mount.mount_path)).collect::<Vec<_>>()
        };
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>()
        };
        let tunnel = [
            ("identity", "/identity"),
            ("run-data-0", "/run/pvferry/data-0"),
            ("run-media-1", "/run/pvferry/media-1"),
        ];
        assert_eq!(mounts("tunnel"), pairs(&tunnel));
        let of_data = [("run-data-0", "/run/pvferry"), ("data-0", "/volumes/data-0")];
        assert_eq!(mounts("sync-data-0"), pairs(&of_data));
        let of_media = [("run-media-1", "/run/pvferry"), ("media-1", "/volumes/media-1")];
        assert_eq!(mounts("sync-media-1"), pairs(&of_media));
        let args = |name: &str| {
            let container = spec.containers.iter().find(|container| container.name == name);
            container.unwrap().args.clone().unwrap().join(" ")
        };
        let sockets = "--volume=data-0=/run/pvferry/data-0 --volume=media-1=/run/pvferry/media-1";
        assert!(args("tunnel").ends_with(sockets), "{}", args("tunnel"));
        for sync in ["sync-data-0", "sync-media-1"] {
            assert!(args(sync).contains("--via unix:/run/pvferry/tunnel.sock "), "{}", args(sync));
        }
    }
}

#[test]
fn the_secret_of_a_source_holds_an_identity_for_each_volume_as_the_pod_mounts_it() {
    let credentials = |name: &str| Credentials {
        certificate: format!("certificate of {name}"),
        key: format!("key of {name}"),
    };
    let volumes = ["data-0", "media-1"].map(|name| (name.to_owned(), credentials(name)));
    let made = Identities {
        authority: "authority".into(),
        volumes: volumes.into(),
        destination: credentials("the destination"),
    };
    let names = Names::new(&migration(json!({})), 1, 1, "secret");
    let secret = build::source_secret(&names, "a", &made);
    let data = secret.data.unwrap();
    let [source, destination] = pods_of_user(None);
    let mounted = |pod: Pod| {
        let volumes = pod.spec.unwrap().volumes.unwrap();
        volumes.into_iter().find_map(|volume| volume.secret).unwrap()
    };
    let of_source = mounted(source);
    assert_eq!(of_source.secret_name, secret.metadata.name);
    let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    let files = of_source.items.unwrap().into_iter().map(|item| (item.path, text(&item.key)));
    let mut expected = Vec::new();
    for volume in ["data-0", "media-1"] {
        expected.extend([
            (format!("{volume}/ca.crt"), "authority".to_owned()),
            (format!("{volume}/tls.crt"), format!("certificate of {volume}")),
            (format!("{volume}/tls.key"), format!("key of {volume}")),
        ]);
    }
    assert_eq!(files.collect::<Vec<_>>(), expected);

    let secret = build::destination_secret(&names, "b", &made);
    let of_destination = mounted(destination);
    assert_eq!((of_destination.secret_name, of_destination.items), (secret.metadata.name, None));
    let keys: Vec<_> = secret.data.unwrap().into_keys().collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
}

fn source_claim(metadata: Value) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": metadata,
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeName": "pv-1" },
        "status": { "phase": "Bound", "capacity": { "storage": "10Gi" } },
    }))
    .unwrap()
}

/// The claim that the claim `data` with this metadata becomes.
fn target(metadata: Value) -> PersistentVolumeClaim {
    let migration = migration(json!({}));
    let volumes = plan::volumes(&migration.spec);
    build::target_claim(&migration, &volumes[0], &source_claim(metadata))
}

/// Leftovers of a migration are found, and deleted, by its labels.
#[test]
fn a_target_claim_has_no_label_by_which_leftovers_are_deleted() {
    let of_a_transfer = Names::new(&migration(json!({})), 1, 1, "secret").labels(Role::Source);
    for labels in [json!({}), serde_json::to_value(&of_a_transfer).unwrap()] {
        let metadata = json!({ "name": "data", "labels": labels });
        let labels = target(metadata).metadata.labels.unwrap_or_default();
        for (key, value) in &of_a_transfer {
            assert_ne!(labels.get(key), Some(value), "{labels:?}");
        }
    }
}

#[test]
fn a_target_claim_gets_labels_and_annotations_but_those_of_cluster_controllers() {
    let made = target(json!({
        "name": "data",
        "namespace": "shop",
        "labels": {
            "app": "shop", "app.kubernetes.io/name": "db", "pvferry.io/role": "source",
            "argocd.argoproj.io/instance": "shop", "helm.toolkit.fluxcd.io/name": "shop",
        },
        "annotations": {
            "backup.example/keep": "7d",
            "meta.helm.sh/release-name": "shop",
            "meta.helm.sh/release-namespace": "shop",
            "helm.sh/hook": "pre-delete",
            "trident.netapp.io/cloneFromPVC": "other",
            "volsync.backube/use-copy-trigger": "",
            "pv.kubernetes.io/bind-completed": "yes",
            "volume.kubernetes.io/selected-node": "node-1",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
            "k8s.io/CloneOf": "true",
            "argocd.argoproj.io/tracking-id": "shop",
            "cdi.kubevirt.io/storage.import.endpoint": "http://x",
            "pvferry.io/created-by": "of another migration",
        },
    }));
    let (labels, annotations) = (made.metadata.labels.unwrap(), made.metadata.annotations.unwrap());
    assert_eq!(json!(labels), json!({ "app": "shop", "app.kubernetes.io/name": "db" }));
    assert_eq!(
        json!(annotations),
        json!({
            "backup.example/keep": "7d",
            "meta.helm.sh/release-name": "shop",
            "meta.helm.sh/release-namespace": "b",
            "pvferry.io/migration": "home/shop",
            "pvferry.io/created-by": "0123456789",
            "pvferry.io/reserved-by": "home/shop/0123456789",
        })
    );
}

#[test]
fn a_target_claim_leaves_out_a_helm_release_of_another_namespace() {
    let made = target(json!({
        "name": "data", "namespace": "shop",
        "annotations": {
            "meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "elsewhere",
        },
    }));
    let annotations = made.metadata.annotations.unwrap();
    assert!(!annotations.keys().any(|key| key.contains("helm")), "{annotations:?}");
}

/// Every domain whose labels or annotations stay at the source is in the manual.
#[test]
fn operations_lists_the_domains_that_are_not_copied() {
    let manual = include_str!("../../../docs/OPERATIONS.md");
    let paragraph = manual.split("\n\n").find(|text| text.starts_with("A claim that is created"));
    let paragraph = paragraph.unwrap();
    let code = include_str!("../src/build/claims.rs");
    let code = code.split("const OF_CONTROLLERS").nth(1).unwrap();
    let code = code.split("/// By these").next().unwrap();
    let mut domains: Vec<_> = code.split('"').skip(1).step_by(2).collect();
    domains.retain(|domain| domain.contains('.'));
    assert_eq!(domains.len(), 8, "{domains:?}");
    for domain in domains {
        assert!(paragraph.contains(&format!("`{domain}`")), "{domain}");
    }
    assert!(paragraph.contains("`pvferry.io`"));
}

/// Of root, and of a user: what is admitted where a namespace enforces the `restricted` profile.
const USERS: [Option<i64>; 2] = [None, Some(4711)];

fn pods_of_user(user: Option<i64>) -> [Pod; 2] {
    let pods = user.map_or_else(|| json!({}), |id| json!({ "pods": { "user": { "id": id } } }));
    self::pods(&migration(pods), &defaults()).into()
}

#[test]
fn no_transfer_pod_has_a_token_or_a_way_to_the_node() {
    for pod in USERS.into_iter().flat_map(pods_of_user) {
        let spec = pod.spec.unwrap();
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert_eq!(spec.enable_service_links, Some(false));
        let text = serde_json::to_string(&spec).unwrap();
        for part in ["serviceAccountName", "hostPath", "hostNetwork", "hostPID", "hostIPC"] {
            assert!(!text.contains(part), "{part}: {text}");
        }
        let projected = spec.volumes.unwrap().into_iter().find(|volume| volume.projected.is_some());
        assert_eq!(projected, None);
    }
}

#[test]
fn no_container_of_a_transfer_pod_has_more_rights_than_its_role() {
    for user in USERS {
        for pod in pods_of_user(user) {
            let spec = pod.spec.unwrap();
            let of_pod = spec.security_context.unwrap();
            assert_eq!(of_pod.run_as_non_root, Some(user.is_some()));
            assert_eq!(of_pod.seccomp_profile.unwrap().type_, "RuntimeDefault");
            for container in
                spec.containers.into_iter().chain(spec.init_containers.unwrap_or_default())
            {
                let name = container.name;
                let context = container.security_context.unwrap();
                assert_eq!(context.allow_privilege_escalation, Some(false), "{name}");
                assert_eq!(context.read_only_root_filesystem, Some(true), "{name}");
                assert_eq!((context.privileged, &context.seccomp_profile), (None, &None), "{name}");
                let capabilities = context.capabilities.unwrap();
                assert_eq!(capabilities.drop.unwrap(), ["ALL"], "{name}");
                let expected: &[&str] = match &*name {
                    _ if user.is_some() => &[],
                    "tunnel" => &[],
                    "serve" => &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"],
                    _ => &["DAC_OVERRIDE"],
                };
                assert_eq!(capabilities.add.unwrap_or_default(), expected, "{name}");
            }
        }
    }
}

#[test]
fn policies_let_nobody_reach_a_source_and_a_destination_reach_nobody() {
    let names = Names::new(&migration(json!({})), 1, 1, "secret");
    let policy =
        |role| build::network_policy(&names, role, "home", None, None, &[53]).spec.unwrap();
    let (source, destination) = (policy(Role::Source), policy(Role::Destination));
    for (policy, role) in [(&source, Role::Source), (&destination, Role::Destination)] {
        assert_eq!(policy.policy_types.as_ref().unwrap(), &["Ingress", "Egress"]);
        let labels = policy.pod_selector.as_ref().unwrap().match_labels.as_ref().unwrap();
        assert_eq!(labels, &names.labels(role));
        assert_eq!(labels["pvferry.io/token"], "secret");
    }
    assert_eq!(source.ingress.unwrap(), []);
    assert_eq!(destination.egress.unwrap(), []);
    let ports = destination.ingress.unwrap().into_iter().flat_map(|rule| rule.ports.unwrap());
    let ports: Vec<_> = ports.map(|port| serde_json::to_value(port.port).unwrap()).collect();
    assert_eq!(ports, [json!(build::PORT), json!(build::HEALTH_PORT)]);
}

/// The peers that the source pod of a migration may send to.
fn egress(spec: &Value, host: &str) -> Vec<Value> {
    let mut whole = json!({
        "source": { "namespace": "shop" }, "destination": { "namespace": "far" },
        "volumes": [{ "name": "data" }],
    });
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    let mut migration = migration(json!({}));
    migration.spec = serde_json::from_value(whole).unwrap();
    let address = Address { host: host.into(), port: 4433 };
    let names = Names::of_run(&migration, 1);
    let peer = build::Peer::of(&migration, "far", &address);
    let policy =
        build::network_policy(&names, Role::Source, "shop", Some(&address), peer.as_ref(), &[53]);
    let rules = policy.spec.unwrap().egress.unwrap();
    rules.iter().map(|rule| serde_json::to_value(&rule.to).unwrap()).collect()
}

#[test]
fn a_source_may_send_to_its_destination_alone_where_that_is_known() {
    let pods = |names: &Names| {
        json!({
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "far" } },
            "podSelector": { "matchLabels": names.labels(Role::Destination) },
        })
    };
    let pods = pods(&Names::of_run(&migration(json!({})), 1));
    // The pods behind a Service of the same cluster.
    assert_eq!(egress(&json!({}), "10.0.0.7"), [json!([pods])]);
    // An address of another cluster.
    let far = json!({ "namespace": "far", "cluster": { "kubeconfigSecret": "other" } });
    for (kind, host, cidr) in [
        ("NodePort", "192.0.2.7", "192.0.2.7/32"),
        ("LoadBalancer", "2001:db8::7", "2001:db8::7/128"),
    ] {
        let spec = json!({ "destination": far, "endpoint": { "type": kind } });
        assert_eq!(egress(&spec, host), [json!([{ "ipBlock": { "cidr": cidr } }, pods])]);
    }
    // A name: by port alone, and name servers.
    let spec = json!({ "destination": far, "endpoint": { "type": "NodePort", "host": "n" } });
    assert_eq!(egress(&spec, "n.example"), [Value::Null, Value::Null]);
    // Plugins differ in whether they see the node or the pod.
    let spec = json!({ "endpoint": { "type": "NodePort" } });
    assert_eq!(egress(&spec, "192.0.2.7"), [Value::Null]);
}
