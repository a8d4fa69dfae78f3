//! What a run reports: on standard output only the result, and a result that is lost is a failure.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use serde_json::Value;
use testkit::{Content, Errno, Finished, OddMount, Process, Quirks, TempTree, skip};

use crate::{
    pod::Pod,
    support::{assert_explains, below, copy, copy_command, pvferry, report},
};

/// `command` with standard output on a device that is always full.
fn without_room(command: &Command) -> Finished {
    Process::run(below(&["sh", "-c", "exec \"$0\" \"$@\" > /dev/full"], command))
}

/// A program call on two trees: `pvferry WORDS... a b`.
fn on(words: &[&str], paths: &[&Path]) -> Command {
    let mut command = pvferry(words);
    command.args(paths);
    command
}

fn small_source() -> TempTree {
    let tree = TempTree::new();
    tree.file("f", "text").file("dir/g", "more text").symlink("link", "f");
    tree
}

#[test]
fn json_of_an_itemized_or_dry_run_is_the_only_line_on_stdout() {
    let source = small_source();
    for option in ["--dry-run", "--itemize"] {
        for progress in ["json", "none"] {
            let destination = TempTree::new();
            let options = [option, "--progress", progress];
            let finished = copy(source.path(), destination.path(), &options);
            finished.expect(0);
            assert_eq!(finished.stdout.lines().count(), 1, "{option}: {}", finished.stdout);
            report(&finished);
            assert!(finished.stderr.contains("create dir/g"), "{option}: {}", finished.stderr);
            if progress == "json" {
                for line in finished.stderr.lines().filter(|line| !line.starts_with("pvferry: ")) {
                    serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                }
            }
        }
    }
    // The sentence of a dry run does not say that anything was written.
    let destination = TempTree::new();
    let finished = Process::run(on(&["copy", "--dry-run"], &[source.path(), destination.path()]));
    let says = "dry run: nothing was changed\n4 entries, 13 B\n4 files to write, 0 to delete\nup to 13 B to send, 0 B unchanged\n";
    assert!(finished.expect(0).stdout.ends_with(says), "{}", finished.stdout);
    // Without --json the changes are the result.
    let destination = TempTree::new();
    let finished = Process::run(on(&["copy", "--itemize"], &[source.path(), destination.path()]));
    assert!(finished.expect(0).stdout.contains("create dir/g"), "{}", finished.stdout);
}

#[test]
fn output_that_cannot_be_written_is_exit_code_11() {
    let (source, other) = (small_source(), TempTree::new());
    let (a, b) = (source.path(), other.path());
    let to = TempTree::new();
    for command in [
        on(&["copy", "--json"], &[a, to.path()]),
        on(&["copy"], &[a, to.path()]),
        on(&["copy", "--itemize"], &[a, to.path()]),
        on(&["copy", "--dry-run"], &[a, to.path()]),
        on(&["digest"], &[a]),
        on(&["digest", "--json"], &[a]),
        on(&["verify"], &[a, b]),
        on(&["completions", "bash"], &[]),
        on(&["man"], &[]),
        on(&["--help"], &[]),
        on(&["copy", "--help"], &[]),
        on(&["--version"], &[]),
    ] {
        let finished = without_room(&command);
        assert_eq!(finished.code(), 11, "{command:?}: {}", finished.stderr);
        assert_explains(&finished, &["standard output", "No space left on device"]);
    }
    // A failure that is worse than a lost result stays what it is.
    let missing = on(&["copy", "--json"], &[&other.at("none"), b]);
    assert_eq!(without_room(&missing).code(), 3);
    // Also that both are equal is a result.
    without_room(&on(&["verify"], &[a, a])).expect(11);
}

#[test]
fn sync_that_cannot_print_its_report_says_so_in_message_and_marker() {
    let (pod, source, destination) = (Pod::new(), small_source(), TempTree::new());
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let sync = pod.direct(pod.server, &pod.pki.source(), source.path(), &[]);
    let finished = without_room(&sync);
    finished.expect(11);
    assert_explains(&finished, &["standard output"]);
    for report in [pod.message("a"), pod.marker("a")] {
        assert_eq!(report["exit_code"], 11, "{report}");
        assert_eq!(report["outcome"], "failed", "{report}");
        assert!(report["reason"].as_str().unwrap().contains("standard output"), "{report}");
    }
}

