//! Connections that are cut, processes that go and come back: what has arrived is not sent again.

use std::{path::Path, thread, time::Duration};

use testkit::{
    Content, Faults, Process, Relay, Rng, Snapshot, TempTree, assert_same, interrupted::unfinished,
    lock,
};

use crate::{
    counts,
    pod::Pod,
    support::{assert_explains, copy, report},
};

const MIB: u64 = 1 << 20;
/// Bytes of content in the volume of these tests.
const CONTENT: u64 = 24 * MIB;
/// Slow enough that the receiver has applied what came, but for a moment's worth: that much a cut may cost.
const SLOW: [&str; 2] = ["--bwlimit", "12M"];

/// A volume with a large file, small files, and one that is there already and has changed all over.
fn volume() -> (TempTree, TempTree) {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("new/large", Content::random(1, 20 << 20));
    for index in 0..400 {
        let content = Content::random(100 + index, 5 << 10);
        source.file(format!("small {}/{index}", index % 9), content);
    }
    source.file("changed", Content::random(7, 2 << 20));
    destination.file("changed", Content::random(8, 2 << 20)).mtime("changed", 1, 1);
    (source, destination)
}

#[test]
fn cut_again_and_again_within_a_run() {
    let mut connections = 0;
    for (seed, options) in
        [(1, &["--streams", "1"][..]), (2, &["--streams", "3"]), (3, &["--atomic"])]
    {
        let (pod, (source, destination)) = (Pod::new(), volume());
        let _serve = pod.serve(&[("a", destination.path())], &[]);
        let mut rng = Rng::new(seed);
        let cuts: Vec<_> = (0..100).map(|_| MIB + rng.below(7 * MIB)).collect();
        let relay = Relay::each(pod.server, move |nth| {
            let at = cuts[usize::try_from(nth).unwrap()];
            // Every fourth one is cut on its way back.
            if nth % 4 == 3 {
                (Faults::default(), Faults::cut(at / 2000))
            } else {
                (Faults::cut(at), Faults::default())
            }
        });
        let options = [options, &SLOW, &["--attempts", "60", "--delete"]].concat();
        let sync = pod.direct(relay.address(), &pod.pki.source(), source.path(), &options);
        let report = report(Process::run(sync).expect(0));
        // No connection lived long enough to carry all of it.
        assert!(report["attempt"].as_u64().unwrap() >= 4, "{report}");
        assert_same(source.path(), destination.path());
        let sent = relay.bytes().0;
        assert!(sent < CONTENT * 3 / 2, "seed {seed}: {sent} bytes, {}", relay.connections());
        connections += relay.connections();
    }
    counts::tell("connections cut within a run", connections);
}

#[test]
fn cut_while_streams_join() {
    let source = TempTree::new();
    source.populate(1, 40);
    for seed in 0..counts::points(3) {
        let (pod, destination) = (Pod::new(), TempTree::new());
        let _serve = pod.serve(&[("a", destination.path())], &[]);
        let mut rng = Rng::new(seed.into());
        // TLS and hello take some 3000 bytes: now and then a stream finds its session gone already.
        let cuts: Vec<_> =
            (0..12).map(|nth| if nth % 2 == 0 { 2500 } else { 0 } + rng.below(3000)).collect();
        let relay = Relay::each(pod.server, move |nth| {
            let cut = cuts.get(usize::try_from(nth).unwrap());
            (cut.map_or_else(Faults::default, |&at| Faults::cut(at)), Faults::default())
        });
        let options = ["--streams", "4", "--attempts", "20"];
        let sync = pod.direct(relay.address(), &pod.pki.source(), source.path(), &options);
        let finished = Process::run(sync);
        assert_eq!(finished.status.code(), Some(0), "seed {seed}: {}", finished.stderr);
        assert_same(source.path(), destination.path());
    }
    counts::tell("runs cut while streams joined", counts::points(3));
}

#[test]
fn killed_at_60_percent_and_started_again() {
    for victim in ["sync", "serve", "tunnel"] {
        let (pod, (source, destination)) = (Pod::new(), volume());
        let before = Snapshot::of(destination.path());
        let mut serve = pod.serve(&[("a", destination.path())], &[]);
        let relay = Relay::always(pod.server, Faults::default(), Faults::default());
        let mut tunnel = pod.tunnel_to(relay.address(), &pod.pki.source(), &[]);
        let options = [&SLOW[..], &["--attempts", "1"]].concat();
        let mut sync = Process::start(pod.sync(source.path(), "a", &options));
        relay.wait_for_bytes(CONTENT * 6 / 10);
        match victim {
            "sync" => sync.kill(),
            "serve" => serve.kill(),
            _ => tunnel.kill(),
        }
        assert!(!sync.wait().status.success(), "{victim}: it was not killed in the middle");
        lock::wait_until_free(destination.path());
        let now = Snapshot::of(destination.path());
        let wrong = unfinished(&Snapshot::of(source.path()), &before, &now, &["changed"]);
        assert_eq!(wrong, [""; 0], "{victim}");

        drop((serve, tunnel));
        let first = relay.bytes().0;
        let _serve = pod.serve(&[("a", destination.path())], &[]);
        let _tunnel = pod.tunnel_to(relay.address(), &pod.pki.source(), &[]);
        Process::run(pod.sync(source.path(), "a", &["--delete"])).expect(0);
        assert_same(source.path(), destination.path());
        let second = relay.bytes().0 - first;
        assert!(first + second < CONTENT * 5 / 4, "{victim}: {first} bytes, and then {second}");
    }
}

