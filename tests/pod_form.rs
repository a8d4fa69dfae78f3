//! The three-process form: `sync` through `tunnel` to `serve`, and what each leaves behind for the pod.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    thread,
    time::Duration,
};

use testkit::{
    Content, Faults, Process, Relay, Snapshot, TempTree, assert_same,
    pki::{Pki, forms_of_key},
    skip,
};

use crate::{
    pod::Pod,
    support::{assert_explains, assert_rsync_finds_nothing, assert_untouched, pvferry, report},
};

/// A tree that takes a while: bytes enough for several windows, and many small files.
fn large(tree: &TempTree) -> &TempTree {
    for index in 0..6 {
        tree.file(format!("large {index}"), Content::random(index, 8 << 20));
    }
    for index in 0..400 {
        tree.file(format!("d{}/f{index}", index % 20), Content::random(index, 3000));
    }
    tree
}

/// What a server reports of volumes is what their sources report.
#[track_caller]
fn assert_served(volumes: &serde_json::Value, reports: &[serde_json::Value]) {
    let volumes = volumes.as_array().unwrap();
    assert_eq!(volumes.len(), reports.len(), "{volumes:#?}");
    for (volume, report) in volumes.iter().zip(reports) {
        let fields = volume.as_object().unwrap();
        assert!(fields.contains_key("digest") && fields.contains_key("files_written"), "{volume}");
        for (field, value) in fields {
            assert_eq!(*value, report[field], "{field} of {volume} and {report}");
        }
    }
}

#[test]
fn two_volumes_through_one_tunnel() {
    let pod = Pod::new();
    let (a, b, to_a, to_b) = (TempTree::new(), TempTree::new(), TempTree::new(), TempTree::new());
    a.everything();
    b.populate(1, 100).file("large", Content::random(9, 20 << 20));
    let serve = pod.serve(&[("a", to_a.path()), ("b", to_b.path())], &["--exit-when", "2"]);
    let tunnel = pod.tunnel(&["--exit-when", "2"]);
    let syncs = [("a", &a), ("b", &b)]
        .map(|(name, tree)| (name, Process::start(pod.sync(tree.path(), name, &["--verify"]))));

    let mut reported = Vec::new();
    for (name, sync) in syncs {
        let finished = sync.wait();
        let report = report(finished.expect(0));
        assert_eq!((&report["outcome"], &report["volume"]), (&"completed".into(), &name.into()));
        assert_eq!(report["digest"].as_str().unwrap().len(), 64);
        assert_eq!(pod.marker(name), report);
        assert_eq!(pod.message(name), report);
        reported.push(report);
    }
    tunnel.wait().expect(0);
    serve.wait().expect(0);
    let message = pod.message("serve");
    assert_eq!((&message["outcome"], &message["exit_code"]), (&"completed".into(), &0.into()));
    assert_served(&message["volumes"], &reported);

    for (from, to) in [(&a, &to_a), (&b, &to_b)] {
        assert_same(from.path(), to.path());
        assert_rsync_finds_nothing(from.path(), to.path());
    }
}

#[test]
fn the_tunnel_leaves_with_0_also_after_a_failed_sync() {
    let pod = Pod::new();
    let empty = TempTree::new();
    let destination = TempTree::new();
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let tunnel = pod.tunnel(&["--exit-when", "1"]);
    let sync = Process::run(pod.sync(empty.path(), "a", &["--delete"]));
    assert_eq!(sync.code(), 3);
    assert_eq!(pod.marker("a")["outcome"], "failed");
    assert_eq!(pod.marker("a")["exit_code"], 3);
    tunnel.wait().expect(0);
}

#[test]
fn a_tunnel_whose_sync_was_killed_gives_up() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    large(&source);
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let relay = Relay::always(pod.server, Faults::default(), Faults::default());
    let options = ["--exit-when", "1", "--idle", "1"];
    let tunnel = pod.tunnel_to(relay.address(), &pod.pki.source(), &options);
    let mut sync = Process::start(pod.sync(source.path(), "a", &["--bwlimit", "1M"]));
    relay.wait_for_bytes(100_000);
    sync.kill();
    tunnel.wait().expect(30);
}

