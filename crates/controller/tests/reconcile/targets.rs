//! Claims at the destination that belong to somebody else, are wanted twice, or are the source.

use controller::api::Phase;
use serde_json::{Value, json};

use super::world::{World, add, key};

fn elsewhere() -> Value {
    json!({ "namespace": "shop-new", "cluster": { "kubeconfigSecret": "other" } })
}

fn node_port() -> Value {
    json!({ "type": "NodePort", "host": "n" })
}

#[tokio::test]
async fn of_two_migrations_into_one_claim_one_fails_and_overwrites_nothing() {
    for exists in [false, true] {
        let mut world = World::new();
        world.claim("home", "shop", "other", &[("a", "of the other claim")]);
        if exists {
            world.claim("home", "shop-new", "data", &[]);
        }
        let target = json!([{ "name": "other", "target": { "name": "data" } }]);
        world.migrate_as("second", json!({ "volumes": target }));
        world.migrate(json!({}));
        for _ in 0..60 {
            world.step_of("m").await;
            world.step_of("second").await;
        }
        let ends = |name: &str| world.migration(name).unwrap().status.unwrap();
        let (first, second) = (ends("m"), ends("second"));
        assert_eq!(
            (first.phase, second.phase),
            (Phase::Completed, Phase::Failed),
            "{exists} {second:#?}"
        );
        assert!(second.message.contains("reserved by migration pvferry/m"), "{}", second.message);
        let reason =
            second.conditions.iter().find(|c| c.type_ == "Succeeded").unwrap().reason.clone();
        assert_eq!(reason, "TargetReserved");
        assert_eq!(world.files("home", "shop-new", "data"), world.files("home", "shop", "data"));
    }
}

#[tokio::test]
async fn a_claim_is_free_for_another_migration_once_the_first_is_deleted() {
    let mut world = World::new();
    world.claim("home", "shop-new", "data", &[]);
    world.migrate(json!({}));
    world.completes(1).await;
    world.delete_migration("m");
    for _ in 0..10 {
        world.step_of("m").await;
    }
    assert!(world.migration("m").is_none());
    world.migrate(json!({}));
    world.completes(1).await;
}

#[tokio::test]
async fn a_source_that_is_its_own_target_through_another_kubeconfig_is_refused() {
    let mut world = World::new();
    world.kubeconfig_leads_home();
    let shop = json!({ "namespace": "shop", "cluster": { "kubeconfigSecret": "other" } });
    world.migrate(json!({ "destination": shop, "endpoint": node_port() }));
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert_eq!(world.condition("Succeeded"), ("False".into(), "SourceIsTarget".into()));
    assert_eq!(status.transfers_started, 0);
}

#[tokio::test]
async fn a_claim_of_the_same_name_in_another_cluster_is_no_source() {
    let mut world = World::new();
    world.migrate(json!({ "destination": elsewhere(), "endpoint": node_port() }));
    world.completes(1).await;
}

#[tokio::test]
async fn what_the_source_lacks_is_deleted_at_an_existing_claim_only_with_overwrite() {
    let mut world = World::new();
    world.claim("home", "shop-new", "data", &[("kept", "for years"), ("also", "kept")]);
    world.migrate(json!({}));
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert_eq!(status.volumes[0].reason, "TargetNotEmpty");
    assert_eq!(status.volumes[0].attempts, 1);
    let files = world.files("home", "shop-new", "data");
    assert_eq!(files.get("kept").map(String::as_str), Some("for years"));

    world.change(&json!({ "run": 2, "transfer": { "overwrite": true } }));
    world.completes(2).await;
    assert_eq!(world.files("home", "shop-new", "data"), world.files("home", "shop", "data"));
}

#[tokio::test]
async fn what_the_source_lacks_is_deleted_at_claims_that_this_migration_made_or_filled() {
    for exists in [false, true] {
        let mut world = World::new();
        if exists {
            world.claim("home", "shop-new", "data", &[("a", "1")]);
        }
        world.migrate(json!({}));
        world.completes(1).await;
        world.write("home", "shop", "data", &[("c", "3")]);
        world.change(&json!({ "run": 2 }));
        world.completes(2).await;
        assert_eq!(world.files("home", "shop-new", "data").len(), 1, "{exists}");
    }
}

