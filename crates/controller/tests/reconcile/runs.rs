//! Whole runs that go well.

use controller::api::Phase;
use serde_json::json;

use super::world::World;

#[tokio::test]
async fn a_stage_run_copies_and_leaves_the_application_alone_a_cutover_stops_it_a_rollback_starts_it()
 {
    let mut world = World::new();
    world.workload("deployments", "web");
    world.workload("statefulsets", "db");
    world.migrate(json!({ "quiesce": "ScaleToZero" }));
    world.completes(1).await;
    world.assert_clean();
    assert_eq!(world.files("home", "shop-new", "data"), world.files("home", "shop", "data"));
    assert_eq!(
        (world.replicas("deployments", "web"), world.replicas("statefulsets", "db")),
        (1, 1)
    );

    world.change(&json!({ "run": 2, "mode": "Cutover" }));
    world.completes(2).await;
    world.assert_clean();
    assert_eq!(
        (world.replicas("deployments", "web"), world.replicas("statefulsets", "db")),
        (0, 0)
    );
    assert_eq!(world.condition("Quiesced").0, "True");

    world.change(&json!({ "run": 3, "mode": "Rollback" }));
    let status = world.ends(3).await;
    assert_eq!(status.phase, Phase::RolledBack, "{status:#?}");
    assert_eq!(
        (world.replicas("deployments", "web"), world.replicas("statefulsets", "db")),
        (1, 1)
    );
}

#[tokio::test]
async fn a_volume_arrives_in_another_cluster() {
    let mut world = World::new();
    let far = json!({ "namespace": "shop-new", "cluster": { "kubeconfigSecret": "other" } });
    world.migrate(json!({ "destination": far, "endpoint": { "type": "NodePort", "host": "n" } }));
    world.completes(1).await;
    world.assert_clean();
    assert!(world.events().iter().any(|event| event.starts_with("RunCompleted: ")));
    assert_eq!(world.files("other", "shop-new", "data"), world.files("home", "shop", "data"));
}

#[tokio::test]
async fn a_pod_that_writes_during_a_stage_run_is_no_failure() {
    let mut world = World::new();
    world.migrate(json!({}));
    world.until("transfer", |status| status.phase == Phase::Transferring).await;
    world.visitor("visitor", "c");
    world.completes(1).await;
    assert!(world.files("home", "shop", "data").contains_key("c"));
}

#[tokio::test]
async fn a_destination_that_cannot_be_reached_for_a_while_delays_a_migration() {
    let mut world = World::new();
    let far = json!({ "namespace": "shop-new", "cluster": { "kubeconfigSecret": "other" } });
    world.migrate(json!({ "destination": far, "endpoint": { "type": "NodePort", "host": "n" } }));
    world.until("transfer", |status| status.phase == Phase::Transferring).await;
    world.calls.break_cluster("other");
    for _ in 0..10 {
        world.step_of("m").await;
    }
    assert_eq!(world.status().phase, Phase::Transferring);
    world.calls.mend();
    world.completes(1).await;
}
