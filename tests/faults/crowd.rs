//! A crowd at the door: a thousand connections that say nothing, one that drips, and callers and servers with papers of
//! every wrong kind. `crates/tunnel` proves what a handshake refuses; here it is that the programs read nothing of a
//! volume before it, go on all the while, and end with the right exit code and a sentence.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use testkit::{Content, Process, Snapshot, TempTree, Watch, assert_same, net, pki::Pki, skip};
use tunnel::{Role, pki::LeafRequest};

use crate::{
    counts,
    pod::Pod,
    support::{allow_many_files, assert_explains, assert_untouched, report},
};

/// Connections that say nothing.
const CROWD: usize = 1000;
/// What a server may have resident that is surrounded by them, in bytes: a window is 32 MiB.
const MEMORY: u64 = 150 << 20;

fn source() -> TempTree {
    let tree = TempTree::new();
    tree.populate(8, 60).file("large", Content::random(1, 30 << 20));
    tree
}

#[test]
fn a_silent_crowd_and_a_drip_hold_up_nobody() {
    allow_many_files();
    let (pod, source, destination) = (Pod::new(), source(), TempTree::new());
    let mut serve = pod.serve(&[("a", destination.path())], &[]);
    let connect = || TcpStream::connect(pod.server).unwrap();
    let crowd: Vec<_> = (0..CROWD).map(|_| connect()).collect();
    let (stop, dripped) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let drip = scope.spawn(|| {
            // The beginning of a hello of TLS, which is longer than anybody waits for.
            let mut drip = connect();
            for byte in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].into_iter().chain([0; 100]) {
                if drip.write_all(&[byte]).is_err() {
                    return true;
                }
                dripped.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_secs(1));
            }
            stop.load(Ordering::Relaxed)
        });
        for _ in 0..3 {
            destination.clear();
            let identity = pod.pki.source();
            let sync = pod.direct(pod.server, &identity, source.path(), &["--wait", "10"]);
            Process::run(sync).expect(0);
            assert_same(source.path(), destination.path());
        }
        assert!(dripped.load(Ordering::Relaxed) > 0);
        // All of them are gone at the deadline: 15 seconds over TLS and hello together.
        let deadline = Instant::now() + Duration::from_secs(30);
        for mut stream in &crowd {
            let left = deadline.saturating_duration_since(Instant::now());
            stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let ended = stream.read(&mut [0; 16]);
            let open = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
            assert!(!ended.as_ref().is_err_and(open), "a silent connection is still open");
        }
        assert!(drip.join().unwrap(), "the drip was heard out");
    });
    assert!(serve.is_running());
    let peak = serve.peak_memory();
    assert!(peak < MEMORY, "{peak} bytes");
    let text =
        format!("{CROWD} silent and 1 that dripped {dripped:?} bytes; {} MiB at most", peak >> 20);
    counts::tell("connections around a transfer", text);
}

/// Identities of the migration that one end has to refuse in the other.
fn wrong_papers(pki: &Pki, role: Role) -> Vec<(&'static str, PathBuf)> {
    let now = SystemTime::now();
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    let request = || LeafRequest::new(role);
    let (own, other) = match role {
        Role::Source => ("source", Role::Destination),
        Role::Destination => ("destination", Role::Source),
    };
    let uri =
        |migration: &str, role: &str| format!("spiffe://pvferry/migration/{migration}/{role}");
    let (mine, elsewhere) = (uri("4f1c-test", own), uri("another", own));
    let issue = |name: &'static str, request: &LeafRequest| (name, pki.issue(name, request));
    vec![
        issue("expired", &request().window(now - hours(2), now - hours(1))),
        issue("not yet valid", &request().window(now + hours(1), now + hours(2))),
        issue("the other role", &LeafRequest::new(other)),
        issue("the other role with the right usage", &LeafRequest::new(other).usages(&[role])),
        issue("the other usage", &request().usages(&[other])),
        issue("both usages", &request().usages(&[role, other])),
        issue("no usage", &request().usages(&[])),
        issue("another migration", &request().uris(&[&elsewhere])),
        issue("two names", &request().uris(&[&mine, &elsewhere])),
        issue("no name", &request().uris(&[])),
    ]
}

