//! `pvferry digest` and `pvferry verify`, judged by the independent comparison.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;
use testkit::{Aspects, Kind, Process, Snapshot, TempTree, differences, skip};

use crate::support::{copy, pvferry, report};

fn digest(path: &Path) -> String {
    let mut command = pvferry(["digest"]);
    command.arg(path);
    let finished = Process::run(command);
    finished.expect(0);
    finished.stdout.trim().to_owned()
}

#[test]
fn a_digest_is_of_the_tree_and_not_of_the_place() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.everything().populate(1, 50);
    copy(source.path(), destination.path(), &["--verify"]).expect(0);
    let whole = digest(source.path());
    assert_eq!(whole.len(), 64);
    assert_eq!(whole, digest(destination.path()));

    let mut json = pvferry(["digest", "--json"]);
    json.arg(source.path());
    let json: Value = serde_json::from_str(&Process::run(json).stdout).unwrap();
    assert_eq!(json["digest"], whole);

    type Change = fn(&TempTree) -> &TempTree;
    let changes: [Change; 7] = [
        |t| t.patch("size-4096", 4095, b"#").mtime("size-4096", 1, 1),
        |t| t.mtime("plain", 1, 2),
        |t| t.mode("one/two/three", 0o700),
        |t| t.rename("one/two/three/plain", "one/two/three/plain2"),
        |t| t.remove("to nothing").symlink("to nothing", "something"),
        |t| t.xattr("marked", "user.binary", &[0, 1, 254]),
        |t| t.remove("one/across").file("one/across", "shared").mtime("one/across", 1, 1),
    ];
    let mut seen = BTreeSet::from([whole]);
    for (index, change) in changes.iter().enumerate() {
        change(&destination);
        assert!(seen.insert(digest(destination.path())), "change {index} is not in the digest");
    }
}

#[test]
fn verify_names_every_difference() {
    for seed in 0..8 {
        let (a, b) = (TempTree::new(), TempTree::new());
        for tree in [&a, &b] {
            tree.populate(seed, 60);
        }
        copy(a.path(), b.path(), &["--delete"]).expect(0);
        let verify = || {
            let mut command = pvferry(["verify"]);
            command.arg(a.path()).arg(b.path());
            Process::run(command)
        };
        let equal = verify();
        let said = &equal.expect(0).stdout;
        let whole = digest(a.path());
        let expected = format!("verified: both sides identical (digest {})", &whole[..16]);
        assert_eq!(said.lines().last(), Some(&*expected), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");

        b.mutate(seed + 10, 15);
        let finished = verify();
        finished.expect(23);
        let (left, right) = (Snapshot::of(a.path()), Snapshot::of(b.path()));
        // Of a tree that only one side has the reference names every entry, `verify` the top.
        let in_both = |path: &Path| {
            path.parent().is_none_or(|parent| {
                [&left, &right]
                    .iter()
                    .all(|tree| tree.0.get(parent).is_some_and(|node| node.kind == Kind::Directory))
            })
        };
        let found = differences(&left, &right, Aspects::default());
        let differs = |path: &Path| {
            let start = match path.as_os_str().as_encoded_bytes() {
                b"" => ".: ".to_owned(),
                name => format!("{}: ", name.escape_ascii()),
            };
            found.iter().any(|line| line.starts_with(&start))
        };
        let expected: BTreeSet<String> = left
            .0
            .keys()
            .chain(right.0.keys())
            .filter(|path| in_both(path) && differs(path))
            .map(|path| escaped(path))
            .collect();
        let named: BTreeSet<String> = finished
            .stdout
            .lines()
            .map(|line| line.split_once(": ").unwrap().0.to_owned())
            .collect();
        assert_eq!(named, expected, "seed {seed}\n{}\n{found:#?}", finished.stdout);
    }
}

/// A name as messages show it: text as it is, control bytes, backslashes and what is no text as `\xNN`.
fn escaped(path: &Path) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    if path == Path::new("") {
        return ".".to_owned();
    }
    let mut shown = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                shown += &hex(c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                shown.push(c);
            }
        }
        shown += &hex(chunk.invalid());
    }
    shown
}

