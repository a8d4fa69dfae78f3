//! The controller ends at any call, and begins anew.

use controller::api::Phase;
use serde_json::json;

use super::{calls::Fate, world::World};

/// A cutover, which has all the phases, during which call `number` meets `fate`; how many calls there were.
async fn migrate(number: usize, fate: Fate) -> usize {
    let mut world = World::new();
    world.calls.fault(number, fate);
    world.workload("deployments", "web");
    world.migrate(json!({ "mode": "Cutover", "quiesce": "ScaleToZero" }));
    let status = world.ends(1).await;
    let called = world.calls.all().get(number.wrapping_sub(1)).cloned();
    let at = format!("call {number} {fate:?}: {called:?}");
    assert_eq!(status.phase, Phase::Completed, "{at}: {status:#?}");
    assert_eq!(
        world.files("home", "shop-new", "data"),
        world.files("home", "shop", "data"),
        "{at}"
    );
    assert_eq!(world.replicas("deployments", "web"), 0, "{at}");
    assert_eq!(world.condition("Succeeded").0, "True", "{at}");
    world.assert_clean();
    world.calls.count()
}

async fn every_call(fate: Fate) {
    let calls = migrate(usize::MAX, fate).await;
    assert!(calls > 20, "{calls}");
    for number in 1..=calls {
        migrate(number, fate).await;
    }
}

#[tokio::test]
async fn killed_before_any_call_the_next_controller_ends_the_migration_as_well() {
    every_call(Fate::Lost).await;
}

#[tokio::test]
async fn killed_after_any_call_the_next_controller_ends_the_migration_as_well() {
    every_call(Fate::AnswerLost).await;
}

#[tokio::test]
async fn any_call_that_the_server_fails_is_made_again() {
    every_call(Fate::Refused).await;
}
