//! What the processes of a transfer have given up: files outside, capabilities, system calls that a container may lack.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use testkit::{Process, Snapshot, TempTree, assert_same, net, pki::Pki, skip};

use crate::{
    pod::Pod,
    support::{assert_explains, assert_untouched, below, pvferry, report},
};

/// Starts `serve` and waits until it listens; the line in which it says what its sandbox is comes back, too.
fn serve(pod: &Pod, volume: &Path) -> (Process, String) {
    let serve = Process::start(pod.serve_command(&pod.pki.destination(), &[("a", volume)], &[]));
    let sandbox = serve.wait_for_line("sandbox: ");
    serve.wait_for_line("listening on");
    (serve, sandbox)
}

/// Whether Landlock holds, by what a process said of its sandbox.
fn landlocked(sandbox: &str) -> bool {
    let there = sandbox.contains("sandbox: Landlock ");
    if !there {
        skip::unsupported("this kernel has no Landlock");
    }
    there
}

fn sync(pod: &Pod, source: &TempTree) -> Command {
    pod.direct(pod.server, &pod.pki.source(), source.path(), &["--wait", "1", "--delete"])
}

#[test]
fn a_volume_that_is_swapped_for_a_link_leads_nowhere() {
    let (pod, source) = (Pod::new(), TempTree::new());
    let (parent, outside) = (TempTree::new(), TempTree::new());
    source.populate(1, 20);
    outside.populate(2, 20);
    let before = Snapshot::of(outside.path());
    parent.dir("volume");
    let (_serve, sandbox) = serve(&pod, &parent.at("volume"));
    if !landlocked(&sandbox) {
        return;
    }
    parent.rename("volume", "aside").symlink("volume", outside.path().to_str().unwrap());
    let finished = Process::run(sync(&pod, &source));
    assert_eq!(finished.code(), 3, "{}", finished.stderr);
    assert_explains(&finished, &["volume a was replaced since the start of serve"]);
    assert_untouched(&before, outside.path());

    // What was allowed is the directory, and not what is called so.
    parent.remove("volume").rename("aside", "volume");
    Process::run(sync(&pod, &source)).expect(0);
    assert_same(source.path(), &parent.at("volume"));
}

#[test]
fn a_replaced_volume_is_refused_for_good_with_its_reason() {
    let (pod, source, parent) = (Pod::new(), TempTree::new(), TempTree::new());
    source.populate(1, 20);
    parent.dir("volume");
    let (_serve, _) = serve(&pod, &parent.at("volume"));
    parent.rename("volume", "aside").dir("volume");
    let options = ["--wait", "600"];
    let sync = pod.direct(pod.server, &pod.pki.source(), source.path(), &options);
    let finished = Process::run(sync);
    let report = report(&finished);
    assert_eq!(
        (&report["exit_code"], &report["retryable"]),
        (&3.into(), &false.into()),
        "{report}"
    );
    assert_explains(&finished, &["volume a was replaced since the start of serve"]);
    assert_eq!(fs::read_dir(parent.at("volume")).unwrap().count(), 0);
}

#[test]
fn an_identity_that_leads_elsewhere_is_not_read() {
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.populate(1, 20);
    let (serve, sandbox) = serve(&pod, destination.path());
    if !landlocked(&sandbox) {
        return;
    }
    // Somebody else's authority and keys, which would be good ones.
    let other = Pki::new("4f1c-test");
    let swap = |from: &Path| {
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            fs::remove_file(pod.pki.destination().join(name)).unwrap();
            symlink(from.join(name), pod.pki.destination().join(name)).unwrap();
        }
    };
    swap(&other.destination());
    Process::run(sync(&pod, &source)).expect(0);
    let told = serve.wait_for_line("the previous one stays in use");
    assert!(told.contains("Permission denied"), "{told}");

    // The same files within the directory are read, by whatever links, as those of a Secret are.
    let inside = pod.pki.destination().join("..data");
    fs::create_dir(&inside).unwrap();
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        fs::copy(other.destination().join(name), inside.join(name)).unwrap();
    }
    swap(Path::new("..data"));
    let other_sync = pod.direct(pod.server, &other.source(), source.path(), &["--wait", "5"]);
    Process::run(other_sync).expect(0);
}

/// The number in a line of `/proc/<pid>/status`.
fn number_of(status: &str, field: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()
}

/// The same of every thread of a process.
fn of_every_thread(process: &Process, field: &str) -> BTreeSet<u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    tasks
        .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .map(|status| number_of(&status, field))
        .collect()
}

