//! Runs within the limits that a process may be under: few descriptors, deep trees, little memory.
//!
//! A limit is that of a child alone, set by `prlimit`. The trees are as small as they may be to need more than the limit
//! permits where something is held for each entry.

use std::{fs, path::Path, process::Command};

use testkit::{Content, Process, TempTree, assert_same, skip};

use crate::{
    pod::Pod,
    support::{assert_explains, below, copy_command, pvferry, report},
};

/// What rsync gets by with.
const DESCRIPTORS: &str = "--nofile=64";
/// More than 64 descriptors, at both ends and whatever else is open.
const FILES: u64 = 150;
/// The smallest file that is compared with what exists, and that is looked for under another name.
const LARGE: usize = (64 << 10) + 1;

/// `command` with as many descriptors as rsync needs.
fn few_descriptors(command: &Command) -> Command {
    below(&["prlimit", DESCRIPTORS], command)
}

/// A copy within the limit: complete, and without anything to report.
#[track_caller]
fn copies(source: &TempTree, destination: &TempTree, options: &[&str]) -> serde_json::Value {
    let mut command = copy_command(source.path(), destination.path(), options);
    command.args(["--progress", "none"]);
    let finished = Process::run(few_descriptors(&command));
    let report = report(finished.expect(0));
    assert_same(source.path(), destination.path());
    report
}

/// As many large files as the limit does not reach for.
fn large_files(directory: &str) -> TempTree {
    let tree = TempTree::new();
    for n in 0..FILES {
        tree.file(format!("{directory}/{n}"), Content::random(n, LARGE + n as usize));
    }
    tree
}

fn can_limit() -> bool {
    skip::commands(&["prlimit"])
}

#[test]
fn renamed_files_arrive_with_64_descriptors() {
    if !can_limit() {
        return;
    }
    let (source, destination) = (large_files("old"), TempTree::new());
    copies(&source, &destination, &[]);
    source.rename("old", "new");
    let report = copies(&source, &destination, &["--delete"]);
    assert_eq!(report["bytes_literal"], 0, "{report}");
}

#[test]
fn touched_files_arrive_with_64_descriptors() {
    if !can_limit() {
        return;
    }
    let (source, destination) = (large_files("d"), TempTree::new());
    copies(&source, &destination, &[]);
    for n in 0..FILES {
        source.mtime(format!("d/{n}"), 1_000_000 + n as i64, 0);
    }
    let report = copies(&source, &destination, &[]);
    assert_eq!(report["bytes_literal"], 0, "{report}");
}

#[test]
fn changed_files_arrive_with_64_descriptors() {
    if !can_limit() {
        return;
    }
    let (source, destination) = (large_files("d"), TempTree::new());
    copies(&source, &destination, &[]);
    for n in 0..FILES {
        source.patch(format!("d/{n}"), n, b"changed");
    }
    copies(&source, &destination, &[]);
    // Of another length: built anew.
    for n in 0..FILES {
        let path = source.at(format!("d/{n}"));
        fs::write(&path, [b"in front", &fs::read(&path).unwrap()[..]].concat()).unwrap();
    }
    copies(&source, &destination, &[]);
}

