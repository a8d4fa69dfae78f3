//! What nobody else may be disturbed by: the deployed controller itself, and an API server that goes away.

use std::{env, process::Command, time::Duration};

use controller::api::Phase;
use serde_json::json;
use testkit::{Content, TempTree, assert_same};

use super::support::in_place;

/// As installed by `deploy/`: two instances, of which one leads, with the rights of their role and in their image.
#[test]
fn the_deployment_moves_a_volume_and_a_second_instance_takes_over() {
    in_place(async |place| {
        if env::var_os("PVFERRY_TEST_CONTROLLER_IMAGE").is_none() {
            testkit::skip::skip("no image of the controller");
            return;
        }
        let (from, to) = (place.source_volume("data").await, place.target_volume("data").await);
        let made = TempTree::below(&from);
        made.populate(4, 80).file("large", Content::random(1, 40 << 20));
        place.migrate(&["data"], json!({ "transfer": { "bandwidth": "3M" } })).await;
        place.running_source().await;
        let lease = place.leader().await;
        place.delete_pod("pvferry", &lease).await;
        let status = place.completes().await;
        assert_eq!(status.volumes[0].attempts, 1, "{status:#?}");
        assert_ne!(place.leader().await, lease);
        assert_same(&from, &to);
    });
}

#[test]
fn an_api_server_that_is_killed_under_way() {
    in_place(async |mut place| {
        let (from, to) = (place.source_volume("data").await, place.target_volume("data").await);
        let made = TempTree::below(&from);
        made.populate(5, 80).file("large", Content::random(2, 40 << 20));
        if env::var_os("PVFERRY_TEST_CONTROLLER_IMAGE").is_none() {
            place.start_controller();
        }
        place.migrate(&["data"], json!({ "transfer": { "bandwidth": "3M" } })).await;
        place.running_source().await;
        for _ in 0..2 {
            let killed =
                Command::new("pkill").args(["-KILL", "-x", "kube-apiserver"]).status().unwrap();
            assert!(killed.success());
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        place.until_api_is_back().await;
        let status = place.ends(1).await;
        assert_eq!(
            (status.phase, status.volumes[0].attempts),
            (Phase::Completed, 1),
            "{status:#?}"
        );
        assert_same(&from, &to);
    });
}
