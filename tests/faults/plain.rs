//! Sessions without TLS between two ends in this process: every byte of them cut, ended and flipped.
//!
//! What TLS would notice first is here noticed by the protocol alone. A session takes some milliseconds, so no position
//! is left out.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use session::{Cancel, Context, Progress, Received, Source, Summary, handshake, server::Server};
use testkit::{Content, Faults, Snapshot, TempTree, pass_between};
use tokio::{
    io::{AsyncRead, AsyncWrite, duplex},
    time::timeout,
};
use wire::{Hello, Options, RootKind, VERSION};

use crate::{counts, judge::wrongly_shown};

/// How long an end waits for the other's words, in seconds; nothing here takes a tenth of that.
const SILENCE: u32 = 20;
/// When ends are told to stop that lost a message and still hear each other's pings. A session takes a hundredth.
const PATIENCE: Duration = Duration::from_millis(1500);
/// After so long a session hangs.
const HANG: Duration = Duration::from_secs(60);
/// Sessions at a time. Those that lost a message only wait.
const AT_ONCE: usize = 6;
const WINDOW: u64 = 4 << 20;

/// How a session ended at both ends.
struct Outcome {
    sent: session::Result<Summary>,
    received: session::Result<Received>,
    /// Bytes that passed, where the relay came to its end: from the sender, and to it.
    passed: Option<(u64, u64)>,
}

impl Outcome {
    /// Neither end reports anything but success.
    fn is_clean(&self) -> bool {
        self.sent_code() == 0 && self.received.as_ref().is_ok_and(|received| received.acknowledged)
    }

    fn sent_code(&self) -> u8 {
        self.sent.as_ref().map_or_else(session::Error::exit_code, |summary| summary.exit_code)
    }

    /// Either end reports success.
    fn claims_success(&self) -> bool {
        let received =
            |received: &Received| received.acknowledged && received.summary.exit_code == 0;
        self.sent_code() == 0 || self.received.as_ref().is_ok_and(received)
    }
}

fn context(cancel: &Cancel) -> Context {
    Context {
        progress: Arc::new(Progress::default()),
        monitor: Arc::new(()),
        window: WINDOW,
        memory_budget: session::MEMORY_BUDGET,
        workers: 2,
        io_timeout: SILENCE,
        bandwidth_limit: None,
        compress: session::Compression::Never,
        relayed: false,
        cancel: cancel.clone(),
    }
}

async fn send<S>(
    mut stream: S,
    from: &Path,
    options: Options,
    patience: Duration,
    cancel: &Cancel,
) -> session::Result<Summary>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let hello = Hello {
        versions: (VERSION, VERSION),
        nonce: handshake::random()?,
        volume: "a".into(),
        root: RootKind::Tree,
        probe: false,
        window: WINDOW,
        streams: 1,
        io_timeout: SILENCE,
        options,
    };
    let opened = timeout(patience, handshake::open(&mut stream, hello)).await;
    let agreed = opened.unwrap_or(Err(session::Error::Timeout(1)))?;
    let source = Source::Tree(volume::Dir::open_root(from)?);
    session::send(vec![stream], agreed, source, context(cancel)).await
}

async fn receive<S>(
    stream: S,
    to: &Path,
    patience: Duration,
    cancel: &Cancel,
) -> session::Result<Received>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let server = Server::new(WINDOW);
    let admitted = timeout(patience, server.admit(stream, |_| Ok(to.to_owned().into()))).await;
    let incoming = admitted.unwrap_or(Err(session::Error::Timeout(1)))?;
    let incoming = incoming.ok_or(session::Error::Eof)?;
    let (stream, joining, agreed, target, _registered) = incoming.into_parts();
    session::receive(stream, joining, agreed, target, context(cancel)).await
}