#[test]
fn wide_trees_arrive_with_64_descriptors() {
    if !can_limit() {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    for n in 0..400 {
        source.file(format!("{}/{n}/f", n % 20), format!("{n}").as_bytes());
    }
    copies(&source, &destination, &["--verify"]);
    for n in 0..400 {
        source.file(format!("{}/{n}/f", n % 20), format!("other {n}").as_bytes());
    }
    copies(&source, &destination, &["--checksum"]);
    for n in 100..400 {
        source.remove(format!("{}/{n}", n % 20));
    }
    copies(&source, &destination, &["--delete"]);
    source.remove("1").remove("2");
    copies(&source, &destination, &["--delete"]);
}

#[test]
fn three_volumes_are_served_with_64_descriptors() {
    if !can_limit() {
        return;
    }
    let pod = Pod::new();
    let trees = [(); 3].map(|()| (large_files("d"), TempTree::new()));
    for (source, _) in &trees {
        for n in 0..100 {
            source.file(format!("wide/{n}/f"), format!("{n}").as_bytes());
        }
    }
    let names = ["a", "b", "c"];
    let volumes: Vec<_> =
        names.iter().zip(&trees).map(|(&name, (_, to))| (name, to.path())).collect();
    let serve = few_descriptors(&pod.serve_command(&pod.pki.destination(), &volumes, &[]));
    let serve = Process::start(serve);
    serve.wait_for_line("listening on");
    for _ in 0..2 {
        let syncs: Vec<_> = names
            .iter()
            .zip(&trees)
            .map(|(name, (source, _))| {
                let mut sync = pvferry(["sync", "--json", "--progress", "none", "--volume", name]);
                sync.args(["--connect", &pod.server.to_string(), "--identity"])
                    .arg(pod.pki.source());
                sync.arg(source.path());
                Process::start(few_descriptors(&sync))
            })
            .collect();
        for (sync, (source, destination)) in syncs.into_iter().zip(&trees) {
            sync.wait().expect(0);
            assert_same(source.path(), destination.path());
            // The next run compares each of them.
            for n in 0..FILES {
                source.mtime(format!("d/{n}"), 2_000_000 + n as i64, 0);
            }
        }
    }
}

/// A chain of directories, each with a file, deeper than the cache of descriptors reaches.
fn deep(depth: usize) -> TempTree {
    let tree = TempTree::new();
    let mut path = tree.path().to_owned();
    for n in 0..depth {
        path.push("d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), format!("{n}")).unwrap();
    }
    tree
}

/// Calls of `openat` and `openat2` of a run within the limit.
fn opens(command: &Command) -> u64 {
    let list = TempTree::new();
    let list = list.at("list");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=openat,openat2", "-e", "signal=none", "-o"]).arg(&list);
    let limited = few_descriptors(command);
    strace.arg("--").arg(limited.get_program()).args(limited.get_args());
    Process::run(strace).expect(0);
    let list = fs::read_to_string(list).unwrap();
    list.lines().filter(|line| line.contains(" openat")).count() as u64
}

#[test]
fn work_grows_with_the_depth_of_a_tree_and_not_with_its_square() {
    if !(can_limit() && skip::commands(&["strace"])) {
        return;
    }
    const DEPTH: usize = 120;
    /// Of both ends. The directories on the way down to one would be hundreds.
    const OPENS: u64 = 50;
    let [half, whole] = [DEPTH, 2 * DEPTH].map(|depth| {
        let (source, destination, empty) = (deep(depth), TempTree::new(), TempTree::new());
        empty.file("f", "");
        let copy = |source: &TempTree, options: &[&str]| {
            let mut command = copy_command(source.path(), destination.path(), options);
            command.args(["--progress", "none"]);
            opens(&command)
        };
        let inspect = |command: &str, paths: &[&Path]| {
            let mut inspect = pvferry([command]);
            inspect.args(paths);
            opens(&inspect)
        };
        [
            ("copy", copy(&source, &[])),
            ("copy of nothing new", copy(&source, &[])),
            ("copy --checksum", copy(&source, &["--checksum"])),
            ("digest", inspect("digest", &[source.path()])),
            ("verify", inspect("verify", &[source.path(), destination.path()])),
            ("copy --delete", copy(&empty, &["--delete"])),
        ]
    });
    let each = half
        .into_iter()
        .zip(whole)
        .map(|((what, half), (_, whole))| (what, whole.saturating_sub(half) / DEPTH as u64));
    let over: Vec<_> = each.filter(|(_, opens)| *opens > OPENS).collect();
    assert!(over.is_empty(), "files opened for each further directory: {over:?}");
}

/// What a process may map, in MiB: from too little to start up to more than enough.
const MEMORY: std::ops::RangeInclusive<u64> = 16..=256;

/// A run within every one of those limits: how it ended, and what it reported.
fn with_little_memory(start: impl Fn() -> Command, check: impl Fn(&testkit::Finished)) {
    let mut reported = 0;
    for limit in MEMORY.step_by(16) {
        let limit = format!("--data={}", limit << 20);
        let finished = Process::run(below(&["prlimit", &limit], &start()));
        // Before the program runs there is nobody to report.
        let Some(code) = finished.status.code() else {
            panic!("{limit}: {}\n{}", finished.status, finished.stderr);
        };
        if code == 22 {
            reported += 1;
            let says = ["out of memory", "cannot start a thread"];
            assert!(says.iter().any(|says| finished.stderr.contains(says)), "{}", finished.stderr);
            check(&finished);
        }
    }
    assert!(reported > 0, "no limit was met");
}

#[test]
fn out_of_memory_is_reported_with_exit_code_22() {
    if !can_limit() {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 200);
    let copy = || copy_command(source.path(), destination.path(), &["--progress", "none"]);
    with_little_memory(copy, |finished| {
        let report = report(finished);
        assert_eq!((&report["outcome"], &report["exit_code"]), (&"failed".into(), &22.into()));
    });
    let options = ["--progress", "none", "--log-format", "json"];
    with_little_memory(
        || copy_command(source.path(), destination.path(), &options),
        |finished| {
            let line = finished.stderr.lines().last().unwrap();
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["level"], "ERROR", "{line}");
            assert!(record["message"].as_str().unwrap().starts_with("pvferry: "), "{line}");
        },
    );
}

#[test]
fn out_of_memory_leaves_marker_and_termination_message() {
    if !can_limit() {
        return;
    }
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.populate(1, 200);
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let options = ["--wait", "1", "--attempts", "1"];
    let sync = || pod.direct(pod.server, &pod.pki.source(), source.path(), &options);
    with_little_memory(sync, |_| {
        for report in [pod.marker("a"), pod.message("a")] {
            assert_eq!((&report["outcome"], &report["exit_code"]), (&"failed".into(), &22.into()));
        }
    });
}

#[test]
fn tunnel_that_is_out_of_memory_leaves_a_termination_message() {
    if !can_limit() {
        return;
    }
    let (pod, tree) = (Pod::new(), TempTree::new());
    let log = tree.at("log");
    // It ends by the marker where it has memory enough.
    fs::write(pod.markers().join("a.done"), "{}").unwrap();
    let tunnel = || {
        let options = ["--exit-when", "1", "--termination-log", log.to_str().unwrap()];
        pod.tunnel_command(pod.server, &pod.pki.source(), &options)
    };
    let mut reported = 0;
    for limit in 5..=12_u64 {
        fs::write(&log, "").unwrap();
        let limit = format!("--data={}", limit << 20);
        let finished = Process::run(below(&["prlimit", &limit], &tunnel()));
        let message = fs::read(&log).unwrap();
        match finished.code() {
            0 => assert!(message.is_empty()),
            // Before it knows where the message goes it can only exit.
            22 if message.is_empty() => {}
            22 => {
                let message: serde_json::Value = serde_json::from_slice(&message).unwrap();
                assert_eq!(
                    (&message["outcome"], &message["exit_code"]),
                    (&"failed".into(), &22.into())
                );
                reported += 1;
            }
            code => panic!("{limit}: {code}: {}", finished.stderr),
        }
    }
    assert!(reported > 0, "no limit was met");
}

/// A limit on all that a process maps meets the stacks of threads, too, and the runtime hangs where it gets none.
#[test]
fn threads_that_cannot_be_started_are_reported_with_exit_code_22() {
    if !can_limit() {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 50);
    let mut codes = std::collections::BTreeSet::new();
    for limit in (32..=192_u64).step_by(16) {
        let limit = format!("--as={}", limit << 20);
        let copy = copy_command(source.path(), destination.path(), &["--progress", "none"]);
        let finished = Process::run(below(&["prlimit", &limit], &copy));
        assert!(!finished.stderr.contains("panicked"), "{limit}: {}", finished.stderr);
        // The C library of this build aborts by itself where a thread has no memory for its own variables.
        if finished.stderr.contains("Fatal glibc error") {
            continue;
        }
        let code = report(&finished)["exit_code"].as_u64().unwrap();
        codes.insert(code);
    }
    assert!(codes.contains(&22) && codes.iter().all(|code| matches!(code, 0 | 22)), "{codes:?}");
}

#[test]
fn too_few_descriptors_are_refused_at_start_up_and_the_fewest_are_enough() {
    if !can_limit() {
        return;
    }
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.populate(1, 50);
    let with = |count: usize, command: &Command| {
        Process::run(below(&["prlimit", &format!("--nofile={count}")], command))
    };
    for count in [8, 12, 16, 23] {
        let copy = copy_command(source.path(), destination.path(), &[]);
        let serve = pod.serve_command(&pod.pki.destination(), &[("a", destination.path())], &[]);
        let tunnel = pod.tunnel_command(pod.server, &pod.pki.source(), &[]);
        let sync = pod.sync(source.path(), "a", &[]);
        for command in [copy, serve, tunnel, sync] {
            let finished = with(count, &command);
            finished.expect(5);
            assert_explains(&finished, &["the limit on open files is", &count.to_string()]);
        }
    }
    for streams in [1, 4, 16] {
        let (options, destination) = (["--streams", &streams.to_string()], TempTree::new());
        let copy = copy_command(source.path(), destination.path(), &options);
        with(24 + 2 * streams - 1, &copy).expect(5);
        with(24 + 2 * streams, &copy).expect(0);
        assert_same(source.path(), destination.path());
    }
}
