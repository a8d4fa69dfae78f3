//! Which nodes can reach a volume, from its PersistentVolume or its class.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use controller::topology::Reach;
use k8s_openapi::api::{core::v1::PersistentVolume, storage::v1::StorageClass};
use serde_json::{Value, json};

fn volume(labels: Value, key: &str, values: &[&str]) -> Reach {
    let mut spec = json!({ "capacity": { "storage": "1Gi" } });
    if !values.is_empty() {
        spec["nodeAffinity"] = json!({ "required": { "nodeSelectorTerms": [{
            "matchExpressions": [{ "key": key, "operator": "In", "values": values }],
        }]}});
    }
    let volume = json!({ "metadata": { "name": "pv", "labels": labels }, "spec": spec });
    Reach::of_volume(&serde_json::from_value::<PersistentVolume>(volume).unwrap())
}

fn class(name: &str, provisioner: &str, mode: &str) -> Reach {
    let class = json!({
        "metadata": { "name": name }, "provisioner": provisioner, "volumeBindingMode": mode,
    });
    Reach::of_class(&serde_json::from_value::<StorageClass>(class).unwrap())
}

#[test]
fn a_volume_without_affinity_is_reached_from_anywhere() {
    assert_eq!(volume(json!({ "app": "shop" }), "", &[]), Reach::Anywhere);
}

#[test]
fn volumes_share_a_pod_only_with_the_same_affinity_and_zone() {
    let local = |node| volume(json!({}), "kubernetes.io/hostname", &[node]);
    assert!(local("n1").and(&local("n1")).is_some());
    assert_eq!(local("n1").and(&local("n2")), None);
    assert_eq!(local("n1").and(&Reach::Anywhere), Some(local("n1")));
    let zone = |zone: &str| volume(json!({ "topology.kubernetes.io/zone": zone }), "", &[]);
    assert!(zone("a").and(&zone("a")).is_some());
    assert_eq!(zone("a").and(&zone("b")), None);
    let csi = |zone| volume(json!({}), "topology.ebs.csi.aws.com/zone", &[zone]);
    assert_eq!(csi("a").and(&csi("b")), None);
    assert_eq!(Reach::Unknown.and(&Reach::Anywhere), None);
}

#[test]
fn claims_that_are_not_bound_share_a_pod_only_if_the_class_provisions_for_it() {
    let waits = "WaitForFirstConsumer";
    let fast = class("fast", "csi.example", waits);
    assert!(fast.and(&class("fast", "csi.example", waits)).is_some());
    assert_eq!(fast.and(&class("slow", "csi.example", waits)), None);
    assert_eq!(class("local", "kubernetes.io/no-provisioner", waits), Reach::Unknown);
    assert_eq!(class("fast", "csi.example", "Immediate"), Reach::Unknown);
}
