//! What a run tells in events, messages and columns: active sentences, the right number, and what to do.

use std::collections::VecDeque;

use controller::api::Phase;
use pod::ExitCode;
use serde_json::json;

use super::{
    kubelet::{Ending, list},
    world::World,
};

#[tokio::test]
async fn events_of_a_stage_run_of_one_volume_count_in_the_singular() {
    let mut world = World::new();
    world.migrate(json!({}));
    let status = world.completes(1).await;
    assert_eq!(status.message, "1 of 1 volumes migrated and verified");
    let events = world.events();
    for event in [
        "RunStarted: Run 1 (Stage) started: 1 volume",
        "ClaimCreated: Run 1: Created PVC shop-new/data",
        "RunCompleted: Run 1: 1 of 1 volumes migrated and verified",
    ] {
        assert!(events.iter().any(|found| found == event), "{event}: {events:#?}");
    }
    let copied = "VolumeCopied: Run 1: shop/data copied to shop-new/data: ";
    assert!(events.iter().any(|event| event.starts_with(copied)), "{events:#?}");
}

#[tokio::test]
async fn message_of_a_failed_run_counts_the_failures_and_has_the_reason_of_the_first() {
    let mut world = World::new();
    world.claim("home", "shop", "more", &[("a", "1")]);
    let failure = || Ending { code: ExitCode::FileIo, missing: vec!["a"], all_listed: true };
    for volume in ["data-0", "more-1"] {
        world.kubelet.endings.insert(volume.into(), VecDeque::from([failure()]));
    }
    world.migrate(json!({ "volumes": [{ "name": "data" }, { "name": "more" }] }));
    let status = world.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    let progress = &list(&world.home, "directvolumemigrationprogresses")[0];
    assert_eq!(progress["spec"]["claim"], "shop/data");
    let why = progress["status"]["message"].as_str().unwrap();
    assert!(!why.is_empty(), "{progress:#}");
    assert_eq!(status.message, format!("2 of 2 volumes failed; shop/data: FileError: {why}"));
}

#[tokio::test]
async fn rollback_without_a_cutover_says_that_there_is_nothing_to_restore() {
    let mut world = World::new();
    world.workload("deployments", "web");
    world.migrate(json!({ "mode": "Rollback" }));
    let status = world.ends(1).await;
    assert_eq!(status.message, "Nothing to restore: no workloads were scaled down");
}

#[tokio::test]
async fn missing_source_namespace_is_named_in_quotes() {
    let mut world = World::new();
    world.migrate(json!({ "source": { "namespace": "nowhere" } }));
    let status = world.ends(1).await;
    assert_eq!(status.message, "source namespace \"nowhere\" not found");
    assert_eq!(world.condition("Succeeded").1, "NamespaceNotFound");
}

#[tokio::test]
async fn columns_of_a_copied_volume_have_bytes_and_duration() {
    let mut world = World::new();
    world.migrate(json!({}));
    let status = world.completes(1).await;
    assert!(status.duration.ends_with('s'), "{status:#?}");
    let progress = &list(&world.home, "directvolumemigrationprogresses")[0]["status"];
    let (bytes, total) = (progress["bytes"].as_str(), progress["bytesTotal"].as_u64());
    assert_eq!(bytes.is_some_and(|bytes| bytes.ends_with(" B")), total != Some(0), "{progress:#}");
    assert_eq!(progress["reason"], "Completed", "{progress:#}");
}
