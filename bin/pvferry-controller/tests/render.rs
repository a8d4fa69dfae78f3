//! What `render` says of a migration that it cannot read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

#[test]
fn an_error_of_yaml_shows_its_place_on_lines_of_its_own() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pvferry-controller"));
    let command = command.args(["render", "--from", "-"]);
    let mut started = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    started.stdin.take().unwrap().write_all(b"spec:\n  volumes: [\n").unwrap();
    let ended = started.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.lines().any(|line| line.ends_with("volumes: [")), "{said}");
    assert!(!said.contains(r"\x0a"), "{said}");
}