/// The same by authorities that nobody knows.
fn strangers(role: Role) -> [(&'static str, Pki, PathBuf); 1] {
    let pki = Pki::new("4f1c-test");
    let path = match role {
        Role::Source => pki.source(),
        Role::Destination => pki.destination(),
    };
    [("another authority of the same name", pki, path)]
}

/// A certificate that signed itself, made like the others in all else.
fn self_signed(dir: &Path, role: &str, usage: &str) -> PathBuf {
    let path = dir.join("self-signed");
    fs::create_dir(&path).unwrap();
    let uri = format!("subjectAltName=URI:spiffe://pvferry/migration/4f1c-test/{role}");
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    openssl.args(["-days", "1", "-subj", "/CN=self", "-addext", &uri]);
    openssl.args(["-addext", &format!("extendedKeyUsage={usage}"), "-keyout"]);
    openssl.arg(path.join("tls.key")).arg("-out").arg(path.join("tls.crt"));
    Process::run(openssl).expect(0);
    path
}

/// What `openssl s_client` with these options gets out of a server.
fn openssl_client(server: SocketAddr, identity: Option<&Path>, options: &[&str]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-connect", &server.to_string()]).args(options);
    if let Some(identity) = identity {
        openssl
            .arg("-cert")
            .arg(identity.join("tls.crt"))
            .arg("-key")
            .arg(identity.join("tls.key"));
    }
    // It would end with its input; a hello follows the handshake, so that a server that lets it in has to show it.
    let mut child = openssl
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let hello = wire_hello();
    let _ = stdin.write_all(&hello);
    let output = thread::spawn(move || child.wait_with_output().unwrap());
    let until = Instant::now() + Duration::from_secs(10);
    while !output.is_finished() && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(output.is_finished(), "still connected: {options:?}");
    drop(stdin);
    let output = output.join().unwrap();
    assert!(!output.status.success() || output.stdout.is_empty(), "it was let in: {options:?}");
    assert!(output.stdout.is_empty(), "{:?}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wire_hello() -> Vec<u8> {
    let hello = wire::Hello {
        versions: (wire::VERSION, wire::VERSION),
        nonce: [1; 32],
        volume: "a".into(),
        root: wire::RootKind::Tree,
        probe: false,
        window: 4 << 20,
        streams: 1,
        io_timeout: 5,
        options: wire::Options { delete: true, ..wire::Options::default() },
    };
    wire::Opening::Hello(Box::new(hello)).encode().head.to_vec()
}

#[test]
fn a_server_reads_nothing_for_a_caller_with_wrong_papers() {
    if !skip::commands(&["openssl"]) {
        return;
    }
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.file("f", "text");
    destination.populate(7, 30);
    let before = Snapshot::of(destination.path());
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let watch = Watch::over(destination.path());
    let mut tried = 0;
    let mut refused = |case: &str| {
        assert_eq!(watch.seen(), [""; 0], "{case}");
        tried += 1;
    };

    let mut papers = wrong_papers(&pod.pki, Role::Source);
    papers
        .push(("another volume", pod.pki.issue("b", &LeafRequest::new(Role::Source).volume("b"))));
    let strangers = strangers(Role::Source);
    papers.extend(strangers.iter().map(|(case, _, path)| (*case, path.clone())));
    for (case, identity) in &papers {
        // A sync that refuses its own papers never calls; somebody else's client does.
        if *case != "another volume" {
            let said = openssl_client(pod.server, Some(identity), &[]);
            assert!(said.contains("alert"), "{case}: {said}");
            refused(case);
        }
        let options = ["--delete", "--wait", "0"];
        let finished = Process::run(pod.direct(pod.server, identity, source.path(), &options));
        assert_eq!(finished.code(), 5, "{case}: {}", finished.stderr);
        assert_explains(&finished, &[]);
        assert_eq!(report(&finished)["bytes_literal"], 0, "{case}");
        refused(case);
    }
    let own = self_signed(pod.pki.path(), "source", "clientAuth");
    for (case, identity, options) in [
        ("self-signed", Some(own.as_path()), &[][..]),
        ("no certificate", None, &[]),
        ("TLS 1.2", Some(&*pod.pki.source()), &["-tls1_2"]),
        ("TLS 1.1", None, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]),
        ("another cipher", Some(&*pod.pki.source()), &["-ciphersuites", "TLS_AES_128_CCM_SHA256"]),
    ] {
        let said = openssl_client(pod.server, identity, options);
        assert!(said.contains("alert") || said.contains("errno"), "{case}: {said}");
        refused(case);
    }
    for plain in [&b"GET / HTTP/1.1\r\n\r\n"[..], &wire_hello(), b"@RSYNCD: 31.0\n", &[0; 100]] {
        let mut stream = TcpStream::connect(pod.server).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(plain).unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let open = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!ended.as_ref().is_err_and(open), "still open after {plain:?}");
        assert!(answer.len() < 16, "{answer:?}");
        refused("plain TCP");
    }
    let identity = pod.pki.source();
    Process::run(pod.direct(pod.server, &identity, source.path(), &["--dry-run"])).expect(0);
    assert!(!watch.seen().is_empty(), "the watch sees nothing");
    drop(watch);
    assert_untouched(&before, destination.path());
    counts::tell("callers with wrong papers", tried);
}

