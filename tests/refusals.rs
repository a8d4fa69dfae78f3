//! Input that cannot work: each has an exit code of its own and one clear sentence, and leaves the
//! destination as it was.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use testkit::{
    Content, Finished, Mount, Process, Snapshot, TempTree, assert_same, net, pki::Pki, skip,
};
use tunnel::{Role, pki::LeafRequest};

use crate::{
    pod::Pod,
    support::{assert_explains, assert_untouched, below, copy, pvferry, report},
};

/// A volume with something to lose.
fn precious() -> (TempTree, Snapshot) {
    let tree = TempTree::new();
    tree.populate(7, 30);
    let snapshot = Snapshot::of(tree.path());
    (tree, snapshot)
}

fn source() -> TempTree {
    let tree = TempTree::new();
    tree.populate(8, 30);
    tree
}

#[track_caller]
fn refused(finished: &Finished, code: i32, words: &[&str]) {
    finished.expect(code);
    assert_explains(finished, words);
    let report = report(finished);
    assert_eq!(report["outcome"], "failed", "{report}");
    assert!(report["reason"].as_str().unwrap().contains(words[0]), "{report}");
}

#[test]
fn missing_source() {
    let (destination, before) = precious();
    let source = TempTree::new();
    let finished = copy(&source.at("none"), destination.path(), &["--delete"]);
    refused(&finished, 3, &["does not exist", "none"]);
    assert_untouched(&before, destination.path());
}

#[test]
fn source_is_a_file_and_destination_is_a_file() {
    let (destination, before) = precious();
    let tree = TempTree::new();
    tree.file("file", "text").dir("dir/inside");
    let finished = copy(&tree.at("file"), destination.path(), &["--delete"]);
    let words = [
        "is a regular file",
        "copies directories and block devices",
        "--include=/file --exclude='*'",
    ];
    refused(&finished, 3, &words);
    assert_untouched(&before, destination.path());

    let finished = copy(&tree.at("dir"), &tree.at("file"), &["--delete"]);
    refused(&finished, 3, &["not a directory"]);
    assert_eq!(fs::read_to_string(tree.at("file")).unwrap(), "text");
}

#[test]
fn remote_path_is_answered_with_the_commands_for_two_machines() {
    let (destination, before) = precious();
    let source = TempTree::new();
    source.file("f", "1");
    let [there, here] = ["on the remote host", "here"];
    let words = |serve: &str, sync: &str| {
        format!(
            "remote paths are not supported: run `pvferry serve` {serve} and `pvferry sync --connect` {sync}"
        )
    };
    for path in ["host:/data", "root@host:data", "host::module", "rsync://host/data"] {
        let path = Path::new(path);
        refused(&copy(source.path(), path, &[]), 3, &[&words(there, here)]);
        refused(&copy(path, destination.path(), &["--delete"]), 3, &[&words(here, there)]);
    }
    assert_untouched(&before, destination.path());
}

/// The number behind the words of the kernel means nothing to a user.
#[test]
fn no_failure_is_shown_with_the_number_of_an_error() {
    let source = TempTree::new();
    source.file("f", "1");
    for (from, to) in [("none", "x"), ("f/below", "x"), ("", "none/deeper/x")] {
        let finished = copy(&source.at(from), &source.at(to), &[]);
        finished.expect(3);
        assert!(!finished.stderr.contains("os error"), "{}", finished.stderr);
        assert!(!report(&finished)["reason"].as_str().unwrap().contains("os error"));
    }
}

#[test]
fn empty_source_unless_it_is_meant() {
    let (destination, before) = precious();
    let empty = TempTree::new();
    let finished = copy(empty.path(), destination.path(), &["--delete"]);
    refused(&finished, 3, &["empty"]);
    assert_untouched(&before, destination.path());
    copy(empty.path(), destination.path(), &["--delete", "--allow-empty-source"]).expect(0);
    assert_same(empty.path(), destination.path());
}

