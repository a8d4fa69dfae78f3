//! Integration tests: one binary, one module for each theme.
//!
//! Most of them start the built `pvferry` as a pod would and judge it by its exit code, its output and
//! the trees that it leaves; what they compare with is `testkit`, which shares no code with the product.
//! A test that needs what the machine lacks says so loudly and passes, except under `CI=true`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test, too; clippy knows only functions marked as tests"
)]

mod authority;
mod bench;
mod budget;
mod confined;
mod copy;
mod counters;
mod crash;
mod delete;
mod device;
mod directory_times;
mod dry_run;
mod exhaustion;
mod exposure;
mod fuse;
mod generated;
mod half_patched;
mod inspect;
mod interop;
mod layering;
mod limits;
mod moving;
mod mutants;
mod past_the_walk;
mod phrases;
mod pod;
mod pod_form;
mod podman;
mod protection;
mod readme;
mod refusals;
mod restored;
mod results;
mod rights;
mod room;
mod sandbox;
mod set_id;
mod sizes;
mod skipped;
mod staging;
mod start_up;
mod support;
mod usage;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file that no `mod` line names is not compiled, so that its tests would never run.
#[test]
fn every_file_below_tests_is_a_module() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    assert_eq!(forgotten(&tests), Vec::<PathBuf>::new());
}

#[test]
fn a_forgotten_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    for sub in ["theme", "lost"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    write("main.rs", "mod theme;\n// mod commented;\n");
    write("theme.rs", "mod inner;\n");
    write("theme/inner.rs", "");
    write("theme/outer.rs", "");
    write("commented.rs", "");
    write("lost/mod.rs", "");
    write("lost/child.rs", "");
    let mut found = forgotten(dir.path());
    found.sort();
    let expected = ["commented.rs", "lost/child.rs", "lost/mod.rs", "theme/outer.rs"];
    assert_eq!(found, expected.map(|name| dir.path().join(name)));
}

/// The Rust files below `tests` that the file in charge of them does not declare.
fn forgotten(tests: &Path) -> Vec<PathBuf> {
    let mut forgotten = Vec::new();
    for entry in walkdir::WalkDir::new(tests) {
        let path = entry.unwrap().into_path();
        if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("main.rs") {
            continue;
        }
        // `a/mod.rs` is the module `a` of the folder above it; any other file is named by its stem.
        let module = if path.ends_with("mod.rs") { path.parent().unwrap() } else { &path };
        let name = module.file_stem().unwrap().to_str().unwrap();
        let folder = module.parent().unwrap();
        let owners = [folder.join("main.rs"), folder.join("mod.rs"), folder.with_extension("rs")];
        let declaration = format!("mod {name};");
        let declared = owners
            .iter()
            .filter_map(|owner| fs::read_to_string(owner).ok())
            .any(|text| text.lines().any(|line| line.trim() == declaration));
        if !declared {
            forgotten.push(path);
        }
    }
    forgotten
}
