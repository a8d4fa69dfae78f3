//! Whole sessions over in-memory streams, and one end against scripts that break the rules.
//!
//! They run as root where they need device nodes and owners.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::expect_used, reason = "as above")]
#![allow(clippy::panic, reason = "as above")]

mod it {
    mod attributes;
    mod between;
    mod content;
    mod content_oracle;
    mod delete;
    mod failure;
    mod hostile_receiver;
    mod hostile_sender;
    mod live;
    mod memory;
    mod metadata;
    mod property;
    mod support;
}

#[test]
fn no_file_of_tests_is_forgotten() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    let list = std::fs::read_to_string(format!("{here}/main.rs")).unwrap();
    for file in std::fs::read_dir(format!("{here}/it")).unwrap() {
        let path = file.unwrap().path();
        let module = path.file_stem().unwrap().to_string_lossy();
        assert!(list.contains(&format!("mod {module};")), "{module} is not in main.rs");
    }
}