/// Opens connections to the tunnel for `seconds`, none of which comes to anything.
fn try_in_vain(pod: &Pod, seconds: u64) {
    for _ in 0..seconds * 5 {
        let mut stream = std::net::TcpStream::connect(pod.local).unwrap();
        let _ = stream.write_all(b"x").and_then(|()| stream.read(&mut [0]));
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_tunnel_stays_while_somebody_waits_for_the_server() {
    let pod = Pod::new();
    let mut tunnel = pod.tunnel(&["--exit-when", "1", "--idle", "2"]);
    try_in_vain(&pod, 4);
    assert!(tunnel.is_running());
    tunnel.wait().expect(30);
}

#[test]
fn a_tunnel_that_was_refused_gives_up_when_nobody_is_there() {
    let pod = Pod::new();
    let destination = TempTree::new();
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    // It trusts the server, which does not trust it: for a client the handshake is over before the server says so.
    let stranger = Pki::new("4f1c-test");
    let authority = |pki: &Pki| fs::read_to_string(pki.source().join("ca.crt")).unwrap();
    let both = authority(&stranger) + &authority(&pod.pki);
    fs::write(stranger.source().join("ca.crt"), both).unwrap();
    let options = ["--exit-when", "1", "--idle", "1"];
    let tunnel = pod.tunnel_to(pod.server, &stranger.source(), &options);
    try_in_vain(&pod, 1);
    tunnel.wait().expect(30);
}

#[test]
fn by_unix_socket() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 100);
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let path = pod.markers().join("tunnel.sock");
    let endpoint = format!("unix:{}", path.display());
    let mut command = pvferry(["tunnel", "--listen", &endpoint]);
    command.args(["--connect", &pod.server.to_string(), "--identity"]).arg(pod.pki.source());
    let tunnel = Process::start(command);
    tunnel.wait_for_line("listening on");
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());

    Process::run(pod.sync_by(&["--via", &endpoint], source.path(), "a", &[])).expect(0);
    assert_same(source.path(), destination.path());
    tunnel.terminate();
    tunnel.wait().expect(20);
}

#[test]
fn the_socket_of_another_user_is_nothing_to_wait_for() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let pod = Pod::new();
    let source = TempTree::new();
    source.file("f", "1");
    for directory in [pod.markers().parent().unwrap(), source.path().parent().unwrap()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(pod.markers(), fs::Permissions::from_mode(0o777)).unwrap();
    // As the kubelet makes it: every user of the pod may write to it.
    fs::write(pod.message_path("a"), "").unwrap();
    fs::set_permissions(pod.message_path("a"), fs::Permissions::from_mode(0o666)).unwrap();
    let endpoint = format!("unix:{}", pod.markers().join("tunnel.sock").display());
    let mut command = pvferry(["tunnel", "--listen", &endpoint, "--identity"]);
    command.arg(pod.pki.source()).args(["--connect", &pod.server.to_string()]);
    let tunnel = Process::start(command);
    tunnel.wait_for_line("listening on");

    let sync = pod.sync_by(&["--via", &endpoint], source.path(), "a", &[]);
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.arg(sync.get_program()).args(sync.get_args());
    let finished = Process::run(command);
    let report = report(finished.expect(35));
    assert_eq!(report["retryable"], false);
    assert_explains(
        &finished,
        &["tunnel.sock", "Permission denied", "as the same user as the tunnel"],
    );
    // It did not use up its patience.
    assert!(!finished.stderr.contains("not ready after"), "{}", finished.stderr);
    assert_eq!(pod.marker("a"), report);
}

#[test]
fn directly_and_over_several_streams() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    large(&source).everything();
    let serve = pod.serve(&[("a", destination.path())], &["--exit-when", "1"]);
    let sync = pod.direct(pod.server, &pod.pki.source(), source.path(), &["--streams", "4"]);
    Process::run(sync).expect(0);
    serve.wait().expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn sync_may_come_before_its_tunnel_and_the_tunnel_before_the_server() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 20);
    let sync = Process::start(pod.sync(source.path(), "a", &[]));
    thread::sleep(Duration::from_millis(300));
    let _tunnel = pod.tunnel(&[]);
    thread::sleep(Duration::from_millis(300));
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let report = report(sync.wait().expect(0));
    assert_eq!(report["attempt"], 1);
    assert_same(source.path(), destination.path());
}

