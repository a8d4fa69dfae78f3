//! Pods that use the volumes of a cutover.

use controller::api::Phase;
use serde_json::json;

use super::world::{World, add, key};

fn cutover() -> serde_json::Value {
    json!({ "mode": "Cutover", "quiesce": "ScaleToZero" })
}

async fn transferring(world: &mut World) {
    world.until("transfer", |s| s.phase == Phase::Transferring).await;
}

#[tokio::test]
async fn a_pod_that_wrote_and_ended_during_a_cutover_fails_it() {
    let mut world = World::new();
    world.migrate(cutover());
    transferring(&mut world).await;
    world.until("source pod", |s| s.transfers.iter().any(|t| t.source_created)).await;
    world.visitor("nightly", "c");
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert_eq!(status.volumes[0].reason, "UsedMeanwhile");
    assert_eq!(world.condition("Succeeded"), ("False".into(), "UsedMeanwhile".into()));
    assert_eq!(world.condition("Quiesced"), ("False".into(), "UsedMeanwhile".into()));
    assert!(world.events().iter().any(|event| event.contains("pod nightly used PVC shop/data")));
}

#[tokio::test]
async fn a_pod_that_came_and_went_between_two_steps_of_a_cutover_fails_it() {
    for restart in [false, true] {
        let mut world = World::new();
        world.migrate(cutover());
        transferring(&mut world).await;
        world.visitor("nightly", "c");
        world.remove("pods", "shop", "nightly");
        if restart {
            world.restart();
        }
        let status = world.ends(1).await;
        assert_eq!(&*status.volumes[0].reason, "UsedMeanwhile", "{restart} {status:#?}");
        assert_eq!(status.phase, Phase::Failed);
    }
}

#[tokio::test]
async fn pods_that_nobody_could_watch_during_a_cutover_fail_it() {
    let mut world = World::new();
    world.migrate(cutover());
    transferring(&mut world).await;
    world.restart();
    world.visitor("nightly", "c");
    world.remove("pods", "shop", "nightly");
    // The shared watches begin after that.
    world.forget_changes();
    let status = world.ends(1).await;
    assert_eq!((status.phase, &*status.volumes[0].reason), (Phase::Failed, "UseUnknown"));
}

#[tokio::test]
async fn pods_that_ended_before_a_cutover_or_use_other_claims_do_not_fail_it() {
    let mut world = World::new();
    world.visitor("yesterday", "c");
    world.pass(60);
    world.tick();
    world.tick();
    world.migrate(cutover());
    transferring(&mut world).await;
    world.touch("pods", "shop", "yesterday");
    world.bystander("bystander");
    world.completes(1).await;
}

#[tokio::test]
async fn a_cutover_beside_a_running_application_fails_before_anything_is_made() {
    let mut world = World::new();
    world.workload("statefulsets", "web");
    world.migrate(json!({ "mode": "Cutover" }));
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert_eq!(status.message, "pod web-0 (StatefulSet/web) uses PVC shop/data");
    assert_eq!(world.condition("Succeeded"), ("False".into(), "ClaimInUse".into()));
    assert_eq!(status.transfers_started, 0);
    assert!(!world.exists("persistentvolumeclaims", "shop-new", "data"));
}

#[tokio::test]
async fn a_pod_that_starts_during_a_cutover_that_stops_nothing_fails_it() {
    let mut world = World::new();
    world.migrate(json!({ "mode": "Cutover" }));
    transferring(&mut world).await;
    world.visitor("nightly", "c");
    let status = world.ends(1).await;
    assert_eq!((status.phase, &*status.volumes[0].reason), (Phase::Failed, "UsedMeanwhile"));
}

#[tokio::test]
async fn an_acknowledged_use_is_repeated_at_the_end_of_a_cutover() {
    let mut world = World::new();
    world.workload("statefulsets", "web");
    world.migrate(json!({ "mode": "Cutover", "acknowledgeInUse": true }));
    transferring(&mut world).await;
    world.visitor("nightly", "c");
    let status = world.completes(1).await;
    let succeeded = status.conditions.iter().find(|c| c.type_ == "Succeeded").unwrap();
    assert!(
        succeeded.message.contains("pod web-0 (StatefulSet/web) uses PVC shop/data"),
        "{status:#?}"
    );
    assert!(succeeded.message.contains("pod nightly used PVC shop/data"), "{status:#?}");
    assert_eq!(world.condition("Quiesced"), ("False".into(), "InUseAcknowledged".into()));
}

/// A StatefulSet whose claims are those of its template.
fn set_with_claims(world: &World, when_scaled: &str) {
    let set = json!({
        "metadata": { "name": "db" },
        "spec": {
            "replicas": 1, "selector": {}, "serviceName": "db",
            "persistentVolumeClaimRetentionPolicy": { "whenScaled": when_scaled },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" } }],
            "template": { "spec": { "containers": [{ "name": "app", "image": "app" }] } },
        },
    });
    add(&world.home, "statefulsets", "shop", set);
}

#[tokio::test]
async fn a_cutover_scales_nothing_if_that_would_delete_a_claim() {
    for (when_scaled, phase) in [("Delete", Phase::Failed), ("Retain", Phase::Completed)] {
        let mut world = World::new();
        world.workload("deployments", "web");
        world.claim("home", "shop", "data-db-0", &[("a", "1")]);
        set_with_claims(&world, when_scaled);
        world.migrate(json!({
            "mode": "Cutover", "quiesce": "ScaleToZero",
            "volumes": [{ "name": "data" }, { "name": "data-db-0" }],
        }));
        let status = world.ends(1).await;
        assert_eq!(status.phase, phase, "{when_scaled} {status:#?}");
        let stays = i64::from(phase == Phase::Failed);
        assert_eq!(world.replicas("statefulsets", "db"), stays, "{when_scaled}");
        assert_eq!(world.replicas("deployments", "web"), stays, "{when_scaled}");
        if phase == Phase::Failed {
            let failed = ("False".into(), "ClaimNotRetained".into());
            assert_eq!(world.condition("Succeeded"), failed);
            assert!(status.message.contains("StatefulSet shop/db"), "{}", status.message);
        }
    }
}

#[tokio::test]
async fn a_source_claim_that_is_being_deleted_or_is_gone_after_the_application_stopped_is_missing()
{
    for mode in ["Stage", "Cutover"] {
        let mut world = World::new();
        let claim = key("persistentvolumeclaims", "shop", "data");
        let hold = |claim: &mut serde_json::Value| {
            claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
        };
        world.home.store.lock().change(&claim, hold);
        world.home.store.lock().delete(&claim).unwrap();
        world.migrate(json!({ "mode": mode, "quiesce": "ScaleToZero" }));
        let status = world.ends(1).await;
        assert_eq!(status.phase, Phase::Failed, "{mode} {status:#?}");
        assert_eq!(world.condition("Succeeded"), ("False".into(), "ClaimNotFound".into()));
    }
    let mut world = World::new();
    world.workload("deployments", "web");
    world.migrate(cutover());
    world.until("quiescing", |s| s.phase == Phase::Quiescing).await;
    world.remove("persistentvolumeclaims", "shop", "data");
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert_eq!(world.condition("Succeeded"), ("False".into(), "ClaimNotFound".into()));
}
