//! What `serve`, `tunnel` and `sync` refuse when they start, in place of failing every session later.

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::Command,
};

use testkit::{Process, TempTree, assert_same, net};

use crate::{
    pod::Pod,
    support::{assert_explains, copy, pvferry, report},
};

/// Fails unless `command` ends by itself with `code` and one line with all of `words`.
#[track_caller]
fn refuses(command: Command, code: i32, words: &[&str]) {
    let finished = Process::run(command);
    finished.expect(code);
    assert_explains(&finished, words);
}

#[test]
fn serve_refuses_a_volume_path_that_does_not_exist_or_is_a_file() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    tree.file("file", "text").dir("fine").symlink("dangling", "nowhere");
    let identity = pod.pki.destination();
    for (path, words) in [
        ("none", ["volume a", "does not exist"]),
        ("none/deeper", ["volume a", "does not exist"]),
        ("dangling", ["volume a", "does not exist"]),
        ("file", ["volume a", "not a directory"]),
    ] {
        let volumes = [("b", &*tree.at("fine")), ("a", &*tree.at(path))];
        refuses(pod.serve_command(&identity, &volumes, &[]), 3, &words);
        let message = pod.message("serve");
        assert_eq!(message["exit_code"], 3, "{message}");
    }
}

#[test]
fn serve_refuses_volumes_that_overlap() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    tree.dir("outer/inner").symlink("again", "outer");
    let identity = pod.pki.destination();
    for (a, b) in
        [("outer", "outer"), ("outer", "again"), ("outer", "outer/inner"), ("outer/inner", "again")]
    {
        let volumes = [("a", &*tree.at(a)), ("b", &*tree.at(b))];
        refuses(pod.serve_command(&identity, &volumes, &[]), 3, &["volumes a and b"]);
    }
    let volumes = [("a", &*tree.at("outer")), ("a", &*tree.at("outer"))];
    refuses(pod.serve_command(&identity, &volumes, &[]), 1, &["a", "twice"]);
}

#[test]
fn identity_of_the_other_role_is_refused_at_start_up() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    let (source, destination) = (pod.pki.source(), pod.pki.destination());
    let volumes = [("a", tree.path())];
    refuses(pod.serve_command(&source, &volumes, &[]), 5, &["role source", "destination"]);
    let tunnel = pod.tunnel_command(pod.server, &destination, &[]);
    refuses(tunnel, 5, &["role destination", "source"]);
    let sync = pod.direct(pod.server, &destination, tree.path(), &["--wait", "600"]);
    refuses(sync, 5, &["role destination", "source"]);
}

#[test]
fn directory_of_an_authority_given_as_identity_is_answered_with_the_identity_in_it() {
    let work = TempTree::new();
    let init = || {
        let mut command = pvferry(["pki", "init", "--migration", "m"]);
        command.arg(work.at("pki"));
        Process::run(command)
    };
    let made = init();
    for (role, commands) in [("source", "sync or tunnel"), ("destination", "serve")] {
        let line = format!("{}: identity for {commands}", work.at("pki").join(role).display());
        assert!(made.expect(0).stdout.contains(&line), "{}", made.stdout);
    }
    let again = init();
    assert!(again.expect(5).stderr.contains("use `pvferry pki issue`"), "{}", again.stderr);

    let mut serve = pvferry(["serve", "--listen", "127.0.0.1:0", "--volume", "a=/tmp"]);
    serve.arg("--identity").arg(work.at("pki"));
    let finished = Process::run(serve);
    let hint = format!("did you mean {}?", work.at("pki/destination").display());
    assert!(finished.expect(5).stderr.contains(&hint), "{}", finished.stderr);
}

#[test]
fn sync_refuses_an_identity_of_another_volume_at_start_up() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    let other = tunnel::pki::LeafRequest::new(tunnel::Role::Source).volume("b");
    let identity = pod.pki.issue("b", &other);
    let sync = pod.direct(pod.server, &identity, tree.path(), &["--wait", "600"]);
    refuses(sync, 5, &["volume b", "volume a"]);
}

#[test]
fn exit_when_beyond_the_number_of_volumes_is_refused() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    let volumes = [("a", tree.path())];
    let serve = pod.serve_command(&pod.pki.destination(), &volumes, &["--exit-when", "2"]);
    refuses(serve, 1, &["--exit-when 2"]);
}

