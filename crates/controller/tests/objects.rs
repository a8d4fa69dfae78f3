//! The pods and claims of a transfer, made from nothing but the migration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use controller::{
    api::DirectVolumeMigration,
    build::{self, Address, Defaults, Names, Role},
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
    Defaults { image: "pvferry:1".into(), open: true, ..Defaults::default() }
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
        "labels": { "app": "shop", "app.kubernetes.io/name": "db", "pvferry.io/role": "source" },
        "annotations": {
            "backup.example/keep": "7d",
            "meta.helm.sh/release-name": "shop",
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
            "pvferry.io/migration": "home/shop",
            "pvferry.io/created-by": "0123456789",
            "pvferry.io/reserved-by": "home/shop/0123456789",
        })
    );
}
