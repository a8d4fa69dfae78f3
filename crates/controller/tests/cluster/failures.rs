//! Volumes that do not arrive, or not at once: each failure has its name, and none is a success.

use std::{path::PathBuf, time::Duration};

use controller::api::{Phase, VolumePhase};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};
use testkit::{Content, TempTree, assert_same};

use super::support::{Place, in_place};

/// Makes a migration of one small volume that fails before anything moves, for `reason`.
async fn refused(place: &mut Place, more: Value, reason: &str) {
    place.start_controller();
    place.migrate(&["data"], more).await;
    let status = place.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert_eq!(status.volumes_done, "0/1");
    assert_eq!(place.condition("Succeeded").await, ("False".into(), reason.into()), "{status:#?}");
    assert!(place.events().await.iter().any(|event| event == reason), "{:?}", place.events().await);
}

#[test]
fn a_claim_that_is_not_there() {
    in_place(async |mut place| refused(&mut place, json!({}), "ClaimNotFound").await);
}

#[test]
fn a_storage_class_that_is_not_there() {
    in_place(async |mut place| {
        place.source_volume("data").await;
        let volumes = json!([{ "name": "data", "target": { "storageClass": "gold" } }]);
        refused(&mut place, json!({ "volumes": volumes }), "StorageClassNotFound").await;
    });
}

#[test]
fn a_target_that_is_too_small() {
    in_place(async |mut place| {
        place.source_volume("data").await;
        let volumes = json!([{ "name": "data", "target": { "size": "10Mi" } }]);
        refused(&mut place, json!({ "volumes": volumes }), "TargetTooSmall").await;
    });
}

#[test]
fn a_namespace_that_is_not_to_be_made() {
    in_place(async |mut place| {
        place.source_volume("data").await;
        let destination = json!({ "createNamespace": false });
        refused(&mut place, json!({ "destination": destination }), "NamespaceNotFound").await;
    });
}

#[test]
fn what_is_not_for_a_migration_to_choose() {
    in_place(async |mut place| {
        place.source_volume("data").await;
        place.arguments.clear();
        refused(&mut place, json!({ "pods": { "image": "evil:1" } }), "NotPermitted").await;
    });
}

#[test]
fn a_namespace_that_admits_no_root() {
    in_place(async |mut place| {
        place.source_volume("data").await;
        let level = [("pod-security.kubernetes.io/enforce", "restricted")];
        place.cluster.namespace(&place.destination, &level).await;
        refused(&mut place, json!({}), "RootNotAllowed").await;
    });
}

/// Makes a migration of one volume whose pods cannot run, for `reason`.
async fn cannot_run(place: &mut Place, more: Value, reason: &str) {
    place.source_volume("data").await;
    place.target_volume("data").await;
    place.start_controller();
    place.migrate(&["data"], more).await;
    let status = place.ends(1).await;
    assert_eq!(status.phase, Phase::Failed, "{status:#?}");
    assert_eq!(status.volumes[0].reason, reason, "{status:#?}");
    place.assert_clean().await;
}

#[test]
fn an_image_that_is_not_there() {
    in_place(async |mut place| {
        let pods = json!({ "image": "localhost/nothing:1", "imagePullPolicy": "Never" });
        cannot_run(&mut place, json!({ "pods": pods }), "ErrImageNeverPull").await;
    });
}

#[test]
fn a_pod_that_fits_no_node() {
    in_place(async |mut place| {
        let more = json!({
            "pods": { "nodeSelector": { "pvferry.io/no-such": "node" } },
            "limits": { "startSeconds": 10 },
        });
        cannot_run(&mut place, more, "Unschedulable").await;
    });
}

/// Makes a quota that wants every pod of the source namespace to have a limit on processors.
async fn quota(place: &Place) {
    let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": { "limits.cpu": "4" } } });
    place.cluster.create::<ResourceQuota>(&place.source, quota).await;
    let quotas = place.cluster.api::<ResourceQuota>(&place.source);
    let begun = std::time::Instant::now();
    while quotas.get("q").await.unwrap().status.and_then(|status| status.hard).is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody looks at the quota");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_quota_that_pods_do_not_fit_fails_after_the_time_that_pods_may_take() {
    in_place(async |mut place| {
        quota(&place).await;
        let more = json!({ "limits": { "startSeconds": 10 } });
        cannot_run(&mut place, more, "QuotaExceeded").await;
    });
}

#[test]
fn a_quota_is_waited_for_until_it_admits_the_pods() {
    in_place(async |mut place| {
        quota(&place).await;
        let (from, to) = (place.source_volume("data").await, place.target_volume("data").await);
        let made = TempTree::below(&from);
        made.populate(3, 20);
        place.start_controller();
        place.migrate(&["data"], json!({})).await;
        place.until("wait", |s| s.message.contains("must specify limits.cpu")).await;
        // What pods are like stays as it was at the start of a run; a quota does not.
        let quotas = place.cluster.api::<ResourceQuota>(&place.source);
        quotas.delete("q", &Default::default()).await.unwrap();
        let status = place.completes().await;
        assert_eq!(status.volumes[0].attempts, 1, "{status:#?}");
        assert_same(&from, &to);
    });
}