#[test]
fn metrics_listen_on_a_name() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("f", "text");
    let address = |port: u16| format!("localhost:{port}");
    let port = || net::free_address().port();
    copy(source.path(), destination.path(), &["--metrics", &address(port())]).expect(0);

    let pod = Pod::new();
    let (of_serve, of_tunnel, of_sync) = (port(), port(), port());
    let _serve = pod.serve(&[("a", destination.path())], &["--metrics", &address(of_serve)]);
    let _tunnel = pod.tunnel(&["--metrics", &address(of_tunnel)]);
    for port in [of_serve, of_tunnel] {
        let mut stream = TcpStream::connect(("localhost", port)).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
    }
    let sync = pod.sync(source.path(), "a", &["--metrics", &address(of_sync)]);
    Process::run(sync).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn arguments_that_are_not_text_reach_their_command() {
    let tree = TempTree::new();
    let odd = Path::new(OsStr::from_bytes(b"odd \xff\xfe"));
    tree.file("source/f", "text");
    fs::write(tree.at("source").join(OsStr::from_bytes(b"x\xff.tmp")), "left out").unwrap();
    fs::create_dir(tree.at(odd)).unwrap();
    let mut copy = pvferry(["copy", "--json", "--exclude"]);
    copy.arg(OsStr::from_bytes(b"*\xff.tmp")).arg(tree.at("source")).arg(tree.at(odd));
    let finished = Process::run(copy);
    assert_eq!(report(finished.expect(0))["entries"], 1);

    let pod = Pod::new();
    let _serve = pod.serve(&[("a", &tree.at(odd))], &[]);
    let _tunnel = pod.tunnel(&[]);
    Process::run(pod.sync(&tree.at("source"), "a", &[])).expect(0);
    assert_same(&tree.at("source"), &tree.at(odd));
}

#[test]
fn marker_directory_that_is_missing_or_a_file_is_refused_at_start_up() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    tree.file("file", "text");
    for (path, why) in [("none", "does not exist"), ("file", "is not a directory")] {
        let path = tree.at(path);
        let mut sync = pvferry(["sync", "--volume", "a", "--via", "127.0.0.1:1", "--wait", "600"]);
        sync.arg("--marker-dir").arg(&path).arg(tree.path());
        let mut tunnel = pvferry(["tunnel", "--listen", "127.0.0.1:0", "--connect", "127.0.0.1:1"]);
        tunnel.arg("--identity").arg(pod.pki.source()).arg("--marker-dir").arg(&path);
        for command in [sync, tunnel] {
            refuses(command, 5, &["the marker directory", why]);
        }
    }
}

#[test]
fn sync_refuses_to_send_plaintext_to_another_machine() {
    let (pod, source) = (Pod::new(), TempTree::new());
    source.file("f", "text");
    let sync = pod.sync_by(&["--via", "192.0.2.1:2222"], source.path(), "a", &[]);
    refuses(sync, 1, &["--via 192.0.2.1:2222", "plaintext"]);
}

/// `sync`, `serve` and `tunnel` with their termination message in `path`.
fn with_termination_log(pod: &Pod, tree: &TempTree, path: &Path) -> [Command; 3] {
    let mut sync = pvferry(["sync", "--volume", "a", "--via", "127.0.0.1:1", "--wait", "600"]);
    sync.arg(tree.path());
    let mut serve = pvferry(["serve", "--listen", "127.0.0.1:0", "--identity"]);
    serve.arg(pod.pki.destination()).arg("--volume").arg(format!("a={}", tree.path().display()));
    let mut tunnel = pvferry(["tunnel", "--listen", "127.0.0.1:0", "--connect", "127.0.0.1:1"]);
    tunnel.arg("--identity").arg(pod.pki.source());
    [sync, serve, tunnel].map(|mut command| {
        command.arg("--termination-log").arg(path);
        command
    })
}