#[test]
fn sigterm_gives_20_with_marker_and_message_and_resumes() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    large(&source);
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let relay = Relay::always(pod.server, Faults::default(), Faults::default());
    let _tunnel = pod.tunnel_to(relay.address(), &pod.pki.source(), &[]);

    let sync = Process::start(pod.sync(source.path(), "a", &["--bwlimit", "10M"]));
    relay.wait_for_bytes(4 << 20);
    sync.terminate();
    let report = report(sync.wait().expect(20));
    assert_eq!((&report["outcome"], &report["retryable"]), (&"failed".into(), &true.into()));
    assert_eq!(pod.marker("a"), report);
    assert_eq!(pod.message("a"), report);

    Process::run(pod.sync(source.path(), "a", &[])).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn serve_and_tunnel_end_with_20_when_asked_to() {
    let pod = Pod::new();
    let destination = TempTree::new();
    let (serve, tunnel) = (pod.serve(&[("a", destination.path())], &[]), pod.tunnel(&[]));
    for process in [serve, tunnel] {
        process.terminate();
        process.wait().expect(20);
    }
    assert_eq!(pod.message("serve")["exit_code"], 20);
}

#[test]
fn serve_reports_each_received_volume_in_its_log_and_if_it_is_stopped_in_its_message() {
    let pod = Pod::new();
    let (source, to_a, to_b) = (TempTree::new(), TempTree::new(), TempTree::new());
    source.populate(1, 20);
    to_a.file("extraneous", Content::random(3, 10));
    let volumes = [("a", to_a.path()), ("b", to_b.path())];
    let serve = pod.serve(&volumes, &["--log-format", "json", "--exit-when", "2"]);
    let _tunnel = pod.tunnel(&[]);
    let options = ["--delete", "--verify"];
    let finished = Process::run(pod.sync(source.path(), "a", &options));
    let reported = report(finished.expect(0));
    let line = serve.wait_for_line("session ended");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let in_log = serde_json::from_str(line["report"].as_str().unwrap()).unwrap();
    assert_served(&serde_json::Value::Array(vec![in_log]), std::slice::from_ref(&reported));
    serve.terminate();
    serve.wait().expect(20);
    let message = pod.message("serve");
    assert_eq!(message["exit_code"], 20);
    assert_served(&message["volumes"], &[reported]);
}

#[test]
fn serve_no_longer_reports_a_volume_whose_next_session_did_not_end() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 5);
    let serve = pod.serve(&[("a", destination.path())], &[]);
    let _tunnel = pod.tunnel(&[]);
    Process::run(pod.sync(source.path(), "a", &[])).expect(0);
    large(&source);
    let mut sync = Process::start(pod.sync(source.path(), "a", &["--bwlimit", "1M"]));
    while !destination.at("d0").exists() {
        thread::sleep(Duration::from_millis(10));
    }
    sync.kill();
    serve.wait_for_line("session failed");
    serve.terminate();
    serve.wait().expect(20);
    assert_eq!(pod.message("serve")["volumes"], serde_json::Value::Null);
}

#[test]
fn a_connection_that_is_cut_is_made_again_within_the_run() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    large(&source);
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let relay = Relay::once(pod.server, Faults::cut(20 << 20), Faults::default());
    let _tunnel = pod.tunnel_to(relay.address(), &pod.pki.source(), &[]);
    let report = report(Process::run(pod.sync(source.path(), "a", &[])).expect(0));
    assert_eq!(report["attempt"], 2, "{report}");
    assert_same(source.path(), destination.path());
    let (sent, all) = (relay.bytes().0, 50 << 20);
    assert!(sent < all + (20 << 20), "the second try sent what was there: {sent} bytes");
}

#[test]
fn two_syncs_of_one_volume_at_once() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    large(&source);
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let relay = Relay::always(pod.server, Faults::default(), Faults::default());
    let identity = pod.pki.source();
    let options = ["--bwlimit", "10M"];
    let first = Process::start(pod.direct(relay.address(), &identity, source.path(), &options));
    relay.wait_for_bytes(2 << 20);
    let options = ["--wait", "1"];
    let second = Process::run(pod.direct(pod.server, &identity, source.path(), &options));
    assert_eq!(second.code(), 5, "{}", second.stderr);
    assert_explains(&second, &["another transfer"]);
    first.wait().expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn a_silent_peer_ends_the_run_with_30() {
    let source = TempTree::new();
    large(&source);
    let stall = Faults::stall(5 << 20);
    // A server that nothing reaches any more says so; of one that says nothing either, the client despairs.
    for (forward, backward) in [(stall, Faults::default()), (stall, Faults::stall(5000))] {
        let (pod, destination) = (Pod::new(), TempTree::new());
        let _serve = pod.serve(&[("a", destination.path())], &[]);
        let relay = Relay::always(pod.server, forward, backward);
        let options = ["--timeout", "2", "--attempts", "1"];
        let identity = pod.pki.source();
        let sync = pod.direct(relay.address(), &identity, source.path(), &options);
        assert_eq!(report(Process::run(sync).expect(30))["retryable"], true);
        Process::run(pod.direct(pod.server, &identity, source.path(), &[])).expect(0);
        assert_same(source.path(), destination.path());
    }
}

