//! A source that is confined to one volume, and asks for another.
//!
//! The clients here have a real certificate and no manners: they ask for what our own `sync` would not.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use session::handshake;
use testkit::{Process, Snapshot, TempTree, Watch, assert_same};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    runtime::Runtime,
    time::{error::Elapsed, timeout},
};
use tunnel::{Connector, Endpoint, IdentitySource, Role, Target, pki::LeafRequest};
use wire::{Hello, Options, Refusal};

use crate::{
    pod::Pod,
    support::{assert_explains, assert_untouched, pvferry, report},
};

/// What an answer may take that must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// The number of a frame that refuses.
const REFUSED: u8 = 4;

/// Bytes to `serve`, over TLS or through a tunnel.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A connection to `serve`, authenticated by a real certificate.
struct Client {
    runtime: Runtime,
    stream: Box<dyn Stream>,
}

impl Client {
    fn connect(pod: &Pod, identity: &Path) -> Self {
        let connector = Connector::new(IdentitySource::new(identity).unwrap());
        let target = Target::from(pod.server);
        let (runtime, connect) = (runtime(), async { connector.connect(&target, None).await });
        let stream = Box::new(runtime.block_on(connect).unwrap());
        Self { runtime, stream }
    }

    /// Through the socket of a tunnel.
    fn through(socket: &Path) -> Self {
        let (runtime, socket) = (runtime(), Endpoint::unix(socket).unwrap());
        let stream = Box::new(runtime.block_on(async { socket.connect().await }).unwrap());
        Self { runtime, stream }
    }

    fn open(&mut self, hello: Hello) -> session::Result<handshake::Agreed> {
        let opened = async { timeout(PATIENCE, handshake::open(&mut self.stream, hello)).await };
        self.runtime.block_on(opened).expect("no answer")
    }

    fn join(&mut self, session: [u8; 16]) {
        self.runtime.block_on(handshake::join(&mut self.stream, session)).unwrap();
    }

