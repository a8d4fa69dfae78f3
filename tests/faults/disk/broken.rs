//! File systems that break while a transfer writes to them.

use std::{fs, thread, time::Duration};

use testkit::{Faults, Mount, Process, Relay, Snapshot, TempTree};

use super::{Ended, Source, assert_volume_failed, fill_destination};
use crate::{counts, pod::Pod, support::report};

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
