//! Whose the content of a claim at the destination is: no run deletes what another client put there.

use controller::api::Phase;
use serde_json::{Value, json};

use super::world::{World, add, key};

const PRECIOUS: [(&str, &str); 1] = [("precious", "for years")];

/// Deletes the claim at the destination, and creates one of the same name on another volume with content of its own.
fn replace_target(world: &mut World) {
    world.remove("persistentvolumeclaims", "shop-new", "data");
    world.claim("home", "shop-new", "data", &PRECIOUS);
}

/// A volume that exists before the claim that it is meant for.
fn static_volume(world: &World, annotations: Value) {
    let volume = json!({
        "metadata": { "name": "static", "annotations": annotations },
        "spec": {
            "nfs": { "server": "nas", "path": "/export" },
            "claimRef": { "namespace": "shop-new", "name": "data" },
        },
    });
    add(&world.home, "persistentvolumes", "", volume);
}

fn assert_kept(world: &World) {
    let status = world.status();
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert_eq!(status.volumes[0].reason, "TargetNotEmpty", "{status:#?}");
    assert!(world.files("home", "shop-new", "data").contains_key("precious"));
}

#[tokio::test]
async fn a_claim_that_was_replaced_between_two_runs_keeps_its_content() {
    for mode in ["Stage", "Cutover"] {
        for copies_annotations in [false, true] {
            let mut world = World::new();
            world.migrate(json!({ "mode": mode }));
            world.completes(1).await;
            let target = key("persistentvolumeclaims", "shop-new", "data");
            let before = world.home.store.lock().get(&target).unwrap();
            replace_target(&mut world);
            if copies_annotations {
                let annotations = before["metadata"]["annotations"].clone();
                world
                    .home
                    .store
                    .lock()
                    .change(&target, |claim| claim["metadata"]["annotations"] = annotations);
            }
            world.change(&json!({ "run": 2 }));
            world.ends(2).await;
            assert_kept(&world);
        }
    }
}

#[tokio::test]
async fn a_claim_that_is_replaced_before_its_pods_start_keeps_its_content() {
    let mut world = World::new();
    world.migrate(json!({}));
    world.until("preparation", |s| s.phase == Phase::Transferring).await;
    replace_target(&mut world);
    world.ends(1).await;
    assert_kept(&world);
}

#[tokio::test]
async fn a_claim_that_is_replaced_while_its_destination_pod_starts_keeps_its_content() {
    let mut world = World::new();
    world.migrate(json!({}));
    while world.transfer_pods("destination").is_empty() {
        world.step_of("m").await;
    }
    replace_target(&mut world);
    world.ends(1).await;
    assert_kept(&world);
}

#[tokio::test]
async fn a_claim_that_is_replaced_or_deleted_during_the_copy_fails_the_run() {
    for mode in ["Stage", "Cutover"] {
        for replaced in [false, true] {
            let mut world = World::new();
            world.kubelet.duration = 5;
            world.migrate(json!({ "mode": mode }));
            world.until("source pod", |s| s.transfers.iter().any(|t| t.source_created)).await;
            world.remove("persistentvolumeclaims", "shop-new", "data");
            if replaced {
                world.claim("home", "shop-new", "data", &[]);
            }
            let status = world.ends(1).await;
            assert_eq!(status.phase, Phase::Failed, "{mode} {replaced} {status:#?}");
            assert_eq!(status.volumes[0].reason, "TargetReplaced", "{status:#?}");
            let failed = ("False".into(), "TargetReplaced".into());
            assert_eq!(world.condition("Succeeded"), failed, "{mode} {replaced}");
        }
    }
}

#[tokio::test]
async fn a_claim_whose_volume_was_replaced_between_two_runs_keeps_its_content() {
    let mut world = World::new();
    static_volume(&world, json!({}));
    world.migrate(json!({}));
    world.completes(1).await;
    world.remove("persistentvolumes", "", "static");
    static_volume(&world, json!({}));
    world.write("home", "shop-new", "data", &PRECIOUS);
    world.change(&json!({ "run": 2 }));
    world.ends(2).await;
    assert_kept(&world);
}

/// A volume that was retained, or restored from a backup with its annotations, is not empty because its claim is new.
#[tokio::test]
async fn a_new_claim_that_is_bound_to_an_existing_volume_keeps_its_content() {
    for annotations in [json!({}), json!({ "pv.kubernetes.io/provisioned-by": "csi.example" })] {
        for mode in ["Stage", "Cutover"] {
            let mut world = World::new();
            static_volume(&world, annotations.clone());
            world.write("home", "shop-new", "data", &PRECIOUS);
            world.migrate(json!({ "mode": mode }));
            world.ends(1).await;
            assert_kept(&world);
        }
    }
}

