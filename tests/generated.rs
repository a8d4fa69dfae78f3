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
