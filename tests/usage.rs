//! What users of rsync type: accepted where it means the same, else answered with a sentence that helps.

use std::{fs, path::Path};

use testkit::{Content, Finished, Process, TempTree, assert_same};

use crate::support::pvferry;

fn run(words: &[&str], paths: &[&Path]) -> Finished {
    let mut command = pvferry(words);
    command.args(paths);
    Process::run(command)
}

fn some_source() -> TempTree {
    let source = TempTree::new();
    source.file("a.o", "1").file("keep.o", "2").file("sub/b.o", "3").file("sub/text", "4");
    source.file("large", Content::random(1, 300_000));
    source
}

#[test]
fn options_of_rsync_for_what_is_always_done_are_accepted() {
    let source = some_source();
    for options in [
        &["-a"][..],
        &["-r"],
        &["-avz"],
        &["-aHAXSx", "--numeric-ids"],
        &["-rlptgoD", "--bwlimit", "0"],
        &["-avP", "--bwlimit=10MB"],
        &["-aAv", "--progress"],
        &["-a", "--itemize-changes"],
        &["-avh"],
        &["-ah", "-h"],
        &["-ahf", "- nothing"],
        &["--exclude=-h", "-hh"],
        &["-a", "--human-readable"],
    ] {
        let destination = TempTree::new();
        let words = [&["copy"], options].concat();
        let finished = run(&words, &[source.path(), destination.path()]);
        finished.expect(0);
        assert_same(source.path(), destination.path());
        let lists = finished.stdout.contains("create sub/text");
        let asked = options[0].contains('v') || options.contains(&"--itemize-changes");
        assert_eq!(lists, asked, "{options:?}: {}", finished.stdout);
    }
}

#[test]
fn h_alone_prints_the_help_and_as_the_value_of_an_option_is_refused() {
    for command in ["copy", "sync"] {
        let help = run(&[command, "--help"], &[]);
        assert_eq!(run(&[command, "-h"], &[]).expect(0).stdout, help.expect(0).stdout);
    }
    for option in ["--exclude", "-f", "--timeout"] {
        let finished = run(&["copy", option, "-h", "a", "b"], &[]);
        assert_eq!(finished.code(), 1, "{option}: {}", finished.stderr);
        assert!(finished.stderr.contains(option), "{option}: {}", finished.stderr);
    }
}

