//! Exactly what is too much goes, and nothing that is not known to be.

use std::{collections::BTreeSet, fs};

use wire::{FilterAction, FilterRule, Options};

use super::support::*;

fn exclude(pattern: &str) -> FilterRule {
    FilterRule { action: FilterAction::Exclude, pattern: pattern.into() }
}

/// A pair that differs in every way that an action is named for.
fn different() -> Pair {
    let pair = Pair::new();
    let (from, to) = (pair.from.path(), pair.to.path());
    for root in [from, to] {
        for name in ["same/file", "meta/file", "kept/x/y"] {
            write(root, name, b"the same");
            set_mtime(&root.join(name), 5, 5);
        }
        for name in ["same", "meta", "kept/x", "kept", ""] {
            set_mtime(&root.join(name), 6, 6);
        }
    }
    write(from, "changed/small", b"new content");
    write(to, "changed/small", b"old");
    write(from, "changed/large", &noise(1, 2 << 20));
    write(to, "changed/large", &noise(2, 2 << 20));
    set_mtime(&to.join("changed/large"), 9, 9);
    std::os::unix::fs::chown(from.join("meta/file"), Some(7), Some(7)).unwrap();
    std::os::unix::fs::chown(from.join("meta"), Some(7), Some(7)).unwrap();
    write(from, "made/deep/er/file", b"made");
    fs::create_dir(from.join("made/empty")).unwrap();
    std::os::unix::fs::symlink("x", from.join("made/link")).unwrap();
    fs::hard_link(from.join("same/file"), from.join("made/further")).unwrap();
    write(to, "gone/a/b", b"gone");
    write(to, "gone/c", b"gone");
    write(to, "same/gone", b"gone");
    std::os::unix::fs::symlink("/etc", to.join("gone/link")).unwrap();
    write(from, "kind", b"a file");
    write(to, "kind/was/dir", b"a directory");
    pair
}

#[test]
fn a_dry_run_lists_exactly_what_the_real_run_does_and_does_nothing() {
    for checksum in [false, true] {
        let pair = different();
        let before = pair.differences();
        let options = Options { delete: true, checksum, ..Options::default() };
        let dry = pair.sync(Options { dry_run: true, ..options.clone() });
        assert_eq!(dry.summary().exit_code, 0, "{:?}", dry.summary().problems);
        assert_eq!(pair.differences(), before);
        let real = pair.converge(Options { itemize: true, ..options.clone() });
        let set = |lines: &[String]| lines.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(set(&dry.actions), set(&real.actions));
        assert_eq!(dry.actions.len(), real.actions.len());
        let counts =
            |outcome: &Outcome| (outcome.summary().files_written, outcome.summary().files_deleted);
        assert_eq!(counts(&dry), counts(&real));
        let again = pair.converge(Options { itemize: true, ..options });
        assert_eq!(again.actions, Vec::<String>::new());
    }
}

#[test]
fn a_dry_run_into_an_empty_volume_sends_no_content() {
    let pair = Pair::new();
    write(pair.from.path(), "a/large", &noise(1, 2 << 20));
    write(pair.from.path(), "a/small", &noise(1, 60_000));
    let outcome = pair.sync(Options { dry_run: true, ..Options::default() });
    assert!(outcome.summary().wire_sent < 2000);
    assert_eq!(outcome.actions.len(), 3);
    assert_eq!(fs::read_dir(pair.to.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_deleted_unless_asked() {
    let pair = different();
    fs::remove_dir_all(pair.to.path().join("kind")).unwrap();
    pair.sync(Options::default()).assert_clean();
    let left: BTreeSet<_> = pair.differences().into_iter().collect();
    let expected = ["gone: only in B", "same/gone: only in B"];
    assert_eq!(left, expected.map(String::from).into());
}

#[test]
fn a_limit_on_deletions_holds() {
    let pair = Pair::new();
    write(pair.from.path(), "stays", b"");
    for n in 0..10 {
        write(pair.to.path(), &format!("goes{n}"), b"");
    }
    let outcome = pair.sync(Options { max_delete: Some(3), ..delete() });
    outcome.assert_problem(25, ".");
    assert_eq!(outcome.summary().files_deleted, 3);
    assert_eq!(pair.differences().len(), 7);
    pair.converge(Options { max_delete: Some(7), ..delete() });
}

#[test]
fn an_empty_source_is_refused_unless_meant() {
    let pair = Pair::new();
    write(pair.to.path(), "precious", b"");
    let outcome = pair.sync(delete());
    assert!(matches!(outcome.sent, Err(session::Error::EmptySource)));
    assert!(matches!(&outcome.received, Err(session::Error::Aborted(3, _))));
    assert!(pair.to.path().join("precious").exists());
    let outcome = pair.converge(Options { allow_empty: true, ..delete() });
    assert_eq!(outcome.summary().files_deleted, 1);
}

#[test]
fn filters_protect_at_the_destination_too() {
    let pair = Pair::new();
    for name in ["keep/a", "cache/b", "deep/cache/c", "x.tmp"] {
        write(pair.from.path(), name, b"source");
    }
    for name in ["cache/own", "deep/cache/own", "own.tmp", "extra/goes", "half/own.tmp", "half/y"] {
        write(pair.to.path(), name, b"destination");
    }
    let filters = vec![exclude("cache/"), exclude("*.tmp")];
    let options = Options { filters, ..delete() };
    pair.sync(options).assert_clean();
    let exists = |name: &str| pair.to.path().join(name).exists();
    for name in ["cache/own", "deep/cache/own", "own.tmp", "half/own.tmp", "keep/a"] {
        assert!(exists(name), "{name}");
    }
    for name in ["cache/b", "deep/cache/c", "x.tmp", "extra", "half/y"] {
        assert!(!exists(name), "{name}");
    }
}

#[test]
fn a_directory_that_vanishes_is_named_and_deletes_nothing() {
    // Below a path that the walk cannot enter: a name that becomes a file while it is walked.
    let pair = Pair::new();
    write(pair.from.path(), "dir/file", b"x");
    write(pair.to.path(), "dir/file", b"x");
    write(pair.to.path(), "dir/other", b"x");
    for n in 0..200 {
        for m in 0..20 {
            write(pair.from.path(), &format!("a{n:03}/{m}"), b"x");
        }
    }
    let path = pair.from.path().to_owned();
    let swapper = std::thread::spawn(move || {
        let _ = fs::rename(path.join("dir"), path.join("a000/moved"));
        let _ = fs::write(path.join("dir"), b"now a file");
    });
    let outcome = pair.sync(delete());
    swapper.join().unwrap();
    assert!(matches!(outcome.summary().exit_code, 0 | 23 | 24));
    pair.converge_twice(delete());
}
