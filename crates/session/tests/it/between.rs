//! What changes in a source between its listing and its reading.

use std::{fs, os::unix::fs::FileExt as _};

use wire::Options;

use super::support::*;

/// A hard link group `a`, `b` beside a file that is the same at both ends, so that the receiver answers with plans.
fn linked() -> Pair {
    let pair = Pair::new();
    for root in [pair.from.path(), pair.to.path()] {
        write(root, "same", b"same");
        set_mtime(&root.join("same"), 5, 5);
    }
    write(pair.from.path(), "a", &noise(1, 3000));
    fs::hard_link(pair.from.path().join("a"), pair.from.path().join("b")).unwrap();
    pair
}

#[test]
fn a_hard_linked_file_that_changes_after_its_listing_arrives_with_equal_manifests() {
    let pair = linked();
    let changed = pair.from.path().join("a");
    let outcome = sync_after_listing(&pair, Options::default(), move || {
        fs::write(&changed, noise(2, 5000)).unwrap();
    });
    outcome.assert_clean();
    pair.assert_equal();
}

#[test]
fn a_hard_linked_file_that_is_replaced_after_its_listing_is_reported() {
    let pair = linked();
    let (new, name) = (pair.from.path().join("new"), pair.from.path().join("a"));
    let outcome = sync_after_listing(&pair, Options::default(), move || {
        fs::write(&new, noise(2, 5000)).unwrap();
        fs::rename(&new, &name).unwrap();
    });
    // What was linked is not any more: the names have different content now.
    assert_eq!(outcome.exit_code(), 24, "{:?}", outcome.summary().problems);
    pair.converge_twice(delete());
}

#[test]
fn a_linked_file_that_grows_beyond_a_small_one_after_its_listing_arrives() {
    let pair = linked();
    let changed = pair.from.path().join("b");
    let outcome = sync_after_listing(&pair, Options::default(), move || {
        let file = fs::OpenOptions::new().write(true).open(&changed).unwrap();
        file.write_all_at(&noise(3, 200_000), 0).unwrap();
    });
    outcome.assert_clean();
    pair.assert_equal();
}