#[test]
fn source_and_destination_without_a_command_are_answered_with_the_command() {
    let source = some_source();
    for words in [&["src", "dst"][..], &["-av", "src", "dst"], &["--delete", "src/", "host:dst"]] {
        let finished = run(words, &[]);
        assert_eq!(finished.code(), 1, "{}", finished.stderr);
        let expected = format!("pvferry copy {}", words.join(" "));
        assert!(finished.stderr.contains(&expected), "{}", finished.stderr);
    }
    // A word that is nearly a command is one that was mistyped.
    let finished = run(&["cpoy", "-a"], &[source.path(), source.path()]);
    assert!(finished.stderr.contains("'copy'"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("a command is missing"), "{}", finished.stderr);
}

#[test]
fn options_of_rsync_without_a_counterpart_are_answered_with_what_to_do() {
    for (option, answer) in [
        ("-e", "pvferry serve"),
        ("--rsh=ssh", "pvferry serve"),
        ("--inplace", "--atomic"),
        ("--delete-excluded", "never deleted"),
        ("--link-dest=x", "one copy"),
        ("--copy-links", "never followed"),
        ("--max-size=1m", "not by size"),
        ("--nonsense", "pvferry copy --help"),
        ("--exlude=x", "--exclude"),
        ("-u", "always updated"),
        ("--ignore-existing", "always updated"),
        ("-q", "use --progress none"),
        ("--info=progress2", "use -P"),
        ("--timeout=soon", "--timeout: 'soon' is not a whole number"),
        ("--max-delete=abc", "--max-delete: 'abc' is not a whole number"),
        ("--partial-dir=x", "resumes"),
    ] {
        let finished = run(&["copy", option, "a", "b"], &[]);
        assert_eq!(finished.code(), 1, "{option}: {}", finished.stderr);
        let hint = finished.stderr.lines().find(|line| line.starts_with("pvferry: "));
        assert!(hint.is_some_and(|hint| hint.contains(answer)), "{option}: {}", finished.stderr);
    }
}

#[test]
fn answer_to_an_option_of_rsync_names_no_option_that_the_command_lacks() {
    for words in [&["verify", "-q", "a", "b"][..], &["digest", "-q", "a"], &["serve", "-q"]] {
        let finished = run(words, &[]);
        assert_eq!(finished.code(), 1, "{words:?}: {}", finished.stderr);
        let expected =
            format!("unknown option -q; to list the options: pvferry {} --help", words[0]);
        assert!(finished.stderr.contains(&expected), "{words:?}: {}", finished.stderr);
    }
}

#[test]
fn volume_after_a_blank_is_answered_with_the_equals_sign() {
    for option in ["--allow-delete", "--allow-empty-source", "--no-delta"] {
        let listen = ["serve", "--listen", "127.0.0.1:0", "--identity", "i", "--volume", "data=/d"];
        let finished = run(&[&listen[..], &[option, "data"]].concat(), &[]);
        assert_eq!(finished.code(), 1, "{option}: {}", finished.stderr);
        let expected = format!("write {option}=data");
        assert!(finished.stderr.contains(&expected), "{option}: {}", finished.stderr);
    }
}

#[test]
fn rules_of_files_and_of_filter_leave_out_what_they_say() {
    let source = some_source();
    let lists = TempTree::new();
    lists.file("exclude", "# objects\n*.o\n").file("include", "keep.o\n");
    let (exclude, include) = (lists.at("exclude"), lists.at("include"));
    let (exclude, include) = (exclude.to_str().unwrap(), include.to_str().unwrap());
    for options in [
        &["--include-from", include, "--exclude-from", exclude][..],
        &["--include=keep.o", "--exclude-from", exclude],
        &["-f", "+ keep.o", "-f", "- *.o"],
        &["--filter=- *", "--filter=!", "--filter=include keep.o", "--filter=exclude *.o"],
        &["--exclude=+ keep.o", "--exclude=*.o"],
    ] {
        let destination = TempTree::new();
        let words = [&["copy"], options].concat();
        run(&words, &[source.path(), destination.path()]).expect(0);
        let exists = |name: &str| destination.at(name).exists();
        let found = ["a.o", "sub/b.o", "keep.o", "sub/text"].map(exists);
        assert_eq!(found, [false, false, true, true], "{options:?}");
    }
}

#[test]
fn rules_that_cannot_be_read_end_the_run_before_anything_is_created() {
    let (source, work) = (some_source(), TempTree::new());
    let destination = work.at("new");
    for (options, words) in [
        (["--filter", "merge rules"], "use '+ PATTERN'"),
        (["--exclude-from", "/no/such/file"], "cannot read /no/such/file"),
        (["--filter", ". rules"], "--filter: '. rules' is not supported"),
        (["--exclude", ""], "--exclude: empty pattern"),
    ] {
        let words_of = [&["copy"], &options[..]].concat();
        let finished = run(&words_of, &[source.path(), &destination]);
        assert_eq!(finished.code(), 1, "{options:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(words), "{options:?}: {}", finished.stderr);
        assert!(!destination.exists());
    }
}

/// What the sentence about a single file says works as it stands.
#[test]
fn single_file_is_copied_with_the_options_that_the_refusal_gives() {
    let (source, destination) = (some_source(), TempTree::new());
    let finished = run(&["copy"], &[&source.at("sub/text"), destination.path()]);
    assert_eq!(finished.code(), 3, "{}", finished.stderr);
    assert!(finished.stderr.contains("--include=/text --exclude='*'"), "{}", finished.stderr);
    let options = ["copy", "--include=/text", "--exclude=*"];
    run(&options, &[&source.at("sub"), destination.path()]).expect(0);
    assert_eq!(fs::read_to_string(destination.at("text")).unwrap(), "4");
    assert_eq!(fs::read_dir(destination.path()).unwrap().count(), 1);
}
