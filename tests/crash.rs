//! Processes that are killed at any moment: what is visible then is old or new or marked, and the next run
//! converges.

use std::{os::unix::fs::MetadataExt, thread, time::Duration};

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
    let in_place: &[&str] = if options.contains(&"--atomic") { &[] } else { &["patched"] };
    assert_eq!(unfinished(&wanted, &before, &after, in_place), [""; 0], "{case}");

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

/// Lays down a staging directory as an interrupted run leaves it, with these entries in it.
fn interrupted(destination: &TempTree, fill: impl FnOnce(&str)) {
    destination.dir("staging").mode("staging", 0o700);
    fill("staging");
    let number = destination.at("staging").metadata().unwrap().ino();
    destination.rename("staging", format!(".pvferry-{number:x}-0123456789abcdef"));
}

/// Where an unfinished entry lies that is to become `path`, which is in `source`.
fn staged(source: &TempTree, path: &str) -> String {
    let root = volume::Dir::open_root(source.path()).unwrap();
    let mut names: Vec<_> =
        path.split('/').map(|name| wire::Name::new(name.as_bytes()).unwrap()).collect();
    let last = names.pop().unwrap();
    let dir = names.iter().fold(root, |dir, name| dir.open_child(name).unwrap());
    volume::staging::staged_name(&dir, &last).to_string()
}

#[test]
fn what_another_run_left_in_staging_is_removed_without_delete_and_not_counted() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("d/f", "text");
    interrupted(&destination, |staging| {
        destination.file(format!("{staging}/0123"), "left behind");
        destination.file(format!("{staging}/4567-dir/inside/f"), "left behind");
    });
    let finished = crate::support::copy(source.path(), destination.path(), &[]);
    assert_eq!(crate::support::report(finished.expect(0))["files_deleted"], 0);
    assert_same(source.path(), destination.path());
}

#[test]
fn a_part_that_is_of_no_use_is_removed() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    // By now the file is smaller than what is worth to go on from.
    source.file("a/a", "small by now").file("b", "text");
    destination.file("b", "old");
    interrupted(&destination, |staging| {
        destination
            .file(format!("{staging}/{}", staged(&source, "a/a")), Content::random(1, 200_000));
        destination.dir(format!("{staging}/{}-dir/a", staged(&source, "a")));
    });
    crate::support::copy(source.path(), destination.path(), &[]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn a_part_and_a_directory_of_an_interrupted_run_are_gone_on_from() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    let content = Content::random(1, 3_000_000);
    source.file("new/large", content.clone()).file("new/small", "1").mtime("new/small", 5, 5);
    destination.file("other", "2");
    source.file("other", "2");
    interrupted(&destination, |staging| {
        destination.file(format!("{staging}/{}", staged(&source, "new/large")), content);
        let small = format!("{staging}/{}-dir/small", staged(&source, "new"));
        destination.file(&small, "1").mtime(&small, 5, 5);
    });
    let finished = crate::support::copy(source.path(), destination.path(), &[]);
    let report = crate::support::report(finished.expect(0));
    assert_eq!(report["bytes_literal"], 0, "{report}");
    assert_same(source.path(), destination.path());
}