#[test]
fn a_server_that_goes_and_comes_back() {
    let (pod, (source, destination)) = (Pod::new(), volume());
    let mut serve = pod.serve(&[("a", destination.path())], &[]);
    let relay = Relay::always(pod.server, Faults::default(), Faults::default());
    let _tunnel = pod.tunnel_to(relay.address(), &pod.pki.source(), &[]);
    let options = [&SLOW[..], &["--attempts", "20", "--delete"]].concat();
    let sync = Process::start(pod.sync(source.path(), "a", &options));
    for gone in 0..4 {
        relay.wait_for_bytes(relay.bytes().0 + 3 * MIB);
        if gone % 2 == 0 {
            serve.kill();
        } else {
            serve.terminate();
            assert_eq!(serve.wait().code(), 20);
        }
        // Nobody listens for a while.
        thread::sleep(Duration::from_millis(300));
        serve = pod.serve(&[("a", destination.path())], &[]);
    }
    let report = report(sync.wait().expect(0));
    assert_eq!(report["attempt"], 5, "{report}");
    assert_same(source.path(), destination.path());
}

#[test]
fn pauses_between_attempts_are_random_and_bounded() {
    let source = TempTree::new();
    source.file("f", Content::random(1, 1 << 20));
    let pauses = || {
        let (pod, destination) = (Pod::new(), TempTree::new());
        let _serve = pod.serve(&[("a", destination.path())], &[]);
        // Long enough for a session to begin, too short for anything to come of it.
        let relay = Relay::always(pod.server, Faults::cut(20_000), Faults::default());
        let sync =
            pod.direct(relay.address(), &pod.pki.source(), source.path(), &["--attempts", "7"]);
        let finished = Process::run(sync);
        assert_eq!(finished.code(), 12, "{}", finished.stderr);
        assert_eq!(report(&finished)["retryable"], true);
        assert_explains(&finished, &[]);
        let seconds = finished.stderr.lines().filter_map(|line| {
            let (_, rest) = line.split_once("retrying in ")?;
            Some(rest.split(' ').next()?.parse::<f64>().unwrap())
        });
        seconds.collect::<Vec<_>>()
    };
    let (one, two) = (pauses(), pauses());
    for pauses in [&one, &two] {
        assert_eq!(pauses.len(), 6, "{pauses:?}");
        for (nth, pause) in pauses.iter().enumerate() {
            let ceiling = (0.1 * f64::from(1 << nth)).min(5.0);
            assert!(*pause <= ceiling + 0.051, "{pauses:?}");
        }
    }
    assert_ne!(one, two);
}

#[test]
fn who_comes_second_is_refused() {
    let (pod, (source, destination)) = (Pod::new(), volume());
    let other = TempTree::new();
    other.file("f", "of somebody else");
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let elsewhere = Pod::new();
    let _same_volume = elsewhere.serve(&[("a", destination.path())], &[]);
    let relay = Relay::always(pod.server, Faults::default(), Faults::default());
    // The others come one after another, and each tries for a second.
    let options = ["--bwlimit", "3M", "--attempts", "1", "--delete"];
    let first =
        Process::start(pod.direct(relay.address(), &pod.pki.source(), source.path(), &options));
    relay.wait_for_bytes(MIB);

    let options = ["--wait", "1", "--delete"];
    let second = |pod: &Pod, tree: &Path| {
        Process::run(pod.direct(pod.server, &pod.pki.source(), tree, &options))
    };
    let refused = [
        second(&pod, source.path()),
        second(&pod, other.path()),
        second(&elsewhere, other.path()),
        copy(other.path(), destination.path(), &["--delete"]),
    ];
    for finished in &refused {
        let report = report(finished.expect(5));
        assert_explains(finished, &["another transfer is writing to this volume"]);
        assert_eq!(report["retryable"], true, "{report}");
        assert_eq!(report["bytes_literal"], 0, "{report}");
    }
    let report = report(first.wait().expect(0));
    assert_eq!(report["attempt"], 1, "{report}");
    assert_same(source.path(), destination.path());
    // And the volume is free again, for each of them.
    second(&elsewhere, other.path()).expect(0);
    assert_same(other.path(), destination.path());
    counts::tell("second writers refused", refused.len());
}
