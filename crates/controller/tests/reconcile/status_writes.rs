//! Statuses that the API server does not take: everybody sees that, and nobody is called again and again.

use controller::api::Phase;
use serde_json::json;

use super::{server::StatusWrites, world::World};

fn count(world: &World, reason: &str) -> usize {
    world.events().iter().filter(|event| event.starts_with(reason)).count()
}

/// The value of the counter of failed writes.
fn failures(world: &World, reason: &str) -> u64 {
    let head = format!("pvferry_controller_status_write_failures_total{{reason=\"{reason}\"}} ");
    let text = world.metrics.text();
    let value = text.lines().find_map(|line| line.strip_prefix(&*head));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_refused_is_reported_once_counted_and_written_a_minute_later_at_most() {
    for (writes, reason) in [
        (StatusWrites::Refused(403), "Forbidden"),
        (StatusWrites::Refused(422), "Invalid"),
        (StatusWrites::Refused(409), "Conflict"),
        (StatusWrites::Raced, "Conflict"),
    ] {
        let mut world = World::new();
        *world.home.status_writes.lock() = writes;
        world.migrate(json!({}));
        world.run(240, |_| false).await;
        assert_eq!(count(&world, "StatusNotWritten"), 1, "{writes:?} {:#?}", world.events());
        let attempts = failures(&world, reason);
        assert!((4..20).contains(&attempts), "{writes:?} {attempts} attempts in 240 s");
        let calls = world.calls.count();
        assert!(calls < 400, "{writes:?} {calls} calls in 240 s");
        *world.home.status_writes.lock() = StatusWrites::Accepted;
        let took = world.run(150, |world| world.status().phase.is_final()).await;
        assert_eq!(world.status().phase, Phase::Completed, "{writes:?} {took} s");
    }
}

/// The CRD is older than the controller.
#[tokio::test]
async fn a_status_of_which_the_server_drops_fields_is_reported() {
    let mut world = World::new();
    world.migrate(json!({}));
    world.completes(1).await;
    assert_eq!((count(&world, "StatusIncomplete"), failures(&world, "Pruned")), (0, 0));
    *world.home.status_writes.lock() = StatusWrites::Pruned;
    world.change(&json!({ "run": 2 }));
    world.completes(2).await;
    assert_eq!(count(&world, "StatusIncomplete"), 1, "{:#?}", world.events());
    assert!(failures(&world, "Pruned") > 0);
}
