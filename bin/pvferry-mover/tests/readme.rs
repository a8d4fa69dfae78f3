//! The commands of the README back a directory up and restore it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{fs, path::Path, process::Command};

use testkit::{Process, TempTree, assert_same};

#[test]
fn commands_of_the_readme_back_up_and_restore() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("d/file", "text").symlink("link", "d/file").mtime("", 5, 6);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("credentials")).unwrap();
    fs::write(dir.path().join("credentials/RESTIC_PASSWORD"), "secret").unwrap();
    let value = |word: &str| match word {
        "REPOSITORY" => dir.path().join("repository"),
        "DIR" => dir.path().join("credentials"),
        "SRC" => source.path().to_owned(),
        "DST" => destination.path().to_owned(),
        other => other.into(),
    };
    let commands: Vec<_> =
        readme.lines().filter_map(|line| line.strip_prefix("    pvferry-mover ")).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for line in commands {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pvferry-mover"));
        command.args(line.split_whitespace().map(value));
        Process::run(command).expect(0);
    }
    assert_same(source.path(), destination.path());
}
