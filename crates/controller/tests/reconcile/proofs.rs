//! A volume has arrived if both ends report so, and report the same.

use std::collections::VecDeque;

use controller::api::{DirectVolumeMigrationStatus, Phase, VolumePhase};
use pod::{ExitCode, Report, Text, VolumeReport};
use serde_json::{Value, json};

use super::{
    kubelet::{self, list},
    serving::{Change, Ending},
    world::World,
};

#[derive(Clone, Copy, Debug)]
enum End {
    Source,
    Destination,
}

/// The fields that both ends report, as they are written.
fn fields() -> Vec<String> {
    let report = VolumeReport {
        tree_digest: Some(Text::default()),
        dry_run: true,
        ..VolumeReport::of(&Report::new("data-0", ExitCode::Ok, ""))
    };
    let Value::Object(fields) = serde_json::to_value(report).unwrap() else { unreachable!() };
    fields.into_iter().map(|(name, _)| name).collect()
}

/// Other values for a field, each of which is of its type.
fn others(field: &str, value: &Value) -> Vec<Value> {
    match (field, value) {
        ("outcome", _) => vec![json!("partial"), json!("failed")],
        ("exit_code", _) => vec![json!(23), json!(24), json!(11)],
        ("dry_run", _) => vec![json!(true)],
        (_, Value::Number(number)) => vec![json!(number.as_u64().unwrap() + 1)],
        ("tree_digest", Value::Null) => vec![json!("11".repeat(32))],
        (_, Value::String(_)) => vec![json!("11".repeat(32)), Value::Null],
        other => panic!("{other:?}"),
    }
}

/// A migration of one volume whose report `change` alters at one end.
async fn altered(end: End, change: Change) -> (World, DirectVolumeMigrationStatus) {
    let mut world = World::new();
    match end {
        End::Source => world.kubelet.change = Some(change),
        End::Destination => {
            let in_first = move |message: &mut Value| change(&mut message["volumes"][0]);
            world.kubelet.serving.change = Some(Box::new(in_first));
        }
    }
    world.migrate(json!({ "limits": { "attempts": 2, "parallel": 2, "startSeconds": 300 } }));
    let status = world.ends(1).await;
    (world, status)
}

#[tokio::test]
async fn a_report_that_differs_between_both_ends_in_any_field_is_never_a_success() {
    let report =
        Report { digest: Some("00".repeat(32).into()), ..Report::new("data-0", ExitCode::Ok, "") };
    let values = serde_json::to_value(VolumeReport::of(&report)).unwrap();
    let fields = fields();
    assert!(fields.len() >= 9, "{fields:?}");
    for field in fields {
        for other in others(&field, &values[&field]) {
            for end in [End::Source, End::Destination] {
                let (name, value) = (field.clone(), other.clone());
                let change: Change = Box::new(move |report| report[&name] = value.clone());
                let (world, status) = altered(end, change).await;
                let at = format!("{field} is {other} at the {end:?}");
                assert_eq!(status.phase, Phase::Failed, "{at}: {status:#?}");
                assert_ne!(status.volumes[0].phase, VolumePhase::Succeeded, "{at}");
                assert_eq!(world.condition("Succeeded").0, "False", "{at}");
                world.assert_clean();
            }
        }
    }
}

#[tokio::test]
async fn digests_that_differ_are_report_disagrees_with_the_figures_of_both_ends() {
    let change: Change = Box::new(|report| report["digest"] = json!("11".repeat(32)));
    let (world, status) = altered(End::Destination, change).await;
    assert_eq!(status.volumes[0].reason, "ReportMismatch", "{status:#?}");
    assert_eq!(status.volumes[0].attempts, 1);
    let progress = &list(&world.home, "directvolumemigrationprogresses")[0]["status"];
    let message = progress["message"].as_str().unwrap();
    assert!(message.contains(&"00".repeat(32)) && message.contains(&"11".repeat(32)), "{message}");
    assert_eq!(progress["phase"], "Failed");
}

#[tokio::test]
async fn a_destination_that_reports_another_volume_only_is_a_missing_report() {
    let change: Change = Box::new(|report| report["volume"] = json!("other-0"));
    let (_, status) = altered(End::Destination, change).await;
    assert_eq!((&*status.volumes[0].reason, status.volumes[0].attempts), ("ReportMissing", 2));
}

#[tokio::test]
async fn a_destination_without_a_report_of_the_volume_is_never_a_success_and_tried_again() {
    for ending in [
        Ending::Cut,
        Ending::LogAsMessage,
        Ending::Silent,
        Ending::Restarted,
        Ending::Evicted,
        Ending::Removed,
        Ending::Never,
    ] {
        let mut world = World::new();
        world.kubelet.serving.ending = ending;
        world.kubelet.serving.without_log = true;
        if ending == Ending::LogAsMessage {
            world.kubelet.serving.without_log = false;
        }
        world.migrate(json!({ "limits": { "attempts": 2, "parallel": 2, "startSeconds": 300 } }));
        let status = world.ends(1).await;
        assert_eq!(status.phase, Phase::Failed, "{ending:?}: {status:#?}");
        let volume = &status.volumes[0];
        let reason = if ending == Ending::Removed { "DestinationPodLost" } else { "ReportMissing" };
        assert_eq!((&*volume.reason, volume.attempts), (reason, 2), "{ending:?}");
        world.assert_clean();
    }
}