#[tokio::test]
async fn a_failed_run_does_not_make_an_existing_claim_its_own() {
    let mut world = World::new();
    world.claim("home", "shop-new", "data", &[("kept", "for years")]);
    world.migrate(json!({}));
    world.ends(1).await;
    world.change(&json!({ "run": 2 }));
    let status = world.ends(2).await;
    assert_eq!(status.volumes[0].reason, "TargetNotEmpty");
    assert!(world.files("home", "shop-new", "data").contains_key("kept"));
}

#[tokio::test]
async fn every_missing_claim_is_listed_and_claims_that_exist_are_not_called_missing() {
    let mut world = World::new();
    world.migrate(json!({ "volumes": [{ "name": "data" }, { "name": "x" }, { "name": "y" }] }));
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    let reasons: Vec<_> = status.volumes.iter().map(|volume| &*volume.reason).collect();
    assert_eq!(reasons, ["OthersFailed", "ClaimNotFound", "ClaimNotFound"]);
    assert_eq!(world.condition("Succeeded"), ("False".into(), "ClaimNotFound".into()));
    let events = world.events();
    let lists = |event: &String| event.contains("shop/x") && event.contains("shop/y");
    assert!(events.iter().any(lists), "{events:#?}");
    assert!(!world.exists("persistentvolumeclaims", "shop-new", "data"));
}

/// Binds a claim to a volume of a CSI driver.
fn bind(world: &World, cluster: &str, namespace: &str, claim: &str, handle: &str, share: &str) {
    let server = if cluster == "home" { &world.home } else { &world.other };
    let name = format!("{namespace}-{claim}");
    let volume = json!({ "metadata": { "name": name }, "spec": { "csi": {
        "driver": "csi.example", "volumeHandle": handle, "volumeAttributes": { "share": share },
    }}});
    add(server, "persistentvolumes", "", volume);
    let key = key("persistentvolumeclaims", namespace, claim);
    server.store.lock().change(&key, |claim| claim["spec"]["volumeName"] = json!(name));
}

#[tokio::test]
async fn a_target_that_is_the_source_volume_under_another_name_is_refused() {
    for (cluster, handle, share, same) in [
        ("home", "v", "one", true),
        ("home", "v", "another", true),
        ("home", "w", "one", false),
        ("other", "v", "one", true),
        // Handles of two clusters that are equal by chance.
        ("other", "v", "another", false),
    ] {
        let case = format!("{cluster} {handle} {share}");
        let mut world = World::new();
        world.claim(cluster, "shop-new", "data", &[]);
        bind(&world, "home", "shop", "data", "v", "one");
        bind(&world, cluster, "shop-new", "data", handle, share);
        let more = match cluster {
            "home" => json!({}),
            _ => json!({ "destination": elsewhere(), "endpoint": node_port() }),
        };
        world.migrate(more);
        let status = world.ends(1).await;
        assert_eq!(status.phase == Phase::Failed, same, "{case} {status:#?}");
        if same {
            let failed = ("False".into(), "SourceIsTarget".into());
            assert_eq!(world.condition("Succeeded"), failed, "{case}");
            assert_eq!(status.transfers_started, 0, "{case}");
        }
    }
}

#[tokio::test]
async fn two_targets_that_are_one_volume_are_refused() {
    let mut world = World::new();
    world.claim("home", "shop", "other", &[("a", "of the other claim")]);
    for name in ["data", "other"] {
        world.claim("home", "shop-new", name, &[]);
        bind(&world, "home", "shop-new", name, "v", "one");
    }
    world.migrate(json!({ "volumes": [{ "name": "data" }, { "name": "other" }] }));
    let status = world.ends(1).await;
    assert_eq!((status.phase, status.transfers_started), (Phase::Failed, 0), "{status:#?}");
    assert!(status.message.contains("are the same volume"), "{}", status.message);
}

/// By the clock of the controller, like all other times of the status.
#[tokio::test]
async fn conditions_have_the_time_of_the_step_that_set_them() {
    let mut world = World::new();
    world.migrate(json!({}));
    let status = world.completes(1).await;
    for condition in &status.conditions {
        let since = condition.last_transition_time.0;
        let run =
            status.start_time.as_ref().unwrap().0..=status.completion_time.as_ref().unwrap().0;
        assert!(run.contains(&since), "{condition:#?}");
    }
}