#[test]
fn sync_that_cannot_write_its_marker_or_message_is_exit_code_11() {
    let (pod, source, destination) = (Pod::new(), small_source(), TempTree::new());
    let sync = Process::start(pod.direct(pod.server, &pod.pki.source(), source.path(), &[]));
    sync.wait_for_line("refused");
    fs::remove_dir_all(pod.markers()).unwrap();
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let finished = sync.wait();
    finished.expect(11);
    assert_explains(&finished, &["a.done"]);
    let message = pod.message("a");
    assert_eq!(message["exit_code"], 11, "{message}");

    fs::create_dir(pod.markers()).unwrap();
    let mut sync =
        pvferry(["sync", "--volume", "a", "--termination-log", "/dev/full", "--wait", "30"]);
    sync.args(["--connect", &pod.server.to_string(), "--identity"]).arg(pod.pki.source());
    sync.arg("--marker-dir").arg(pod.markers()).arg(source.path());
    let finished = Process::run(sync);
    finished.expect(11);
    assert_explains(&finished, &["/dev/full"]);
    assert_eq!(pod.marker("a")["exit_code"], 11);
}

#[test]
fn json_says_how_the_process_ends_when_marker_or_message_cannot_be_written() {
    let (pod, source, destination) = (Pod::new(), small_source(), TempTree::new());
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let identity = pod.pki.source();
    let server = pod.server.to_string();
    let sync = |options: &[&str]| {
        let mut sync = pvferry(["sync", "--json", "--progress", "none", "--volume", "a"]);
        sync.args(["--wait", "30", "--connect", &server, "--identity"]).arg(&identity);
        sync.args(options).arg(source.path());
        Process::run(sync)
    };
    let finished = sync(&["--termination-log", "/dev/full"]);
    // That both say the same is what the helper looks at.
    let said = report(finished.expect(11));
    assert_eq!(said["outcome"], "failed", "{said}");

    // A directory that nobody can remove or replace stands where the marker is built.
    let late =
        Process::start(pod.direct(pod.server, &identity, source.path(), &["--bwlimit", "1"]));
    late.wait_for_line("sandbox:");
    let markers = pod.markers();
    fs::create_dir_all(markers.join(".a.done~/full")).unwrap();
    let said = report(late.wait().expect(11));
    assert_eq!(said["outcome"], "failed", "{said}");
    assert_eq!(pod.message("a"), said);
}

#[test]
fn every_end_of_sync_leaves_a_marker_and_a_message() {
    let (pod, source) = (Pod::new(), small_source());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (log, options, code) in [
        ("", vec!["--metrics", &taken], 5),
        ("pvferry=loud", vec![], 1),
        ("", vec!["--exclude", ""], 1),
        ("", vec!["--bwlimit", "1M"], 3),
    ] {
        let path = if code == 3 { source.at("none") } else { source.path().to_owned() };
        let mut sync = pod.direct(pod.server, &pod.pki.source(), &path, &options);
        sync.env("RUST_LOG", log);
        if log.is_empty() {
            sync.env_remove("RUST_LOG");
        }
        let finished = Process::run(sync);
        assert_eq!(finished.code(), code, "{options:?} {log}: {}", finished.stderr);
        for report in [report(&finished), pod.message("a"), pod.marker("a")] {
            assert_eq!(report["exit_code"], code, "{options:?} {log}");
        }
        fs::remove_file(pod.markers().join("a.done")).unwrap();
        fs::remove_file(pod.message_path("a")).unwrap();
    }
}

#[test]
fn tree_digest_of_the_report_is_what_digest_prints_and_absent_without_verify() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.everything();
    let run = |options: &[&str]| {
        let finished = copy(source.path(), destination.path(), options);
        report(finished.expect(0))
    };
    let plain = run(&[]);
    assert_eq!(plain["tree_digest"], Value::Null, "{plain}");
    assert_eq!(plain["digest"].as_str().unwrap().len(), 64, "{plain}");

    let verified = run(&["--verify"]);
    let printed = Process::run(on(&["digest"], &[destination.path()]));
    assert_eq!(verified["tree_digest"], printed.expect(0).stdout.trim(), "{verified}");
    assert_ne!(verified["tree_digest"], verified["digest"], "{verified}");
}

