//! How many calls migrations take. The process runs as it does on a cluster, with its watches, by the clock of the test.

use controller::api::Phase;
use serde_json::{Value, json};

use super::world::World;

const VOLUMES: usize = 50;
/// Calls for each of them.
const A_VOLUME: usize = 60;

fn print(world: &World, what: &str, of: usize) {
    println!("{what}: {} calls", world.calls.count());
    for (call, count) in world.calls.by_verb_and_kind() {
        println!("{count:6}  {:6.2}  {call}", count as f64 / of as f64);
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_volumes_five_at_a_time_take_few_calls_each() {
    let mut world = World::new();
    let names: Vec<String> = (0..VOLUMES).map(|number| format!("v{number}")).collect();
    for name in &names {
        world.claim("home", "shop", name, &[("a", name)]);
    }
    let volumes: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    world.migrate(json!({ "volumes": volumes, "limits": {
        "parallel": 5, "attempts": 3, "startSeconds": 300,
    }}));
    let took = world.run(1200, |world| world.status().phase.is_final()).await;
    print(&world, &format!("{VOLUMES} volumes in {took} s"), VOLUMES);
    let status = world.status();
    assert_eq!(status.phase, Phase::Completed, "{status:#?}");
    for name in &names {
        assert_eq!(world.files("home", "shop-new", name), world.files("home", "shop", name));
    }
    world.assert_clean();
    assert!(world.calls.count() <= VOLUMES * A_VOLUME, "{} calls", world.calls.count());
}
