//! Cutover, rollback, and what the API server refuses.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use controller::api::{DirectVolumeMigration, Phase};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::Pod,
};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{TempTree, assert_same};

use super::support::{Place, in_place};

fn workload(name: &str, replicas: i32) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "app", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                        "command": ["/bin/sleep", "3600"],
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                    }],
                    "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
                },
            },
        },
    })
}

async fn replicas(place: &Place) -> (i32, i32) {
    let deployment = place.cluster.api::<Deployment>(&place.source).get("web").await.unwrap();
    let set = place.cluster.api::<StatefulSet>(&place.source).get("db").await.unwrap();
    (deployment.spec.unwrap().replicas.unwrap(), set.spec.unwrap().replicas.unwrap())
}

/// Starts an application that uses the claim `data`.
async fn start_application(place: &Place) {
    let mut deployment = workload("web", 2);
    deployment["spec"].as_object_mut().unwrap().remove("serviceName");
    place.cluster.create::<Deployment>(&place.source, deployment).await;
    place.cluster.create::<StatefulSet>(&place.source, workload("db", 1)).await;
    let begun = std::time::Instant::now();
    while place
        .cluster
        .api::<Deployment>(&place.source)
        .get("web")
        .await
        .unwrap()
        .status
        .and_then(|status| status.ready_replicas)
        != Some(2)
    {
        assert!(begun.elapsed().as_secs() < 60, "the application does not start");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[test]
fn a_stage_run_leaves_the_application_alone_a_cutover_stops_it_and_a_rollback_starts_it_again() {
    in_place(async |mut place| {
        let (from, to) = (place.source_volume("data").await, place.target_volume("data").await);
        let made = TempTree::below(&from);
        made.populate(1, 60);
        start_application(&place).await;

        place.start_controller();
        place.migrate(&["data"], json!({ "quiesce": "ScaleToZero" })).await;
        place.completes().await;
        assert_eq!(replicas(&place).await, (2, 1));

        place.change(json!({ "run": 2, "mode": "Cutover" })).await;
        let status = place.ends(2).await;
        assert_eq!(status.phase, Phase::Completed, "{status:#?}");
        assert_eq!(replicas(&place).await, (0, 0));
        assert_eq!(place.condition("Quiesced").await.0, "True");
        assert_same(&from, &to);

        place.change(json!({ "run": 3, "mode": "Rollback" })).await;
        let status = place.ends(3).await;
        assert_eq!(status.phase, Phase::RolledBack, "{status:#?}");
        assert_eq!(replicas(&place).await, (2, 1));
    });
}

/// A pod that no workload owns, with the claim `data`.
fn visitor(name: &str) -> Value {
    let template = workload(name, 1)["spec"]["template"]["spec"].clone();
    json!({ "metadata": { "name": name }, "spec": template })
}

#[test]
fn who_does_not_wait_for_the_application_to_end_gets_it_back() {
    in_place(async |mut place| {
        place.source_volume("data").await;
        place.target_volume("data").await;
        start_application(&place).await;
        place.cluster.create::<Pod>(&place.source, visitor("visitor")).await;
        place.start_controller();
        place.migrate(&["data"], json!({ "mode": "Cutover", "quiesce": "ScaleToZero" })).await;
        place.until("wait", |s| s.message.contains("visitor still uses")).await;
        assert_eq!(place.condition("Quiesced").await, ("False".into(), "StillInUse".into()));
        assert_eq!(replicas(&place).await, (0, 0));
        place.change(json!({ "mode": "Rollback" })).await;
        place.until("rollback", |s| s.phase == Phase::RolledBack).await;
        assert_eq!(replicas(&place).await, (2, 1));
    });
}

#[test]
fn who_uses_a_volume_during_a_cutover_spoils_it() {
    in_place(async |mut place| {
        let from = place.source_volume("data").await;
        place.target_volume("data").await;
        let made = TempTree::below(&from);
        made.file("large", testkit::Content::random(2, 48 << 20));
        start_application(&place).await;
        place.start_controller();
        let more = json!({
            "mode": "Cutover", "quiesce": "ScaleToZero", "transfer": { "bandwidth": "3M" },
        });
        place.migrate(&["data"], more).await;
        place.running_source().await;
        place.cluster.create::<Pod>(&place.source, visitor("visitor")).await;
        let status = place.ends(1).await;
        assert_eq!(
            (status.phase, &*status.volumes[0].reason),
            (Phase::Failed, "UsedMeanwhile"),
            "{status:#?}"
        );
        assert_eq!(place.condition("Succeeded").await, ("False".into(), "UsedMeanwhile".into()));

        // Whoever removes the migration now is told what it leaves behind.
        place.forget().await;
        let notes: Vec<_> = place.all_events().await.into_iter().filter_map(|e| e.note).collect();
        for command in ["scale deployment web --replicas=2", "scale statefulset db --replicas=1"] {
            assert!(notes.iter().any(|note| note.contains(command)), "{notes:#?}");
        }
    });
}

#[test]
fn a_change_of_pods_or_transfer_is_refused_during_a_run_and_taken_after_it() {
    in_place(async |mut place| {
        let from = place.source_volume("data").await;
        place.target_volume("data").await;
        let made = TempTree::below(&from);
        made.file("large", testkit::Content::random(2, 24 << 20));
        place.start_controller();
        place.migrate(&["data"], json!({ "transfer": { "bandwidth": "2M" } })).await;
        place.running_source().await;
        for change in [
            json!({ "spec": { "pods": { "image": "evil" } } }),
            json!({ "spec": { "transfer": { "delete": false } } }),
        ] {
            let patched = place
                .migrations()
                .patch("m", &PatchParams::default(), &Patch::Merge(&change))
                .await;
            let told = patched.expect_err("a change").to_string();
            assert!(told.contains("cannot be changed during a run"), "{told}");
        }
        place.completes().await;
        place.change(json!({ "transfer": { "delete": false } })).await;
    });
}

#[test]
fn a_namespace_without_root_is_served_by_a_user() {
    in_place(async |mut place| {
        let (from, to) = (place.source_volume("data").await, place.target_volume("data").await);
        std::fs::write(from.join("a"), "all may read this").unwrap();
        for directory in [&from, &to] {
            std::os::unix::fs::chown(directory, Some(4711), Some(4711)).unwrap();
        }
        let level = [("pod-security.kubernetes.io/enforce", "restricted")];
        place.cluster.namespace(&place.destination, &level).await;
        place.start_controller();
        place.migrate(&["data"], json!({ "pods": { "user": { "id": 4711 } } })).await;
        let status = place.ends(1).await;
        assert_eq!(status.phase, Phase::Completed, "{status:#?}");
        assert_eq!(std::fs::read_to_string(to.join("a")).unwrap(), "all may read this");
        // As root wrote it, and as whom it arrived.
        let owner = |dir: &Path| std::fs::metadata(dir.join("a")).unwrap().uid();
        assert_eq!((owner(&from), owner(&to)), (0, 4711));
    });
}

#[test]
fn what_makes_no_sense_is_refused_by_the_api_server() {
    in_place(async |place| {
        let good = json!({
            "source": { "namespace": "a" }, "destination": { "namespace": "b" },
            "volumes": [{ "name": "data" }],
        });
        let refusals = [
            ("at least one volume is required", json!({ "volumes": [] })),
            ("should be less than or equal to", json!({ "limits": { "parallel": 1000 } })),
            ("require endpoint.host", json!({ "endpoint": { "type": "Route" } })),
            (
                "cannot be reached from another cluster",
                json!({ "source": { "namespace": "a", "cluster": { "kubeconfigSecret": "x" } } }),
            ),
            ("Unsupported value", json!({ "mode": "Sideways" })),
            ("unknown field", json!({ "colour": "blue" })),
        ];
        let mut url = place.migrations().resource_url().to_owned();
        url.push_str("?dryRun=All&fieldValidation=Strict");
        for (why, change) in refusals {
            let mut spec = good.clone();
            spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let body = json!({
                "apiVersion": "pvferry.io/v1alpha1", "kind": "DirectVolumeMigration",
                "metadata": { "name": "wrong" }, "spec": spec,
            });
            let request = http::Request::post(&url)
                .header("content-type", "application/json")
                .body(serde_json::to_vec(&body).unwrap())
                .unwrap();
            let answer = place.cluster.client.request::<DirectVolumeMigration>(request).await;
            let told = answer.expect_err(why).to_string();
            assert!(told.contains(why), "{why}: {told}");
        }
    });
}