/// A server that is not ours, on a port of its own.
fn openssl_server(identity: &Path, options: &[&str]) -> (Process, SocketAddr) {
    let address = net::free_address();
    let mut openssl = Command::new("openssl");
    openssl.args(["s_server", "-quiet", "-accept", &address.to_string()]).args(options);
    openssl.arg("-cert").arg(identity.join("tls.crt")).arg("-key").arg(identity.join("tls.key"));
    let server = Process::start(openssl);
    net::wait_for(address);
    (server, address)
}

#[test]
fn a_sync_reads_nothing_for_a_server_with_wrong_papers() {
    if !skip::commands(&["openssl"]) {
        return;
    }
    let (pod, source) = (Pod::new(), TempTree::new());
    source.populate(8, 30);
    let watch = Watch::over(source.path());
    let read = || {
        let seen = watch.seen().into_iter();
        // The root is opened before anybody is called, and nothing is read of it.
        seen.filter(|seen| seen.contains("ACCESS") || !seen.ends_with(' ')).collect::<Vec<_>>()
    };
    let mut tried = 0;
    let mut refuses = |case: &str, server: SocketAddr| {
        let options = ["--delete", "--wait", "0"];
        let identity = pod.pki.source();
        let direct = Process::run(pod.direct(server, &identity, source.path(), &options));
        let _tunnel = pod.tunnel_to(server, &identity, &[]);
        let through = Process::run(pod.sync(source.path(), "a", &options));
        for (way, finished) in [("direct", direct), ("through a tunnel", through)] {
            assert_eq!(finished.code(), 5, "{case}, {way}: {}", finished.stderr);
            assert_explains(&finished, &[]);
            assert_eq!(report(&finished)["wire_sent"], 0, "{case}, {way}");
            assert_eq!(read(), [""; 0], "{case}, {way}");
            tried += 1;
        }
    };
    let mut papers = wrong_papers(&pod.pki, Role::Destination);
    let strangers = strangers(Role::Destination);
    papers.extend(strangers.iter().map(|(case, _, path)| (*case, path.clone())));
    papers.push(("self-signed", self_signed(pod.pki.path(), "destination", "serverAuth")));
    for (case, identity) in &papers {
        let (_server, address) = openssl_server(identity, &[]);
        refuses(case, address);
    }
    let (_server, address) = openssl_server(&pod.pki.destination(), &["-tls1_2"]);
    refuses("TLS 1.2", address);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    refuses("plain TCP", address);
    let destination = TempTree::new();
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    Process::run(pod.direct(pod.server, &pod.pki.source(), source.path(), &[])).expect(0);
    assert!(!read().is_empty(), "the watch sees nothing");
    counts::tell("servers with wrong papers, called by sync and through a tunnel", tried);
}
