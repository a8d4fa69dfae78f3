//! Against the real things: rsync and stunnel as transfer pods run them, and the openssl command line.
//!
//! A peer that is not installed makes its tests say SKIPPED, loudly; under `CI=true` that is a failure.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use testkit::net::free_address;
use tunnel::pki::{Credentials, LeafRequest};
use tunnel::{Error, Event, Identity, IdentitySource, PeerError, Role, Tunnel};

use crate::support::*;

/// Whether `program` can be run; says so where it cannot.
fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("-version").output().is_ok();
    if !found {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "{program} is not installed");
        eprintln!("\n==== SKIPPED: no {program} ====\n");
    }
    found
}

/// A program that runs in the background and ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    /// Starts `command` and waits until it listens on `address`.
    fn start(command: &mut Command, address: SocketAddr) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = Self(command.spawn().unwrap());
        let give_up = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(daemon.0.try_wait().unwrap().is_none(), "{command:?} ended");
            assert!(Instant::now() < give_up, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

/// An rsync daemon whose module `vol` is `destination`.
fn rsync_daemon(work: &Path, destination: &Path) -> (Daemon, SocketAddr) {
    let address = free_address();
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let config = work.join("rsyncd.conf");
    let text = format!(
        "use chroot = no\nlog file = {log}\nreverse lookup = no\n[vol]\npath = {path}\nread only = no\nuid = {user}\ngid = {group}\n",
        log = work.join("rsyncd.log").display(),
        path = destination.display(),
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]);
    command.arg(format!("--port={}", address.port())).arg("--config").arg(&config);
    (Daemon::start(&mut command, address), address)
}

/// Sends `source` to the daemon that `through` leads to.
fn rsync(source: &Path, through: &str) -> Output {
    Command::new("rsync")
        .args(["-a", "--timeout=20"])
        .arg(format!("{}/", source.display()))
        .arg(format!("rsync://{through}/vol/"))
        .output()
        .unwrap()
}

/// A stunnel with one service; `files` is the identity that it shows, `extra` further lines of the service.
fn stunnel(
    work: &Path,
    name: &str,
    files: Option<&Path>,
    connect: SocketAddr,
    extra: &str,
) -> (Daemon, SocketAddr) {
    let address = free_address();
    let config = work.join(format!("{name}.conf"));
    let mut text = format!(
        "foreground = yes\npid =\nsyslog = no\noutput = {log}\n[r]\naccept = {address}\nconnect = {connect}\n{extra}\n",
        log = work.join(format!("{name}.log")).display(),
    );
    if let Some(files) = files {
        for (option, file) in [("cert", "tls.crt"), ("key", "tls.key"), ("CAfile", "ca.crt")] {
            text += &format!("{option} = {}\n", files.join(file).display());
        }
        text += "verify = 2\n";
    }
    fs::write(&config, text).unwrap();
    (Daemon::start(Command::new("stunnel4").arg(&config), address), address)
}

/// A tree with a few shapes of files.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("a/small"), "small").unwrap();
    for index in 0..200_u32 {
        fs::write(root.join(format!("a/b/{index}")), index.to_string().repeat(50)).unwrap();
    }
    let large: Vec<u8> =
        (0..8_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(root.join("a/b/c/large"), large).unwrap();
}

