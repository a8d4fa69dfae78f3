//! The specification of a run is that of its start.

use controller::api::Phase;
use serde_json::json;

use super::{
    kubelet::{list, text},
    world::World,
};

#[tokio::test]
async fn an_image_that_is_patched_in_during_a_run_is_not_run() {
    for phase in [Phase::Preparing, Phase::Quiescing, Phase::Transferring] {
        let mut world = World::new();
        world.close();
        world.migrate(json!({ "mode": "Cutover" }));
        world.until("phase", |s| s.phase == phase).await;
        world.change(&json!({ "pods": {
            "image": "evil", "priorityClassName": "system-node-critical",
            "tolerations": [{ "operator": "Exists" }],
        }}));
        let mut seen = 0;
        while !world.status().phase.is_final() {
            world.step_of("m").await;
            for pod in list(&world.home, "pods") {
                seen += 1;
                for container in pod["spec"]["containers"].as_array().unwrap() {
                    assert_eq!(text(&container["image"]), "pvferry:1", "{phase:?}");
                }
                assert!(pod["spec"]["priorityClassName"].is_null(), "{phase:?}");
                assert!(pod["spec"]["tolerations"].is_null(), "{phase:?}");
            }
        }
        assert!(seen > 0);
        assert_eq!(world.status().phase, Phase::Completed);
    }
}

#[tokio::test]
async fn what_only_an_operator_may_choose_fails_the_next_run_at_its_start() {
    let mut world = World::new();
    world.close();
    world.migrate(json!({}));
    world.completes(1).await;
    world.change(&json!({ "run": 2, "pods": { "image": "evil" } }));
    let status = world.ends(2).await;
    assert_eq!(status.phase, Phase::Failed);
    assert_eq!(world.condition("Succeeded"), ("False".into(), "NotPermitted".into()));
    assert_eq!(status.transfers_begun, 0);
}

#[tokio::test]
async fn a_change_of_what_is_transferred_holds_for_the_next_run() {
    let mut world = World::new();
    world.migrate(json!({}));
    world.completes(1).await;
    world.change(&json!({ "run": 2 }));
    world.until("transfer", |s| s.run == 2 && s.phase == Phase::Transferring).await;
    world.write("home", "shop", "data", &[("c", "3")]);
    world.change(&json!({ "transfer": { "delete": false } }));
    world.completes(2).await;
    assert_eq!(world.files("home", "shop-new", "data").len(), 1, "run 2 deletes as it began");
}
