//! Volumes of one group take up slots, and are retried, each by itself.

use std::collections::VecDeque;

use controller::api::{DirectVolumeMigrationStatus, Phase, VolumePhase};
use pod::ExitCode;
use serde_json::{Value, json};

use super::{
    kubelet::Ending,
    world::{World, add},
};

/// The claims `data`, `long` and `third` at the source. The copy of `long` takes very long.
fn three_claims() -> World {
    let mut world = World::new();
    world.bind_late();
    for name in ["long", "third"] {
        world.claim("home", "shop", name, &[("a", name)]);
    }
    world.kubelet.durations.insert("long-1".into(), 60);
    world
}

fn volumes(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "name": name })).collect()
}

fn phase(status: &DirectVolumeMigrationStatus, index: usize) -> VolumePhase {
    status.volumes.get(index).map_or(VolumePhase::Pending, |volume| volume.phase)
}

fn broken_once() -> VecDeque<Ending> {
    VecDeque::from([Ending { code: ExitCode::Stream, missing: vec!["a", "b"], all_listed: false }])
}

#[tokio::test]
async fn a_volume_that_has_ended_makes_room_while_others_of_its_group_go_on() {
    let mut world = three_claims();
    let limits = json!({ "parallel": 2 });
    world.migrate(json!({ "volumes": volumes(&["data", "long", "third"]), "limits": limits }));
    let third = |s: &DirectVolumeMigrationStatus| phase(s, 2) == VolumePhase::Succeeded;
    let status = world.until("end of the third volume", third).await;
    assert_eq!(phase(&status, 1), VolumePhase::Running, "{status:#?}");
    assert_eq!(status.transfers_started, 2, "data and long share a pair of pods");
    world.completes(1).await;
    world.assert_clean();
}

#[tokio::test]
async fn a_volume_that_has_ended_makes_room_for_other_migrations_while_others_of_its_group_go_on() {
    let mut world = three_claims();
    world.limit(2);
    world.migrate(json!({ "volumes": volumes(&["data", "long"]) }));
    world.until("transfer", |s| phase(s, 1) == VolumePhase::Running).await;
    world.migrate_as("other", json!({ "volumes": volumes(&["third"]) }));
    let mut other = DirectVolumeMigrationStatus::default();
    for _ in 0..100 {
        world.step_of("m").await;
        world.step_of("other").await;
        other = world.migration("other").unwrap().status.unwrap_or_default();
        if other.phase.is_final() {
            break;
        }
    }
    assert_eq!(other.phase, Phase::Completed, "{other:#?}");
    assert_eq!(phase(&world.status(), 1), VolumePhase::Running);
}

#[tokio::test]
async fn a_volume_that_failed_is_retried_while_others_of_its_group_go_on() {
    for (parallel, room) in [(2, true), (1, false)] {
        let mut world = three_claims();
        world.kubelet.endings.insert("data-0".into(), broken_once());
        world.migrate(json!({
            "volumes": volumes(&["data", "long"]), "limits": { "parallel": parallel },
        }));
        let mut most = 0;
        let mut status = world.status();
        for _ in 0..300 {
            world.step_of("m").await;
            status = world.status();
            let open = |index: usize| {
                matches!(phase(&status, index), VolumePhase::Starting | VolumePhase::Running)
            };
            most = most.max([0, 1].into_iter().filter(|index| open(*index)).count());
            if phase(&status, 0) == VolumePhase::Succeeded {
                break;
            }
        }
        assert_eq!((most, status.volumes[0].attempts), (parallel, 2));
        if room {
            assert_eq!(phase(&status, 1), VolumePhase::Running, "{status:#?}");
        }
        let status = world.completes(1).await;
        assert_eq!(status.volumes[1].attempts, 1);
        let copied = world.files("home", "shop-new", "data");
        assert_eq!(copied, world.files("home", "shop", "data"));
        world.assert_clean();
    }
}

#[tokio::test]
async fn a_retry_beside_its_group_runs_on_the_nodes_of_the_group() {
    let mut world = three_claims();
    world.kubelet.endings.insert("data-0".into(), broken_once());
    world.migrate(json!({ "volumes": volumes(&["data", "long"]) }));
    world
        .until("retry", |s| {
            s.transfers_started == 2 && s.transfers.iter().all(|t| t.source_created)
        })
        .await;
    for role in ["source", "destination"] {
        let pods = world.transfer_pods(role);
        let bound: Vec<_> = pods.iter().filter(|pod| pod["spec"]["affinity"].is_object()).collect();
        assert_eq!((pods.len(), bound.len()), (2, 1), "{role}");
        let terms = &bound[0]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"];
        assert_eq!(terms[0]["matchFields"][0]["values"], json!(["node-1"]), "{terms}");
    }
}

#[tokio::test]
async fn a_retry_beside_its_group_does_not_write_under_a_pod_that_uses_the_target() {
    let mut world = three_claims();
    world.kubelet.endings.insert("data-0".into(), broken_once());
    world.migrate(json!({ "volumes": volumes(&["data", "long"]) }));
    world.until("failure", |s| phase(s, 0) == VolumePhase::Retrying).await;
    let user = json!({ "metadata": { "name": "user" }, "spec": {
        "containers": [], "volumes": [
            { "name": "data", "persistentVolumeClaim": { "claimName": "data" } },
        ],
    }});
    add(&world.home, "pods", "shop-new", user);
    let status = world.until("wait", |s| s.message.contains("in use by pod user")).await;
    assert_eq!((phase(&status, 0), status.transfers_started), (VolumePhase::Retrying, 1));
    world.remove("pods", "shop-new", "user");
    world.completes(1).await;
}

#[tokio::test]
async fn a_claim_that_one_pod_may_mount_is_retried_once_its_group_has_ended() {
    for end in ["shop", "shop-new"] {
        let mut world = three_claims();
        world.claim("home", "shop-new", "data", &[]);
        world.set_access_mode(end, "data", "ReadWriteOncePod");
        world.kubelet.endings.insert("data-0".into(), broken_once());
        world.migrate(json!({ "volumes": volumes(&["data", "long"]) }));
        let long = |s: &DirectVolumeMigrationStatus| phase(s, 1) == VolumePhase::Succeeded;
        let status = world.until("end of the long volume", long).await;
        assert_eq!(phase(&status, 0), VolumePhase::Retrying, "{end}: {status:#?}");
        world.completes(1).await;
    }
}
