//! The comparison that README names works: it ends, with its table, and leaves nothing behind.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use testkit::{Process, skip};

fn files(dir: &Path) -> BTreeSet<std::ffi::OsString> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn versus_smoke_ends_with_its_table() {
    if !skip::commands(&["rsync", "stunnel", "perl", "openssl", "flock"]) {
        return;
    }
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let results = files(&benches.join("results"));
    let work = tempfile::tempdir().unwrap();
    let mut versus = Command::new(benches.join("versus"));
    versus.args(["--smoke", "--pvferry", env!("CARGO_BIN_EXE_pvferry"), "--dir"]).arg(work.path());
    let finished = Process::run(versus);
    finished.expect(0);
    for row in [
        "first copy, 60 files",
        "8 MiB, 1 % of the 8 KiB pages rewritten",
        "nothing changed, 300 files",
    ] {
        let found =
            finished.stdout.lines().any(|line| line.starts_with("| ") && line.contains(row));
        assert!(found, "no row {row:?} in:\n{}\n{}", finished.stdout, finished.stderr);
    }
    assert_eq!(files(&benches.join("results")), results);
    assert_eq!(files(work.path()), BTreeSet::new());
}