/// Every path below `root` with its content.
fn tree(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The directories of one test: where it works, what is sent, and where that arrives.
struct Place {
    work: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { work: tempfile::tempdir().unwrap() };
        make_tree(&place.source());
        fs::create_dir(place.destination()).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.work.path()
    }

    fn source(&self) -> std::path::PathBuf {
        self.path().join("src")
    }

    fn destination(&self) -> std::path::PathBuf {
        self.path().join("dst")
    }

    fn store(&self, name: &str, credentials: &Credentials) -> std::path::PathBuf {
        let directory = self.path().join(name);
        credentials.write(&directory).unwrap();
        directory
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_rsync_goes_through_our_tunnel_to_a_stock_stunnel() {
    if !installed("stunnel4") || !installed("rsync") {
        return;
    }
    let (place, authority) = (Place::new(), authority());
    let server = place.store("server", &issue(&authority, LeafRequest::new(Role::Destination)));
    let (_rsyncd, rsyncd) = rsync_daemon(place.path(), &place.destination());
    let (_stunnel, stunnel) = stunnel(place.path(), "server", Some(&server), rsyncd, "");
    let mut tunnel = tunnel_to(&authority, &stunnel.to_string()).await;

    for _ in 0..2 {
        let sent = rsync(&place.source(), &tunnel.address);
        assert!(sent.status.success(), "{sent:?}");
        assert!(tree(&place.source()) == tree(&place.destination()));
        assert!(matches!(tunnel.end().await, Event::Closed { sent: 1.., received: 1.., .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_rsync_and_stunnel_reach_a_daemon_behind_our_terminator() {
    if !installed("stunnel4") || !installed("rsync") {
        return;
    }
    let (place, authority) = (Place::new(), authority());
    let (_rsyncd, rsyncd) = rsync_daemon(place.path(), &place.destination());
    let mut terminator = terminator_to(&authority, tunnel::Endpoint::Tcp(rsyncd)).await;
    let target = terminator.address.parse().unwrap();
    let client = place.store("client", &issue(&authority, LeafRequest::new(Role::Source)));
    let (_stunnel, stunnel) =
        stunnel(place.path(), "client", Some(&client), target, "client = yes");
    // Waiting for stunnel to listen was a first connection, which carried nothing.
    assert!(matches!(terminator.end().await, Event::Closed { .. }));

    let sent = rsync(&place.source(), &stunnel.to_string());
    assert!(sent.status.success(), "{sent:?}");
    assert!(tree(&place.source()) == tree(&place.destination()));
    assert!(matches!(terminator.end().await, Event::Closed { sent: 1.., received: 1.., .. }));
}

/// Starts a stunnel client with these credentials and further options, sends a tree, and says why that was refused.
async fn refused(
    credentials: Option<Credentials>,
    authority: &tunnel::pki::Authority,
    extra: &str,
) -> Error {
    let place = Place::new();
    let (_rsyncd, rsyncd) = rsync_daemon(place.path(), &place.destination());
    let mut terminator = terminator_to(authority, tunnel::Endpoint::Tcp(rsyncd)).await;
    let target = terminator.address.parse().unwrap();
    let client = credentials.map(|credentials| {
        let files = place.store("client", &credentials);
        // It trusts our server whoever signed its own certificate: only the server's judgement is asked for here.
        fs::write(files.join("ca.crt"), authority.certificate_pem()).unwrap();
        files
    });
    let options = format!("client = yes\n{extra}");
    let (_stunnel, stunnel) = stunnel(place.path(), "client", client.as_deref(), target, &options);
    let sent = rsync(&place.source(), &stunnel.to_string());
    assert!(!sent.status.success(), "{sent:?}");
    assert!(tree(&place.destination()).is_empty());
    match terminator.end().await {
        Event::Failed { error, .. } => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_stunnel_with_any_wrong_certificate_is_refused() {
    if !installed("stunnel4") || !installed("rsync") {
        return;
    }
    let ours = authority();
    let leaf = |request| Some(issue(&ours, request));
    let source = || LeafRequest::new(Role::Source);
    let elsewhere = "spiffe://pvferry/migration/other/source";

    let error = refused(None, &ours, "").await;
    assert!(matches!(error, Error::Peer { error: PeerError::NoCertificate, .. }), "{error}");
    let stranger = issue(&authority(), source());
    let error = refused(Some(stranger), &ours, "").await;
    assert!(matches!(error, Error::Peer { error: PeerError::WrongAuthority, .. }), "{error}");
    let error = refused(leaf(source().window(hours_ago(2), hours_ago(1))), &ours, "").await;
    assert!(matches!(error, Error::Peer { error: PeerError::Expired { .. }, .. }), "{error}");
    let error = refused(leaf(LeafRequest::new(Role::Destination)), &ours, "").await;
    assert!(matches!(error, Error::Peer { error: PeerError::WrongRole { .. }, .. }), "{error}");
    let error = refused(leaf(source().uris(&[elsewhere])), &ours, "").await;
    assert!(
        matches!(error, Error::Peer { error: PeerError::OtherMigration { .. }, .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_stunnel_with_an_older_tls_is_refused() {
    if !installed("stunnel4") || !installed("rsync") {
        return;
    }
    let authority = authority();
    let leaf = issue(&authority, LeafRequest::new(Role::Source));
    let error = refused(Some(leaf), &authority, "sslVersionMax = TLSv1.2").await;
    assert!(matches!(error, Error::Tls(_)), "{error}");
}

/// Connects through a tunnel to a stock stunnel server with these credentials and options; says why that failed.
async fn fails_to(server: &Credentials, identity: IdentitySource, extra: &str) -> Error {
    let place = Place::new();
    let files = place.store("server", server);
    let (_rsyncd, rsyncd) = rsync_daemon(place.path(), &place.destination());
    let (_stunnel, stunnel) = stunnel(place.path(), "server", Some(&files), rsyncd, extra);
    let tunnel = Tunnel::new(any_port(), stunnel.to_string().parse().unwrap(), identity);
    let mut tunnel = Running::tunnel(tunnel).await;
    let sent = rsync(&place.source(), &tunnel.address);
    assert!(!sent.status.success(), "{sent:?}");
    assert!(tree(&place.destination()).is_empty());
    match tunnel.end().await {
        Event::Failed { error, .. } => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_tunnel_refuses_a_stock_stunnel_that_it_should() {
    if !installed("stunnel4") || !installed("rsync") {
        return;
    }
    let authority = authority();
    let identity = || fixed(&issue(&authority, LeafRequest::new(Role::Source)));
    let source = issue(&authority, LeafRequest::new(Role::Source));
    let error = fails_to(&source, identity(), "").await;
    assert!(matches!(error, Error::Peer { error: PeerError::WrongRole { .. }, .. }), "{error}");
    let destination = issue(&authority, LeafRequest::new(Role::Destination));
    let error = fails_to(&destination, identity(), "sslVersionMax = TLSv1.2").await;
    assert!(matches!(error, Error::Tls(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_a_stock_stunnel_becomes_a_sentence() {
    if !installed("stunnel4") || !installed("rsync") {
        return;
    }
    let (ours, theirs) = (authority(), authority());
    let leaf = issue(&ours, LeafRequest::new(Role::Source));
    let both = [ours.certificate_pem(), theirs.certificate_pem()].concat();
    let (certificate, key) = (leaf.certificate_pem().as_bytes(), leaf.key_pem().as_bytes());
    let identity = Identity::from_pem(both.as_bytes(), certificate, key).unwrap();
    let server = issue(&theirs, LeafRequest::new(Role::Destination));
    let error = fails_to(&server, IdentitySource::fixed(identity), "").await;
    let sentence = "the server refused our certificate: it is not signed by a CA";
    assert!(error.to_string().starts_with(sentence), "{error}");
}

/// Runs `openssl s_client` against one of our acceptors and returns whether it was let in, and what it printed.
async fn s_client(options: &[&str]) -> (bool, String) {
    let place = tempfile::tempdir().unwrap();
    let authority = authority();
    issue(&authority, LeafRequest::new(Role::Source)).write(place.path()).unwrap();
    let (address, accepted) = accept_one(acceptor(&authority)).await;
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(["-cert", "tls.crt", "-key", "tls.key", "-CAfile", "ca.crt", "-verify_return_error"])
        .args(options)
        .current_dir(place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let let_in = accepted.await.unwrap().is_ok();
    (let_in && output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_in_by_tls_1_3_and_by_nothing_older() {
    if !installed("openssl") {
        return;
    }
    let (let_in, printed) = s_client(&["-tls1_3"]).await;
    assert!(let_in, "{printed}");
    assert!(printed.contains("TLSv1.3") && printed.contains("Verification: OK"), "{printed}");
    for older in ["-tls1_2", "-tls1_1"] {
        let (let_in, printed) = s_client(&[older]).await;
        assert!(!let_in, "{printed}");
    }
}

#[test]
fn openssl_reads_our_certificates_as_they_are_meant() {
    if !installed("openssl") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    tunnel::pki::init(place.path(), MIGRATION, Duration::from_secs(3600)).unwrap();
    let openssl = |arguments: &str| {
        let command = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(place.path())
            .output()
            .unwrap();
        (command.status.success(), String::from_utf8_lossy(&command.stdout).into_owned())
    };
    for (role, usage, purpose, other) in [
        ("source", "TLS Web Client Authentication", "sslclient", "sslserver"),
        ("destination", "TLS Web Server Authentication", "sslserver", "sslclient"),
    ] {
        let verify = |purpose| {
            openssl(&format!(
                "verify -x509_strict -CAfile ca.crt -purpose {purpose} {role}/tls.crt"
            ))
            .0
        };
        assert!(verify(purpose) && !verify(other), "{role}");
        let (_, text) = openssl(&format!("x509 -noout -text -in {role}/tls.crt"));
        let usages: Vec<_> = text.lines().filter(|line| line.contains("Authentication")).collect();
        assert_eq!(usages.iter().map(|line| line.trim()).collect::<Vec<_>>(), [usage], "{text}");
        assert!(text.contains(&format!("URI:spiffe://pvferry/migration/{MIGRATION}/{role}")));
        assert!(text.contains("CA:FALSE") && text.contains("prime256v1"), "{text}");
    }
    let (_, text) = openssl("x509 -noout -text -in ca.crt");
    assert!(text.contains("CA:TRUE, pathlen:0") && text.contains("Certificate Sign"), "{text}");
    assert!(!text.contains("CRL Sign") && !text.contains("Digital Signature"), "{text}");
}