    /// The number of the next frame, if one comes in time.
    fn next_frame(&mut self, within: Duration) -> Result<u8, Elapsed> {
        let read = async {
            let mut header = [0; 5];
            self.stream.read_exact(&mut header).await.map(|_| header[4]).unwrap_or_default()
        };
        self.runtime.block_on(async { timeout(within, read).await })
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn hello(volume: &str) -> Hello {
    Hello {
        versions: (wire::VERSION, wire::VERSION),
        nonce: [7; 32],
        volume: volume.into(),
        root: wire::RootKind::Tree,
        probe: false,
        window: 4 << 20,
        streams: 2,
        io_timeout: 20,
        options: Options::default(),
    }
}

/// Every kind of opening message for volumes that are not the client's own, with the name of the volume.
fn openings() -> [(&'static str, &'static str, Hello); 5] {
    let options = Options { delete: true, allow_empty: true, ..Options::default() };
    let dry_run = Options { dry_run: true, ..options.clone() };
    [
        ("a session", "a", Hello { options, ..hello("a") }),
        ("a probe", "a", Hello { probe: true, ..hello("a") }),
        ("a dry run", "a", Hello { options: dry_run, ..hello("a") }),
        ("a device", "a", Hello { root: wire::RootKind::Device(1 << 20), ..hello("a") }),
        // Whether a volume exists is nothing to learn, either.
        ("no volume of that name", "nowhere", hello("nowhere")),
    ]
}

#[track_caller]
fn assert_refused(client: &mut Client, hello: Hello, asked: &str, case: &str) {
    match client.open(hello).err() {
        Some(session::Error::Refused(Refusal::NotAuthorised, why)) => {
            assert!(why.contains("/source/b is not authorized"), "{case}: {why}");
            assert!(why.contains(&format!("for volume {asked}")), "{case}: {why}");
        }
        other => panic!("{case}: {other:?}"),
    }
}

/// An identity of the source that may write to `volume` only.
fn confined(pod: &Pod, volume: &str) -> PathBuf {
    pod.pki.issue(volume, &LeafRequest::new(Role::Source).volume(volume))
}

#[test]
fn a_client_with_the_certificate_of_another_volume_is_refused_before_the_volume_is_opened() {
    let (pod, to_a, to_b) = (Pod::new(), TempTree::new(), TempTree::new());
    to_a.populate(3, 20);
    let before = Snapshot::of(to_a.path());
    let serve = pod.serve(&[("a", to_a.path()), ("b", to_b.path())], &[]);
    let watch = Watch::over(to_a.path());
    let identity = confined(&pod, "b");
    for (case, asked, hello) in openings() {
        assert_refused(&mut Client::connect(&pod, &identity), hello, asked, case);
        assert_eq!(watch.seen(), [""; 0], "{case}");
    }
    serve.wait_for_line("is not authorized for volume a");
    let mut own = Client::connect(&pod, &identity);
    own.open(hello("b")).unwrap();
    drop(watch);
    assert_untouched(&before, to_a.path());
}

/// `sync` does not know the certificate of its tunnel, so it asks.
#[test]
fn sync_by_a_tunnel_with_the_certificate_of_another_volume_ends_with_5() {
    let (pod, source, to_a, to_b) = (Pod::new(), TempTree::new(), TempTree::new(), TempTree::new());
    source.file("f", "text");
    to_a.file("kept", "text");
    let before = Snapshot::of(to_a.path());
    let _serve = pod.serve(&[("a", to_a.path()), ("b", to_b.path())], &[]);
    let watch = Watch::over(to_a.path());
    let _tunnel = pod.tunnel_to(pod.server, &confined(&pod, "b"), &[]);
    for options in [&["--delete"][..], &["--dry-run"], &["--streams", "4"]] {
        let finished = Process::run(pod.sync(source.path(), "a", options));
        let report = report(finished.expect(5));
        assert_eq!((&report["retryable"], &report["wire_sent"]), (&false.into(), &0.into()));
        assert_explains(&finished, &["/source/b is not authorized for volume a"]);
        assert_eq!(watch.seen(), [""; 0], "{options:?}");
    }
    drop(watch);
    assert_untouched(&before, to_a.path());
    Process::run(pod.sync(source.path(), "b", &[])).expect(0);
}

#[test]
fn a_stream_with_the_certificate_of_another_volume_joins_no_session() {
    let (pod, to_a, to_b) = (Pod::new(), TempTree::new(), TempTree::new());
    let _serve = pod.serve(&[("a", to_a.path()), ("b", to_b.path())], &[]);
    let mut first = Client::connect(&pod, &confined(&pod, "a"));
    let session = first.open(hello("a")).unwrap().session();
    // Nobody can guess the id of a session; here it has leaked.
    let mut stranger = Client::connect(&pod, &confined(&pod, "b"));
    stranger.join(session);
    assert_eq!(stranger.next_frame(PATIENCE), Ok(REFUSED));
    let mut further = Client::connect(&pod, &confined(&pod, "a"));
    further.join(session);
    assert!(further.next_frame(Duration::from_secs(1)) != Ok(REFUSED), "its own is refused");
}

/// A source pod of the volumes `a` and `b`: a directory for each sync container, which it shares with the tunnel alone.
struct SourcePod {
    pod: Pod,
    dirs: TempTree,
}

impl SourcePod {
    fn new() -> Self {
        let (pod, dirs) = (Pod::new(), TempTree::new());
        for volume in ["a", "b"] {
            dirs.dir(volume);
            let request = LeafRequest::new(Role::Source).volume(volume);
            let _ = pod.pki.issue(&format!("volumes/{volume}"), &request);
        }
        Self { pod, dirs }
    }

    fn identities(&self) -> PathBuf {
        self.pod.pki.path().join("volumes")
    }

    fn tunnel_command(&self, options: &[&str]) -> Command {
        let mut command = pvferry(["tunnel", "--connect", &self.pod.server.to_string()]);
        command.arg("--identity").arg(self.identities());
        for volume in ["a", "b"] {
            command.arg(format!("--volume={volume}={}", self.dirs.at(volume).display()));
        }
        command.args(options);
        command
    }

    /// Starts the tunnel, and waits for both sockets.
    fn tunnel(&self, options: &[&str]) -> Process {
        let tunnel = Process::start(self.tunnel_command(options));
        for _ in ["a", "b"] {
            tunnel.wait_for_line("tunnel.sock");
        }
        tunnel
    }

    fn socket(&self, volume: &str) -> PathBuf {
        self.dirs.at(volume).join("tunnel.sock")
    }

    fn sync(&self, source: &TempTree, volume: &str, options: &[&str]) -> Command {
        let via = format!("unix:{}", self.socket(volume).display());
        let mut command = pvferry(["sync", "--json", "--progress", "none", "--volume", volume]);
        command.args(["--via", &via, "--wait", "30", "--marker-dir"]).arg(self.dirs.at(volume));
        command.arg("--termination-log").arg(self.pod.message_path(volume));
        command.args(options).arg(source.path());
        command
    }

    /// The names of the files in the directory of a volume.
    fn files(&self, volume: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dirs.at(volume)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn two_volumes_through_a_socket_each() {
    let (pod, to_a, to_b) = (SourcePod::new(), TempTree::new(), TempTree::new());
    let (a, b) = (TempTree::new(), TempTree::new());
    a.populate(1, 50).file("large", vec![1; 4 << 20]);
    b.populate(2, 50);
    let volumes = [("a", to_a.path()), ("b", to_b.path())];
    let serve = pod.pod.serve(&volumes, &["--exit-when", "2"]);
    let tunnel = pod.tunnel(&["--exit-when", "2"]);
    let streams = Process::start(pod.sync(&a, "a", &["--streams", "4", "--verify"]));
    Process::run(pod.sync(&b, "b", &[])).expect(0);
    streams.wait().expect(0);
    tunnel.wait().expect(0);
    serve.wait().expect(0);
    assert_same(a.path(), to_a.path());
    assert_same(b.path(), to_b.path());
    assert_eq!((pod.files("a"), pod.files("b")), (vec!["a.done".into()], vec!["b.done".into()]));
}

/// What a sync container that was taken over has: the socket and the directory of its own volume.
#[test]
fn a_hostile_sync_container_reaches_no_volume_but_its_own() {
    let (pod, to_a, to_b) = (SourcePod::new(), TempTree::new(), TempTree::new());
    to_a.populate(3, 20);
    let before = Snapshot::of(to_a.path());
    let _serve = pod.pod.serve(&[("a", to_a.path()), ("b", to_b.path())], &[]);
    let tunnel = pod.tunnel(&["--exit-when", "2"]);
    let mut victim = Client::through(&pod.socket("a"));
    let session = victim.open(hello("a")).unwrap().session();
    let watch = Watch::over(to_a.path());
    for (case, asked, hello) in openings() {
        assert_refused(&mut Client::through(&pod.socket("b")), hello, asked, case);
        assert_eq!(watch.seen(), [""; 0], "{case}");
    }
    let mut stranger = Client::through(&pod.socket("b"));
    stranger.join(session);
    assert_eq!(stranger.next_frame(PATIENCE), Ok(REFUSED));
    drop(watch);
    assert_untouched(&before, to_a.path());
    Client::through(&pod.socket("b")).open(hello("b")).unwrap();
    assert_eq!(pod.files("a"), ["tunnel.sock"]);
    drop(tunnel);
}

#[test]
fn a_hostile_sync_container_forges_no_marker_and_changes_no_file_of_another() {
    let (pod, source, to_a, to_b) =
        (SourcePod::new(), TempTree::new(), TempTree::new(), TempTree::new());
    source.file("f", "text");
    // Links are resolved by whoever opens them: the tunnel has the directories of both.
    let own = pod.dirs.at("b");
    for (name, target) in
        [(".tunnel.status~", "../a/a.done"), ("tunnel.status", "../a/tunnel.status")]
    {
        symlink(target, own.join(name)).unwrap();
    }
    let mut tunnel = pod.tunnel(&["--exit-when", "2"]);
    let completed = r#"{"outcome":"completed","reason":"","exit_code":0,"volume":"a"}"#;
    for name in ["a.done", "b.done", "c.done", ".a.done~", "..done"] {
        fs::write(own.join(name), completed).unwrap();
    }
    // There is no server yet, so the tunnel writes the reason into the directory of its client.
    for _ in 0..3 {
        let mut client = Client::through(&pod.socket("b"));
        assert!(client.open(hello("b")).is_err());
        tunnel.wait_for_line("refused");
        symlink("../a/a.done", own.join(".tunnel.status~")).or_else(exists).unwrap();
    }
    std::thread::sleep(Duration::from_secs(1));
    assert!(tunnel.is_running(), "markers of another directory count");
    assert!(fs::symlink_metadata(own.join("tunnel.status")).unwrap().is_file());
    assert_eq!(pod.files("a"), ["tunnel.sock"]);

    let _serve = pod.pod.serve(&[("a", to_a.path()), ("b", to_b.path())], &[]);
    let finished = Process::run(pod.sync(&source, "a", &[]));
    let of_a = report(finished.expect(0));
    tunnel.wait().expect(0);
    assert_same(source.path(), to_a.path());
    let marker = fs::read_to_string(pod.dirs.at("a").join("a.done")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&marker).unwrap(), of_a);
    assert_eq!(pod.files("a"), ["a.done"]);
}

fn exists(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

#[test]
fn a_hostile_sync_container_deletes_no_more_than_serve_permits() {
    let (pod, source, to_a, to_b) =
        (SourcePod::new(), TempTree::new(), TempTree::new(), TempTree::new());
    let empty = TempTree::new();
    source.file("f", "text");
    let names: Vec<_> = (0..10).map(|number| format!("kept-{number}")).collect();
    for name in &names {
        to_a.file(name, "text");
        to_b.file(name, "text");
    }
    let permits = ["--allow-delete=b", "--max-delete=b=3"];
    let _serve = pod.pod.serve_strict(&[("a", to_a.path()), ("b", to_b.path())], &permits);
    let _tunnel = pod.tunnel(&[]);
    let left = |tree: &TempTree| names.iter().filter(|name| tree.at(name).exists()).count();
    let all = ["--delete", "--allow-empty-source"];
    Process::run(pod.sync(&empty, "b", &all)).expect(5);
    Process::run(pod.sync(&source, "a", &["--delete"])).expect(5);
    assert_eq!((left(&to_a), left(&to_b)), (10, 10));
    Process::run(pod.sync(&source, "b", &["--delete"])).expect(25);
    assert_eq!((left(&to_a), left(&to_b)), (10, 7));
}

#[test]
fn a_tunnel_ends_with_30_where_one_of_two_volumes_is_deserted() {
    let (pod, source, to_a, to_b) =
        (SourcePod::new(), TempTree::new(), TempTree::new(), TempTree::new());
    source.file("f", "text");
    let _serve = pod.pod.serve(&[("a", to_a.path()), ("b", to_b.path())], &[]);
    let tunnel = pod.tunnel(&["--exit-when", "2", "--idle", "2"]);
    Process::run(pod.sync(&source, "a", &[])).expect(0);
    tunnel.wait().expect(30);
}

#[test]
fn a_tunnel_refuses_an_identity_that_is_not_confined_to_the_volume_of_its_socket() {
    for (volume, words) in [
        (None, "for all volumes, expected one for volume b only"),
        (Some("a"), "for volume a, expected volume b"),
    ] {
        let pod = SourcePod::new();
        let request = LeafRequest::new(Role::Source);
        let request = volume.map_or(request.clone(), |volume| request.volume(volume));
        let _ = pod.pod.pki.issue("volumes/b", &request);
        let finished = Process::run(pod.tunnel_command(&[]));
        assert_eq!(finished.code(), 5, "{}", finished.stderr);
        assert_explains(&finished, &["volumes/b/tls.crt", words]);
    }
}

#[test]
fn sockets_of_a_tunnel_that_would_not_be_apart_are_refused() {
    let pod = SourcePod::new();
    let (a, below) = (pod.dirs.at("a"), pod.dirs.at("a/below"));
    fs::create_dir(&below).unwrap();
    symlink(&a, pod.dirs.at("link")).unwrap();
    let c = |dir: &Path| format!("--volume=c={}", dir.display());
    let long = format!("--volume=c={}/{}", pod.dirs.path().display(), "x/".repeat(60));
    fs::create_dir_all(long.strip_prefix("--volume=c=").unwrap()).unwrap();
    for (options, code, words) in [
        (vec![c(&a)], 1, "volumes a and c overlap"),
        (vec![c(&below)], 1, "volumes a and c overlap"),
        (vec![c(&pod.dirs.at("link"))], 1, "volumes a and c overlap"),
        (vec![c(&pod.dirs.at("none"))], 5, "does not exist"),
        (vec![c(&pod.dirs.at("b")).replace("c=", "a=")], 1, "volume a is given twice"),
        (vec![long], 1, "107 bytes"),
        (vec!["--exit-when=3".into()], 1, "--exit-when 3"),
        (vec!["--listen=127.0.0.1:0".into()], 1, "--volume"),
        (vec![format!("--marker-dir={}", a.display())], 1, "--volume"),
    ] {
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let finished = Process::run(pod.tunnel_command(&options));
        assert_eq!(finished.code(), code, "{options:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(words), "{options:?}: {}", finished.stderr);
    }
}