/// A session from `from` to `to` through a relay with these faults, there and back; a hang is a failure. Only flips
/// may have both ends wait for each other: then they are told to stop.
fn run(from: &Path, to: &Path, options: &Options, (there, back): (Faults, Faults)) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cancel = Cancel::default();
    let flips = there.flip.or(back.flip).is_some();
    let patience = if flips { PATIENCE } else { HANG };
    let session = async {
        let ((client, near), (far, server)) = (duplex(64 << 10), duplex(64 << 10));
        let relay = tokio::spawn(pass_between(near, far, there, back));
        let sender = send(client, from, options.clone(), patience, &cancel);
        let mut ends =
            std::pin::pin!(async { tokio::join!(sender, receive(server, to, patience, &cancel)) });
        let mut ended = timeout(patience, &mut ends).await;
        if flips && ended.is_err() {
            cancel.cancel();
            ended = timeout(HANG, ends).await;
        }
        let (sent, received) = ended.expect("the session hangs");
        let passed = relay.await.unwrap().ok();
        Outcome { sent, received, passed }
    };
    runtime.block_on(session)
}

/// What is to be moved, and where to: something of every way that content takes.
struct Scene {
    source: TempTree,
    wanted: Snapshot,
    options: Options,
    /// Nothing is there yet.
    fresh: bool,
}

/// The file that is patched in place.
const LARGE: &str = "large";
const LARGE_LEN: usize = 1 << 20;

fn tree() -> TempTree {
    TempTree::below(Path::new("/dev/shm"))
}

impl Scene {
    fn new(options: Options, fresh: bool) -> Self {
        let source = tree();
        source.file("changed", Content::random(1, 300)).mode("changed", 0o600);
        source.file("dir/same", "the same").mode("dir/same", 0o640).mtime("dir/same", 7, 7);
        source.file("dir/edited", "content of the same size").mtime("dir/edited", 8, 8);
        source.file("new/inner", Content::random(2, 100)).symlink("new/link", "inner");
        source.hard_link("new/inner", "twin").file("empty", "");
        if !fresh {
            // One leaf of a hundred bytes differs.
            let tail = Content::random(4, 100);
            source.file(LARGE, Content::random(3, LARGE_LEN).overwrite(LARGE_LEN, tail.bytes()));
        }
        for path in ["new", "dir", ""] {
            source.mtime(path, 9, 9);
        }
        let wanted = Snapshot::of(source.path());
        Self { source, wanted, options, fresh }
    }

    fn destination(&self) -> TempTree {
        let destination = tree();
        if self.fresh {
            return destination;
        }
        destination.file("changed", "old").mode("changed", 0o640);
        destination.file("dir/same", "the same").mode("dir/same", 0o640).mtime("dir/same", 7, 7);
        destination.file("dir/edited", "content of an other size").mtime("dir/edited", 7, 8);
        destination.file("gone/inner", "to be removed");
        let old = Content::random(3, LARGE_LEN).overwrite(LARGE_LEN, &[1; 100]);
        destination.file(LARGE, old).mtime(LARGE, 5, 5);
        destination
    }

    /// Bytes of a session without faults, there and back.
    fn lengths(&self) -> (u64, u64) {
        let destination = self.destination();
        let outcome = run(self.source.path(), destination.path(), &self.options, none());
        assert!(self.is_right(&outcome), "{:?} {:?}", outcome.sent, outcome.received);
        assert_eq!(self.differences(&Snapshot::of(destination.path())), [""; 0]);
        outcome.passed.unwrap()
    }

    /// The session ended as one without faults does.
    fn is_right(&self, outcome: &Outcome) -> bool {
        match self.options.max_delete {
            None => outcome.is_clean(),
            // Something is reported in each run, so that the manifests are not compared; unless a limit that was spoilt had it
            // removed before.
            Some(_) => outcome.sent_code() == 25 || outcome.is_clean(),
        }
    }

    /// What is not as wanted in `now`; where less may be removed than there is, that stays.
    fn differences(&self, now: &Snapshot) -> Vec<String> {
        let all = self.options.max_delete.is_none();
        // What stays may share an inode with what belongs there.
        let aspects = testkit::Aspects { links: all, ..testkit::Aspects::default() };
        let mut found = testkit::differences(&self.wanted, now, aspects);
        found.retain(|line| all || !line.ends_with("only on the right"));
        found
    }

