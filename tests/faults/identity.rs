//! Certificates that rotate or expire under processes that run on.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime},
};

use testkit::{
    Content, Faults, Finished, Process, Relay, TempTree, assert_same,
    pki::{Pki, Secret},
    skip,
};
use tunnel::{Role, pki::LeafRequest};

use crate::{
    pod::Pod,
    support::{assert_explains, report},
};

/// How long certificates live that are to expire under a run.
const LIFE: Duration = Duration::from_secs(6);
/// So slow that a run takes longer.
const SLOW: [&str; 2] = ["--bwlimit", "800K"];

fn source() -> TempTree {
    let tree = TempTree::new();
    for index in 0..8 {
        tree.file(format!("{index}"), Content::random(index, 1 << 20));
    }
    tree
}

/// A run of `sync` that ends as `code` says, with a sentence that has all of `words` in it where it fails.
#[track_caller]
fn ends(finished: &Finished, code: i32, words: &[&str]) {
    let report = report(finished.expect(code));
    if code != 0 {
        assert_explains(finished, words);
        assert_eq!(report["bytes_literal"], 0, "{report}");
    }
}

/// An identity of `role` that is valid for [`LIFE`] from now on.
fn short_lived(pki: &Pki, role: Role) -> PathBuf {
    let now = SystemTime::now();
    let request = LeafRequest::new(role).window(now - Duration::from_secs(60), now + LIFE);
    pki.issue("short-lived", &request)
}

/// A client that does not look at its own certificate connects to the server.
fn openssl(pod: &Pod, identity: &Path) {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-tls1_3", "-connect", &pod.server.to_string()]);
    client.arg("-cert").arg(identity.join("tls.crt")).arg("-key").arg(identity.join("tls.key"));
    let _ended = Process::run(client);
}

#[test]
fn a_server_changes_its_authority_under_a_session() {
    let (pod, next) = (Pod::new(), Pki::new("4f1c-test"));
    let (source, destination) = (source(), TempTree::new());
    let secret = Secret::new(&pod.pki.destination());
    let _serve = pod.serve_as(secret.path(), &[("a", destination.path())], &[]);
    let relay = Relay::always(pod.server, Faults::default(), Faults::default());
    let direct = |identity: &Path, options: &[&str]| {
        pod.direct(relay.address(), identity, source.path(), options)
    };
    let under_way = Process::start(direct(&pod.pki.source(), &["--bwlimit", "4M"]));
    relay.wait_for_bytes(1 << 20);
    secret.rotate(&next.destination());

    let refused = Process::run(direct(&pod.pki.source(), &["--wait", "1"]));
    ends(&refused, 5, &["certificate"]);
    let report = report(under_way.wait().expect(0));
    assert_eq!(report["attempt"], 1, "the session under way was cut: {report}");
    assert_same(source.path(), destination.path());
    ends(&Process::run(direct(&next.source(), &[])), 0, &[]);
    ends(&Process::run(direct(&pod.pki.source(), &["--wait", "1"])), 5, &["certificate"]);
}

#[test]
fn the_certificate_of_a_tunnel_expires_under_a_session() {
    if !skip::commands(&["openssl"]) {
        return;
    }
    let pod = Pod::new();
    let (source, destination) = (source(), TempTree::new());
    let serve = pod.serve(&[("a", destination.path())], &[]);
    let relay = Relay::always(pod.server, Faults::default(), Faults::default());
    let secret = Secret::new(&short_lived(&pod.pki, Role::Source));
    let _tunnel = pod.tunnel_to(relay.address(), secret.path(), &[]);
    let under_way = Process::start(pod.sync(source.path(), "a", &SLOW));
    relay.wait_for_bytes(1 << 20);
    thread::sleep(LIFE);

    let refused = Process::run(pod.sync(source.path(), "a", &["--wait", "1"]));
    ends(&refused, 5, &["expired"]);
    // The server does not take its word for it.
    openssl(&pod, secret.path());
    serve.wait_for_line("the certificate of the client expired");
    let report = report(under_way.wait().expect(0));
    assert_eq!(report["attempt"], 1, "the session under way was cut: {report}");
    assert_same(source.path(), destination.path());
    // With a new certificate the same tunnel goes on.
    secret.rotate(&pod.pki.source());
    ends(&Process::run(pod.sync(source.path(), "a", &[])), 0, &[]);
}

#[test]
fn the_certificate_of_a_server_expires_under_a_session() {
    let pod = Pod::new();
    let (source, destination) = (source(), TempTree::new());
    let secret = Secret::new(&short_lived(&pod.pki, Role::Destination));
    let _serve = pod.serve_as(secret.path(), &[("a", destination.path())], &[]);
    let relay = Relay::always(pod.server, Faults::default(), Faults::default());
    let direct =
        |options: &[&str]| pod.direct(relay.address(), &pod.pki.source(), source.path(), options);
    let under_way = Process::start(direct(&SLOW));
    relay.wait_for_bytes(1 << 20);
    thread::sleep(LIFE);

    ends(&Process::run(direct(&["--wait", "1"])), 5, &[]);
    under_way.wait().expect(0);
    assert_same(source.path(), destination.path());
    secret.rotate(&pod.pki.destination());
    ends(&Process::run(direct(&[])), 0, &[]);
}

#[test]
fn a_run_that_was_cut_goes_on_with_a_rotated_certificate() {
    let pod = Pod::new();
    let (source, destination) = (source(), TempTree::new());
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    // By then the first certificate is no good.
    let relay = Relay::once(pod.server, Faults::cut(6 << 20), Faults::default());
    let secret = Secret::new(&short_lived(&pod.pki, Role::Source));
    let sync = Process::start(pod.direct(relay.address(), secret.path(), source.path(), &SLOW));
    relay.wait_for_bytes(1 << 20);
    secret.rotate(&pod.pki.source());
    let report = report(sync.wait().expect(0));
    assert_eq!(report["attempt"], 2, "{report}");
    assert_same(source.path(), destination.path());
}
