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