#[tokio::test]
async fn a_new_claim_on_an_empty_existing_volume_is_mirrored_from_the_second_run_on() {
    let mut world = World::new();
    static_volume(&world, json!({}));
    world.migrate(json!({}));
    world.completes(1).await;
    world.write("home", "shop", "data", &[("c", "3")]);
    world.change(&json!({ "run": 2 }));
    world.completes(2).await;
    assert_eq!(world.files("home", "shop-new", "data"), world.files("home", "shop", "data"));
}

#[tokio::test]
async fn a_replaced_claim_is_mirrored_with_overwrite() {
    let mut world = World::new();
    world.migrate(json!({}));
    world.completes(1).await;
    replace_target(&mut world);
    world.change(&json!({ "run": 2, "transfer": { "overwrite": true } }));
    world.completes(2).await;
    assert_eq!(world.files("home", "shop-new", "data"), world.files("home", "shop", "data"));
}

#[tokio::test]
async fn a_claim_that_is_being_deleted_at_the_end_of_a_run_fails_it() {
    for mode in ["Stage", "Cutover"] {
        let mut world = World::new();
        world.kubelet.duration = 4;
        world.migrate(json!({ "mode": mode }));
        world.until("source pod", |s| s.transfers.iter().any(|t| t.source_created)).await;
        let target = key("persistentvolumeclaims", "shop-new", "data");
        let hold = json!(["kubernetes.io/pvc-protection"]);
        world.home.store.lock().change(&target, |claim| claim["metadata"]["finalizers"] = hold);
        world.home.store.lock().delete(&target).unwrap();
        let status = world.ends(1).await;
        assert_eq!(status.volumes[0].reason, "TargetReplaced", "{mode} {status:#?}");
    }
}

/// The application at the destination is live since the cutover.
#[tokio::test]
async fn a_claim_that_a_pod_used_since_it_was_filled_keeps_its_content() {
    let mut world = World::new();
    world.migrate(json!({ "mode": "Cutover" }));
    world.completes(1).await;
    let pod = json!({ "metadata": { "name": "prod" }, "spec": { "containers": [], "volumes": [
        { "name": "data", "persistentVolumeClaim": { "claimName": "data" } },
    ]}});
    add(&world.home, "pods", "shop-new", pod);
    world.tick();
    world.change(&json!({ "run": 2 }));
    for _ in 0..10 {
        world.step_of("m").await;
    }
    assert!(world.told("m").1.contains("is in use by pod prod"), "{:?}", world.told("m"));
    world.write("home", "shop-new", "data", &PRECIOUS);
    world.remove("pods", "shop-new", "prod");
    world.ends(2).await;
    assert_kept(&world);
}

/// No controller watches the claim between two runs, and the pod is restarting just when the next one starts.
#[tokio::test]
async fn after_a_completed_cutover_no_run_deletes_what_the_application_wrote_without_overwrite() {
    for mode in ["Stage", "Cutover"] {
        let mut world = World::new();
        world.migrate(json!({ "mode": "Cutover" }));
        world.completes(1).await;
        world.write("home", "shop-new", "data", &PRECIOUS);
        world.change(&json!({ "run": 2, "mode": mode }));
        world.ends(2).await;
        assert_kept(&world);
        world.change(&json!({ "run": 3, "transfer": { "overwrite": true } }));
        world.completes(3).await;
        assert_eq!(world.files("home", "shop-new", "data"), world.files("home", "shop", "data"));
    }
}

#[tokio::test]
async fn a_failed_cutover_leaves_later_runs_the_right_to_delete() {
    let mut world = World::new();
    world.migrate(json!({}));
    world.completes(1).await;
    world.visitor("reader", "x");
    world.change(&json!({ "run": 2, "mode": "Cutover" }));
    let status = world.ends(2).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    world.remove("pods", "shop", "reader");
    world.write("home", "shop", "data", &[("c", "3")]);
    world.change(&json!({ "run": 3, "mode": "Stage" }));
    world.completes(3).await;
    assert_eq!(world.files("home", "shop-new", "data").len(), 1);
}

/// What the application wrote at the destination before the rollback exists nowhere else.
#[tokio::test]
async fn a_stage_run_after_a_rollback_copies_and_deletes_only_with_overwrite() {
    for written in [false, true] {
        let mut world = World::new();
        world.workload("deployments", "web");
        world.migrate(json!({ "mode": "Cutover", "quiesce": "ScaleToZero" }));
        world.completes(1).await;
        if written {
            world.write("home", "shop-new", "data", &PRECIOUS);
        }
        world.change(&json!({ "run": 2, "mode": "Rollback" }));
        world.until("rollback", |s| s.run == 2 && s.phase == Phase::RolledBack).await;
        world.change(&json!({ "run": 3, "mode": "Stage" }));
        if written {
            world.ends(3).await;
            assert_kept(&world);
            world.change(&json!({ "run": 4, "transfer": { "overwrite": true } }));
            world.completes(4).await;
        } else {
            world.completes(3).await;
        }
        assert_eq!(world.files("home", "shop-new", "data"), world.files("home", "shop", "data"));
    }
}