#[test]
fn verification_after_a_transfer_sees_what_the_quick_check_cannot() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    for tree in [&source, &destination] {
        tree.file("f", "same size").mtime("f", 1, 1).mtime("", 1, 1);
    }
    destination.file("f", "SAME SIZE").mtime("f", 1, 1);
    copy(source.path(), destination.path(), &[]).expect(0);
    let finished = copy(source.path(), destination.path(), &["--verify"]);
    assert_ne!(finished.code(), 0);
    assert_ne!(report(&finished)["outcome"], "completed");
    copy(source.path(), destination.path(), &["--checksum", "--verify"]).expect(0);
}

#[test]
fn verify_as_json_is_one_object_with_what_the_lines_say() {
    let (a, b) = (TempTree::new(), TempTree::new());
    for tree in [&a, &b] {
        tree.populate(3, 40);
    }
    copy(a.path(), b.path(), &["--delete"]).expect(0);
    let verify = |options: &[&str]| {
        let mut command = pvferry(["verify"]);
        command.args(options).args([a.path(), b.path()]);
        Process::run(command)
    };
    let equal: Value = serde_json::from_str(&verify(&["--json"]).expect(0).stdout).unwrap();
    assert_eq!(equal["identical"], true);
    assert_eq!(equal["digest"], digest(a.path()));
    assert_eq!(equal["differences"], serde_json::json!([]));
    let copied = report(&copy(a.path(), b.path(), &[]));
    assert_eq!(equal["entries"], copied["entries"]);

    b.mutate(5, 15);
    let lines = verify(&[]);
    let finished = verify(&["--json"]);
    let object: Value = serde_json::from_str(&finished.expect(23).stdout).unwrap();
    assert_eq!(object["identical"], false);
    let listed = object["differences"].as_array().unwrap().iter();
    let listed: Vec<_> = listed
        .map(|d| format!("{}: {}", d["name"].as_str().unwrap(), d["what"].as_str().unwrap()))
        .collect();
    assert!(!listed.is_empty());
    assert_eq!(listed, lines.expect(23).stdout.lines().collect::<Vec<_>>());
    assert_eq!(object["differences_omitted"], 0);
}

#[test]
fn what_is_not_a_tree_or_a_device_is_refused_by_digest_and_verify_with_a_sentence() {
    let tree = TempTree::new();
    tree.file("f", "1");
    let (file, none) = (tree.at("f"), tree.at("none"));
    for (path, says) in [(&file, "is not a directory or block device"), (&none, "does not exist")] {
        for words in [&["digest"][..], &["verify"]] {
            let mut command = pvferry(words);
            command.arg(path);
            if words == ["verify"] {
                command.arg(tree.path());
            }
            let finished = Process::run(command);
            assert!(finished.expect(3).stderr.contains(says), "{words:?}: {}", finished.stderr);
        }
    }
}

/// What each line says of the entry is said of the side that it is about.
#[test]
fn verify_says_which_side_has_an_attribute_a_link_and_an_acl_and_that_times_are_utc() {
    if !skip::commands(&["setfacl"]) {
        return;
    }
    let trees = [TempTree::new(), TempTree::new()];
    for tree in &trees {
        for name in ["acl", "first", "note", "time"] {
            tree.file(name, "1").mtime(name, 1, 0);
        }
    }
    let [left, right] = &trees;
    for tree in &trees {
        tree.file("second", "1");
    }
    left.remove("second").hard_link("first", "second");
    right.file("only", "1").xattr("note", "user.z", b"1");
    right.acl("acl", "u:1234:r");
    for tree in &trees {
        for (name, at) in [("acl", 1), ("first", 1), ("second", 1), ("note", 1), ("", 1)] {
            tree.mtime(name, at, 0);
        }
    }
    right.mtime("time", 2, 0);
    let mut command = pvferry(["verify"]);
    command.args([left.path(), right.path()]);
    let finished = Process::run(command);
    finished.expect(23);
    let (a, b) = (left.path().display(), right.path().display());
    for line in [
        format!("acl: ACL only in {b}"),
        format!("second: hard link to another name in {a}, not in {b}"),
        format!("note: extended attribute user.z only in {b}"),
        format!("time: mtime 1970-01-01 00:00:01.000Z in {a}, 1970-01-01 00:00:02.000Z in {b}"),
        format!("only: only in {b}"),
    ] {
        assert!(finished.stdout.lines().any(|found| found == line), "{line}: {}", finished.stdout);
    }
    assert!(
        finished.stderr.contains("use copy --verify with the same filters"),
        "{}",
        finished.stderr
    );
}
