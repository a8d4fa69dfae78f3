//! Processes that are killed at any moment: what is visible then is old or new or marked, and the next run
//! converges.

use std::{thread, time::Duration};

use testkit::{
    Content, Faults, Process, Relay, Rng, Snapshot, TempTree, assert_same, interrupted::unfinished,
};

use crate::{pod::Pod, support::pvferry};

/// The source and what the destination has of it: files to leave, to patch, to replace, to make and to
/// delete, in directories that are there and in new ones.
fn trees() -> (TempTree, TempTree) {
    let (source, destination) = (TempTree::new(), TempTree::new());
    for tree in [&source, &destination] {
        tree.populate(1, 100);
    }
    source.mutate(2, 40);
    for tree in [&source, &destination] {
        for index in 0..150 {
            let path = format!("small/{index}");
            tree.file(&path, Content::random(index, 2000)).mtime(&path, 1_000_000, 1);
        }
        tree.file("patched", Content::random(1, 24 << 20)).mtime("patched", 1_000_000, 1);
    }
    for index in (0..150).step_by(2) {
        source.file(format!("small/{index}"), Content::random(1000 + index, 2000));
    }
    let mut rng = Rng::new(3);
    for _ in 0..200 {
        source.patch("patched", rng.below((24 << 20) - 9000), &rng.bytes(9000));
    }
    for index in 0..100 {
        source.file(format!("new/{}/{index}", index % 7), Content::random(index, 5000));
    }
    source.file("new large", Content::random(5, 12 << 20));
    (source, destination)
}

/// Kills one of the three processes after a random number of bytes, then runs to the end.
fn killed(seed: u64, options: &[&str]) {
    let mut rng = Rng::new(seed);
    let (source, destination) = trees();
    let (wanted, before) = (Snapshot::of(source.path()), Snapshot::of(destination.path()));
    let pod = Pod::new();
    let mut serve = pod.serve(&[("a", destination.path())], &[]);
    let relay = Relay::always(pod.server, Faults::default(), Faults::default());
    let mut tunnel = pod.tunnel_to(relay.address(), &pod.pki.source(), &[]);
    let options = [&["--delete", "--attempts", "1", "--timeout", "5"][..], options].concat();
    let mut sync = Process::start(pod.sync(source.path(), "a", &options));

    let limit = rng.below(15 << 20);
    while relay.bytes().0 < limit && sync.is_running() {
        thread::sleep(Duration::from_micros(200));
    }
    let victim = rng.below(3);
    let case = format!("seed {seed}, victim {victim}, {options:?}");
    [&mut serve, &mut tunnel, &mut sync][usize::try_from(victim).unwrap()].kill();
    let ended = sync.wait();
    // Beyond the commit record there is nothing left to kill.
    let finished = ended.status.success();
    drop((serve, tunnel));

    let after = Snapshot::of(destination.path());
    if finished {
        assert_same(source.path(), destination.path());
    }
    assert_eq!(unfinished(&wanted, &before, &after, &["patched"]), [""; 0], "{case}");

    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let mut again = pvferry(["sync", "--json", "--delete", "--volume", "a", "--identity"]);
    again.arg(pod.pki.source()).args(["--connect", &pod.server.to_string()]).arg(source.path());
    Process::run(again).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn kill_9_at_any_moment_then_converge() {
    for seed in 0..10 {
        killed(seed, &[]);
    }
}

#[test]
fn kill_9_with_atomic_never_shows_a_half_written_file() {
    for seed in 100..105 {
        killed(seed, &["--atomic"]);
    }
}

#[test]
fn stale_temporary_files_of_another_run_are_ignored_and_removed() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("d/f", "text");
    destination.file("d/.pvferry-0123456789abcdef.part", "left behind");
    destination.file(".pvferry-fedcba9876543210.new/inside", "left behind");
    crate::support::copy(source.path(), destination.path(), &["--delete"]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn a_part_that_is_of_no_use_is_removed() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    // By now the file is smaller than what is worth to go on from. The names follow from that of "a".
    source.file("a/a", "small by now").file("b", "text");
    let part = ".pvferry-17762fddd969a453.new/.pvferry-17762fddd969a453.part";
    destination.file("b", "old").file(part, Content::random(1, 200_000));
    crate::support::copy(source.path(), destination.path(), &[]).expect(0);
    assert_same(source.path(), destination.path());
}
