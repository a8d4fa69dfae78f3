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
