//! The Secrets of a transfer own everything else of it, which is removed with them.

use serde_json::{Value, json};

use super::world::{World, key};

/// Steps until both pods of a transfer exist.
async fn with_both_pods() -> (World, [Value; 2]) {
    let mut world = World::new();
    world.migrate(json!({}));
    for _ in 0..20 {
        world.step_of("m").await;
        let pods = ["source", "destination"].map(|role| world.transfer_pods(role).pop());
        if let [Some(source), Some(destination)] = pods {
            return (world, [source, destination]);
        }
    }
    panic!("no pods: {:?}", world.told("m"));
}

#[tokio::test]
async fn a_secret_owns_the_pods_and_the_service_of_its_end() {
    let (mut world, pods) = with_both_pods().await;
    for pod in pods {
        let owner = &pod["metadata"]["ownerReferences"][0];
        let namespace = pod["metadata"]["namespace"].as_str().unwrap();
        let name = owner["name"].as_str().unwrap();
        let secret = world.home.store.lock().get(&key("secrets", namespace, name)).unwrap();
        assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Secret"), &secret["metadata"]["uid"]));
        // Else the controller would have to be permitted to update finalizers of Secrets.
        assert_eq!(owner["blockOwnerDeletion"], Value::Null);
        if let Ok(service) = world.home.store.lock().get(&key("services", namespace, name)) {
            assert_eq!(&service["metadata"]["ownerReferences"][0], owner);
        }
    }
    world.completes(1).await;
    world.assert_clean();
}

#[tokio::test]
async fn pods_that_no_garbage_collector_removes_with_their_secrets_are_removed_directly() {
    let (mut world, _) = with_both_pods().await;
    world.kubelet.collects_nothing = true;
    world.completes(1).await;
    world.assert_clean();
}

/// A failed attempt and the next one do not meet: the pods of the first are gone before the second begins.
#[tokio::test]
async fn the_next_attempt_waits_for_pods_that_no_garbage_collector_removes() {
    let (mut world, pods) = with_both_pods().await;
    world.kubelet.collects_nothing = true;
    let [source, _] = pods.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned());
    world.remove("pods", "shop", &source);
    for _ in 0..60 {
        let begun = world.status().transfers_started;
        let of_the_first = world.transfer_pods("destination").into_iter();
        let first = of_the_first
            .filter(|pod| pod["metadata"]["labels"]["pvferry.io/transfer"] == "1-1")
            .count();
        assert!(begun == 1 || first == 0, "two attempts at a time");
        if world.status().phase.is_final() {
            break;
        }
        world.step_of("m").await;
    }
    let status = world.completes(1).await;
    assert_eq!(status.volumes[0].attempts, 2, "{status:#?}");
    world.assert_clean();
}
