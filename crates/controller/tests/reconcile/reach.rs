//! Clusters that do not answer.

use std::time::Instant;

use serde_json::{Value, json};

use super::world::{DEADLINE, World};

fn to_other() -> Value {
    json!({
        "destination": { "namespace": "shop-new", "cluster": { "kubeconfigSecret": "other" } },
        "endpoint": { "type": "NodePort", "host": "n" },
    })
}

#[tokio::test]
async fn twenty_migrations_to_a_cluster_that_does_not_answer_hold_no_worker() {
    let mut world = World::new();
    *world.other.blackholed.lock() = true;
    for number in 0..20 {
        world.migrate_as(&format!("far-{number}"), to_other());
    }
    let begun = Instant::now();
    for number in 0..20 {
        for _ in 0..6 {
            world.step_of(&format!("far-{number}")).await;
        }
    }
    let took = begun.elapsed();
    assert!(took < DEADLINE * 15, "120 steps took {took:?}, one call may take {DEADLINE:?}");
    let text = world.migration("far-19").unwrap().status.unwrap().message;
    assert!(text.contains("the cluster of Secret pvferry/other"), "{text}");
    world.migrate(json!({}));
    world.completes(1).await;
}

#[tokio::test]
async fn a_cluster_that_answers_again_is_used_again() {
    let mut world = World::new();
    *world.other.blackholed.lock() = true;
    world.migrate(to_other());
    for _ in 0..8 {
        world.step_of("m").await;
    }
    *world.other.blackholed.lock() = false;
    world.completes(1).await;
}