#[tokio::test]
async fn a_destination_that_ends_well_at_the_second_attempt_is_a_success() {
    let mut world = World::new();
    world.kubelet.serving.ending = Ending::Evicted;
    world.migrate(json!({}));
    world.until("retry", |s| s.volumes.first().is_some_and(|v| v.attempts == 2)).await;
    world.kubelet.serving.ending = Ending::Reported;
    let status = world.completes(1).await;
    assert_eq!(status.volumes[0].attempts, 2);
    world.assert_clean();
}

#[tokio::test]
async fn a_destination_that_is_evicted_after_its_report_is_a_success() {
    let mut world = World::new();
    world.kubelet.serving.ending = Ending::EvictedLater;
    world.migrate(json!({}));
    world.completes(1).await;
}

#[tokio::test]
async fn a_volume_has_not_arrived_before_the_destination_has_reported_it() {
    let mut world = World::new();
    world.kubelet.serving.delay = 5;
    world.kubelet.serving.without_log = true;
    world.migrate(json!({}));
    let status = world.until("report", |s| s.volumes.iter().any(|v| v.reported_at.is_some())).await;
    assert_eq!(status.volumes[0].phase, VolumePhase::Running, "{status:#?}");
    let status = world.completes(1).await;
    assert_eq!((status.volumes[0].attempts, &status.volumes[0].reported_at), (1, &None));
    world.assert_clean();
}

/// It did not learn that the source was content, for example.
#[tokio::test]
async fn a_destination_that_goes_on_is_believed_by_its_log() {
    let mut world = World::new();
    world.kubelet.serving.ending = Ending::Never;
    world.migrate(json!({}));
    let status = world.completes(1).await;
    assert_eq!(status.volumes[0].attempts, 1);
    world.assert_clean();
}

#[tokio::test]
async fn a_destination_whose_log_differs_from_the_source_is_report_disagrees() {
    let mut world = World::new();
    world.kubelet.serving.ending = Ending::Never;
    world.kubelet.serving.change =
        Some(Box::new(|message| message["volumes"][0]["files_written"] = json!(77)));
    world.migrate(json!({}));
    let status = world.ends(1).await;
    assert_eq!((status.phase, &*status.volumes[0].reason), (Phase::Failed, "ReportMismatch"));
}

#[tokio::test]
async fn a_source_that_did_not_verify_as_asked_is_no_success() {
    let mut world = World::new();
    let drop_tree = || -> Change {
        Box::new(|report| {
            report.as_object_mut().unwrap().remove("tree_digest");
            if let Some(volumes) = report.get_mut("volumes") {
                volumes[0].as_object_mut().unwrap().remove("tree_digest");
            }
        })
    };
    world.kubelet.change = Some(drop_tree());
    world.kubelet.serving.change = Some(drop_tree());
    world.migrate(json!({ "transfer": { "verify": true } }));
    let status = world.ends(1).await;
    assert_eq!((status.phase, &*status.volumes[0].reason), (Phase::Failed, "ReportMismatch"));
}

/// The server goes on, because a volume never arrived: its log tells of the other one.
#[tokio::test]
async fn a_volume_beside_one_that_failed_is_a_success_by_the_log_of_the_destination() {
    for without_log in [false, true] {
        let mut world = World::new();
        world.bind_late();
        world.claim("home", "shop", "more", &[("a", "1")]);
        world.kubelet.serving.without_log = without_log;
        let fails = kubelet::Ending { code: ExitCode::FileIo, missing: vec![], all_listed: false };
        world.kubelet.endings.insert("more-1".into(), VecDeque::from(vec![fails; 3]));
        world.migrate(json!({ "volumes": [{ "name": "data" }, { "name": "more" }] }));
        let status = world.ends(1).await;
        let volumes: Vec<_> =
            status.volumes.iter().map(|v| (v.phase, &*v.reason, v.attempts)).collect();
        let failed = (VolumePhase::Failed, "FileError", 1);
        // Without the log the volume is moved again, alone, by a server that ends.
        let attempts = if without_log { 2 } else { 1 };
        let moved = (VolumePhase::Succeeded, "Completed", attempts);
        assert_eq!(volumes, [moved, failed], "{without_log}: {status:#?}");
        world.assert_clean();
    }
}

#[tokio::test]
async fn a_server_that_reports_success_does_not_make_up_for_a_source_that_failed() {
    let mut world = World::new();
    let fails = kubelet::Ending { code: ExitCode::Partial, missing: vec!["b"], all_listed: true };
    world.kubelet.endings.insert("data-0".into(), VecDeque::from(vec![fails; 3]));
    world.kubelet.serving.change = Some(Box::new(|message| {
        message["volumes"][0]["outcome"] = json!("completed");
        message["volumes"][0]["exit_code"] = json!(0);
    }));
    world.migrate(json!({}));
    let status = world.ends(1).await;
    assert_eq!((status.phase, &*status.volumes[0].reason), (Phase::Failed, "Partial"));
}
