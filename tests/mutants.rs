//! Each defence that docs/SECURITY.md lists can be removed, and some test notices.
//!
//! `tests/mutants/run` removes them, for minutes. What is checked here takes no time: every row has a mutant, or the
//! reason why it has none; every patch still applies; every test that a mutant names exists and stands in its row.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use testkit::skip;

/// A file below tests/mutants.
struct Mutant {
    path: PathBuf,
    row: String,
    /// Package, target and path of each test.
    tests: Vec<[String; 3]>,
    has_patch: bool,
    reason: Option<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The first cell of each row in a table of threats, with the `module::test` names in the last one.
fn rows() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(root().join("docs/SECURITY.md")).unwrap();
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let Some(row) = line.strip_prefix("| ") else {
            in_table = false;
            continue;
        };
        if row.starts_with("threat | ") {
            in_table = true;
        } else if in_table && !row.starts_with("--- ") {
            let (threat, rest) = row.split_once(" | ").unwrap();
            let named = rest.rsplit(" | ").next().unwrap().split('`').filter(|t| t.contains("::"));
            rows.push((threat.to_owned(), named.map(str::to_owned).collect()));
        }
    }
    rows
}

fn mutants() -> Vec<Mutant> {
    let files = fs::read_dir(root().join("tests/mutants")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut mutants: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "patch")).map(read).collect();
    mutants.sort_by(|a, b| a.path.cmp(&b.path));
    mutants
}

fn read(path: PathBuf) -> Mutant {
    let text = fs::read_to_string(&path).unwrap();
    let header = text.lines().take_while(|line| !line.starts_with("--- "));
    let values = |key: &str| {
        header.clone().filter_map(|line| line.strip_prefix(key)).map(str::to_owned).collect()
    };
    let (rows, tests): (Vec<String>, Vec<String>) = (values("Row: "), values("Test: "));
    assert_eq!(rows.len(), 1, "{}: one `Row: ` line", path.display());
    let tests = tests.iter().map(|test| {
        let words: Vec<_> = test.split(' ').map(str::to_owned).collect();
        words.try_into().unwrap_or_else(|_| panic!("{}: {test}", path.display()))
    });
    Mutant {
        row: rows[0].clone(),
        tests: tests.collect(),
        has_patch: text.contains("\n+++ b/"),
        reason: values("Reason: ").first().cloned(),
        path,
    }
}

/// `handshake::a_test` of `it::handshake::a_test` and of `handshake::tests::a_test`; a test without a module has the
/// target in its place.
fn short(target: &str, path: &str) -> String {
    let path = format!("{target}::{path}");
    let parts: Vec<_> = path.split("::").filter(|part| *part != "tests").collect();
    parts[parts.len().saturating_sub(2)..].join("::")
}

#[test]
fn every_threat_has_a_mutant_or_a_reason_for_having_none() {
    let mutants = mutants();
    let rows = rows();
    assert!(rows.len() > 50, "{}", rows.len());
    let without: Vec<_> = rows
        .iter()
        .map(|(threat, _)| threat)
        .filter(|threat| mutants.iter().all(|mutant| mutant.row != **threat))
        .collect();
    assert!(without.is_empty(), "no file in tests/mutants has a `Row: ` line for {without:#?}");
    for mutant in &mutants {
        let shown = mutant.path.display();
        let Some((_, named)) = rows.iter().find(|(threat, _)| *threat == mutant.row) else {
            panic!("{shown}: docs/SECURITY.md has no row {:?}", mutant.row)
        };
        assert!(mutant.has_patch != mutant.reason.is_some(), "{shown}: a patch or a reason");
        assert!(!mutant.has_patch || !mutant.tests.is_empty(), "{shown}: no test");
        for [_, target, path] in &mutant.tests {
            let test = short(target, path);
            assert!(named.contains(&test), "{shown}: the row does not name {test}");
        }
    }
}

#[test]
fn every_mutant_applies() {
    if !skip::commands(&["git"]) {
        return;
    }
    for mutant in mutants().iter().filter(|mutant| mutant.has_patch) {
        let mut git = Command::new("git");
        let output = git
            .args(["apply", "--unidiff-zero", "--check"])
            .arg(&mutant.path)
            .current_dir(root())
            .output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", mutant.path.display());
    }
}
