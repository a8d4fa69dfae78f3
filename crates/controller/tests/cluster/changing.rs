//! A source that is written to while it is copied.

use std::path::Path;

use controller::api::Phase;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use testkit::{Content, TempTree, assert_same};

use super::support::{Place, in_place};

/// A workload that writes into a large file in place, and replaces a small one, without a pause.
fn writer() -> Value {
    // It ends by itself, also if the test does not stop it.
    let script = "(n=0; while :; do n=$((n+1)); echo $n 1<>/data/tree/large; done) & a=$!; \
        (while :; do echo $a > /data/new; mv /data/new /data/state; done) & b=$!; \
        sleep 120; kill $a $b; sleep 3600";
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "app", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                        "command": ["/bin/sh", "-c", script],
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                    }],
                    "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
                },
            },
        },
    })
}

/// Starts a workload that writes to the claim `data` without a pause; returns once it does.
pub(crate) async fn start_writer(place: &Place, from: &Path) -> TempTree {
    let tree = from.join("tree");
    std::fs::create_dir(&tree).unwrap();
    let made = TempTree::below(from);
    made.populate(1, 60);
    // So large that it changes while it is read once more, although the writer has no processor for a while.
    made.file("large", Content::random(2, 64 << 20));
    std::fs::rename(made.path().join("large"), tree.join("large")).unwrap();
    place.cluster.create::<Deployment>(&place.source, writer()).await;
    let begun = std::time::Instant::now();
    while !from.join("state").exists() {
        assert!(begun.elapsed().as_secs() < 60, "the writer does not start");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    made
}

#[test]
fn a_stage_run_beside_a_writer_lists_what_changed_and_the_cutover_copies_it() {
    in_place(async |mut place| {
        let (from, to) = (place.source_volume("data").await, place.target_volume("data").await);
        let _made = start_writer(&place, &from).await;
        place.start_controller();
        let spec = json!({ "quiesce": "ScaleToZero", "transfer": { "bandwidth": "16M" } });
        place.migrate(&["data"], spec).await;
        let mut status = place.completes().await;
        // A writer that has no processor for a while may leave the file alone while it is read once more.
        for run in 2..=6 {
            if status.volumes[0].changed > 0 {
                break;
            }
            place.change(json!({ "run": run })).await;
            status = place.ends(run).await;
        }
        let volume = &status.volumes[0];
        assert_eq!((&*volume.reason, volume.attempts), ("SourceChanged", 1), "{status:#?}");
        assert!(volume.changed > 0, "{status:#?}");
        assert!(status.message.contains("changed during the run"), "{}", status.message);
        assert_eq!(place.condition("Succeeded").await, ("True".into(), "Completed".into()));
        let progress = place.progress("data").await;
        assert_eq!(
            (&progress["exitCode"], &progress["phase"], &progress["reason"]),
            (&json!(24), &json!("Succeeded"), &json!("SourceChanged"))
        );
        assert_eq!(progress["changed"], json!(volume.changed));
        let errors = progress["errors"].as_array().unwrap();
        // Of the writer's: it writes into one and replaces the other by rename.
        let of_writer = |error: &Value| {
            [".: ", "tree/large: ", "state: ", "new: "]
                .iter()
                .any(|name| error.as_str().unwrap().starts_with(name))
        };
        assert!(!errors.is_empty() && errors.iter().all(of_writer), "{errors:?}");

        let run = status.run + 1;
        place.change(json!({ "run": run, "mode": "Cutover" })).await;
        let status = place.ends(run).await;
        assert_eq!(status.phase, Phase::Completed, "{status:#?}");
        assert_eq!((&*status.volumes[0].reason, status.volumes[0].changed), ("Completed", 0));
        assert_same(&from, &to);
    });
}