#[test]
fn a_cut_or_a_changed_byte_on_the_wire_is_never_success() {
    let source = TempTree::new();
    source.populate(1, 60).file("large", Content::random(1, 1 << 20));
    let clean = Faults::default();
    let (code, (forward, backward)) = spoiled(&source, clean, clean);
    assert_eq!(code, 0);

    // From the first bytes of the handshake to the middle of the content and the plans; what comes close
    // to the end may be said after the commit record, and be lost without harm.
    thread::scope(|scope| {
        for at in [0, 3, 700, forward / 2, forward - 300] {
            let source = &source;
            scope.spawn(move || {
                for faults in [Faults::cut(at), Faults::end(at), Faults::flip(at)] {
                    let (code, passed) = spoiled(source, faults, clean);
                    assert!(code != 0 || passed.0 <= at, "{faults:?} towards the server");
                }
            });
        }
        for at in [0, 3, 700, backward - 300] {
            let source = &source;
            scope.spawn(move || {
                for faults in [Faults::cut(at), Faults::end(at), Faults::flip(at)] {
                    let (code, passed) = spoiled(source, clean, faults);
                    assert!(code != 0 || passed.1 <= at, "{faults:?} towards the client");
                }
            });
        }
    });
}

/// One try of a run with faults on the wire, and a second run without, which must make up for it. Returns the
/// code of the first, and the bytes that passed in either direction.
fn spoiled(source: &TempTree, forward: Faults, backward: Faults) -> (i32, (u64, u64)) {
    let (pod, destination) = (Pod::new(), TempTree::new());
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let relay = Relay::always(pod.server, forward, backward);
    let options = ["--wait", "1", "--attempts", "1", "--timeout", "5"];
    let identity = pod.pki.source();
    let sync = pod.direct(relay.address(), &identity, source.path(), &options);
    let finished = Process::run(sync);
    let (code, passed) = (finished.code(), relay.bytes());
    if code == 0 {
        assert_same(source.path(), destination.path());
    }
    Process::run(pod.direct(pod.server, &identity, source.path(), &[])).expect(0);
    assert_same(source.path(), destination.path());
    (code, passed)
}

#[test]
fn the_server_survives_silence_while_a_real_sync_goes_on() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 100);
    let serve = pod.serve(&[("a", destination.path())], &["--exit-when", "1"]);
    let silent: Vec<_> =
        (0..1000).map(|_| std::net::TcpStream::connect(pod.server).unwrap()).collect();
    Process::run(pod.direct(pod.server, &pod.pki.source(), source.path(), &[])).expect(0);
    serve.wait().expect(0);
    assert_same(source.path(), destination.path());
    drop(silent);
}

#[test]
fn rotated_certificates_are_taken_up() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 20);
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let _tunnel = pod.tunnel(&[]);
    Process::run(pod.sync(source.path(), "a", &[])).expect(0);
    for role in ["source", "destination"] {
        let mut issue = pvferry(["pki", "issue"]);
        issue.arg(pod.pki.path()).args(["--role", role, "--out"]);
        issue.arg(pod.pki.path().join(role));
        Process::run(issue).expect(0);
    }
    source.mutate(2, 10);
    Process::run(pod.sync(source.path(), "a", &["--delete"])).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn an_ordinary_user_is_told_what_would_be_lost() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("of another user", "x").owner("of another user", 4321, 4321);
    let serve = pod.serve(&[("a", destination.path())], &[]);
    drop(serve);
    // The server runs as nobody, with a volume and keys that nobody owns.
    destination.owner("", 65_534, 65_534);
    for file in ["", "ca.crt", "tls.crt", "tls.key"] {
        std::os::unix::fs::chown(pod.pki.destination().join(file), Some(65_534), Some(65_534))
            .unwrap();
    }
    for parent in [pod.pki.path(), destination.path().parent().unwrap()] {
        fs::set_permissions(parent, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    }
    let serve = pvferry(["serve", "--listen", &pod.server.to_string()]);
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.arg(serve.get_program()).args(serve.get_args());
    command.arg("--identity").arg(pod.pki.destination());
    command.arg("--volume").arg(format!("a={}", destination.path().display()));
    let serve = Process::start(command);
    serve.wait_for_line("listening on");

    let finished = Process::run(pod.direct(pod.server, &pod.pki.source(), source.path(), &[]));
    let report = report(finished.expect(23));
    assert_eq!(report["outcome"], "partial");
    assert!(finished.stderr.contains("owner"), "no word of owners in:\n{}", finished.stderr);
    assert_eq!(report["errors"][0]["name"], "of another user", "{report}");
    let after = Snapshot::of(destination.path());
    assert_eq!(after.node("of another user").size, 1);
}

