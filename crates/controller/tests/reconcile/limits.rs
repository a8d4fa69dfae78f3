//! Specifications that are too large.

use controller::api::Phase;
use serde_json::{Value, json};

use super::world::World;

async fn refused(more: Value, why: &str) {
    let mut world = World::new();
    world.migrate(more);
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{why}");
    assert_eq!(world.condition("Validated").1, "InvalidSpec", "{why}: {}", status.message);
    assert!(status.message.contains(why), "{}", status.message);
    assert!(!world.exists("persistentvolumeclaims", "shop-new", "data"), "{why}");
    let size = serde_json::to_string(&status).unwrap().len();
    assert!(size < 16 << 10, "{why}: the status has {size} bytes");
}

#[tokio::test]
async fn a_specification_that_is_too_large_in_any_field_is_refused() {
    let long = "x".repeat(2000);
    let many = |count: usize| -> Value {
        (0..count).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into()
    };
    let patterns: Vec<String> = (0..1150).map(|n| format!("{}{n}", "x".repeat(1000))).collect();
    refused(json!({ "transfer": { "exclude": patterns } }), "spec.transfer.exclude").await;
    refused(json!({ "transfer": { "exclude": [long] } }), "spec.transfer.exclude[0]").await;
    refused(json!({ "pods": { "labels": many(65) } }), "spec.pods.labels").await;
    refused(json!({ "pods": { "nodeSelector": { "a": long } } }), "spec.pods.nodeSelector").await;
    let annotations = json!({ "type": "NodePort", "host": "n", "annotations": { "a": long } });
    refused(json!({ "endpoint": annotations }), "spec.endpoint.annotations").await;
    // A schema cannot bound the keys of a map.
    let key = "k".repeat(300_000);
    refused(json!({ "pods": { "labels": { key: "v" } } }), "bytes").await;
    let modes = json!([{ "name": "data", "target": { "accessModes": vec!["RWO"; 65] } }]);
    refused(json!({ "volumes": modes }), "accessModes").await;
}

#[tokio::test]
async fn values_that_no_container_or_claim_can_take_are_refused_before_anything_is_created() {
    let rate = |rate: &str| json!({ "transfer": { "bandwidth": rate } });
    refused(rate("99999999999999999999G"), "spec.transfer.bandwidth").await;
    refused(rate("0.0001"), "spec.transfer.bandwidth").await;
    refused(json!({ "transfer": { "exclude": ["a\nb"] } }), "spec.transfer.exclude[0]").await;
    refused(json!({ "transfer": { "exclude": [""] } }), "spec.transfer.exclude[0]").await;
    let size = |size: &str| json!({ "volumes": [{ "name": "data", "target": { "size": size } }] });
    refused(size("1e99"), "spec.volumes[0].target.size").await;
    refused(size("10gb"), "spec.volumes[0].target.size").await;
}
