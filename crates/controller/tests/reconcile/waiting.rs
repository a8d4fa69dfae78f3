//! Watches: what wakes a migration, and what happens where they lag, lose changes or are not permitted.

use std::cell::Cell;

use controller::api::Phase;
use serde_json::{Value, json};

use super::{
    kubelet::list,
    world::{World, add, key},
};

/// A claim that is not bound until [`bind`], and a migration of it that waits for that.
async fn waiting_for_a_claim() -> World {
    let mut world = World::new();
    let claim = json!({
        "metadata": { "name": "late", "annotations": { "test/unbound": "true" } },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
            "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    add(&world.home, "persistentvolumeclaims", "shop", claim);
    world.write("home", "shop", "late", &[("a", "1")]);
    world.migrate(json!({ "volumes": [{ "name": "late" }] }));
    let took = world.run(60, |world| world.told("m").1.contains("is not bound")).await;
    assert!(took < 60, "{:?}", world.told("m"));
    world.idle(300).await;
    world
}

fn bind(world: &World) {
    let key = key("persistentvolumeclaims", "shop", "late");
    world.home.store.lock().change(&key, |claim| claim["metadata"]["annotations"] = json!({}));
}

async fn completes_within(world: &mut World, seconds: usize) {
    let took = world.run(seconds, |world| world.status().phase.is_final()).await;
    assert_eq!(world.status().phase, Phase::Completed, "{took} s: {:?}", world.told("m"));
    world.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_bound_wakes_the_migration_that_waits_for_it() {
    let mut world = waiting_for_a_claim().await;
    bind(&world);
    completes_within(&mut world, 20).await;
    assert_eq!(world.files("home", "shop-new", "late"), world.files("home", "shop", "late"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_another_cluster_that_is_gone_wakes_the_migration_that_waits_for_its_claim() {
    let mut world = World::new();
    world.claim("other", "shop-new", "data", &[]);
    let user = json!({ "metadata": { "name": "user" }, "spec": { "containers": [], "volumes": [
        { "name": "data", "persistentVolumeClaim": { "claimName": "data" } },
    ]}});
    add(&world.other, "pods", "shop-new", user);
    let far = json!({ "namespace": "shop-new", "cluster": { "kubeconfigSecret": "other" } });
    let limits = json!({ "parallel": 4, "attempts": 3, "startSeconds": 600 });
    let endpoint = json!({ "type": "NodePort", "host": "n" });
    world.migrate(json!({ "destination": far, "endpoint": endpoint, "limits": limits }));
    let took = world.run(60, |world| world.told("m").1.contains("is in use by pod user")).await;
    assert!(took < 60, "{:?}", world.told("m"));
    world.idle(300).await;
    world.other.store.lock().remove(&key("pods", "shop-new", "user"));
    completes_within(&mut world, 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_a_watch_has_missed_is_found_by_the_list_after_it() {
    let mut world = waiting_for_a_claim().await;
    world.home.store.lock().frozen = true;
    bind(&world);
    world.tick();
    world.home.store.lock().forgotten = u64::MAX;
    world.idle(330).await;
    assert!(!world.told("m").1.contains("is not bound"), "{:?}", world.told("m"));
    world.home.store.lock().frozen = false;
    world.home.store.lock().forgotten = 0;
    completes_within(&mut world, 330).await;
}

/// A kubeconfig whose user has no right to watch, for example.
#[tokio::test(start_paused = true)]
async fn without_permission_to_watch_a_migration_is_polled_to_its_end() {
    let mut world = World::new();
    *world.home.forbidden.lock() = true;
    world.workload("deployments", "web");
    world.migrate(json!({ "mode": "Cutover", "quiesce": "ScaleToZero" }));
    completes_within(&mut world, 240).await;
    assert_eq!(world.files("home", "shop-new", "data"), world.files("home", "shop", "data"));
}

/// What the watch does not know yet is not missing, and not lost.
#[tokio::test]
async fn watches_that_show_nothing_new_fail_no_run() {
    let mut world = World::new();
    world.migrate(json!({}));
    world.completes(1).await;
    world.home.store.lock().frozen = true;
    world.claim("home", "shop", "new", &[("a", "1")]);
    world.migrate_as("n", json!({ "volumes": [{ "name": "new" }] }));
    for step in 0..600 {
        world.step_of("n").await;
        let (phase, message) = world.told("n");
        assert_ne!(phase, Phase::Failed, "{message}");
        // Longer than pods may take to start.
        world.home.store.lock().frozen = step < 400;
        world.home.store.lock().waiting.drain(..).for_each(std::task::Waker::wake);
    }
    assert_eq!(world.told("n").0, Phase::Completed, "{:?}", world.told("n"));
    assert_eq!(world.files("home", "shop-new", "new"), world.files("home", "shop", "new"));
    let attempts: Vec<Value> = list(&world.home, "directvolumemigrationprogresses")
        .iter()
        .map(|progress| progress["status"]["attempt"].clone())
        .collect();
    assert_eq!(attempts, [json!(1), json!(1)]);
}

/// The watch still knows the claim as lost.
#[tokio::test]
async fn what_a_watch_knows_wrongly_of_a_claim_fails_no_run() {
    let mut world = World::new();
    let claim = key("persistentvolumeclaims", "shop", "data");
    world.home.store.lock().change(&claim, |claim| claim["status"]["phase"] = json!("Lost"));
    world.claim("home", "shop", "other", &[("a", "1")]);
    world.migrate_as("first", json!({ "volumes": [{ "name": "other" }] }));
    for _ in 0..5 {
        world.step_of("first").await;
    }
    world.home.store.lock().frozen = true;
    world.home.store.lock().change(&claim, |claim| claim["status"]["phase"] = json!("Bound"));
    world.migrate(json!({}));
    world.until("transfer", |status| status.phase == Phase::Transferring).await;
    world.home.store.lock().frozen = false;
    world.home.store.lock().waiting.drain(..).for_each(std::task::Waker::wake);
    world.completes(1).await;
}

/// Nothing goes on by itself, and nothing is asked again and again.
#[tokio::test(start_paused = true)]
async fn pods_of_two_lost_nodes_are_waited_for_without_calls() {
    let mut world = World::new();
    world.migrate(json!({}));
    let made = |world: &World| world.transfer_pods("source").len() == 1;
    world.run(60, made).await;
    for role in ["source", "destination"] {
        let pods = list(&world.home, "pods");
        let pod =
            pods.iter().find(|pod| pod["metadata"]["labels"]["pvferry.io/role"] == role).unwrap();
        let key = key(
            "pods",
            pod["metadata"]["namespace"].as_str().unwrap(),
            pod["metadata"]["name"].as_str().unwrap(),
        );
        world
            .home
            .store
            .lock()
            .change(&key, |pod| pod["metadata"]["finalizers"] = json!(["test/held"]));
        world.home.store.lock().delete(&key).unwrap();
    }
    world.idle(600).await;
    world.calls.reset();
    world.idle(600).await;
    assert!(world.calls.count() < 20, "{:?} {:?}", world.told("m"), world.calls.by_verb_and_kind());
}

#[tokio::test(start_paused = true)]
async fn watches_end_when_no_migration_is_under_way() {
    let mut world = World::new();
    let far = json!({ "namespace": "shop-new", "cluster": { "kubeconfigSecret": "other" } });
    world.migrate(json!({ "destination": far, "endpoint": { "type": "NodePort", "host": "n" } }));
    let open = |world: &World| {
        (world.home.store.lock().watches_open, world.other.store.lock().watches_open)
    };
    world.run(60, |world| world.status().phase == Phase::Transferring).await;
    assert!(open(&world).0 > 1 && open(&world).1 > 0, "{:?}", open(&world));
    completes_within(&mut world, 60).await;
    world.idle(600).await;
    // That of the process itself, which the test has ended, is none of them.
    assert_eq!(open(&world), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_kubeconfig_secret_that_is_put_back_after_ten_minutes_is_used_within_thirty_seconds() {
    let mut world = World::new();
    let secret = world.home.store.lock().get(&key("secrets", "pvferry", "other")).unwrap();
    world.remove("secrets", "pvferry", "other");
    let far = json!({ "namespace": "shop-new", "cluster": { "kubeconfigSecret": "other" } });
    world.migrate(json!({ "destination": far, "endpoint": { "type": "NodePort", "host": "n" } }));
    let seconds = Cell::new(0);
    let took = world
        .run(700, |world| {
            seconds.set(seconds.get() + 1);
            if seconds.get() == 600 {
                assert!(world.told("m").1.contains("not found"), "{:?}", world.told("m"));
                let data = json!({ "metadata": { "name": "other" }, "data": secret["data"] });
                add(&world.home, "secrets", "pvferry", data);
            }
            seconds.get() > 600 && !world.told("m").1.contains("not found")
        })
        .await;
    assert!(took <= 631, "{} s: {:?}", took - 600, world.told("m"));
}

/// What is kept of claims in memory is bounded; what a new claim is like its source in is not.
#[tokio::test]
async fn a_large_annotation_of_the_source_claim_is_copied_to_the_claim_that_is_created() {
    let mut world = World::new();
    let large = "y".repeat(100_000);
    let source = key("persistentvolumeclaims", "shop", "data");
    world.home.store.lock().change(&source, |claim| {
        claim["metadata"]["annotations"]["example.com/note"] = json!(large);
    });
    world.migrate(json!({}));
    world.completes(1).await;
    let target = key("persistentvolumeclaims", "shop-new", "data");
    let target = world.home.store.lock().get(&target).unwrap();
    let annotations = target["metadata"]["annotations"].as_object().unwrap();
    assert!(annotations["example.com/note"] == json!(large));
    assert!(!annotations.keys().any(|key| key.contains("trimmed")), "{:?}", annotations.keys());
}