#[test]
fn usage() {
    for arguments in [
        &["copy"][..],
        &["copy", "a", "b", "--no-such-flag"],
        &["copy", "a", "b", "--bwlimit", "fast"],
        &["copy", "a", "b", "--max-delete", "3"],
        &["sync", "a", "--volume", "a"],
        &["sync", "a", "--volume", "../a", "--via", "127.0.0.1:1"],
        &["sync", "a", "--volume", "a", "--connect", "host:1"],
        &["serve", "--listen", "127.0.0.1:0", "--identity", "x", "--volume", "no-path"],
        &[
            "tunnel",
            "--listen",
            "127.0.0.1:0",
            "--connect",
            "h:1",
            "--identity",
            "x",
            "--exit-when",
            "1",
        ],
        &["teleport"],
    ] {
        let finished = Process::run(pvferry(arguments));
        assert_eq!(finished.code(), 1, "{arguments:?}: {}", finished.stderr);
        assert!(!finished.stderr.is_empty() && finished.stdout.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["copy", "--help"], &["--version"], &["man"]] {
        let finished = Process::run(pvferry(arguments));
        finished.expect(0);
        assert!(finished.stdout.contains("pvferry"), "{arguments:?}");
    }
}

#[test]
fn unknown_volume() {
    let (pod, tree) = (Pod::new(), source());
    let (destination, before) = precious();
    let _serve = pod.serve(&[("other", destination.path())], &[]);
    let _tunnel = pod.tunnel(&[]);
    let finished = Process::run(pod.sync(tree.path(), "a", &["--wait", "1", "--delete"]));
    refused(&finished, 5, &["volume"]);
    assert_eq!(pod.marker("a")["exit_code"], 5);
    assert_untouched(&before, destination.path());
}

#[test]
fn nobody_listens() {
    let (pod, tree) = (Pod::new(), source());
    let (target, identity) = (net::free_address(), pod.pki.source());
    let finished = Process::run(pod.direct(target, &identity, tree.path(), &["--wait", "1"]));
    refused(&finished, 35, &["refused"]);
    assert_eq!(report(&finished)["retryable"], true);

    // Through a tunnel the reason is the tunnel's, and reaches the report all the same.
    let _tunnel = pod.tunnel_to(target, &identity, &[]);
    let finished = Process::run(pod.sync(tree.path(), "a", &["--wait", "1"]));
    refused(&finished, 35, &["refused"]);
}

#[test]
fn server_that_does_not_come_back_after_a_lost_connection_is_reported_with_what_was_copied() {
    let (pod, tree, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    tree.file("large", Content::random(1, 8 << 20));
    let serve = pod.serve(&[("a", destination.path())], &[]);
    let options = ["--bwlimit", "1M", "--wait", "1"];
    let sync = Process::start(pod.direct(pod.server, &pod.pki.source(), tree.path(), &options));
    // Content arrives: the source is listed.
    let in_staging = |dir: fs::DirEntry| {
        let files = fs::read_dir(dir.path());
        files.is_ok_and(|files| files.flatten().any(|file| file.file_name() != "crash-marker"))
    };
    let arrives = || fs::read_dir(destination.path()).unwrap().flatten().any(in_staging);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !arrives() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    drop(serve);
    let finished = sync.wait();
    let words = [
        "the connection was lost with ",
        " of 8.00 MiB copied",
        "and the server did not come back: not ready after 1 s (--wait): cannot connect to ",
        "; run the same command to continue",
    ];
    refused(&finished, 35, &words);
}

#[test]
fn no_such_host() {
    let (pod, tree) = (Pod::new(), source());
    let mut sync = pvferry(["sync", "--json", "--volume", "a", "--wait", "1"]);
    sync.args(["--connect", "no-such-host.invalid:443", "--identity"]).arg(pod.pki.source());
    let finished = Process::run({
        sync.arg(tree.path());
        sync
    });
    refused(&finished, 35, &["no-such-host.invalid"]);
}

#[test]
fn certificates_that_must_be_refused() {
    let (tree, (destination, before)) = (source(), precious());
    let pod = Pod::new();
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let (foreign, same_name) = (Pki::new("another-migration"), Pki::new("4f1c-test"));
    let past = std::time::SystemTime::now() - Duration::from_secs(3600);
    let expired = LeafRequest::new(Role::Source).window(past - Duration::from_secs(60), past);
    let other_volume = LeafRequest::new(Role::Source).volume("b");
    for (case, identity) in [
        ("another migration", foreign.source()),
        ("another authority of the same name", same_name.source()),
        ("the wrong role", pod.pki.destination()),
        ("expired", pod.pki.issue("expired", &expired)),
        ("another volume", pod.pki.issue("b", &other_volume)),
    ] {
        let options = ["--delete", "--wait", "1"];
        let finished = Process::run(pod.direct(pod.server, &identity, tree.path(), &options));
        assert_eq!(finished.code(), 5, "{case}: {}", finished.stderr);
        assert_explains(&finished, &[]);
        let report = report(&finished);
        assert_eq!(report["outcome"], "failed", "{case}");
        assert_eq!(report["bytes_literal"], 0, "{case}");
        assert_untouched(&before, destination.path());
    }
    // And the same through a tunnel, which alone holds the keys.
    let _tunnel = pod.tunnel_to(pod.server, &foreign.source(), &[]);
    let finished = Process::run(pod.sync(tree.path(), "a", &["--wait", "1"]));
    refused(&finished, 5, &["certificate"]);
    assert_untouched(&before, destination.path());
}

#[test]
fn address_of_the_other_kind_is_answered_with_the_option_for_it() {
    let (pod, tree, destination) = (Pod::new(), source(), TempTree::new());
    let serve = pod.serve(&[("a", destination.path())], &[]);
    let _tunnel = pod.tunnel(&[]);
    let via = ["--via", &pod.server.to_string()];
    let finished = Process::run(pod.sync_by(&via, tree.path(), "a", &["--wait", "1"]));
    finished.expect(5);
    assert_explains(&finished, &["if serve does, use --connect with --identity"]);
    serve.wait_for_line("the client does not speak TLS");

    let finished =
        Process::run(pod.direct(pod.local, &pod.pki.source(), tree.path(), &["--wait", "1"]));
    let server = format!("the server {} does not speak TLS", pod.local);
    refused(&finished, 5, &[&server, "--via that of a tunnel"]);
}

#[test]
fn certificate_of_another_authority_is_refused_with_its_owner_and_the_file_of_ours() {
    let (pod, tree, destination) = (Pod::new(), source(), TempTree::new());
    let serve = pod.serve(&[("a", destination.path())], &[]);
    let other_pki = Pki::new("4f1c-test");
    let other = other_pki.source();
    let run = || Process::run(pod.direct(pod.server, &other, tree.path(), &["--wait", "1"]));
    let ours = other.join("ca.crt");
    let server = format!(
        "the certificate of the server {} is not signed by a CA in {}: both identities",
        pod.server,
        ours.display()
    );
    refused(&run(), 5, &[&server]);
    // Where this end trusts the server, it is the server that refuses.
    let theirs = pod.pki.destination().join("ca.crt");
    let both = [fs::read(&ours).unwrap(), fs::read(&theirs).unwrap()].concat();
    fs::write(&ours, both).unwrap();
    refused(&run(), 5, &["the server refused our certificate", "both identities"]);
    serve.wait_for_line(&format!(
        "the certificate of the client is not signed by a CA in {}",
        theirs.display()
    ));
}

#[test]
fn note_of_the_server_on_missing_permissions_is_not_that_of_sync() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (pod, tree, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    tree.file("f", "1");
    let identity = pod.pki.destination();
    let nobody = ["setpriv", "--bounding-set=-chown,-mknod", "--"];
    let command = pod.serve_command(&identity, &[("a", destination.path())], &[]);
    let serve = Process::start(below(&nobody, &command));
    serve.wait_for_line("listening on");
    let finished = Process::run(pod.direct(pod.server, &pod.pki.source(), tree.path(), &[]));
    let note = "pvferry: note: serve: running as uid 0 without CAP_CHOWN, CAP_MKNOD: owners";
    assert!(finished.stderr.contains(note), "{}", finished.stderr);
    assert!(finished.stderr.contains("(run as root at the destination, "), "{}", finished.stderr);
}

#[test]
fn an_identity_that_is_not_there() {
    let (pod, tree) = (Pod::new(), source());
    let none = tree.at("none");
    let finished = Process::run(pod.direct(pod.server, &none, tree.path(), &["--wait", "1"]));
    refused(&finished, 5, &["none"]);
    let mut serve = pvferry(["serve", "--listen", "127.0.0.1:0", "--volume", "a=/tmp"]);
    serve.arg("--identity").arg(&none);
    let finished = Process::run(serve);
    finished.expect(5);
    assert_explains(&finished, &["none"]);
}

#[test]
fn an_address_that_is_taken() {
    let pod = Pod::new();
    let (destination, _) = precious();
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let mut second = pvferry(["serve", "--listen", &pod.server.to_string(), "--identity"]);
    second.arg(pod.pki.destination()).args(["--volume", "a=/tmp"]);
    let finished = Process::run(second);
    finished.expect(10);
    assert_explains(&finished, &[&pod.server.to_string()]);
    let mut tunnel = pvferry(["tunnel", "--listen", &pod.server.to_string(), "--identity"]);
    tunnel.arg(pod.pki.source()).args(["--connect", "127.0.0.1:1"]);
    let finished = Process::run(tunnel);
    finished.expect(10);
    assert_explains(&finished, &[&pod.server.to_string()]);
}

/// A run into `target` that must fail with 11 and a word of why; the old files stay, nothing else is left.
#[track_caller]
fn fails_on_disk(source: &Path, target: &Path, options: &[&str], why: &str, kept: &[&str]) {
    let before = Snapshot::of(target);
    let finished = copy(source, target, options);
    refused(&finished, 11, &[why]);
    let after = Snapshot::of(target);
    for path in kept {
        assert_eq!(before.node(path).content, after.node(path).content, "{path}");
        assert_eq!(before.node(path).mtime, after.node(path).mtime, "{path}");
    }
    let left = testkit::interrupted::left_behind(&after);
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn full_disk() {
    let Some(tmpfs) = Mount::tmpfs("size=4m") else { return };
    let tree = TempTree::new();
    tree.file("small", "new").file("too large", Content::random(1, 16 << 20));
    tree.file("new/directory/too large as well", Content::random(2, 16 << 20));
    fs::write(tmpfs.path().join("too large"), "old text").unwrap();
    fails_on_disk(tree.path(), tmpfs.path(), &[], "space", &["too large"]);
    fails_on_disk(tree.path(), tmpfs.path(), &["--atomic"], "space", &["too large"]);
}

#[test]
fn no_inodes_left() {
    let Some(tmpfs) = Mount::tmpfs("size=64m,nr_inodes=50") else { return };
    let tree = TempTree::new();
    for index in 0..100 {
        tree.file(format!("f{index:03}"), "text");
    }
    fs::write(tmpfs.path().join("f099"), "old text!").unwrap();
    fails_on_disk(tree.path(), tmpfs.path(), &[], "space", &["f099"]);
}

#[test]
fn read_only_disk() {
    let Some(tmpfs) = Mount::tmpfs("size=4m") else { return };
    fs::write(tmpfs.path().join("file"), "old text").unwrap();
    tmpfs.read_only();
    let tree = TempTree::new();
    tree.file("file", "new");
    fails_on_disk(tree.path(), tmpfs.path(), &["--delete"], "ead-only", &["file"]);
}

#[test]
fn a_file_larger_than_the_file_system_allows() {
    let Some(ext2) = Mount::ext2(32) else { return };
    let tree = TempTree::new();
    tree.sparse("huge", 17 << 30, &[(0, b"start")]);
    fs::write(ext2.path().join("huge"), "old text").unwrap();
    fails_on_disk(tree.path(), ext2.path(), &[], "large", &["huge"]);
}

#[test]
fn unreadable_entries_are_named_and_nothing_below_them_is_deleted() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (tree, destination) = (TempTree::new(), TempTree::new());
    for tree in [&tree, &destination] {
        tree.file("fine", "1").file("secret", "2").file("closed/inside", "3");
        tree.mode("", 0o755);
    }
    tree.file("new", "4").remove("closed/inside");
    tree.mode("secret", 0o600).mode("closed", 0o700);
    destination.file("secret", "old one").file("extraneous", "5");
    for path in ["", "fine", "secret", "closed", "closed/inside", "extraneous"] {
        destination.owner(path, 65_534, 65_534);
    }
    for tree in [&tree, &destination] {
        let parent = tree.path().parent().unwrap();
        fs::set_permissions(parent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    let run =
        crate::support::copy_command(tree.path(), destination.path(), &["--delete", "--no-owner"]);
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.arg(run.get_program()).args(run.get_args());
    let finished = Process::run(command);
    let report = report(finished.expect(23));
    assert_eq!(report["outcome"], "partial");
    let mut named: Vec<_> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["name"].as_str().unwrap())
        .collect();
    named.sort_unstable();
    assert_eq!(named, ["closed", "secret"], "{report}");
    let after = Snapshot::of(destination.path());
    assert_eq!(fs::read_to_string(destination.at("secret")).unwrap(), "old one");
    assert_eq!(fs::read_to_string(destination.at("closed/inside")).unwrap(), "3");
    assert_eq!(after.node("new").size, 1);
    assert!(!after.0.contains_key(Path::new("extraneous")));
}

#[test]
fn a_case_collision_is_reported_and_never_merged() {
    let Some(mount) = Mount::ext4_casefold(32) else { return };
    let folded = mount.path().join("folded");
    fs::create_dir(&folded).unwrap();
    let status = std::process::Command::new("chattr").arg("+F").arg(&folded).status().unwrap();
    assert!(status.success());
    let tree = TempTree::new();
    tree.file("Name", "upper").file("name", "lower").file("other", "x");
    let finished = copy(tree.path(), &folded, &[]);
    let report = report(finished.expect(23));
    assert!(report["errors"][0]["name"].as_str().unwrap().eq_ignore_ascii_case("name"));
    let after = Snapshot::of(&folded);
    assert_eq!(after.paths().count(), 2);
    assert_eq!(fs::read_to_string(folded.join("other")).unwrap(), "x");
}

/// By its path the mounted directory lies elsewhere; to delete in it is to delete in the source.
#[test]
fn a_bind_mount_of_a_directory_inside_the_source_is_refused() {
    if !skip::root() {
        return;
    }
    let tree = TempTree::new();
    tree.dir("source/sub").file("source/sub/precious", "1").dir("elsewhere");
    let mount = |arguments: &[&str], path: &Path| {
        let mut mount = std::process::Command::new(arguments[0]);
        Process::run({
            mount.args(&arguments[1..]).arg(path);
            mount
        })
        .expect(0);
    };
    mount(&["mount", "--bind", tree.at("source/sub").to_str().unwrap()], &tree.at("elsewhere"));
    let ends = [("source", "elsewhere"), ("elsewhere", "source")]
        .map(|(from, to)| copy(&tree.at(from), &tree.at(to), &["--delete"]));
    mount(&["umount"], &tree.at("elsewhere"));
    for finished in ends {
        finished.expect(3);
        assert_explains(&finished, &["is inside"]);
    }
    assert!(tree.at("source/sub/precious").exists());
}
