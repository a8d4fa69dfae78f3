//! A rollback needs the source alone.

use controller::api::{DirectVolumeMigrationStatus, Phase};
use serde_json::json;

use super::world::{World, key};

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

fn workload_key(plural: &str, name: &str) -> super::store::Key {
    key(plural, "shop", name)
}

/// A cutover of a Deployment `web` and a StatefulSet `db`, both stopped.
async fn cut_over() -> World {
    let mut world = World::new();
    world.workload("deployments", "web");
    world.workload("statefulsets", "db");
    for (plural, name) in [("deployments", "web"), ("statefulsets", "db")] {
        let workload = workload_key(plural, name);
        world.home.store.lock().change(&workload, |w| w["spec"]["replicas"] = json!(2));
    }
    world.migrate(json!({ "mode": "Cutover", "quiesce": "ScaleToZero" }));
    world.completes(1).await;
    world
}

async fn roll_back(world: &mut World, run: i64) -> DirectVolumeMigrationStatus {
    world.change(&json!({ "run": run, "mode": "Rollback" }));
    world.until("rollback", |s| s.run == run && s.phase.is_final()).await
}

#[tokio::test]
async fn a_rollback_restores_workloads_whose_annotations_were_changed_or_removed() {
    for annotations in [json!({ "pvferry.io/replicas": "banana" }), json!(null)] {
        let mut world = cut_over().await;
        let web = workload_key("deployments", "web");
        world
            .home
            .store
            .lock()
            .change(&web, |workload| workload["metadata"]["annotations"] = annotations);
        let status = roll_back(&mut world, 2).await;
        assert_eq!(status.phase, Phase::RolledBack, "{status:#?}");
        assert_eq!(world.replicas("deployments", "web"), 2);
        assert_eq!(world.replicas("statefulsets", "db"), 2);
        assert!(status.message.contains("2 workloads"), "{}", status.message);
    }
}

#[tokio::test]
async fn a_rollback_that_finds_a_workload_no_more_fails_and_lists_it() {
    let mut world = cut_over().await;
    world.remove("statefulsets", "shop", "db");
    let status = roll_back(&mut world, 2).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert!(status.message.contains("StatefulSet shop/db not found"), "{}", status.message);
    assert_eq!(world.condition("Succeeded"), ("False".into(), "RollbackIncomplete".into()));
    assert_eq!(world.replicas("deployments", "web"), 2);

    // Created anew: with no replicas, and then with some.
    world.workload("statefulsets", "db");
    let db = workload_key("statefulsets", "db");
    world.home.store.lock().change(&db, |workload| workload["spec"]["replicas"] = json!(0));
    let status = roll_back(&mut world, 3).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    world.home.store.lock().change(&db, |workload| workload["spec"]["replicas"] = json!(2));
    let status = roll_back(&mut world, 4).await;
    assert_eq!(status.phase, Phase::RolledBack, "{status:#?}");
    assert_eq!(status.stopped, []);
}

#[tokio::test]
async fn a_rollback_names_a_workload_that_was_scaled_meanwhile() {
    let mut world = cut_over().await;
    let db = workload_key("statefulsets", "db");
    world.home.store.lock().change(&db, |workload| workload["spec"]["replicas"] = json!(1));
    let status = roll_back(&mut world, 2).await;
    assert_eq!(status.phase, Phase::RolledBack, "{status:#?}");
    assert_eq!(world.replicas("statefulsets", "db"), 1);
    let lists =
        |event: &String| event.contains("StatefulSet shop/db has 1 replicas, before the cutover 2");
    assert!(world.events().iter().any(lists), "{:#?}", world.events());
}

#[tokio::test]
async fn a_rollback_restores_the_replicas_that_the_last_cutover_took() {
    let mut world = cut_over().await;
    // The administrator goes back by hand, to more than before.
    let web = workload_key("deployments", "web");
    world.home.store.lock().change(&web, |workload| workload["spec"]["replicas"] = json!(3));
    world.change(&json!({ "run": 2 }));
    world.completes(2).await;
    assert_eq!(world.replicas("deployments", "web"), 0);
    let status = roll_back(&mut world, 3).await;
    assert_eq!(status.phase, Phase::RolledBack, "{status:#?}");
    assert_eq!(world.replicas("deployments", "web"), 3);
    assert_eq!(world.replicas("statefulsets", "db"), 2);
}

/// The pods of the run that was ended are still there, under the names of its number.
#[tokio::test]
async fn a_cutover_after_a_rollback_of_the_same_run_does_not_meet_its_pods() {
    let mut world = World::new();
    world.workload("deployments", "web");
    world.kubelet.duration = 4;
    world.migrate(json!({ "mode": "Cutover", "quiesce": "ScaleToZero" }));
    world.until("source pod", |s| s.transfers.iter().any(|t| t.source_created)).await;
    for pod in world.transfer_pods("destination").iter().chain(&world.transfer_pods("source")) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let namespace = pod["metadata"]["namespace"].as_str().unwrap();
        let pod = key("pods", namespace, name);
        world
            .home
            .store
            .lock()
            .change(&pod, |pod| pod["metadata"]["finalizers"] = json!(["test/held"]));
    }
    world.change(&json!({ "mode": "Rollback" }));
    world.until("rollback", |s| s.phase == Phase::RolledBack).await;
    world.until("clean-up", |s| s.conditions.iter().any(|c| c.type_ == "CleanedUp")).await;
    assert_eq!(world.condition("CleanedUp").0, "False");
    world.change(&json!({ "mode": "Cutover" }));
    world.until("new pods", |s| s.transfers.iter().any(|t| t.number > 1 && t.source_created)).await;
    let held = |pod: &&serde_json::Value| !pod["metadata"]["finalizers"].is_null();
    let pods = [world.transfer_pods("destination"), world.transfer_pods("source")].concat();
    for pod in pods.iter().filter(held) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let namespace = pod["metadata"]["namespace"].as_str().unwrap();
        let pod = key("pods", namespace, name);
        world.home.store.lock().change(&pod, |pod| pod["metadata"]["finalizers"] = json!([]));
    }
    world.completes(1).await;
    assert_eq!(world.condition("CleanedUp").0, "True");
}

/// What a cutover stopped is in the status, whatever the specification says by then.
#[tokio::test]
async fn a_migration_whose_quiesce_is_changed_right_before_its_deletion_lists_what_it_stopped() {
    for changed in [false, true] {
        let mut world = World::new();
        world.workload("deployments", "web");
        world.migrate(json!({ "mode": "Cutover", "quiesce": "ScaleToZero" }));
        world.completes(1).await;
        if changed {
            world.change(&json!({ "quiesce": "None" }));
        }
        world.delete_migration("m");
        for _ in 0..10 {
            world.step_of("m").await;
        }
        assert!(world.migration("m").is_none());
        let listed = |event: &String| {
            event.starts_with("WorkloadLeftScaledDown") && event.contains("shop/web")
        };
        assert!(world.events().iter().any(listed), "{changed} {:#?}", world.events());
    }
}