#[test]
fn every_thread_keeps_the_capabilities_of_its_role_only() {
    if !skip::root() {
        return;
    }
    // By their numbers: CHOWN DAC_OVERRIDE FOWNER FSETID LINUX_IMMUTABLE SYS_ADMIN MKNOD SETFCAP, and
    // DAC_OVERRIDE DAC_READ_SEARCH FOWNER SYS_ADMIN.
    let set = |numbers: &[u32]| numbers.iter().fold(0_u64, |set, number| set | 1 << number);
    let (writer, reader) = (set(&[0, 1, 3, 4, 9, 21, 27, 31]), set(&[1, 2, 3, 21]));
    let (pod, tree) = (Pod::new(), TempTree::new());
    let (serve, _) = serve(&pod, tree.path());
    let tunnel = pod.tunnel(&[]);
    let nobody = net::free_address();
    let sync = Process::start(pod.direct(nobody, &pod.pki.source(), tree.path(), &[]));
    sync.wait_for_line("sandbox: ");
    sync.wait_for_line("not ready");
    let given = number_of(&fs::read_to_string("/proc/self/status").unwrap(), "CapEff:");
    for (process, role) in [(&serve, writer), (&tunnel, 0), (&sync, reader)] {
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(of_every_thread(process, set), [given & role].into(), "{set} of {role:x}");
        }
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(of_every_thread(process, set), [0].into(), "{set}");
        }
        assert_eq!(of_every_thread(process, "NoNewPrivs:"), [1].into());
        assert!(fs::read_dir(format!("/proc/{}/task", process.id())).unwrap().count() > 2);
    }
}

/// What walks a volume that somebody else has filled keeps no more than reading takes.
#[test]
fn digest_and_verify_give_up_everything_but_reading_their_volumes() {
    if !skip::root() {
        return;
    }
    let (a, b) = (TempTree::new(), TempTree::new());
    for index in 0..4000 {
        a.file(format!("a name that fills the pipe of standard output {index}"), "1");
    }
    let reader = [1, 2, 3, 21].iter().fold(0_u64, |set, number| set | 1 << number);
    let given = number_of(&fs::read_to_string("/proc/self/status").unwrap(), "CapEff:");
    // Nobody reads its output, so it waits in the middle.
    let mut verify = pvferry(["verify"]);
    verify.args([a.path(), b.path()]).env("RUST_LOG", "info").stdout(Stdio::piped());
    let mut verify = verify.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(verify.stderr.take().unwrap()).lines();
    let said = log.next().unwrap().unwrap();
    assert!(said.contains("sandbox: "), "{said}");
    let status = fs::read_to_string(format!("/proc/{}/status", verify.id())).unwrap();
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(number_of(&status, set), given & reader, "{set}");
    }
    assert_eq!(number_of(&status, "NoNewPrivs:"), 1);
    verify.kill().unwrap();
    verify.wait().unwrap();
    let mut digest = pvferry(["digest"]);
    digest.arg(a.path()).env("RUST_LOG", "info");
    let finished = Process::run(digest);
    finished.expect(0);
    let sandbox =
        |text: &str| text.lines().find_map(|line| Some(line.split_once("sandbox: ")?.1.to_owned()));
    assert_eq!(sandbox(&finished.stderr), sandbox(&said));
}

#[test]
fn digest_and_verify_may_read_their_volumes_and_write_nothing() {
    if !skip::commands(&["strace"]) {
        return;
    }
    let (a, b) = (TempTree::new(), TempTree::new());
    a.file("f", "1");
    b.file("f", "1").mtime("f", 1, 0);
    let dir = tempfile::tempdir().unwrap();
    // Whether this kernel has Landlock is what another command says.
    let (pod, served) = (Pod::new(), TempTree::new());
    if !landlocked(&serve(&pod, served.path()).1) {
        return;
    }
    for (arguments, volumes) in [(vec!["digest"], vec![&a]), (vec!["verify"], vec![&a, &b])] {
        let mut command = pvferry(arguments);
        command.args(volumes.iter().map(|tree| tree.path()));
        let log = dir.path().join("log");
        let trace = "trace=landlock_add_rule,landlock_restrict_self,openat,openat2";
        let strace = ["strace", "-f", "-qq", "-y", "-o", log.to_str().unwrap(), "-e", trace];
        let finished = Process::run(below(&strace, &command));
        assert_ne!(finished.code(), 3, "{}", finished.stderr);
        let calls = fs::read_to_string(&log).unwrap();
        let (before, after) = calls.split_once("landlock_restrict_self").expect("no sandbox");
        for tree in &volumes {
            let path = tree.path().to_str().unwrap();
            let allowed =
                before.lines().any(|line| line.contains("add_rule") && line.contains(path));
            assert!(allowed, "{path} is not allowed: {before}");
            assert!(after.contains(path), "{path} is not read: {after}");
        }
        let rules: Vec<_> = before.lines().filter(|line| line.contains("add_rule")).collect();
        assert!(rules.iter().all(|rule| !rule.contains("WRITE")), "{rules:?}");
    }
}

#[test]
fn without_landlock_it_works_and_says_so() {
    if !skip::commands(&["strace"]) {
        return;
    }
    for (errno, said) in
        [("ENOSYS", "this kernel has no Landlock"), ("EOPNOTSUPP", "Landlock is disabled")]
    {
        let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
        source.everything();
        let inject = format!("inject=landlock_create_ruleset:error={errno}");
        let strace = [
            "strace",
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=landlock_create_ruleset",
            "-e",
            &inject,
        ];
        let serve = Process::start(below(
            &strace,
            &pod.serve_command(&pod.pki.destination(), &[("a", destination.path())], &[]),
        ));
        serve.wait_for_line(said);
        serve.wait_for_line("listening on");
        Process::run(sync(&pod, &source)).expect(0);
        assert_same(source.path(), destination.path());
    }
}