#[test]
fn termination_log_that_is_a_fifo_or_cannot_be_made_is_refused_at_start_up() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    tree.fifo("fifo").socket("socket").dir("dir");
    for path in ["fifo", "socket", "dir", "none/log"] {
        let path = tree.at(path);
        for command in with_termination_log(&pod, &tree, &path) {
            refuses(command, 5, &["termination message", path.to_str().unwrap()]);
        }
    }
    let json = TempTree::new();
    let [mut sync, ..] = with_termination_log(&pod, &tree, &tree.at("fifo"));
    sync.arg("--json").arg("--marker-dir").arg(json.path());
    let finished = Process::run(sync);
    assert_eq!(report(finished.expect(5))["outcome"], "failed");
    assert!(json.at("a.done").exists());
}

#[test]
fn identity_that_is_a_fifo_is_refused_at_once() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        tree.fifo(name);
    }
    let volumes = [("a", tree.path())];
    refuses(pod.serve_command(tree.path(), &volumes, &[]), 5, &["ca.crt", "not a regular file"]);
    refuses(pod.tunnel_command(pod.server, tree.path(), &[]), 5, &["ca.crt", "not a regular file"]);
}

#[test]
fn marker_that_is_a_fifo_is_replaced_by_sync_and_ends_the_tunnel() {
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.file("f", "text");
    let fifo = |name: &str| {
        let path = pod.markers().join(name);
        let made = Process::run({
            let mut mkfifo = Command::new("mkfifo");
            mkfifo.arg(path);
            mkfifo
        });
        made.expect(0);
    };
    fifo("a.done");
    fifo(".a.done~");
    fifo("tunnel.status");
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    Process::run(pod.direct(pod.server, &pod.pki.source(), source.path(), &[])).expect(0);
    assert_eq!(pod.marker("a")["outcome"], "completed");
    fs::remove_file(pod.markers().join("a.done")).unwrap();
    fifo("a.done");
    pod.tunnel(&["--exit-when", "1"]).wait().expect(0);
}

#[test]
fn arguments_that_can_never_work_are_usage_errors_and_not_waited_for() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    tree.file("f", "text");
    let long = format!("unix:/{}", "p".repeat(200));
    let beyond = u64::MAX.to_string();
    let identity = pod.pki.source();
    let identity = identity.to_str().unwrap();
    let connect = ["--connect", "127.0.0.1:1", "--identity", identity];
    let via = ["--via", "127.0.0.1:1"];
    for (route, words) in [
        ([&connect[..], &["--server-name", "foo bar"]].concat(), "foo bar"),
        ([&connect[..], &["--server-name", ""]].concat(), "--server-name"),
        (vec!["--connect", "a..b:1", "--identity", identity], "a..b:1"),
        (vec!["--via", &long], "107 bytes"),
        (vec!["--via", "127.0.0.1:0"], "port 0"),
        ([&via[..], &["--wait", &beyond]].concat(), "--wait"),
        ([&via[..], &["--bwlimit", "30B"]].concat(), "at least 35"),
    ] {
        let mut sync = pvferry(["sync", "--volume", "a"]);
        sync.args(&route).arg(tree.path());
        let finished = Process::run(sync);
        assert_eq!(finished.code(), 1, "{route:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(words), "{route:?}: {}", finished.stderr);
    }
    for options in [["--server-name", "foo bar"], ["--idle", &beyond], ["--listen", &long]] {
        let finished = Process::run(pod.tunnel_command(pod.server, &pod.pki.source(), &options));
        assert_eq!(finished.code(), 1, "{options:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(options[0]), "{options:?}: {}", finished.stderr);
    }
}

#[test]
fn tunnel_that_fails_leaves_a_termination_message_and_one_that_ends_well_does_not() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    let log = tree.at("log");
    let log = log.to_str().unwrap();
    let options = ["--exit-when", "1", "--idle", "1", "--termination-log", log];
    let tunnel = pod.tunnel(&options);
    tunnel.wait().expect(30);
    let message: serde_json::Value = serde_json::from_slice(&fs::read(log).unwrap()).unwrap();
    assert_eq!((&message["outcome"], &message["exit_code"]), (&"failed".into(), &30.into()));
    assert_eq!(message["retryable"], true, "{message}");

    fs::remove_file(log).unwrap();
    fs::write(pod.markers().join("a.done"), "{}").unwrap();
    pod.tunnel(&options).wait().expect(0);
    assert_eq!(fs::read(log).unwrap(), b"");
}
