//! Pods that are not what they seem, or do not go when they should.

use std::time::Duration;

use controller::{
    api::{Phase, VolumePhase},
    build::{Names, Role},
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testkit::{Content, TempTree, assert_same};

use super::support::{Place, in_place};

/// The name that the first pod of the migration will have is taken, before there is a controller.
#[test]
fn a_pod_of_somebody_else_under_the_same_name() {
    in_place(async |mut place| {
        place.source_volume("data").await;
        place.target_volume("data").await;
        place.cluster.namespace(&place.destination, &[]).await;
        place.migrate(&["data"], json!({})).await;
        let migration = place.migrations().get("m").await.unwrap();
        let name = Names::new(&migration, 1, 1, "").of(Role::Destination);
        let pod = json!({
            "metadata": { "name": name },
            "spec": { "containers": [{
                "name": "serve", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                "command": ["/bin/sleep", "3600"],
            }]},
        });
        place.cluster.create::<Pod>(&place.destination, pod).await;
        place.start_controller();
        let status = place.ends(1).await;
        assert_eq!(
            (status.phase, &*status.volumes[0].reason),
            (Phase::Failed, "PodNotOwned"),
            "{status:#?}"
        );
        let there = place.cluster.api::<Pod>(&place.destination).get(&name).await.unwrap();
        assert_eq!(there.metadata.deletion_timestamp, None, "it is not ours to remove");
    });
}

async fn set_finalizers(place: &Place, pod: &str, finalizers: &[&str]) {
    let patch = Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
    let pods = place.cluster.api::<Pod>(&place.source);
    pods.patch(pod, &PatchParams::default(), &patch).await.unwrap();
}

/// As on a node that does not answer: the pod is to go, and stays.
#[test]
fn a_pod_that_does_not_go_is_named_and_then_given_up() {
    in_place(async |mut place| {
        let (from, to) = (place.source_volume("data").await, place.target_volume("data").await);
        let made = TempTree::below(&from);
        made.file("large", Content::random(6, 32 << 20));
        place.start_controller();
        place.migrate(&["data"], json!({ "transfer": { "bandwidth": "2M" } })).await;
        let pod = place.running_source().await.metadata.name.unwrap();
        set_finalizers(&place, &pod, &["pvferry.io/test"]).await;
        place.until("run", |s| s.volumes.iter().any(|v| v.phase == VolumePhase::Running)).await;
        place.delete_pod(&place.source, &pod).await;
        place.until("wait", |s| s.message == format!("waiting for pod {pod} to terminate")).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(place.status().await.volumes[0].attempts, 1, "its claim is still held");
        place.until_event("NodeLost").await;
        let status = place.ends(1).await;
        assert_eq!(
            (status.phase, status.volumes[0].attempts),
            (Phase::Completed, 2),
            "{status:#?}"
        );
        assert_same(&from, &to);
        set_finalizers(&place, &pod, &[]).await;
        place.assert_clean().await;
    });
}