#[test]
fn nothing_secret_is_told() {
    let pod = Pod::new();
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("f", "1");
    let serve = pod.serve(&[("a", destination.path())], &["--exit-when", "1"]);
    let mut sync = pod.direct(pod.server, &pod.pki.source(), source.path(), &[]);
    sync.env("RUST_LOG", "trace");
    let finished = Process::run(sync);
    finished.expect(0);
    let served = serve.wait();
    for identity in [pod.pki.source(), pod.pki.destination()] {
        let key = fs::read_to_string(identity.join("tls.key")).unwrap();
        for text in [&finished.stdout, &finished.stderr, &served.stdout, &served.stderr] {
            let told = forms_of_key(&key).into_iter().find(|form| text.contains(form));
            assert!(told.is_none() && !text.contains("PRIVATE KEY"), "{told:?}");
        }
    }
}

#[test]
fn a_port_that_answers_nonsense_is_no_server() {
    let pod = Pod::new();
    let source = TempTree::new();
    source.file("f", "1");
    let before = Snapshot::of(source.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = std::io::Write::write_all(&mut stream.unwrap(), b"HTTP/1.1 400 Bad\r\n\r\n");
        }
    });
    let options = ["--wait", "1"];
    let direct = Process::run(pod.direct(address, &pod.pki.source(), source.path(), &options));
    assert_eq!(direct.code(), 5, "{}", direct.stderr);
    let via =
        Process::run(pod.sync_by(&["--via", &address.to_string()], source.path(), "a", &options));
    assert_eq!(via.code(), 2, "{}", via.stderr);
    for finished in [direct, via] {
        assert_explains(&finished, &[]);
    }
    assert_untouched(&before, source.path());
}

/// A dry run receives nothing, so it neither ends `serve` nor reads as a transfer.
#[test]
fn a_dry_run_does_not_count_as_a_received_volume() {
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.populate(1, 20);
    let identity = pod.pki.destination();
    let volumes = [("a", destination.path())];
    let serve = Process::start(pod.serve_command(&identity, &volumes, &["--exit-when", "1"]));
    serve.wait_for_line("listening on");
    let sync = |options: &[&str]| {
        let finished =
            Process::run(pod.direct(pod.server, &pod.pki.source(), source.path(), options));
        report(finished.expect(0))
    };
    assert_eq!(sync(&["--dry-run"])["dry_run"], true);
    serve.wait_for_line("dry run ended");
    let report = sync(&[]);
    assert!(report.get("dry_run").is_none(), "{report}");
    serve.wait().expect(0);
    assert_same(source.path(), destination.path());
}

/// What was written into a directory that has left its path is not at the destination.
#[test]
fn a_volume_that_is_replaced_during_a_transfer_is_no_success() {
    let (pod, source, parent) = (Pod::new(), TempTree::new(), TempTree::new());
    source.file("large", Content::random(1, 6 << 20));
    parent.dir("volume");
    let identity = pod.pki.destination();
    let volumes = [("a", &*parent.at("volume"))];
    let serve = Process::start(pod.serve_command(&identity, &volumes, &[]));
    serve.wait_for_line("listening on");
    let options = ["--bwlimit", "3M"];
    let sync = Process::start(pod.direct(pod.server, &pod.pki.source(), source.path(), &options));
    serve.wait_for_line("session started");
    parent.rename("volume", "aside").dir("volume");
    let finished = sync.wait();
    assert_eq!(finished.code(), 11, "{}", finished.stderr);
    assert_explains(&finished, &["volume was replaced"]);
}
