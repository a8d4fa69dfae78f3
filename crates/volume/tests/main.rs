//! Tests of the reading side, through the public interface and real file systems.
//!
//! They run as root where they need device nodes, owners, mounts or `trusted.*` attributes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::panic, reason = "as above")]

mod read {
    mod compare;
    mod digest;
    mod dir;
    mod filter;
    mod list;
    mod sample;
    mod source;
    mod stat;
    mod support;
    mod xattr;
}

#[test]
fn no_file_of_tests_is_forgotten() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    let list = std::fs::read_to_string(format!("{here}/main.rs")).unwrap();
    for file in std::fs::read_dir(format!("{here}/read")).unwrap() {
        let path = file.unwrap().path();
        let module = path.file_stem().unwrap().to_string_lossy();
        assert!(list.contains(&format!("mod {module};")), "{module} is not in main.rs");
    }
}
