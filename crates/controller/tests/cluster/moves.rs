//! Volumes that arrive.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::LogParams;
use serde_json::json;
use testkit::{Content, TempTree, assert_same, pki::forms_of_key};

use super::support::{in_place, other_cluster};

#[test]
fn two_volumes_arrive_and_the_next_run_moves_the_difference() {
    in_place(async |mut place| {
        let (data, media) = (place.source_volume("data").await, place.source_volume("media").await);
        let (to_data, to_media) =
            (place.target_volume("data").await, place.target_volume("media").await);
        let made = TempTree::below(&data);
        made.everything().populate(7, 200);
        let made_media = TempTree::below(&media);
        made_media.file("film", Content::random(9, 20 << 20));

        place.start_controller();
        place.migrate(&["data", "media"], json!({ "transfer": { "verify": true } })).await;
        let status = place.completes().await;
        assert_eq!((&*status.volumes_done, &*status.progress), ("2/2", "100%"));
        assert_same(&data, &to_data);
        assert_same(&media, &to_media);
        assert_eq!(place.condition("Succeeded").await, ("True".into(), "Completed".into()));
        let first = place.progress("data").await;
        assert_eq!((&first["phase"], &first["exitCode"]), (&json!("Succeeded"), &json!(0)));
        assert!(first["digest"].as_str().is_some_and(|digest| digest.len() == 64), "{first}");
        for event in ["RunStarted", "ClaimCreated", "VolumeCopied", "RunCompleted"] {
            assert!(place.events().await.iter().any(|e| e == event), "{event}");
        }

        made.mutate(8, 20);
        made_media.patch("film", 5 << 20, b"another scene");
        place.change(json!({ "run": 2 })).await;
        let status = place.ends(2).await;
        assert_eq!(status.volumes_done, "2/2", "{status:#?}");
        let events = place.events().await;
        assert_eq!(events.iter().filter(|event| *event == "VolumeCopied").count(), 4, "{events:?}");
        assert_same(&data, &to_data);
        assert_same(&media, &to_media);
        let second = place.progress("media").await;
        let (sent, total) =
            (second["bytesSent"].as_i64().unwrap(), second["bytesTotal"].as_i64().unwrap());
        assert!(sent < 1 << 20 && total > 19 << 20, "{sent} of {total}");
        place.assert_clean().await;
    });
}

#[test]
fn a_volume_goes_to_another_cluster() {
    in_place(async |mut place| {
        let Some(other) = other_cluster().await else {
            testkit::skip::skip("no second cluster");
            return;
        };
        let data = place.source_volume("data").await;
        let made = TempTree::below(&data);
        made.everything().populate(3, 100);
        // Only where the role permits it: the Secrets of other namespaces are none of the controller's business.
        let home = "pvferry";
        let secret = format!("{}-other", place.home);
        let kubeconfig = std::fs::read_to_string(&other.kubeconfig).unwrap();
        place
            .cluster
            .create::<Secret>(
                home,
                json!({ "metadata": { "name": secret }, "stringData": { "kubeconfig": kubeconfig } }),
            )
            .await;
        let target = place.directory("destination", "data");
        other.volume(&place.destination, "data", &target).await;
        place.home = home.into();
        place.forget().await;
        place.start_controller();
        let cluster = json!({ "kubeconfigSecret": secret, "key": "kubeconfig" });
        place
            .migrate(&["data"], json!({ "destination": { "cluster": cluster }, "endpoint": { "type": "NodePort" } }))
            .await;
        let status = place.ends(1).await;
        assert_eq!(status.volumes_done, "1/1", "{status:#?}");
        assert_same(&data, &target);
        place.forget().await;
    });
}

#[test]
fn secrets_are_in_no_log_event_or_resource() {
    in_place(async |mut place| {
        let data = place.source_volume("data").await;
        place.target_volume("data").await;
        let made = TempTree::below(&data);
        made.file("large", Content::random(2, 64 << 20));
        place.start_controller();
        place.migrate(&["data"], json!({ "transfer": { "bandwidth": "5M" } })).await;
        // Every container has something to say by then: the first progress is read after five seconds.
        place.until("progress", |s| s.volumes.iter().any(|v| v.bytes_done > 0)).await;
        let (mut keys, mut said) = (Vec::new(), Vec::new());
        for (namespace, role) in [(&place.source, "source"), (&place.destination, "destination")] {
            let pod = place.cluster.pods(namespace, role).await.remove(0);
            let name = pod.metadata.name.clone().unwrap();
            let secret = place.cluster.api::<Secret>(namespace).get(&name).await.unwrap();
            let mut files = secret.data.unwrap().into_iter();
            let (_, key) = files.find(|(name, _)| name.ends_with(".key")).unwrap();
            keys.push(forms_of_key(&String::from_utf8(key.0).unwrap()));
            said.push(serde_json::to_string(&pod).unwrap());
            for container in pod.spec.unwrap().containers {
                let params = LogParams { container: Some(container.name), ..Default::default() };
                said.push(place.cluster.api::<Pod>(namespace).logs(&name, &params).await.unwrap());
            }
        }
        // A tunnel, a sync container and a server.
        assert!(keys[0] != keys[1] && said.len() == 5);
        let status = place.completes().await;
        said.extend([
            place.logged(),
            serde_json::to_string(&status).unwrap(),
            serde_json::to_string(&place.all_events().await).unwrap(),
            place.progress("data").await.to_string(),
        ]);
        for text in said {
            let told = keys.iter().flatten().any(|form| text.contains(form));
            assert!(!told && !text.contains("PRIVATE KEY") && !text.is_empty(), "{text}");
        }
    });
}

#[test]
fn a_migration_that_is_made_again_under_its_name_begins_anew() {
    in_place(async |mut place| {
        let (from, to) = (place.source_volume("data").await, place.target_volume("data").await);
        let made = TempTree::below(&from);
        made.populate(3, 20);
        place.start_controller();
        place.migrate(&["data"], json!({})).await;
        place.completes().await;
        let first = place.progress("data").await;
        place.forget().await;
        made.populate(4, 20);
        place.migrate(&["data"], json!({})).await;
        place.completes().await;
        let second = place.progress("data").await;
        assert_ne!(first["digest"], second["digest"]);
        assert_same(&from, &to);
    });
}
