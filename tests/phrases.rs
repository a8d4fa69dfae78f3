//! Phrases that must not come back: what an administrator reads uses the terms of docs/GLOSSARY.md.

use std::{fs, path::Path};

use testkit::Process;

use crate::support::pvferry;

/// What a phrase is not allowed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Everywhere,
    Messages,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The list: sections, comments, and one phrase a line.
fn phrases() -> Vec<(Where, String)> {
    let text = fs::read_to_string(root().join("tests/phrases.txt")).unwrap();
    let mut section = Where::Everywhere;
    let mut phrases = Vec::new();
    for line in text.lines() {
        match line {
            "[everywhere]" => section = Where::Everywhere,
            "[messages]" => section = Where::Messages,
            line if line.is_empty() || line.starts_with('#') => {}
            phrase => phrases.push((section, phrase.to_owned())),
        }
    }
    assert!(phrases.len() > 50, "{}", phrases.len());
    phrases
}

/// The string literals of a program, without those of its tests and of its comments, each on one line.
fn literals(source: &str) -> Vec<String> {
    let program = source.split("#[cfg(test)]").next().unwrap();
    let code: Vec<_> =
        program.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n").replace("'\"'", "").replace("\\\"", "'");
    let inside = code.split('"').skip(1).step_by(2);
    inside.map(|literal| literal.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Everything that is searched: what it is, whether it is a message, its text.
fn texts() -> Vec<(String, bool, String)> {
    let mut texts = Vec::new();
    let commands = ["copy", "sync", "tunnel", "serve", "digest", "verify", "pki", "completions"];
    for command in std::iter::once(None).chain(commands.map(Some)) {
        let words: Vec<_> = command.into_iter().chain(["--help"]).collect();
        let help = Process::run(pvferry(&words)).expect(0).stdout.clone();
        texts.push((words.join(" "), true, help));
    }
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    texts.push(("README.md".into(), false, read(&root().join("README.md"))));
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && name != "generate" {
            texts.push((name, path.extension().is_some_and(|e| e == "1"), read(&path)));
        }
    }
    for top in ["bin", "crates"] {
        for entry in walkdir::WalkDir::new(root().join(top)) {
            let path = entry.unwrap().into_path();
            let is_source = path.extension().is_some_and(|extension| extension == "rs")
                && !path.components().any(|part| part.as_os_str() == "tests")
                && !path.starts_with(root().join("crates/testkit"));
            // What the controller says is in its resources and documents: phrases of [everywhere] hold for it.
            let is_message = !path.starts_with(root().join("crates/controller"));
            if is_source {
                let shown = path.strip_prefix(root()).unwrap().display().to_string();
                texts.push((shown, is_message, literals(&read(&path)).join("\n")));
            }
        }
    }
    texts
}

#[test]
fn phrase_of_the_list_is_in_no_help_document_or_message() {
    let phrases = phrases();
    let mut found = Vec::new();
    for (name, is_message, text) in texts() {
        let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for (place, phrase) in &phrases {
            if (*place == Where::Everywhere || is_message) && unwrapped.contains(phrase) {
                found.push(format!("{name}: {phrase}"));
            }
        }
    }
    assert!(found.is_empty(), "see docs/GLOSSARY.md:\n  {}", found.join("\n  "));
}

#[test]
fn literals_are_found_without_comments_and_tests() {
    let source = "// \"no\"\nlet a = \"one \\\n    two\"; let b = '\"';\nlet c = \"x \\\"y\\\" z\";\n#[cfg(test)]\n\"test\"";
    assert_eq!(literals(source), ["one \\ two", "x 'y' z"]);
}
