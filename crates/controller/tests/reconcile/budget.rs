//! How many calls migrations take. The process runs as it does on a cluster, with its watches, by the clock of the test.

use controller::api::Phase;
use serde_json::{Value, json};

use super::world::{World, add, key};

const VOLUMES: usize = 50;

fn print(world: &World, what: &str, of: usize) {
    println!("{what}: {} calls", world.calls.count());
    for (call, count) in world.calls.by_verb_and_kind() {
        println!("{count:6}  {:6.2}  {call}", count as f64 / of as f64);
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_volumes_five_at_a_time_take_at_most_8_calls_each() {
    fifty_volumes("csi", 2, 8).await;
}

/// Each has a pair of pods of its own.
#[tokio::test(start_paused = true)]
async fn fifty_volumes_that_no_node_can_reach_two_of_take_at_most_15_calls_each() {
    fifty_volumes("standard", 2, 15).await;
}

/// What is read of the progress of a volume does not grow with the time that a copy takes as it did at first.
#[tokio::test(start_paused = true)]
async fn fifty_volumes_whose_copies_take_a_minute_each_take_at_most_12_calls_each() {
    fifty_volumes("csi", 60, 12).await;
}

/// `a_volume`: the most calls that a volume may take, if its copy takes `duration` seconds or a little longer.
async fn fifty_volumes(class: &str, duration: u32, a_volume: usize) {
    let mut world = World::new();
    world.kubelet.duration = duration;
    let waits = json!({
        "metadata": { "name": "csi" }, "provisioner": "csi.example",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    add(&world.home, "storageclasses", "", waits);
    let names: Vec<String> = (0..VOLUMES).map(|number| format!("v{number}")).collect();
    for name in &names {
        world.claim("home", "shop", name, &[("a", name)]);
        let claim = key("persistentvolumeclaims", "shop", name);
        let class = json!(class);
        world.home.store.lock().change(&claim, |claim| claim["spec"]["storageClassName"] = class);
    }
    world.kubelet.spread = 5;
    let volumes: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    world.migrate(json!({ "volumes": volumes, "limits": {
        "parallel": 5, "attempts": 3, "startSeconds": 300,
    }}));
    let took = world.run(1200, |world| world.status().phase.is_final()).await;
    print(&world, &format!("{VOLUMES} volumes of class {class} in {took} s"), VOLUMES);
    let status = world.status();
    assert_eq!(status.phase, Phase::Completed, "{status:#?}");
    for name in &names {
        assert_eq!(world.files("home", "shop-new", name), world.files("home", "shop", name));
    }
    world.assert_clean();
    // That a volume has arrived is read from the server.
    let read = world.calls.by_verb_and_kind().get("GET pods").copied().unwrap_or(0);
    assert!(read >= usize::try_from(status.transfers_started).unwrap(), "{read} pods were read");
    assert!(world.calls.count() <= VOLUMES * a_volume, "{} calls", world.calls.count());
}

/// Waits of every kind: for a claim that is not bound, for a slot, for pods that are being deleted, for a pod that uses a target in another
/// cluster.
#[tokio::test(start_paused = true)]
async fn a_thousand_migrations_that_wait_take_at_most_100_calls_a_minute() {
    let mut world = World::new();
    world.limit(1);
    for number in 0..1000 {
        let (kind, name) = (number % 4, format!("m{number}"));
        let mut metadata = json!({ "name": name });
        if kind == 0 {
            metadata["annotations"] = json!({ "test/unbound": "true" });
        }
        let claim = json!({ "metadata": metadata, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
            "resources": { "requests": { "storage": "1Gi" } },
        }});
        add(&world.home, "persistentvolumeclaims", "shop", claim.clone());
        let user = |namespace: &str| {
            json!({
                "metadata": { "name": format!("user-{name}"), "namespace": namespace, "finalizers": ["test/held"] },
                "spec": { "containers": [], "volumes": [
                    { "name": "data", "persistentVolumeClaim": { "claimName": name } },
                ]},
                "status": { "phase": "Running" },
            })
        };
        let mut spec = json!({ "volumes": [{ "name": name }] });
        match kind {
            2 => {
                add(&world.home, "pods", "shop", user("shop"));
                world
                    .home
                    .store
                    .lock()
                    .delete(&key("pods", "shop", &format!("user-{name}")))
                    .unwrap();
                spec["mode"] = json!("Cutover");
                spec["quiesce"] = json!("ScaleToZero");
            }
            3 => {
                add(&world.other, "persistentvolumeclaims", "shop-new", claim);
                add(&world.other, "pods", "shop-new", user("shop-new"));
                spec["destination"] =
                    json!({ "namespace": "shop-new", "cluster": { "kubeconfigSecret": "other" } });
                spec["endpoint"] = json!({ "type": "NodePort", "host": "n" });
                // It waits for longer than the test takes.
                spec["limits"] = json!({ "parallel": 4, "attempts": 3, "startSeconds": 86400 });
            }
            _ => {}
        }
        world.migrate_as(&name, spec);
    }
    world.tick();
    world.idle(600).await;
    for (number, text) in [
        (0, "is not bound"),
        (
            5,
            "waiting for other migrations: the controller limits the volumes copied at once (--parallel)",
        ),
        (2, "still uses PVC shop/m2"),
        (3, "is in use by pod user-m3"),
    ] {
        let told = world.told(&format!("m{number}"));
        assert!(told.1.contains(text), "{number}: {told:?} {text}");
    }
    world.calls.reset();
    world.idle(3600).await;
    print(&world, "1000 migrations that wait, an hour", 60);
    let (calls, watches) = (world.calls.count(), world.calls.watches());
    println!("{:.1} calls and {:.1} watches a minute", calls as f64 / 60.0, watches as f64 / 60.0);
    assert!((calls + watches) / 60 <= 100, "{calls} calls, {watches} watches in an hour");
}