    /// One session with faults, and a second one without. `strict` where nothing wrong may show in between. True where
    /// the first had to be stopped.
    fn try_faults(&self, faults: (Faults, Faults), strict: bool) -> bool {
        let destination = self.destination();
        let before = Snapshot::of(destination.path());
        let (from, to) = (self.source.path(), destination.path());
        let outcome = run(from, to, &self.options, faults);
        let case =
            || format!("{faults:?} sent {:?}, received {:?}", outcome.sent, outcome.received);
        let now = Snapshot::of(to);
        if outcome.claims_success() {
            let found = testkit::differences(&self.wanted, &now, testkit::Aspects::default());
            assert!(found.is_empty(), "a false success: {found:?}\n{}", case());
        }
        if strict {
            let found = wrongly_shown(&before, &self.wanted, &now, LARGE);
            assert!(found.is_empty(), "{found:?}\n{}", case());
        }
        let text = case();
        assert!(!text.contains("internal error"), "{text}");
        let stopped =
            |error: Option<&session::Error>| matches!(error, Some(session::Error::Cancelled));
        let stopped =
            stopped(outcome.sent.as_ref().err()) || stopped(outcome.received.as_ref().err());
        // Without reading what size and time say is the same: nothing that is wrong may look right, even where the session
        // never came to compare the manifests.
        let again = loop {
            let again = run(from, to, &self.options, none());
            // A thread of the first may still be in a call that takes its time.
            match again.sent {
                Err(session::Error::Refused(wire::Refusal::Busy, _)) => {}
                _ => break again,
            }
        };
        assert!(self.is_right(&again), "{:?} {:?} after {text}", again.sent, again.received);
        let found = self.differences(&Snapshot::of(to));
        assert!(found.is_empty(), "a false success of the second run: {found:?}\n{text}");
        stopped
    }

    /// Tries all of `faults`, several at a time; how many sessions had to be stopped.
    fn try_all(&self, faults: &[(Faults, Faults)], strict: bool) -> usize {
        let (next, stopped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(&faults) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let once = usize::from(self.try_faults(faults, strict));
                        stopped.fetch_add(once, Ordering::Relaxed);
                    }
                });
            }
        });
        stopped.into_inner()
    }
}

fn none() -> (Faults, Faults) {
    (Faults::default(), Faults::default())
}

/// Every scene: a delta, the same with everything compared by content, with a problem in each run, and into an empty
/// volume.
fn scenes() -> [Scene; 4] {
    let plain = Options { delete: true, ..Options::default() };
    let thorough = Options { checksum: true, verify: true, ..plain.clone() };
    let limited = Options { max_delete: Some(0), ..plain.clone() };
    [
        Scene::new(plain.clone(), false),
        Scene::new(thorough, false),
        Scene::new(limited, false),
        Scene::new(plain, true),
    ]
}

/// One fault at every position of both directions.
fn everywhere((there, back): (u64, u64), fault: impl Fn(u64) -> Faults) -> Vec<(Faults, Faults)> {
    let none = Faults::default;
    let there = (0..=there).map(|at| (fault(at), none()));
    let back = (0..=back).map(|at| (none(), fault(at)));
    there.chain(back).collect()
}

#[test]
fn a_session_cut_at_any_byte() {
    let mut tried = 0;
    for scene in scenes() {
        let faults = everywhere(scene.lengths(), Faults::cut);
        assert_eq!(scene.try_all(&faults, true), 0);
        tried += faults.len();
    }
    counts::tell("sessions cut, at every byte of both directions", tried);
}

#[test]
fn a_session_ended_at_any_byte() {
    let mut tried = 0;
    for scene in scenes() {
        let faults = everywhere(scene.lengths(), Faults::end);
        assert_eq!(scene.try_all(&faults, true), 0);
        tried += faults.len();
    }
    counts::tell("sessions ended as if in good order, at every byte of both directions", tried);
}

#[test]
fn bits_flipped_at_any_byte_after_decryption() {
    let (mut tried, mut stopped) = (0, 0);
    for scene in scenes() {
        let lengths = scene.lengths();
        for turn in [0, 3] {
            let flip = |at| Faults::flip_bit(at, ((at + turn) % 8) as u8);
            let faults = everywhere(lengths, flip);
            stopped += scene.try_all(&faults, false);
            tried += faults.len();
        }
    }
    let tried = format!("{tried}, of which {stopped} had both ends wait until they were stopped");
    counts::tell("bits flipped after decryption, two in every byte of both directions", tried);
}
