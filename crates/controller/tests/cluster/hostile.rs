//! A source pod that was taken over: none of its containers is ours.
//!
//! In the pod, sync containers report what they like. From this machine, which reaches the pods, a client has all that such a pod
//! has: the certificate of one volume, and the address of the server. `it confined::*` tries more openings, in one process.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use controller::api::{Phase, VolumePhase};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use serde_json::json;
use testkit::{Aspects, Content, Process, Snapshot, TempTree, differences, net, skip};

use super::support::{Place, in_place};

/// The program that was built beside the controller.
fn pvferry() -> Command {
    let controller = PathBuf::from(env::var_os("PVFERRY_TEST_CONTROLLER").unwrap());
    Command::new(controller.with_file_name("pvferry"))
}

/// A tunnel to `server` with the certificate in `identity`, and where it listens. It knows no volume, so it refuses none.
fn tunnel(server: &str, identity: &Path) -> (Process, String) {
    let address = net::free_address().to_string();
    let mut command = pvferry();
    command.args(["tunnel", "--listen", &address, "--connect", server, "--identity"]).arg(identity);
    let tunnel = Process::start(command);
    tunnel.wait_for_line("listening on");
    (tunnel, address)
}

fn sync(source: &Path, volume: &str, via: &str, options: &[&str]) -> Output {
    let mut command = pvferry();
    command.arg("sync").arg(source).args(["--volume", volume, "--via", via, "--wait", "60"]);
    command.args(["--progress", "none"]).args(options).output().unwrap()
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
}

#[track_caller]
fn assert_untouched(before: &Snapshot, target: &Path) {
    let aspects = Aspects { untouched: true, ..Aspects::default() };
    assert_eq!(differences(before, &Snapshot::of(target), aspects), [""; 0]);
}

/// The address of the server that receives the volumes.
async fn server(place: &Place) -> String {
    let begun = Instant::now();
    loop {
        let pods = place.cluster.pods(&place.destination, "destination").await;
        let ready = |pod: &Pod| {
            let status = pod.status.as_ref()?;
            let ready = status.container_statuses.iter().flatten().all(|container| container.ready);
            ready.then(|| status.pod_ip.clone())?
        };
        if let Some(ip) = pods.iter().find_map(ready) {
            let ports = pods[0].spec.as_ref().unwrap().containers[0].ports.as_ref().unwrap();
            return format!("{ip}:{}", ports[0].container_port);
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "no server");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The certificate of `volume` alone, from the Secret of the source pod.
async fn identity(place: &Place, volume: &str) -> TempTree {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=pvferry-controller");
    let secrets = place.cluster.api::<Secret>(&place.source).list(&ours).await.unwrap();
    let data = secrets.items[0].data.as_ref().unwrap();
    let identity = TempTree::new();
    for (key, name) in [
        ("ca.crt".to_owned(), "ca.crt"),
        (format!("{volume}.crt"), "tls.crt"),
        (format!("{volume}.key"), "tls.key"),
    ] {
        fs::write(identity.at(name), &data[&key].0).unwrap();
    }
    identity
}

#[test]
fn a_source_pod_that_was_taken_over_changes_no_other_volume_and_its_forged_reports_are_no_success()
{
    in_place(async |mut place| {
        let Ok(image) = env::var("PVFERRY_TEST_HOSTILE_IMAGE") else {
            return skip::skip("no image of a hostile source");
        };
        place.cluster.namespace(&place.destination, &[]).await;
        let (mut sources, mut targets) = (Vec::new(), Vec::new());
        for (seed, claim) in [(1, "a"), (2, "b")] {
            let from = place.source_volume(claim).await;
            TempTree::below(&from).populate(seed, 20);
            let to = place.target_volume(claim).await;
            place.cluster.claim(&place.destination, claim).await;
            fs::write(to.join("kept"), "text").unwrap();
            sources.push(from);
            targets.push(to);
        }
        // Both volumes share a pod only if the controller knows where each of them is.
        for namespace in [&place.source, &place.destination] {
            place.cluster.bound(namespace, &["a", "b"]).await;
        }
        let before = Snapshot::of(&targets[0]);
        place.start_controller();
        let pods = json!({ "source": { "image": image, "imagePullPolicy": "Never" } });
        place.migrate(&["a", "b"], json!({ "pods": pods, "limits": { "attempts": 1 } })).await;
        place.running_source().await;
        let (server, own) = (server(&place).await, identity(&place, "b-1").await);

        // Another volume, and in its own one more than the specification permits: the claim existed before.
        let attack = TempTree::new();
        attack.file("planted", Content::random(1, 1000));
        let (_tunnel, via) = tunnel(&server, own.path());
        let attempt = |volume, options: &[&str]| sync(attack.path(), volume, &via, options);
        for options in [&[][..], &["--delete"], &["--dry-run"]] {
            assert_fails(&attempt("a-0", options), 5, &["/source/b-1", "volume a-0"]);
        }
        for options in [&["--delete"][..], &["--delete", "--max-delete=9"]] {
            assert_fails(&attempt("b-1", options), 25, &["--max-delete 0 of serve"]);
        }
        assert_untouched(&before, &targets[0]);

        // Both sync containers report success.
        for from in &sources {
            fs::write(from.join("go"), "").unwrap();
        }
        let status = place.ends(1).await;
        assert_eq!(status.phase, Phase::Failed, "{status:#?}");
        let ended: Vec<_> =
            status.volumes.iter().map(|volume| (volume.phase, &*volume.reason)).collect();
        // The server knows nothing of one volume, and something else of the other.
        let reasons = ["ReportMissing", "ReportMismatch"];
        assert_eq!(ended, reasons.map(|reason| (VolumePhase::Failed, reason)), "{status:#?}");
        assert_eq!(place.condition("Succeeded").await.0, "False");
        assert_untouched(&before, &targets[0]);
        assert_eq!(fs::read_to_string(targets[1].join("kept")).unwrap(), "text");
    });
}
