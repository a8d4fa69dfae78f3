//! Clusters that do not answer.

use std::time::Instant;

use controller::api::Phase;
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

/// How many seconds a local migration takes, by the clock of the test, beside others to a cluster that does not answer.
async fn seconds_beside(others: usize) -> usize {
    let mut world = World::new();
    *world.other.blackholed.lock() = true;
    for number in 0..others {
        world.migrate_as(&format!("far-{number}"), to_other());
    }
    // The others have begun, and wait for their cluster.
    world.run(30, |_| false).await;
    world.migrate(json!({}));
    let took = world.run(600, |world| world.status().phase.is_final()).await;
    assert_eq!(world.status().phase, Phase::Completed);
    took
}

#[tokio::test(start_paused = true)]
async fn beside_twenty_to_a_cluster_that_does_not_answer_a_local_migration_takes_at_most_twice_its_time()
 {
    let (alone, beside) = (seconds_beside(0).await, seconds_beside(20).await);
    println!("a local migration takes {alone} s alone, {beside} s beside 20 that wait");
    assert!(beside <= 2 * alone, "{beside} s, {alone} s alone");
}
