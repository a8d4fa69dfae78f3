//! Generated files do not drift from the command line that they come from.

use std::{fs, path::Path};

use testkit::Process;

use crate::support::pvferry;

#[test]
fn manual_page_and_completions_are_those_of_the_binary() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let completions = |shell| (format!("completions/pvferry.{shell}"), vec!["completions", shell]);
    let generated = [
        ("pvferry.1".to_owned(), vec!["man"]),
        completions("bash"),
        completions("zsh"),
        completions("fish"),
    ];
    for (file, arguments) in generated {
        let written = fs::read_to_string(docs.join(&file)).unwrap();
        let now = Process::run(pvferry(&arguments[..])).expect(0).stdout.clone();
        assert!(written == now, "docs/{file} is out of date: run docs/generate");
    }
}

/// What docs/SECURITY.md says a test shows, some test shows.
#[test]
fn tests_that_the_threats_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let named: Vec<_> = text
        .split('`')
        .filter_map(|word| word.split_once("::"))
        .filter(|(module, test)| [module, test].iter().all(|part| is_identifier(part)))
        .collect();
    assert!(named.len() > 40, "{named:?}");
    for (module, test) in named {
        assert!(is_tested(root, module, test), "docs/SECURITY.md names {module}::{test}");
    }
}

fn is_identifier(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a file or a folder called `module` has the test.
fn is_tested(root: &Path, module: &str, test: &str) -> bool {
    ["tests", "crates", "bin"].iter().flat_map(|top| walkdir::WalkDir::new(root.join(top))).any(
        |entry| {
            let path = entry.unwrap().into_path();
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            let is_module = path.file_stem().is_some_and(|stem| stem == module)
                || (path.ends_with("mod.rs") && path.parent().unwrap().ends_with(module));
            is_rust
                && is_module
                && fs::read_to_string(&path).unwrap().contains(&format!("fn {test}("))
        },
    )
}

/// What kinds, phases and values of Kubernetes are called in the controller, and what it reads of other reasons: no
/// reasons of its own.
const NOT_REASONS: [&str; 31] = [
    "AlreadyExists",
    "CleanupFailed",
    "CleanedUp",
    "ClaimCreated",
    "ClusterIP",
    "ContainerCreating",
    "ContainerStatusUnknown",
    "DirectVolumeMigration",
    "DirectVolumeMigrationProgress",
    "DirectVolumeMigrationProgressStatus",
    "DirectVolumeMigrationStatus",
    "ErrImagePull",
    "ExternalIP",
    "ImagePullBackOff",
    "InUseAcknowledged",
    "InternalIP",
    "LoadBalancer",
    "NodePort",
    "NotFound",
    "OnRootMismatch",
    "PersistentVolume",
    "PodInitializing",
    "PodScheduled",
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOncePod",
    "RegistryUnavailable",
    "ReplicaSet",
    "RuntimeDefault",
    "StorageClass",
    "WaitForFirstConsumer",
];

/// A reason that an administrator sees and finds nowhere is of no use.
#[test]
fn reasons_of_the_controller_are_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/OPERATIONS.md")).unwrap();
    let mut undocumented = std::collections::BTreeSet::new();
    let mut found = 0;
    for entry in walkdir::WalkDir::new(root.join("crates/controller/src")) {
        let entry = entry.unwrap();
        if !entry.file_type().is_file() {
            continue;
        }
        let source = fs::read_to_string(entry.path()).unwrap();
        let program = source.split("#[cfg(test)]").next().unwrap();
        for word in program.split('"').skip(1).step_by(2).filter(|word| is_reason(word)) {
            found += 1;
            if !text.contains(&format!("`{word}`")) {
                undocumented.insert(word.to_owned());
            }
        }
    }
    assert!(found > 60, "{found}");
    assert!(undocumented.is_empty(), "docs/OPERATIONS.md does not name {undocumented:?}");
}

/// Several words in one, each with a capital.
fn is_reason(word: &str) -> bool {
    let capitals = word.chars().filter(char::is_ascii_uppercase).count();
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphabetic())
        && capitals > 1
        && capitals < word.len()
        && !["TiB", "GiB", "MiB", "KiB"].contains(&word)
        && !NOT_REASONS.contains(&word)
}

#[test]
fn limits_of_the_protocol_document_are_those_of_the_code() {
    use wire::limits::*;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/PROTOCOL.md")).unwrap();
    let hashes = format!("{},{:03}", MAX_HASHES / 1000, MAX_HASHES % 1000);
    for row in [
        format!("| frame body | {} MiB |", MAX_FRAME >> 20),
        format!("| opening message | {} KiB |", MAX_HELLO >> 10),
        format!("| content in `DATA`, `PATCH` | {} MiB |", MAX_DATA >> 20),
        format!("of `WANTED` | {MAX_ENTRIES} |"),
        format!("| hashes of `SIGNATURE`, `LEAVES`, `BLOCKS` | {hashes} |"),
        format!("| name | {} bytes |", wire::name::MAX_NAME),
        format!("| symbolic link target | {MAX_TARGET} bytes |"),
        format!(
            "{MAX_XATTR_NAME} bytes, {} KiB, {} MiB |",
            MAX_XATTR_VALUE >> 10,
            MAX_XATTRS >> 20
        ),
        format!("| text | {} KiB |", MAX_TEXT >> 10),
        format!("| {MAX_FILTERS}, {MAX_PATTERN} bytes, {} KiB |", MAX_RULES >> 10),
        format!("| losses | {MAX_LOSSES} |"),
        format!("| streams | {MAX_STREAMS} |"),
        format!("| window | {} MiB to {} GiB |", WINDOW.start() >> 20, WINDOW.end() >> 30),
        format!("| file, offset + length | 2^{} |", MAX_FILE.trailing_zeros()),
        format!("| `COPY` that is not made of whole segments | {} KiB |", MAX_PIECE >> 10),
    ] {
        assert!(text.contains(&row), "docs/PROTOCOL.md has no row {row:?}");
    }
}