/// A volume that takes a quarter of a minute: polling comes late on a busy machine.
async fn slow(place: &mut Place, claim: &str) -> (TempTree, PathBuf, PathBuf) {
    let (from, to) = (place.source_volume(claim).await, place.target_volume(claim).await);
    let tree = TempTree::below(&from);
    tree.populate(5, 50).file("large", Content::random(6, 48 << 20));
    place.start_controller();
    let more = json!({ "transfer": { "bandwidth": "3M" }, "limits": { "attempts": 4 } });
    place.migrate(&[claim], more).await;
    (tree, from, to)
}

#[test]
fn a_sync_container_that_is_killed() {
    in_place(async |mut place| {
        let (_tree, from, to) = slow(&mut place, "victim").await;
        place.running_source().await;
        place
            .until("volume on its way", |s| {
                s.volumes.iter().any(|v| v.phase == VolumePhase::Running)
            })
            .await;
        // The image has no shell to kill with: from the machine, which is the node.
        let killed = std::process::Command::new("pkill")
            .args(["-KILL", "-f", "^/pvferry sync .*victim"])
            .status()
            .unwrap();
        assert!(killed.success());
        let status = place.completes().await;
        assert!(status.volumes[0].attempts >= 2, "{status:#?}");
        assert!(place.events().await.iter().any(|event| event == "VolumeRetrying"));
        assert_same(&from, &to);
    });
}

#[test]
fn pods_that_are_removed_under_way() {
    in_place(async |mut place| {
        let (_tree, from, to) = slow(&mut place, "data").await;
        let source = place.running_source().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        place.delete_pod(&place.source, source.metadata.name.as_deref().unwrap()).await;
        let lost = place.until("retry", |s| s.volumes[0].attempts == 2).await;
        assert_eq!(lost.phase, Phase::Transferring);
        let second = place.running_source().await;
        assert_ne!(second.metadata.name, source.metadata.name);
        for pod in place.cluster.pods(&place.destination, "destination").await {
            place.delete_pod(&place.destination, pod.metadata.name.as_deref().unwrap()).await;
        }
        let status = place.completes().await;
        assert!(status.volumes[0].attempts >= 3, "{status:#?}");
        assert_same(&from, &to);
    });
}

#[test]
fn a_controller_that_is_killed_again_and_again() {
    in_place(async |mut place| {
        let (_tree, from, to) = slow(&mut place, "data").await;
        let mut pause = 40;
        loop {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if place.status().await.phase.is_final() {
                break;
            }
            place.start_controller();
            // Later and later, so that there is an end.
            pause = pause * 5 / 4;
        }
        let status = place.completes().await;
        assert_eq!(
            status.volumes[0].attempts, 1,
            "no try is lost with the controller: {status:#?}"
        );
        assert_same(&from, &to);
    });
}

/// Somebody writes to the migration all the time, and the controller's own writes conflict with that.
#[test]
fn a_migration_that_is_written_to_all_the_time() {
    in_place(async |mut place| {
        let (_tree, from, to) = slow(&mut place, "data").await;
        let (migrations, done) =
            (place.migrations(), std::sync::Arc::new(std::sync::atomic::AtomicBool::default()));
        let stop = std::sync::Arc::clone(&done);
        let writer = tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let patch = json!({ "metadata": { "annotations": { "n": n.to_string() } } });
                let patch = kube::api::Patch::Merge(patch);
                migrations.patch("m", &Default::default(), &patch).await.unwrap();
                n += 1;
            }
            n
        });
        let status = place.completes().await;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(writer.await.unwrap() > 100);
        assert_eq!(status.volumes[0].attempts, 1, "{status:#?}");
        assert_same(&from, &to);
    });
}

#[test]
fn a_migration_that_is_removed_under_way_takes_its_pods_along() {
    in_place(async |mut place| {
        let _tree = slow(&mut place, "data").await;
        place.running_source().await;
        place.migrations().delete("m", &Default::default()).await.unwrap();
        let begun = std::time::Instant::now();
        while place.migrations().get_opt("m").await.unwrap().is_some() {
            assert!(begun.elapsed() < Duration::from_secs(90), "it does not go");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        place.assert_clean().await;
    });
}

#[test]
fn a_transfer_pod_may_do_nothing_with_the_api() {
    in_place(async |mut place| {
        let _tree = slow(&mut place, "data").await;
        place.running_source().await;
        for (namespace, role) in [(&place.source, "source"), (&place.destination, "destination")] {
            let spec = place.cluster.pods(namespace, role).await.remove(0).spec.unwrap();
            assert_eq!(spec.automount_service_account_token, Some(false), "{role}");
            assert!(!serde_json::to_string(&spec).unwrap().contains("serviceAccountToken"));
            let account = spec.service_account_name.unwrap();
            let listed = std::process::Command::new(
                std::env::var_os("PVFERRY_TEST_KUBECTL").unwrap_or("kubectl".into()),
            )
            .env("KUBECONFIG", &place.cluster.kubeconfig)
            .args(["auth", "can-i", "--list", "-n", namespace])
            .arg(format!("--as=system:serviceaccount:{namespace}:{account}"))
            .output()
            .unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            // What everybody may: to ask who one is and what one may do, and to read what the server is.
            for line in listed.lines().skip(1).filter(|line| !line.trim().is_empty()) {
                let harmless = line.starts_with("self")
                    || line.trim_start().starts_with('[')
                    || line.contains("clustertrustbundles");
                assert!(harmless, "{role}: {line}\n{listed}");
            }
        }
        place.completes().await;
    });
}