/// The system calls that the documentation promises to do with.
fn documented() -> BTreeSet<&'static str> {
    let text = include_str!("../docs/ARCHITECTURE.md");
    let (_, list) = text.split_once("```system-calls\n").unwrap();
    list.split_once("```").unwrap().0.split_whitespace().collect()
}

/// Podman's own profile, which is much like that of the others.
const PROFILE: &str = "/usr/share/containers/seccomp.json";

#[test]
fn the_default_profile_of_containers_allows_all_of_them() {
    let Ok(profile) = fs::read(PROFILE) else {
        return skip::unsupported(&format!("there is no {PROFILE}"));
    };
    let profile: Value = serde_json::from_slice(&profile).unwrap();
    let mut allowed = BTreeSet::new();
    for rule in profile["syscalls"].as_array().unwrap() {
        // For some capabilities there are more.
        if rule["action"] == "SCMP_ACT_ALLOW" && rule["includes"]["caps"].is_null() {
            let names = rule["names"].as_array().unwrap();
            allowed.extend(names.iter().map(|name| name.as_str().unwrap()));
        }
    }
    // Newer than the profile: what it answers is taken for "there is no such call".
    let missing: Vec<_> = documented()
        .into_iter()
        .filter(|call| !allowed.contains(call) && *call != "listxattrat")
        .collect();
    assert!(missing.is_empty(), "not allowed: {missing:?}");
}

#[test]
fn no_system_call_but_those_documented() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.everything().populate(1, 50).file("patched", testkit::Content::random(1, 3 << 20));
    destination
        .populate(2, 50)
        .file("patched", testkit::Content::random(1, 3 << 20).overwrite(9, b"x"));
    let traced = |name: &str, command: &Command| {
        let table = dir.path().join(name);
        Process::start(below(&["strace", "-f", "-c", "-o", table.to_str().unwrap()], command))
    };
    let serve = traced(
        "serve",
        &pod.serve_command(
            &pod.pki.destination(),
            &[("a", destination.path())],
            &["--exit-when", "1"],
        ),
    );
    serve.wait_for_line("listening on");
    let socket = format!("unix:{}", pod.markers().join("socket").display());
    let mut command = pvferry(["tunnel", "--listen", &socket, "--exit-when", "1"]);
    command.args(["--connect", &pod.server.to_string(), "--identity"]).arg(pod.pki.source());
    command.arg("--marker-dir").arg(pod.markers());
    let tunnel = traced("tunnel", &command);
    tunnel.wait_for_line("listening on");
    let command = pod.sync_by(&["--via", &socket], source.path(), "a", &["--delete", "--verify"]);
    traced("sync", &command).wait().expect(0);
    serve.wait().expect(0);
    tunnel.wait().expect(0);

    let mut called = BTreeSet::new();
    for name in ["serve", "tunnel", "sync"] {
        let table = fs::read_to_string(dir.path().join(name)).unwrap();
        // A line of a call begins with its share of time and ends in its name; the last one is their sum.
        let calls = table
            .lines()
            .filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()));
        let names = calls.filter_map(|line| line.split_whitespace().last());
        called.extend(names.filter(|name| *name != "total").map(str::to_owned));
    }
    assert!(called.len() > 60, "{called:?}");
    let documented = documented();
    let others: Vec<_> = called.iter().filter(|call| !documented.contains(call.as_str())).collect();
    assert!(others.is_empty(), "not documented: {others:?}");
}

#[test]
fn a_path_through_another_process_is_refused_before_anything_is_read_and_says_what_to_do() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("a", "content");
    let through =
        |tree: &TempTree| format!("/proc/{}/root{}", std::process::id(), tree.path().display());
    let (from, to) =
        (source.path().display().to_string(), destination.path().display().to_string());
    let (far_from, far_to) = (through(&source), through(&destination));
    for (arguments, path) in [
        (["copy", &far_from, &to].as_slice(), &far_from),
        (&["copy", "-n", &far_from, &to], &far_from),
        (&["copy", &from, &far_to], &far_to),
        (&["digest", &far_from], &far_from),
        (&["verify", &from, &far_to], &far_to),
    ] {
        let mut command = pvferry(arguments);
        command.env("RUST_LOG", "info");
        let finished = Process::run(command);
        if !landlocked(&finished.stderr) {
            return;
        }
        assert_eq!(finished.code(), 1, "{arguments:?}: {}", finished.stderr);
        assert_explains(&finished, &[path, "a path through another process", "nsenter"]);
        assert_eq!(fs::read_dir(destination.path()).unwrap().count(), 0, "{arguments:?}");
    }
    // A path through the process itself is its own.
    assert_eq!(Process::run(pvferry(["digest", &format!("/proc/self/root{from}")])).code(), 0);
}