#[test]
fn dry_run_counts_as_matched_only_what_the_destination_holds() {
    let source = TempTree::new();
    source.file("large", Content::random(1, 3 << 20)).file("small", "text").dir("dir");
    source.file("dir/inside", "1234567").mtime("dir/inside", 1, 1);
    let destination = TempTree::new();
    let finished = copy(source.path(), &destination.at("none"), &["--dry-run"]);
    let report_ = report(finished.expect(0));
    assert_eq!(report_["bytes_matched"], 0, "{report_}");

    let finished = copy(source.path(), destination.path(), &["--dry-run"]);
    assert_eq!(report(finished.expect(0))["bytes_matched"], 0);

    destination.file("dir/inside", "1234567").mtime("dir/inside", 1, 1);
    let finished = copy(source.path(), destination.path(), &["--dry-run"]);
    assert_eq!(report(finished.expect(0))["bytes_matched"], 7);
}

#[test]
fn unwritable_destination_counts_nothing_and_reports_final_names() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("small", "text").file("large", Content::random(1, 3 << 20)).file("empty", "");
    source.symlink("link", "small").fifo("fifo").dir("directory").file("directory/f", "1");
    source.hard_link("small", "second name");
    for tree in [&source, &destination] {
        let parent = tree.path().parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    source.mode("", 0o755);
    destination.mode("", 0o755);
    let setpriv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    for options in [&["--no-owner"][..], &["--no-owner", "--itemize"], &["--no-owner", "--atomic"]]
    {
        let finished = Process::run(below(
            &setpriv,
            &copy_command(source.path(), destination.path(), options),
        ));
        let report = report(finished.expect(23));
        assert_eq!(report["files_written"], 0, "{report}");
        let errors = report["errors"].as_array().unwrap();
        let named: BTreeSet<_> =
            errors.iter().map(|error| error["name"].as_str().unwrap()).collect();
        for name in ["small", "large", "empty", "link", "fifo", "directory"] {
            assert!(named.contains(name), "{name} is not reported: {report}");
        }
        let output = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!output.contains(".pvferry-"), "{output}");
        let is_change =
            |line: &str| line.starts_with("create ") || line.contains(r#""type":"change""#);
        assert!(!output.lines().any(is_change), "{output}");
    }
}

#[test]
fn destination_within_the_source_is_refused_before_anything_is_created() {
    let source = TempTree::new();
    source.file("f", "text").dir("dir").mtime("dir", 1, 1).mtime("", 1, 1);
    let ctime = || {
        let meta = fs::metadata(source.path()).unwrap();
        (meta.ctime(), meta.ctime_nsec())
    };
    let before = ctime();
    let link = TempTree::new();
    link.symlink("link", source.path().to_str().unwrap());
    for inner in [
        source.at("inner"),
        source.at("dir/inner"),
        source.at("dir/../inner"),
        source.at("inner/"),
        link.at("link/inner"),
    ] {
        for option in ["--delete", "--dry-run"] {
            let finished = copy(source.path(), &inner, &[option]);
            finished.expect(3);
            assert_explains(&finished, &["inside the source"]);
            assert!(!inner.exists(), "{option} {}", inner.display());
            assert_eq!(ctime(), before, "{option} {}", inner.display());
        }
    }
    let finished = copy(source.path(), source.path(), &[]);
    finished.expect(3);
    assert_explains(&finished, &["same directory"]);
}

