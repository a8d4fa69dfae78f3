//! A rollback needs the source alone.

use controller::api::{DirectVolumeMigrationStatus, Phase};
use serde_json::json;

use super::world::World;

async fn cutover_to_other(world: &mut World) {
    world.workload("deployments", "web");
    let far = json!({ "namespace": "shop-new", "cluster": { "kubeconfigSecret": "other" } });
    world.migrate(json!({
        "mode": "Cutover", "quiesce": "ScaleToZero", "destination": far,
        "endpoint": { "type": "NodePort", "host": "n" },
    }));
    world.until("source pod", |s| s.transfers.iter().any(|t| t.source_created)).await;
    assert_eq!(world.replicas("deployments", "web"), 0);
}

#[tokio::test]
async fn a_rollback_starts_the_application_while_the_destination_cannot_be_reached() {
    let mut world = World::new();
    cutover_to_other(&mut world).await;
    world.other.calls.break_cluster("other");
    world.change(&json!({ "mode": "Rollback" }));
    world.until("rollback", |s| s.phase == Phase::RolledBack).await;
    assert_eq!(world.replicas("deployments", "web"), 1);
    let tried =
        |s: &DirectVolumeMigrationStatus| s.conditions.iter().any(|c| c.type_ == "CleanedUp");
    let status = world.until("clean-up that fails", tried).await;
    assert_eq!(status.phase, Phase::RolledBack);
    let cleaned = status.conditions.iter().find(|c| c.type_ == "CleanedUp").unwrap();
    assert_eq!((&*cleaned.status, &*cleaned.reason), ("False", "ClusterUnreachable"));
    assert!(cleaned.message.contains("Secret pvferry/other"), "{}", cleaned.message);

    world.other.calls.mend();
    let clean = |s: &DirectVolumeMigrationStatus| {
        s.conditions.iter().any(|c| c.type_ == "CleanedUp" && c.status == "True")
    };
    let status = world.until("clean-up", clean).await;
    assert_eq!(status.phase, Phase::RolledBack);
    world.assert_clean();
}

#[tokio::test]
async fn a_rollback_during_a_transfer_leaves_nothing_behind() {
    let mut world = World::new();
    cutover_to_other(&mut world).await;
    world.change(&json!({ "mode": "Rollback" }));
    world.until("rollback", |s| s.phase == Phase::RolledBack).await;
    for _ in 0..10 {
        world.step_of("m").await;
    }
    assert_eq!(world.replicas("deployments", "web"), 1);
    world.assert_clean();
}
