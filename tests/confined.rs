//! A source that is confined to one volume, and asks for another.
//!
//! The clients here have a real certificate and no manners: they ask for what our own `sync` would not.

use std::{path::Path, time::Duration};

use session::handshake;
use testkit::{Process, Snapshot, TempTree, Watch};
use tokio::{
    io::AsyncReadExt as _,
    runtime::Runtime,
    time::{error::Elapsed, timeout},
};
use tunnel::{Connector, IdentitySource, Role, Target, TlsStream, pki::LeafRequest};
use wire::{Hello, Options, Refusal};

use crate::{
    pod::Pod,
    support::{assert_explains, assert_untouched, report},
};

/// What an answer may take that must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// The number of a frame that refuses.
const REFUSED: u8 = 4;

/// A connection to `serve`, authenticated by a real certificate.
struct Client {
    runtime: Runtime,
    stream: TlsStream,
}

impl Client {
    fn connect(pod: &Pod, identity: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connector = Connector::new(IdentitySource::new(identity).unwrap());
        let target = Target::from(pod.server);
        let stream = runtime.block_on(connector.connect(&target, None)).unwrap();
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

/// An identity of the source that may write to `volume` only.
fn confined(pod: &Pod, volume: &str) -> std::path::PathBuf {
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
    let delete = Options { delete: true, allow_empty: true, ..Options::default() };
    for (case, hello) in [
        ("a session", hello("a")),
        ("a probe", Hello { probe: true, ..hello("a") }),
        ("a dry run", Hello { options: Options { dry_run: true, ..delete }, ..hello("a") }),
        ("a device", Hello { root: wire::RootKind::Device(1 << 20), ..hello("a") }),
        // Whether a volume exists is nothing to learn, either.
        ("no volume of that name", hello("nowhere")),
    ] {
        let asked = hello.volume.clone();
        match Client::connect(&pod, &identity).open(hello).err() {
            Some(session::Error::Refused(Refusal::NotAuthorised, why)) => {
                assert!(why.contains("/source/b may not write"), "{case}: {why}");
                assert!(why.contains(&format!("the volume {asked}")), "{case}: {why}");
            }
            other => panic!("{case}: {other:?}"),
        }
        assert_eq!(watch.seen(), [""; 0], "{case}");
    }
    serve.wait_for_line("may not write to the volume a");
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
        assert_explains(&finished, &["/source/b may not write to the volume a"]);
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
