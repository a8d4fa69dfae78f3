//! Pods that use the claims at the destination while they are filled.

use controller::api::{DirectVolumeMigrationStatus, Phase};
use serde_json::{Value, json};

use super::world::{World, add};

/// A pod at the destination that mounts `shop-new/data`.
fn user(world: &World, name: &str) {
    let pod = json!({
        "metadata": { "name": name, "annotations": { "test/writes": "mine" } },
        "spec": {
            "containers": [{ "name": "app", "image": "app" }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
        },
    });
    add(&world.home, "pods", "shop-new", pod);
}

fn copies(status: &DirectVolumeMigrationStatus) -> bool {
    status.transfers.iter().any(|transfer| transfer.source_created)
}

async fn used_during(mode: &str, spec: Value, stays: bool, restart: bool) -> World {
    let mut world = World::new();
    world.kubelet.duration = 4;
    let mut more = spec;
    more["mode"] = json!(mode);
    world.migrate(more);
    world.until("source pod", copies).await;
    user(&world, "early");
    if !stays {
        world.remove("pods", "shop-new", "early");
    }
    if restart {
        world.restart();
    }
    world.ends(1).await;
    world
}

#[tokio::test]
async fn a_cutover_fails_if_a_pod_uses_its_target_before_the_last_commit() {
    for (stays, restart) in [(true, false), (false, false), (false, true)] {
        for acknowledged in [false, true] {
            let spec = json!({ "acknowledgeInUse": acknowledged });
            let world = used_during("Cutover", spec, stays, restart).await;
            let status = world.status();
            assert_eq!(status.phase, Phase::Failed, "{stays} {restart} {status:#?}");
            assert_eq!(status.volumes[0].reason, "UsedMeanwhile");
            let failed = ("False".into(), "UsedMeanwhile".into());
            assert_eq!(world.condition("Succeeded"), failed);
            let text = "pod early used shop-new/data at the destination during the run";
            assert!(world.events().iter().any(|e| e.contains(text)), "{:#?}", world.events());
        }
    }
}

#[tokio::test]
async fn a_stage_run_warns_of_a_pod_that_used_its_target_and_keeps_what_it_wrote() {
    let mut world = used_during("Stage", json!({}), false, false).await;
    assert_eq!(world.status().phase, Phase::Completed);
    let warned = ("False".into(), "UsedMeanwhile".into());
    assert_eq!(world.condition("TargetsUnused"), warned);
    let text = "pod early used shop-new/data at the destination during the run";
    assert!(world.events().iter().any(|e| e.contains(text)), "{:#?}", world.events());

    world.write("home", "shop-new", "data", &[("mine", "of the pod")]);
    world.change(&json!({ "run": 2 }));
    let status = world.ends(2).await;
    assert_eq!(status.volumes[0].reason, "TargetNotEmpty", "{status:#?}");
    assert!(world.files("home", "shop-new", "data").contains_key("mine"));
    world.change(&json!({ "run": 3, "transfer": { "overwrite": true } }));
    world.completes(3).await;
    assert_eq!(world.condition("TargetsUnused").0, "True");
}

#[tokio::test]
async fn a_cutover_whose_target_could_not_be_watched_fails() {
    let mut world = World::new();
    world.kubelet.duration = 4;
    world.migrate(json!({ "mode": "Cutover" }));
    world.until("source pod", copies).await;
    world.restart();
    world.bystander("anybody");
    world.forget_changes();
    let status = world.ends(1).await;
    assert_eq!((status.phase, &*status.volumes[0].reason), (Phase::Failed, "UseUnknown"));
}

#[tokio::test]
async fn pods_that_use_other_claims_of_the_destination_fail_no_cutover() {
    let mut world = World::new();
    world.kubelet.duration = 4;
    world.claim("home", "shop-new", "other", &[]);
    world.migrate(json!({ "mode": "Cutover" }));
    world.until("source pod", copies).await;
    let bystander = json!({
        "metadata": { "name": "bystander" },
        "spec": { "containers": [], "volumes": [
            { "name": "data", "persistentVolumeClaim": { "claimName": "other" } },
        ]},
    });
    add(&world.home, "pods", "shop-new", bystander);
    world.completes(1).await;
}

/// Limits of a run that waits for pods for 30 seconds.
fn impatient() -> Value {
    json!({ "parallel": 1, "attempts": 3, "startSeconds": 30 })
}

#[tokio::test]
async fn a_run_whose_target_stays_in_use_fails_after_start_seconds_and_copies_nothing() {
    for mode in ["Stage", "Cutover"] {
        let mut world = World::new();
        world.claim("home", "shop-new", "data", &[("mine", "for years")]);
        user(&world, "prod");
        world.migrate(json!({ "mode": mode, "limits": impatient() }));
        for _ in 0..20 {
            world.step_of("m").await;
        }
        assert_eq!(world.status().phase, Phase::Preparing, "{mode}");
        let status = world.ends(1).await;
        assert_eq!((status.phase, status.transfers_started), (Phase::Failed, 0), "{status:#?}");
        assert_eq!(status.volumes[0].reason, "TargetInUse", "{mode}");
        let text = "destination PVC shop-new/data is in use by pod prod";
        assert!(status.message.contains(text), "{}", status.message);
        let failed = ("False".into(), "TargetInUse".into());
        assert_eq!(world.condition("Succeeded"), failed, "{mode}");
        assert!(world.files("home", "shop-new", "data").contains_key("mine"), "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_a_used_target_fails_without_a_change_of_any_object() {
    let mut world = World::new();
    user(&world, "prod");
    world.migrate(json!({ "limits": impatient() }));
    let took = world.run(90, |world| world.status().phase == Phase::Failed).await;
    assert!((30..60).contains(&took), "{took} s: {:?}", world.told("m"));
}

#[tokio::test]
async fn a_pod_that_leaves_within_start_seconds_starts_the_time_anew_for_the_next_pod() {
    let mut world = World::new();
    let user = |world: &World, name: &str| {
        let volumes = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
        let pod = json!({
            "metadata": { "name": name }, "spec": { "containers": [], "volumes": volumes },
        });
        add(&world.home, "pods", "shop-new", pod);
    };
    user(&world, "first");
    world.migrate(json!({ "volumes": [{ "name": "data" }], "limits": impatient() }));
    for _ in 0..20 {
        world.step_of("m").await;
    }
    world.remove("pods", "shop-new", "first");
    world.completes(1).await;
    user(&world, "second");
    world.change(&json!({ "run": 2 }));
    for _ in 0..20 {
        world.step_of("m").await;
    }
    assert_eq!(world.status().phase, Phase::Preparing);
    world.remove("pods", "shop-new", "second");
    world.completes(2).await;
}

#[tokio::test]
async fn a_volume_whose_target_stays_in_use_during_a_run_fails_alone() {
    let mut world = World::new();
    world.claim("home", "shop", "other", &[("c", "3")]);
    world.kubelet.duration = 4;
    let volumes = json!([{ "name": "other" }, { "name": "data" }]);
    world.migrate(json!({ "volumes": volumes, "limits": impatient() }));
    world.until("source pod", copies).await;
    user(&world, "prod");
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    let ends: Vec<_> = status.volumes.iter().map(|v| (v.phase, &*v.reason)).collect();
    use controller::api::VolumePhase::{Failed, Succeeded};
    assert_eq!(ends, [(Succeeded, "Completed"), (Failed, "TargetInUse")], "{status:#?}");
    assert_eq!(world.files("home", "shop-new", "other"), world.files("home", "shop", "other"));
    world.assert_clean();
}

/// A claim has the annotation of the migration that created it, whatever pods have written there since.
#[tokio::test]
async fn a_created_claim_that_a_pod_used_before_its_first_transfer_keeps_its_content_in_the_next_run()
 {
    let mut world = World::new();
    world.migrate(json!({ "limits": impatient() }));
    world.until("claim", |status| status.phase == Phase::Transferring).await;
    user(&world, "early");
    // The watch of the pods gets its turn, without a step.
    world.step_of("another").await;
    let status = world.ends(1).await;
    assert_eq!(status.volumes[0].reason, "TargetInUse", "{status:#?}");
    world.write("home", "shop-new", "data", &[("mine", "of the pod")]);
    world.remove("pods", "shop-new", "early");
    world.change(&json!({ "run": 2 }));
    let status = world.ends(2).await;
    assert_eq!(status.volumes[0].reason, "TargetNotEmpty", "{status:#?}");
    assert!(world.files("home", "shop-new", "data").contains_key("mine"));
}

/// A pod that mounts `NAMESPACE/data` and has these labels.
fn labelled(world: &World, namespace: &str, labels: &Value) {
    let volumes = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    let pod = json!({
        "metadata": { "name": "impostor", "labels": labels },
        "spec": { "containers": [], "volumes": volumes },
    });
    add(&world.home, "pods", namespace, pod);
}

#[tokio::test]
async fn a_pod_that_bears_the_uid_of_the_migration_and_is_none_of_its_pods_is_a_user_of_the_target()
{
    let mut world = World::new();
    world.migrate(json!({ "limits": impatient() }));
    let uid = world.migration("m").unwrap().metadata.uid.unwrap();
    labelled(&world, "shop-new", &json!({ "pvferry.io/migration-uid": uid }));
    world.step_of("another").await;
    let status = world.ends(1).await;
    assert_eq!(status.volumes[0].reason, "TargetInUse", "{status:#?}");
    assert!(status.message.contains("pod impostor"), "{}", status.message);
    assert!(world.exists("pods", "shop-new", "impostor"), "it is not ours to delete");
}

#[tokio::test]
async fn a_pod_that_bears_the_uid_of_the_migration_is_a_user_of_the_source_of_a_cutover() {
    let mut world = World::new();
    world.migrate(json!({ "mode": "Cutover" }));
    let uid = world.migration("m").unwrap().metadata.uid.unwrap();
    labelled(&world, "shop", &json!({ "pvferry.io/migration-uid": uid }));
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert_eq!(world.condition("Succeeded"), ("False".into(), "ClaimInUse".into()));
}

#[tokio::test]
async fn a_pod_with_copies_of_the_labels_of_a_transfer_pod_fails_a_cutover_at_either_end() {
    for (role, namespace) in [("source", "shop"), ("destination", "shop-new")] {
        let mut world = World::new();
        world.kubelet.duration = 4;
        world.migrate(json!({ "mode": "Cutover" }));
        world.until("source pod", copies).await;
        let mut labels = world.transfer_pods(role)[0]["metadata"]["labels"].clone();
        labels.as_object_mut().unwrap().remove("pvferry.io/role");
        labelled(&world, namespace, &labels);
        let status = world.ends(1).await;
        assert_eq!(status.phase, Phase::Failed, "{role} {status:#?}");
        assert_eq!(status.volumes[0].reason, "UsedMeanwhile", "{role} {status:#?}");
    }
}
