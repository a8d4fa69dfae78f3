//! File systems that break while a transfer writes to them.

use std::{fs, os::unix::fs::MetadataExt, process::Command, thread, time::Duration};

use testkit::{Content, Faults, Mount, Process, Relay, Snapshot, TempTree, assert_same, skip};

use super::{Ended, Source, assert_volume_failed, fill_destination};
use crate::{
    counts,
    pod::Pod,
    support::{below, report},
};

/// Syncs to `destination`, and has `break_it` break its file system after `bytes` have gone there.
fn broken_after(
    source: &Source,
    destination: &TempTree,
    bytes: u64,
    break_it: impl FnOnce(),
) -> Ended {
    let pod = Pod::new();
    let serve = pod.serve(&[("a", destination.path())], &["--exit-when", "1"]);
    let relay = Relay::always(pod.server, Faults::default(), Faults::default());
    let options = ["--delete", "--wait", "1", "--attempts", "1"];
    let (address, identity) = (relay.address(), pod.pki.source());
    let mut sync = Process::start(pod.direct(address, &identity, source.path(), &options));
    while relay.bytes().0 < bytes && sync.is_running() {
        thread::sleep(Duration::from_micros(200));
    }
    break_it();
    let synced = sync.wait();
    serve.terminate();
    let served = serve.wait();
    Ended { code: synced.code(), report: report(&synced), served }
}

/// The journal of ext4 gives up, as after an error of its device: from then on nothing can be written.
#[test]
fn read_only_from_one_moment_to_the_next() {
    let source = Source::new();
    let mut tried = 0;
    let mut failed = 0;
    for bytes in (0..14).map(|n| n * 250_000) {
        let Some(mut mount) = Mount::ext4(64) else { return };
        let destination = TempTree::below(mount.path());
        fill_destination(&destination);
        rustix::fs::syncfs(fs::File::open(destination.path()).unwrap()).unwrap();
        let before = Snapshot::of(destination.path());
        let ended = broken_after(&source, &destination, bytes, || mount.abort());
        let case = format!("after {bytes} bytes");
        // What the page cache shows of a broken file system means nothing: only what is on the disk does.
        mount.repair();
        source.check(&case, &before, destination.path(), &ended);
        source.check_removals(&case, &before, destination.path(), &ended);
        if ended.code != 0 {
            // What was on its way to the file system's journal fails with the other one.
            let why = ["Read-only file system", "Input/output error"];
            assert_volume_failed(&ended, &why, &case);
            failed += 1;
        }
        source.converges(destination.path());
        tried += 1;
    }
    assert!(failed > tried / 2, "{failed} of {tried}");
    counts::tell("moments of becoming read-only", tried);
}

/// What a file system has taken and not yet written is lost with its device, while sizes and times may be there.
#[test]
fn content_that_is_lost_with_the_device_is_missed() {
    let Some(mut mount) = Mount::ext4(64) else { return };
    // Metadata goes to the disk each second, content after half a minute.
    let status = Command::new("mount").args(["-o", "remount,commit=1"]).arg(mount.path()).status();
    assert!(status.unwrap().success());
    let (source, destination) = (TempTree::new(), TempTree::below(mount.path()));
    for n in 0..4 {
        source.file(format!("small {n}"), Content::random(n, 20_000));
        let name = format!("sparse {n}");
        source.sparse(&name, 8 << 20, &[(0, b"start"), (5 << 20, b"middle")]);
        source.mtime(name, 1_000_000, 1);
    }
    source.file("z", Content::random(9, 12 << 20));
    let pod = Pod::new();
    let serve = pod.serve(&[("a", destination.path())], &[]);
    let options = ["--bwlimit", "2M", "--attempts", "1"];
    let sync = Process::start(pod.direct(pod.server, &pod.pki.source(), source.path(), &options));
    let there =
        || fs::metadata(destination.at("sparse 3")).is_ok_and(|meta| meta.mtime() == 1_000_000);
    while !there() {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(2500));
    mount.abort();
    assert_ne!(sync.wait().code(), 0);
    drop(serve);
    mount.repair();
    // Or there is nothing to be missed, and the test shows nothing.
    let lost = Snapshot::of(destination.path()).node("sparse 0").content;
    assert_ne!(lost, Snapshot::of(source.path()).node("sparse 0").content);

    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let sync = pod.direct(pod.server, &pod.pki.source(), source.path(), &["--delete"]);
    Process::run(sync).expect(0);
    assert_same(source.path(), destination.path());
    counts::tell("devices lost with what they had not written", 1);
}

/// An older kernel's `syncfs` of an ext4 that has become read-only: nothing is done, and all is said to be well.
#[test]
fn a_flush_that_says_all_is_well_and_does_nothing() {
    if !skip::commands(&["strace"]) {
        return;
    }
    // The kernel writes by itself every few seconds: what is on the disk already is not lost.
    assert!((0..5).any(|_| a_lying_flush_loses_something()), "the test shows nothing");
}

fn a_lying_flush_loses_something() -> bool {
    let Some(mut mount) = Mount::ext4(64) else { return true };
    let (source, destination) = (TempTree::new(), TempTree::below(mount.path()));
    for tree in [&source, &destination] {
        tree.file("f", "text").mtime("f", 1_000_000, 1);
    }
    source.mode("f", 0o600);
    rustix::fs::syncfs(fs::File::open(mount.path()).unwrap()).unwrap();
    let pod = Pod::new();
    let inject = "inject=syncfs:retval=0:delay_enter=2000000";
    let strace =
        ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=syncfs", "-e", inject];
    let serve = below(
        &strace,
        &pod.serve_command(&pod.pki.destination(), &[("a", destination.path())], &[]),
    );
    let serve = Process::start(serve);
    serve.wait_for_line("listening on");
    let sync = Process::start(pod.direct(pod.server, &pod.pki.source(), source.path(), &[]));
    while fs::metadata(destination.at("f")).unwrap().mode() & 0o777 != 0o600 {
        thread::sleep(Duration::from_millis(5));
    }
    mount.abort();
    let finished = sync.wait();
    drop(serve);
    mount.repair();
    let lost = fs::metadata(destination.at("f")).unwrap().mode() & 0o777 != 0o600;
    if lost {
        finished.expect(11);
        counts::tell("flushes that lie", 1);
    }
    lost
}
