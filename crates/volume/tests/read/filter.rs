//! Filters against the tool whose meaning they take.

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

use proptest::{prelude::*, test_runner::TestRunner};
use volume::filter::{Action, FilterRules, Verdict};
use wire::Name;

/// Three levels over an alphabet that is small enough for random patterns to match.
const NAMES: [&str; 10] = ["a", "b", "ab", "ba", "aab", "-", "]", "B", "a[b", "b*a"];

#[test]
fn verdicts_are_those_of_rsync() {
    if Command::new("rsync").arg("--version").output().is_err() {
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "CI needs rsync");
        eprintln!("SKIPPED verdicts_are_those_of_rsync: there is no rsync");
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let (tree, empty) = (tmp.path().join("tree"), tmp.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    make_tree(&tree, 3);
    let piece = prop_oneof![
        6 => "[ab]{1,2}", 3 => Just("*".to_owned()), 2 => Just("**".to_owned()),
        1 => Just("***".to_owned()), 2 => Just("?".to_owned()), 3 => Just("/".to_owned()),
        1 => Just("\\".to_owned()), 1 => "\\[[!^]?[]ab]{0,2}-?[b\\\\]?\\]?",
        1 => Just("[[:alpha:]]".to_owned()), 1 => Just("[![:upper:]b]".to_owned()),
        1 => Just("]".to_owned()), 1 => Just("-".to_owned()), 1 => Just("[:".to_owned()),
    ];
    let pattern = prop::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat());
    let rules = prop::collection::vec((any::<bool>(), pattern), 1..4);
    let config = ProptestConfig { cases: 120, failure_persistence: None, ..Default::default() };
    let run = TestRunner::new(config).run(&rules, |rules| {
        prop_assert_eq!(ours(&tree, &rules), rsyncs(&tree, &empty, &rules));
        Ok(())
    });
    run.unwrap();
}

fn make_tree(at: &Path, depth: usize) {
    fs::create_dir(at).unwrap();
    for (index, name) in NAMES.iter().enumerate() {
        if depth > 1 && index < 6 {
            make_tree(&at.join(name), depth - 1);
        } else {
            fs::write(at.join(name), b"").unwrap();
        }
    }
    fs::write(at.join("bb"), b"").unwrap();
}

fn ours(tree: &Path, rules: &[(bool, String)]) -> BTreeSet<String> {
    let action = |include| if include { Action::Include } else { Action::Exclude };
    let rules =
        FilterRules::parse(rules.iter().map(|(include, pattern)| (action(*include), pattern)))
            .unwrap();
    let mut seen = BTreeSet::new();
    let mut pending = vec![Vec::<Name>::new()];
    while let Some(parent) = pending.pop() {
        let path: String =
            parent.iter().map(|name| format!("{name}/").replace("\\x5c", "\\")).collect();
        for entry in fs::read_dir(tree.join(&path)).unwrap() {
            let entry = entry.unwrap();
            let text = entry.file_name().into_string().unwrap();
            let name = Name::new(text.as_bytes()).unwrap();
            let is_dir = entry.file_type().unwrap().is_dir();
            if rules.matches(&parent, &name, is_dir) == Verdict::Excluded {
                continue;
            }
            seen.insert(format!("{path}{text}{}", if is_dir { "/" } else { "" }));
            if is_dir {
                pending.push([&parent[..], &[name]].concat());
            }
        }
    }
    seen
}

fn rsyncs(tree: &Path, empty: &Path, rules: &[(bool, String)]) -> BTreeSet<String> {
    let mut command = Command::new("rsync");
    command.args(["-nr", "--out-format=%n"]);
    for (include, pattern) in rules {
        command.arg(format!("--{}={pattern}", if *include { "include" } else { "exclude" }));
    }
    let output = command.arg(tree.join("")).arg(empty).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().filter(|line| *line != "./").map(str::to_owned).collect()
}
