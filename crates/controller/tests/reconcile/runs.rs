//! Whole runs that go well.

use std::collections::VecDeque;

use controller::api::Phase;
use pod::ExitCode;
use serde_json::json;

use super::{
    kubelet::{Ending, list},
    world::World,
};

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

fn changes(missing: &[&'static str], all_listed: bool) -> VecDeque<Ending> {
    let ending = Ending { code: ExitCode::SourceChanged, missing: missing.to_vec(), all_listed };
    VecDeque::from([ending])
}

#[tokio::test]
async fn a_stage_run_completes_although_entries_changed_and_lists_them() {
    let mut world = World::new();
    world.kubelet.endings.insert("data-0".into(), changes(&["b"], true));
    world.migrate(json!({}));
    let status = world.completes(1).await;
    let volume = &status.volumes[0];
    assert_eq!((volume.changed, volume.attempts, &*volume.reason), (1, 1, "SourceChanged"));
    let told = "1 entry changed during the run; the next run or the cutover will copy them";
    assert!(status.message.ends_with(told), "{}", status.message);
    let progress = &list(&world.home, "directvolumemigrationprogresses")[0]["status"];
    assert_eq!((&progress["errors"], &progress["exitCode"]), (&json!(["b: changed"]), &json!(24)));
    world.assert_clean();

    // What vanishes until the next run is deleted as after any other run.
    world.write("home", "shop", "data", &[("b", "2")]);
    world.change(&json!({ "run": 2, "mode": "Cutover" }));
    let status = world.completes(2).await;
    assert_eq!((status.volumes[0].changed, &*status.volumes[0].reason), (0, "Completed"));
    assert_eq!(world.files("home", "shop-new", "data"), world.files("home", "shop", "data"));
}

#[tokio::test]
async fn entries_that_change_during_a_cutover_fail_it_after_all_attempts() {
    let mut world = World::new();
    let all = (0..3).flat_map(|_| changes(&["b"], true)).collect();
    world.kubelet.endings.insert("data-0".into(), all);
    world.migrate(json!({ "mode": "Cutover" }));
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert_eq!((status.volumes[0].attempts, &*status.volumes[0].reason), (3, "SourceChanged"));
}

#[tokio::test]
async fn entries_of_others_in_a_directory_that_vanished_survive_the_next_run() {
    let mut world = World::new();
    world.claim("home", "shop-new", "data", &[("d/kept", "for years")]);
    world.kubelet.endings.insert("data-0".into(), changes(&["d"], false));
    world.migrate(json!({}));
    world.completes(1).await;
    world.change(&json!({ "run": 2 }));
    let status = world.ends(2).await;
    assert_eq!(status.volumes[0].reason, "TargetNotEmpty", "{status:#?}");
    assert!(world.files("home", "shop-new", "data").contains_key("d/kept"));
}

#[tokio::test]
async fn entries_that_cannot_be_read_fail_a_stage_run() {
    let mut world = World::new();
    let ending = Ending { code: ExitCode::Partial, missing: vec!["b"], all_listed: true };
    world.kubelet.endings.insert("data-0".into(), VecDeque::from([ending]));
    world.migrate(json!({}));
    let status = world.ends(1).await;
    assert_eq!((status.phase, &*status.volumes[0].reason), (Phase::Failed, "Partial"));
}

#[tokio::test]
async fn identities_are_issued_once_however_long_a_quota_has_no_room_for_the_pods() {
    let mut world = World::new();
    *world.home.quota_exhausted.lock() = true;
    world.migrate(json!({}));
    world.until("wait", |status| status.message.contains("exceeded quota")).await;
    for _ in 0..10 {
        world.step_of("m").await;
    }
    *world.home.quota_exhausted.lock() = false;
    world.completes(1).await;
    let issued = |call: &&String| call.contains("POST") && call.contains("/secrets");
    assert_eq!(world.calls.all().iter().filter(issued).count(), 2);
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
    // The watch of the pods at the destination calls again.
    world.pass(120);
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    world.completes(1).await;
}

/// What waits for the condition of a generation waits for the run that this generation asks for.
#[tokio::test]
async fn the_end_of_a_run_is_not_observed_for_the_generation_that_asks_for_the_next_one() {
    let mut world = World::new();
    world.migrate(json!({}));
    world.until("source pod", |s| s.transfers.iter().any(|t| t.source_created)).await;
    world.change(&json!({ "run": 2, "mode": "Cutover" }));
    let asked = world.migration("m").unwrap().metadata.generation;
    for _ in 0..100 {
        world.step_of("m").await;
        let status = world.status();
        let succeeded = status.conditions.iter().find(|c| c.type_ == "Succeeded").unwrap();
        let observed = [succeeded.observed_generation, Some(status.observed_generation)];
        if status.run == 1 {
            assert!(!observed.contains(&asked), "{status:#?}");
        } else {
            assert_eq!(observed, [asked, asked], "{status:#?}");
        }
        if status.run == 2 && status.phase.is_final() {
            assert_eq!(status.phase, controller::api::Phase::Completed);
            return;
        }
    }
    panic!("no end: {:#?}", world.status());
}
