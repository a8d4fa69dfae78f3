//! The specification of a run is that of its start.

use controller::api::{ENDPOINT_FIELDS, POD_FIELDS, Phase};
use serde_json::{Value, json};

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
    assert_eq!(status.transfers_started, 0);
}

/// Each field that only an operator may set, with a specification that sets it.
fn privileged() -> Vec<(String, Value)> {
    let value = |field: &str| match field {
        "imagePullSecrets" => json!([{ "name": "x" }]),
        "tolerations" => json!([{ "operator": "Exists" }]),
        "seLinuxOptions" => json!({ "type": "spc_t" }),
        "labels" | "annotations" => json!({ "app": "web" }),
        _ => json!("evil.example"),
    };
    let mut all = Vec::new();
    for field in POD_FIELDS.iter().map(|field| field.name) {
        let settings = json!({ field: value(field) });
        all.push((format!("pods.{field}"), json!({ "pods": settings })));
        for end in ["source", "destination"] {
            let pods = json!({ end: settings });
            all.push((format!("pods.{end}.{field}"), json!({ "pods": pods })));
        }
    }
    for field in ENDPOINT_FIELDS.iter().map(|field| field.name) {
        for kind in ["Ingress", "Route"] {
            let mut endpoint = json!({ "type": kind });
            endpoint[field] = value(field);
            all.push((format!("endpoint.{field}"), json!({ "endpoint": endpoint })));
        }
    }
    all
}

#[tokio::test]
async fn every_field_that_only_an_operator_may_set_fails_a_run_with_its_name_before_anything_is_made()
 {
    for (path, spec) in privileged() {
        let mut world = World::new();
        world.close();
        world.migrate(spec);
        let status = world.ends(1).await;
        assert_eq!(status.phase, Phase::Failed, "{path}");
        assert_eq!(world.condition("Succeeded"), ("False".into(), "NotPermitted".into()), "{path}");
        assert!(status.message.starts_with(&format!("{path} ")), "{path}: {}", status.message);
        assert_eq!(status.transfers_started, 0, "{path}");
        assert!(!world.exists("persistentvolumeclaims", "shop-new", "data"), "{path}");
    }
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
