//! Migrations that are gone before anything of them was cleaned up: somebody removed their finalizer.

use std::cell::Cell;

use controller::api::Phase;
use serde_json::{Value, json};

use super::{
    kubelet::list,
    world::{World, key},
};

fn is_transferring(world: &World) -> bool {
    let status = world.migration("m").and_then(|migration| migration.status);
    status.is_some_and(|status| status.phase == Phase::Transferring)
        && !world.transfer_pods("source").is_empty()
}

/// Removes the migration `m` and its finalizer, as `kubectl patch` does.
fn remove(world: &World) {
    world.home.store.lock().remove(&key("directvolumemigrations", "pvferry", "m"));
}

fn reservation(world: &World) -> Value {
    let claim = key("persistentvolumeclaims", "shop-new", "data");
    let claim = world.home.store.lock().get(&claim).unwrap();
    claim["metadata"]["annotations"]["pvferry.io/reserved-by"].clone()
}

fn left(world: &World) -> usize {
    let all = ["pods", "secrets", "services", "networkpolicies"];
    let ours = |object: &Value| !object["metadata"]["labels"]["pvferry.io/migration-uid"].is_null();
    all.iter().map(|plural| list(&world.home, plural).iter().filter(|o| ours(o)).count()).sum()
}

#[tokio::test(start_paused = true)]
async fn keys_services_policies_and_the_reservation_of_a_migration_without_finalizer_are_removed() {
    let mut world = World::new();
    world.migrate(json!({}));
    let removed = Cell::new(false);
    let took = world
        .run(120, |world| {
            if !removed.get() && is_transferring(world) {
                assert!(left(world) > 0 && !reservation(world).is_null());
                remove(world);
                removed.set(true);
            }
            removed.get() && left(world) == 0 && reservation(world).is_null()
        })
        .await;
    assert!(removed.get());
    assert!(took < 120, "{} objects left, reserved by {}", left(&world), reservation(&world));
}

#[tokio::test(start_paused = true)]
async fn a_migration_of_the_same_name_made_at_once_waits_for_the_claim_and_completes() {
    let mut world = World::new();
    world.migrate(json!({}));
    let removed = Cell::new(false);
    let took = world
        .run(240, |world| {
            if !removed.get() && is_transferring(world) {
                remove(world);
                world.migrate(json!({}));
                removed.set(true);
            }
            removed.get() && world.status().phase.is_final()
        })
        .await;
    assert_eq!(world.status().phase, Phase::Completed, "{took} s: {:?}", world.told("m"));
    let uid = world.migration("m").unwrap().metadata.uid.unwrap();
    assert!(reservation(&world).as_str().unwrap().ends_with(&uid));
    world.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn what_bears_the_uid_of_another_migration_stays() {
    let mut world = World::new();
    world.migrate(json!({}));
    let theirs = json!({ "metadata": { "name": "theirs", "labels": {
        "app.kubernetes.io/managed-by": "pvferry", "pvferry.io/migration-uid": "another",
    }}, "data": {} });
    super::world::add(&world.home, "secrets", "shop", theirs);
    let removed = Cell::new(false);
    world
        .run(120, |world| {
            if !removed.get() && is_transferring(world) {
                remove(world);
                removed.set(true);
            }
            removed.get() && left(world) == 1
        })
        .await;
    assert!(world.exists("secrets", "shop", "theirs"));
}

/// `kubectl delete --cascade=orphan` keeps them.
#[tokio::test]
async fn progress_objects_of_a_migration_deleted_during_a_run_say_failed() {
    let mut world = World::new();
    world.migrate(json!({}));
    world.until("transfer", |status| status.phase == Phase::Transferring).await;
    let progress = list(&world.home, "directvolumemigrationprogresses").remove(0);
    let name = progress["metadata"]["name"].as_str().unwrap();
    let of_volume = key("directvolumemigrationprogresses", "pvferry", name);
    world.home.store.lock().change(&of_volume, |progress| {
        progress["status"] = json!({ "phase": "Running", "rate": "1.0 KiB/s" });
        progress["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    });
    world.delete_migration("m");
    for _ in 0..40 {
        world.step_of("m").await;
    }
    assert!(world.migration("m").is_none());
    let left = list(&world.home, "directvolumemigrationprogresses");
    for progress in &left {
        let status = &progress["status"];
        assert_eq!(
            (&status["phase"], &status["reason"], &status["rate"]),
            (&json!("Failed"), &json!("MigrationDeleted"), &json!(""))
        );
    }
    assert_eq!(left.len(), 1);
}
