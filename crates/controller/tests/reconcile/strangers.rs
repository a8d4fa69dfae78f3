//! Objects of somebody else under the names that those of a migration will have.

use std::{collections::BTreeSet, fs, path::Path};

use controller::api::Phase;
use serde_json::{Value, json};

use super::{
    store::Key,
    world::{World, add},
};

/// Every form of endpoint, and what it needs.
fn endpoints() -> [Value; 3] {
    [
        json!({ "type": "ClusterIP" }),
        json!({ "type": "Ingress", "host": "h.example" }),
        json!({ "type": "Route", "host": "h.example" }),
    ]
}

async fn moved(endpoint: &Value, prepare: impl FnOnce(&mut World)) -> World {
    let mut world = World::new();
    world.migrate(json!({ "endpoint": endpoint }));
    prepare(&mut world);
    world.ends(1).await;
    world
}

/// Where a migration has created objects in other namespaces than its own, claims aside: those have rules of their own.
async fn created(endpoint: &Value) -> BTreeSet<Key> {
    let world = moved(endpoint, |_| ()).await;
    assert_eq!(world.status().phase, Phase::Completed, "{:#?}", world.status());
    let store = world.home.store.lock();
    let added = store.log.iter().filter(|change| change.kind == "ADDED");
    let ours = added.filter(|change| {
        !change.object["metadata"]["labels"]["pvferry.io/migration-uid"].is_null()
            && change.key.1 != "pvferry"
    });
    ours.map(|change| change.key.clone()).collect()
}

#[tokio::test]
async fn an_object_of_somebody_else_of_every_kind_is_neither_adopted_nor_deleted_and_named() {
    let mut kinds = BTreeSet::new();
    for endpoint in endpoints() {
        for key in created(&endpoint).await {
            kinds.insert(key.0.clone());
            let theirs = json!({
                "metadata": { "name": key.2, "labels": { "app": "web" } },
                "spec": { "of": "another", "ports": [{}], "containers": [] }, "data": { "of": "another" },
            });
            let mut before = Value::Null;
            let world = moved(&endpoint, |world| {
                add(&world.home, &key.0, &key.1, theirs);
                before = world.home.store.lock().get(&key).unwrap();
            })
            .await;
            let status = world.status();
            assert_eq!(status.phase, Phase::Failed, "{key:?}: {status:#?}");
            let wanted = if key.0 == "pods" { "PodNotOwned" } else { "NameConflict" };
            assert_eq!(status.volumes[0].reason, wanted, "{key:?}: {status:#?}");
            let told = world.events().iter().any(|event| event.contains(&key.2));
            assert!(told, "{key:?}: {:?}", world.events());
            let after = world.home.store.lock().get(&key).expect("it is not ours to remove");
            for field in ["uid", "labels", "annotations", "deletionTimestamp"] {
                assert_eq!(after["metadata"][field], before["metadata"][field], "{key:?}");
            }
            assert_eq!(
                (&after["spec"]["of"], &after["data"]),
                (&json!("another"), &before["data"])
            );
            world.assert_clean();
        }
    }
    let all = ["ingresses", "networkpolicies", "pods", "routes", "secrets", "services"];
    assert_eq!(kinds.iter().collect::<Vec<_>>(), all);
}

#[tokio::test]
async fn an_object_that_takes_the_place_of_one_that_is_being_deleted_stays() {
    for endpoint in endpoints() {
        let replacing = |world: &mut World| {
            *world.home.replaces.lock() = true;
            // The controller itself deletes what no garbage collector does.
            world.kubelet.collects_nothing = true;
        };
        let world = moved(&endpoint, replacing).await;
        assert_eq!(world.status().phase, Phase::Completed, "{:#?}", world.status());
        let store = world.home.store.lock();
        let of_another = |change: &&super::store::Change| change.object["spec"]["of"] == "another";
        let put: BTreeSet<_> = store.log.iter().filter(of_another).map(|c| c.key.clone()).collect();
        assert!(put.len() >= 4, "{put:?}");
        for key in put {
            assert_eq!(store.get(&key).expect("it was deleted")["spec"]["of"], "another");
        }
    }
}

#[tokio::test]
async fn what_a_killed_controller_left_is_deleted_although_nobody_wrote_down_what_it_was() {
    let mut world = World::new();
    world.migrate(json!({}));
    world.until("transfer", |status| !status.transfers.is_empty()).await;
    let labels = {
        let migration = world.migration("m").unwrap();
        let status = migration.status.clone().unwrap();
        let names = controller::build::Names::new(&migration, 1, 1, &status.transfers[0].token);
        let role = controller::build::Role::Source;
        (names.of(role), names.labels(role))
    };
    let left = json!({ "metadata": { "name": labels.0, "labels": labels.1 } });
    add(&world.home, "secrets", "shop", left);
    world.completes(1).await;
    world.assert_clean();
}

/// What deletes, and what makes an object of somebody else its own, is in one place or in none.
#[test]
fn nothing_is_deleted_but_in_one_file_and_nothing_is_applied_over_existing_objects() {
    let mut files = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    assert!(files.len() > 40);
    for (path, text) in files {
        let deletes = ["DeleteParams", "delete_collection(", "Method::DELETE", "Request::delete"];
        for word in deletes {
            assert!(path.ends_with("removal.rs") || !text.contains(word), "{word} in {path}");
        }
        for word in ["Patch::Apply", "PatchParams::apply"] {
            assert!(!text.contains(word), "{word} in {path}");
        }
    }
}

fn sources(dir: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else {
            files.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A name that is not one would be a part of another path of the API server.
#[tokio::test]
async fn names_that_no_object_can_have_are_refused_before_anything_is_asked_for() {
    for wrong in ["a/pods/b/log?x=", "a#", "..", "A_B c", "a?labelSelector=&x=", "-a", ""] {
        for (at, spec) in [
            ("source", json!({ "source": { "namespace": wrong } })),
            ("destination", json!({ "destination": { "namespace": wrong } })),
            ("volume", json!({ "volumes": [{ "name": wrong }] })),
            ("namespace", json!({ "volumes": [{ "name": "data", "namespace": wrong }] })),
            ("target", json!({ "volumes": [{ "name": "data", "target": { "name": wrong } }] })),
            (
                "secret",
                json!({
                    "source": { "namespace": "shop", "cluster": { "kubeconfigSecret": wrong } },
                }),
            ),
        ] {
            let mut world = World::new();
            world.migrate(spec);
            let status = world.ends(1).await;
            assert_eq!(status.phase, Phase::Failed, "{at} {wrong}");
            assert_eq!(world.condition("Succeeded").1, "InvalidSpec", "{at} {wrong}");
            let of_migrations =
                |call: &String| call.contains("directvolumemigrations") || call.contains("/events");
            let calls = world.calls.all();
            assert!(calls.iter().all(of_migrations), "{at} {wrong} {calls:#?}");
            world.delete_migration("m");
            world.step_of("m").await;
            assert!(world.migration("m").is_none(), "{at} {wrong}");
        }
    }
}

#[tokio::test]
async fn a_migration_whose_cluster_was_never_reached_is_deleted_at_once() {
    let mut world = World::new();
    let far = json!({ "namespace": "shop-new", "cluster": { "kubeconfigSecret": "missing" } });
    world.migrate(json!({ "destination": far, "endpoint": { "type": "NodePort" } }));
    for _ in 0..3 {
        world.step_of("m").await;
    }
    assert_eq!(world.status().phase, Phase::Pending);
    world.delete_migration("m");
    for _ in 0..2 {
        world.step_of("m").await;
    }
    assert!(world.migration("m").is_none());
}
