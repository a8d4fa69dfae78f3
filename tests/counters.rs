//! What the numbers of a report say, against what lies in the trees.

use std::{fs, path::Path};

use serde_json::Value;
use testkit::{Content, Errno, OddMount, Process, Quirks, TempTree, skip};

use crate::{
    pod::Pod,
    support::{copy, pvferry, report},
};

/// Regular files below `path`, and their bytes.
fn held(path: &Path) -> (u64, u64) {
    let mut held = (0, 0);
    for entry in walkdir::WalkDir::new(path).min_depth(1) {
        let meta = entry.unwrap().metadata().unwrap();
        if meta.is_file() {
            held = (held.0 + 1, held.1 + meta.len());
        }
    }
    held
}

#[track_caller]
fn assert_counts(report: &Value, expected: &[(&str, u64)]) {
    for (counter, count) in expected {
        assert_eq!(report[counter], *count, "{counter}: {report}");
    }
}

#[test]
fn bytes_of_entries_that_cannot_be_put_in_place_are_not_counted_as_matched() {
    let source = TempTree::new();
    source.file("same", "1234567").mtime("same", 1, 1).file("new", "12345");
    source.file("blocked", Content::random(1, 40_000));
    source.file("blocked large", Content::random(2, 2 << 20));
    source.file("replaced/inside", Content::random(3, 90_000));
    for streams in ["1", "4"] {
        let destination = TempTree::new();
        destination.file("same", "1234567").mtime("same", 1, 1);
        destination.file("blocked/in the way", "").file("blocked large/in the way", "");
        destination.file("replaced", "");
        let finished = copy(source.path(), destination.path(), &["--streams", streams]);
        let said = report(finished.expect(23));
        let (_, total) = held(source.path());
        let expected = [("entries", 6), ("bytes_total", total), ("files_deleted", 1)];
        assert_counts(&said, &expected);
        let arrived = ["same", "new"].map(|name| fs::metadata(destination.at(name)).unwrap().len());
        let inside = fs::metadata(destination.at("replaced/inside"));
        let arrived = arrived.iter().sum::<u64>() + inside.map_or(0, |meta| meta.len());
        let counted = ["bytes_matched", "bytes_literal"].map(|name| said[name].as_u64().unwrap());
        assert_eq!(counted.iter().sum::<u64>(), arrived, "{said}");
        assert_eq!(said["errors"].as_array().unwrap().len(), 2, "{said}");
        assert!(said["reason"].as_str().unwrap().starts_with("2 errors; first: "), "{said}");
    }
}

#[test]
fn bytes_of_a_file_that_cannot_be_read_to_its_end_are_not_counted_as_matched() {
    let Some(odd) = OddMount::new(Quirks::default()) else { return };
    let (source, destination) = (TempTree::below(odd.path()), TempTree::new());
    source.file("broken", Content::random(1, 3 << 20)).file("fine", "1234567");
    copy(source.path(), destination.path(), &[]).expect(0);
    source.mtime("broken", 9, 9);
    odd.set(|quirks| quirks.read_errors = vec![("broken".into(), Errno::IO)]);
    let said = report(copy(source.path(), destination.path(), &[]).expect(23));
    assert_counts(&said, &[("entries", 2), ("bytes_matched", 7), ("files_written", 0)]);
    assert_eq!(said["errors"].as_array().unwrap().len(), 1, "{said}");
}

#[test]
fn errors_are_counted_as_errors_where_one_entry_has_several() {
    if !skip::root() {
        return;
    }
    let (source, odd) =
        (TempTree::new(), OddMount::new(Quirks { no_owners: true, ..Quirks::default() }));
    let Some(odd) = odd else { return };
    let destination = TempTree::below(odd.path());
    source.file("f", "text").owner("f", 5, 6).mode("f", 0o6755);
    odd.set(|quirks| quirks.no_modes = true);
    let finished = copy(source.path(), destination.path(), &[]);
    let said = report(finished.expect(23));
    let errors = said["errors"].as_array().unwrap();
    let of_file = errors.iter().filter(|error| error["name"] == "f").count();
    assert!(of_file > 1, "{said}");
    let reason = said["reason"].as_str().unwrap();
    assert!(reason.starts_with(&format!("{} errors; first: ", errors.len())), "{said}");
    assert!(!finished.stderr.contains("os error 34"), "{}", finished.stderr);
}

#[test]
fn both_ends_report_the_same_entries_and_bytes_also_where_some_failed() {
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.file("same", "1234567").mtime("same", 1, 1).file("blocked/f", "x").dir("blocked/d");
    source.file("blocked 2", Content::random(2, 100_000));
    destination.file("same", "1234567").mtime("same", 1, 1);
    destination.file("blocked 2/in the way", "");
    let serve = pod.serve(&[("a", destination.path())], &["--exit-when", "1"]);
    let mut sync = pvferry(["sync", "--json", "--volume", "a", "--wait", "30"]);
    sync.args(["--connect", &pod.server.to_string(), "--identity"]).arg(pod.pki.source());
    sync.arg(source.path());
    let sync = report(Process::run(sync).expect(23));
    serve.wait().expect(23);
    let serve = pod.message("serve");
    for counter in [
        "entries",
        "files_written",
        "files_deleted",
        "bytes_total",
        "bytes_literal",
        "bytes_matched",
    ] {
        assert_eq!(sync[counter], serve[counter], "{counter}: {sync} {serve}");
    }
    assert_eq!((&sync["entries"], &sync["bytes_matched"]), (&5.into(), &7.into()), "{sync}");
}
