//! What `serve` permits a source to do with a volume, whatever the source asks for.

use testkit::{Content, Finished, Process, Snapshot, TempTree, assert_same};

use crate::{
    pod::Pod,
    support::{assert_explains, assert_untouched, pvferry, report},
};

/// A pod, a source of two files, and a destination that holds ten entries more.
fn set_up() -> (Pod, TempTree, TempTree) {
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.file("a", "one").file("b", "two");
    for number in 0..10 {
        destination.file(format!("extra-{number}"), "kept");
    }
    (pod, source, destination)
}

fn sync(pod: &Pod, source: &TempTree, options: &[&str]) -> Finished {
    let identity = pod.pki.source();
    Process::run(pod.direct(pod.server, &identity, source.path(), options))
}

fn extra(destination: &TempTree) -> usize {
    let entries = std::fs::read_dir(destination.path()).unwrap();
    entries
        .filter(|entry| {
            entry.as_ref().unwrap().file_name().as_encoded_bytes().starts_with(b"extra")
        })
        .count()
}

#[test]
fn a_source_that_asks_for_delete_is_refused_where_serve_does_not_permit_it() {
    let (pod, source, destination) = set_up();
    let before = Snapshot::of(destination.path());
    let serve = pod.serve_strict(&[("a", destination.path())], &[]);
    for options in [&["--delete"][..], &["--delete", "--max-delete=1"], &["--delete", "--dry-run"]]
    {
        let finished = sync(&pod, &source, options);
        assert_eq!(finished.code(), 5, "{}", finished.stderr);
        assert_explains(&finished, &["serve", "--allow-delete", "volume a"]);
        assert_untouched(&before, destination.path());
    }
    serve.wait_for_line("--allow-delete");
    sync(&pod, &source, &[]).expect(0);
    assert_eq!(extra(&destination), 10);
}

#[test]
fn delete_is_permitted_for_the_volume_that_is_named_and_no_other() {
    let (pod, source, destination) = set_up();
    let other = TempTree::new();
    let volumes = [("a", destination.path()), ("b", other.path())];
    let serve = pod.serve_strict(&volumes, &["--allow-delete=b"]);
    assert_eq!(sync(&pod, &source, &["--delete"]).code(), 5);
    drop(serve);
    let serve = pod.serve_strict(&volumes, &["--allow-delete=a"]);
    sync(&pod, &source, &["--delete"]).expect(0);
    assert_same(source.path(), destination.path());
    drop(serve);
    destination.file("extra-again", "");
    let _serve = pod.serve_strict(&volumes, &["--allow-delete"]);
    sync(&pod, &source, &["--delete"]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn the_lower_max_delete_of_both_ends_holds() {
    for (serve, sync_options, left) in [
        (&["--max-delete=3"][..], &["--delete"][..], 7),
        (&["--max-delete=a=3"], &["--delete", "--max-delete=5"], 7),
        (&["--max-delete=3"], &["--delete", "--max-delete=1"], 9),
        (&["--max-delete=0"], &["--delete"], 10),
        (&["--max-delete=2", "--max-delete=a=4"], &["--delete"], 6),
    ] {
        let (pod, source, destination) = set_up();
        let options = [&["--allow-delete"], serve].concat();
        let _serve = pod.serve_strict(&[("a", destination.path())], &options);
        let finished = sync(&pod, &source, sync_options);
        assert_eq!(finished.code(), 25, "{}", finished.stderr);
        assert_explains(&finished, &["--max-delete"]);
        assert_eq!(extra(&destination), left, "{options:?} {sync_options:?}");
    }
}

#[test]
fn an_empty_source_is_refused_where_serve_does_not_permit_it() {
    let (pod, _, destination) = set_up();
    let (empty, before) = (TempTree::new(), Snapshot::of(destination.path()));
    let options = ["--delete", "--allow-empty-source"];
    let serve = pod.serve_strict(&[("a", destination.path())], &["--allow-delete"]);
    let finished = sync(&pod, &empty, &options);
    assert_eq!(finished.code(), 5, "{}", finished.stderr);
    assert_explains(&finished, &["serve", "--allow-empty-source", "volume a"]);
    assert_untouched(&before, destination.path());
    drop(serve);
    let permits = ["--allow-delete", "--allow-empty-source"];
    let _serve = pod.serve_strict(&[("a", destination.path())], &permits);
    sync(&pod, &empty, &options).expect(0);
    assert_eq!(extra(&destination), 0);
}

#[test]
fn permissions_that_can_have_no_effect_are_usage_errors() {
    let (pod, _, destination) = set_up();
    for (options, word) in [
        (&["--allow-delete=b"][..], "volume b"),
        (&["--allow-empty-source=b"], "volume b"),
        (&["--no-delta=b"], "volume b"),
        (&["--allow-delete="], "--allow-delete"),
        (&["--allow-empty-source="], "--allow-empty-source"),
        (&["--no-delta="], "--no-delta"),
        (&["--max-delete=3"], "--allow-delete"),
        (&["--allow-delete", "--max-delete=b=3"], "volume b"),
        (&["--allow-delete", "--max-delete=x"], "x"),
        (&["--allow-delete", "--max-delete=a=-1"], "-1"),
    ] {
        let identity = pod.pki.destination();
        let command = pod.serve_command_strict(&identity, &[("a", destination.path())], options);
        let finished = Process::run(command);
        assert_eq!(finished.code(), 1, "{options:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(word), "{options:?}: {}", finished.stderr);
    }
    let help = Process::run(pvferry(["serve", "--help"]));
    assert!(help.stdout.contains("--allow-delete"), "{}", help.stdout);
}

#[test]
fn serve_without_delta_receives_changed_files_whole_and_makes_the_trees_equal() {
    const LARGE: u64 = 1 << 20;
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.file("large", Content::random(1, LARGE as usize).overwrite(9, b"x"));
    source.file("renamed", Content::random(2, LARGE as usize));
    source.file("small", "new").file("same", "same");
    destination.file("large", Content::random(1, LARGE as usize));
    destination.file("old", Content::random(2, LARGE as usize));
    destination.file("small", "old").file("same", "same");
    let permits = ["--allow-delete", "--no-delta"];
    let serve = pod.serve_strict(&[("a", destination.path())], &permits);
    for options in [&["--delete", "--dry-run"][..], &["--delete"], &["--delete", "--checksum"]] {
        let finished = sync(&pod, &source, options);
        finished.expect(0);
        let literal = report(&finished)["bytes_literal"].as_u64().unwrap();
        assert!(literal >= 2 * LARGE || options.contains(&"--dry-run"), "{literal} bytes sent");
    }
    assert_same(source.path(), destination.path());
    let refused = sync(&pod, &source, &["--verify"]);
    assert_eq!(refused.code(), 5, "{}", refused.stderr);
    assert_explains(&refused, &["--no-delta", "--verify", "volume a"]);
    drop(serve);
    assert!(
        std::fs::read_dir(destination.path()).unwrap().count() == 4,
        "something is left behind"
    );
}