#[test]
fn refused_run_does_not_create_its_destination() {
    let source = small_source();
    let parent = TempTree::new();
    let new = parent.at("new");
    for options in [&["--exclude", ""][..], &["--metrics", "127.0.0.1:x"]] {
        let finished = copy(source.path(), &new, options);
        finished.expect(1);
        assert!(!new.exists(), "{options:?}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    copy(source.path(), &new, &["--metrics", &taken]).expect(5);
    assert!(!new.exists());
}

#[test]
fn filters_that_exclude_every_entry_are_not_an_empty_source() {
    let (source, destination) = (small_source(), TempTree::new());
    destination.file("kept", "text");
    let options = ["--include", "*.txt", "--exclude", "*", "--delete"];
    let finished = copy(source.path(), destination.path(), &options);
    finished.expect(3);
    assert_explains(&finished, &["all 3 entries", "filters"]);
    let reason = report(&finished)["reason"].as_str().unwrap().to_owned();
    assert!(!reason.contains("is empty"), "{reason}");
    assert!(destination.at("kept").exists());

    let empty = TempTree::new();
    let finished = copy(empty.path(), destination.path(), &options);
    finished.expect(3);
    assert_explains(&finished, &["the source is empty"]);
}

/// Programs that read logs get an object a line, also for the line that says why a command failed.
#[test]
fn with_log_format_json_every_line_on_stderr_is_an_object() {
    let (empty, source, other) = (TempTree::new(), small_source(), TempTree::new());
    source.fifo("p").file("\u{1b}[31m\n\"", "odd name");
    let nowhere = source.at("nowhere");
    let (e, s, o, n) = (empty.path(), source.path(), other.path(), nowhere.as_path());
    let commands = [
        (on(&["copy"], &[e, o]), true),
        (on(&["copy", "-i", "--json", "--no-owner", "--progress", "none"], &[s, o]), false),
        (on(&["copy", "-i", "--json", "--progress", "bar"], &[s, o]), false),
        (
            on(
                &[
                    "copy",
                    "--progress",
                    "json",
                    "--max-delete",
                    "0",
                    "--delete",
                    "--allow-empty-source",
                ],
                &[e, o],
            ),
            true,
        ),
        (on(&["copy"], &[n, o]), true),
        (on(&["digest"], &[n]), true),
        (on(&["verify"], &[s, n]), true),
        (on(&["--metrics", ":0", "digest"], &[s]), true),
        (
            on(
                &["sync", "--volume", "q", "--connect", "127.0.0.1:1", "--wait", "1", "--identity"],
                &[n, s],
            ),
            true,
        ),
        (on(&["serve", "--listen", "127.0.0.1:0", "--volume", "q=/", "--identity"], &[n]), true),
        (
            on(
                &["tunnel", "--connect", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--identity"],
                &[n],
            ),
            true,
        ),
    ];
    for (mut command, fails) in commands {
        command.args(["--log-format", "json"]);
        let finished = Process::run(command);
        assert_eq!(finished.code() != 0, fails, "{}", finished.stderr);
        assert!(!fails || finished.stderr.lines().count() > 0, "{}", finished.stderr);
        for line in finished.stderr.lines() {
            let object: Result<serde_json::Value, _> = serde_json::from_str(line);
            assert!(object.is_ok_and(|object| object.is_object()), "{line}");
        }
    }
}

#[test]
fn usage_errors_are_escaped_and_have_the_format_that_was_asked_for() {
    let hostile = "--x\u{1b}]0;T\u{7}\u{202e}abc";
    let text = Process::run(pvferry(["copy", "s", "d", hostile]));
    assert_eq!(text.code(), 1, "{}", text.stderr);
    let shown = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
    assert!(text.stderr.chars().all(shown), "{:?}", text.stderr);
    assert!(text.stderr.contains("unknown option") && text.stderr.contains("--help"));
    for format in [&["--log-format", "json"][..], &["--log-format=json"]] {
        let arguments = [format, &["copy", "s", "d", hostile]].concat();
        let finished = Process::run(pvferry(arguments));
        assert_eq!(finished.code(), 1, "{}", finished.stderr);
        let object: serde_json::Value = serde_json::from_str(finished.stderr.trim()).unwrap();
        assert!(object.to_string().contains("unknown option"), "{object}");
    }
}

#[test]
fn a_destination_that_fails_is_named_as_the_reason_with_any_number_of_streams() {
    let source = small_source();
    source.dir("d").file("d/new", "new");
    for streams in ["1", "2", "5"] {
        let Some(odd) = OddMount::new(Quirks::default()) else { return };
        fs::create_dir(odd.path().join("d")).unwrap();
        fs::write(odd.path().join("d/old"), "old").unwrap();
        odd.set(|quirks| quirks.list_errors = vec![("d".into(), Errno::IO)]);
        let finished = copy(source.path(), odd.path(), &["--streams", streams]);
        assert_eq!(finished.code(), 11, "{streams}: {}", finished.stderr);
        assert_explains(&finished, &["d: list: Input/output error"]);
    }
}

/// A name may hold what moves the cursor of a terminal, or turns the order of what is read.
#[test]
fn names_are_shown_escaped_in_every_output() {
    let name = "x\x1b[2J\u{202e}y\u{2028}z";
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file(format!("stands in the way {name}"), "1").file(format!("new {name}"), "2");
    source.symlink(format!("link {name}"), name).dir(format!("dir {name}"));
    destination.file(format!("stands in the way {name}/inside {name}"), "3");
    destination.file(format!("extraneous {name}"), "4");
    let traced = |mut command: Command| {
        command.env("RUST_LOG", "trace");
        Process::run(command)
    };
    let mut seen = 0;
    let mut check = |what: &str, text: &str| {
        let raw = text.contains(['\x1b', '\u{202e}', '\u{2028}']);
        assert!(!raw, "{what}: {text:?}");
        seen += text.matches("x1b[2J").count();
    };
    for options in [
        &["--itemize", "--json", "--progress", "json"][..],
        &["--itemize", "--dry-run", "--delete"],
        &["--itemize", "--log-format", "json"],
        &["--exclude", name],
    ] {
        let finished = traced(copy_command(source.path(), destination.path(), options));
        check("stdout", &finished.stdout);
        check("stderr", &finished.stderr);
    }
    let verified = traced(on(&["verify"], &[source.path(), destination.path()]));
    check("verify", &verified.expect(23).stdout);
    check("verify", &verified.stderr);
    let nothing = traced(on(&["digest"], &[&source.at(name)]));
    check("digest", &nothing.expect(3).stderr);
    assert!(seen > 10, "{seen}");
}

/// In a pod somebody reads JSON; elsewhere it hides what went wrong.
#[test]
fn progress_is_json_in_a_pod_or_when_asked_for_and_nothing_else_without_a_terminal() {
    let source = small_source();
    for (in_pod, options, json) in
        [(true, &[][..], true), (false, &[], false), (false, &["--progress=json"], true)]
    {
        let destination = TempTree::new();
        let words = [&["copy"], options].concat();
        let mut copy = on(&words, &[source.path(), destination.path()]);
        copy.env_remove("KUBERNETES_SERVICE_HOST");
        if in_pod {
            copy.env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        }
        let finished = Process::run(copy);
        let shown = finished.expect(0).stderr.contains(r#""type":"progress""#);
        assert_eq!(shown, json, "{in_pod} {options:?}: {}", finished.stderr);
    }
}

#[test]
fn summary_fits_60_columns_and_says_that_both_sides_are_identical() {
    let (source, destination) = (small_source(), TempTree::new());
    source.file("large", Content::random(1, 3 << 20));
    for options in [&["--verify"][..], &["--dry-run"], &[]] {
        let words = [&["copy"], options].concat();
        let finished = Process::run(on(&words, &[source.path(), destination.path()]));
        for line in finished.expect(0).stdout.lines() {
            assert!(line.len() <= 60, "{line}");
        }
        let verified = finished.stdout.contains("verified: both sides identical (digest ");
        assert_eq!(verified, options.contains(&"--verify"), "{}", finished.stdout);
    }
}

#[test]
fn interrupted_run_says_how_far_it_came_and_continues() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("large", Content::random(1, 8 << 20));
    let mut copy = copy_command(source.path(), destination.path(), &["--bwlimit", "1M", "-v"]);
    copy.args(["--progress", "json"]);
    let running = Process::start(copy);
    running.wait_for_line(r#""listing_complete":true"#);
    running.terminate();
    let finished = running.wait();
    let interrupted = report(finished.expect(20));
    let reason = interrupted["reason"].as_str().unwrap();
    assert!(reason.starts_with("interrupted (SIGTERM) with "), "{reason}");
    assert!(reason.ends_with(" copied; run the same command to continue"), "{reason}");
    // What waited to be sent does not count.
    let copied = reason.split(" with ").nth(1).and_then(|rest| rest.split(" of ").next()).unwrap();
    let sent = interrupted["wire_sent"].as_u64().unwrap() as f64 / f64::from(1 << 20);
    let shown: f64 = match copied.split_once(' ').unwrap() {
        (number, "MiB") => number.parse().unwrap(),
        _ => 0.0,
    };
    assert!(shown <= sent + 0.01, "{reason}: {sent} MiB were sent");
    assert!(finished.stderr.contains("SIGTERM: stopping"), "{}", finished.stderr);
    assert_explains(&finished, &[reason]);
    copy_again(source.path(), destination.path());
}

fn copy_again(source: &Path, destination: &Path) {
    copy(source, destination, &[]).expect(0);
    testkit::assert_same(source, destination);
}

/// A user who is not root gets one note, and each entry that fails by it says what would help.
#[test]
fn ordinary_user_gets_one_note_with_what_helps() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (small_source(), TempTree::new());
    destination.owner("", 65_534, 65_534);
    for tree in [&source, &destination] {
        for path in [tree.path().parent().unwrap(), tree.path()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let run = |options: &[&str]| {
        Process::run(below(&nobody, &copy_command(source.path(), destination.path(), options)))
    };
    let finished = run(&[]);
    finished.expect(23);
    assert_eq!(finished.stderr.matches("pvferry: note: ").count(), 1, "{}", finished.stderr);
    assert_explains(&finished, &["note: running as uid 65534", "use --no-owner"]);
    let hint = "f: cannot set owner 0:0: Operation not permitted (run as root at the destination, or use --no-owner)";
    assert!(finished.stderr.contains(hint), "{}", finished.stderr);
}
