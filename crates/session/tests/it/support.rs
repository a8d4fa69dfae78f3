//! Sessions of both ends, streams with faults, and trees to try them on.

use std::{
    fs,
    future::Future,
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context as Poller, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use session::{
    Cancel, Context, Monitor, Progress, Received, Result, Snapshot, Source, Summary, Target,
    handshake::{self, Agreed},
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use wire::{Hello, Opening, Options, Reply, RootKind, VERSION, Welcome};

/// Source and destination.
pub(crate) struct Pair {
    pub(crate) from: TempDir,
    pub(crate) to: TempDir,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let make = || tempfile::tempdir_in("/dev/shm").unwrap();
        Self { from: make(), to: make() }
    }

    pub(crate) fn sync(&self, options: Options) -> Outcome {
        sync(self.from.path(), self.to.path(), options)
    }

    /// Syncs, and asserts that all is well and both trees are equal.
    pub(crate) fn converge(&self, options: Options) -> Outcome {
        let outcome = self.sync(options);
        outcome.assert_clean();
        self.assert_equal();
        outcome
    }

    /// Syncs twice; the second run must have nothing to do.
    pub(crate) fn converge_twice(&self, options: Options) -> Outcome {
        let outcome = self.converge(options.clone());
        let again = self.converge(options);
        let again = again.summary();
        assert_eq!((again.files_written, again.files_deleted, again.bytes_literal), (0, 0, 0));
        outcome
    }

    pub(crate) fn assert_equal(&self) {
        assert_eq!(self.differences(), Vec::<String>::new());
    }

    pub(crate) fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        let options = volume::stat::ReadOptions::default();
        volume::compare::compare(self.from.path(), self.to.path(), &options, &mut |difference| {
            found.push(difference.to_string());
        })
        .unwrap();
        found
    }
}

/// How a session ended at both ends.
pub(crate) struct Outcome {
    pub(crate) sent: Result<Summary>,
    pub(crate) received: Result<Received>,
    pub(crate) sender: Snapshot,
    pub(crate) receiver: Snapshot,
    pub(crate) actions: Vec<String>,
}

impl Outcome {
    pub(crate) fn summary(&self) -> &Summary {
        match (&self.sent, &self.received) {
            (Ok(summary), _) => summary,
            (Err(sender), Err(receiver)) => panic!("sender: {sender}; receiver: {receiver}"),
            (Err(sender), Ok(_)) => panic!("sender: {sender}"),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match &self.sent {
            Ok(summary) => summary.exit_code,
            Err(error) => error.exit_code(),
        }
    }

    pub(crate) fn assert_clean(&self) {
        let summary = self.summary();
        assert_eq!((summary.exit_code, &summary.problems), (0, &Vec::new()));
        assert!(self.received.as_ref().unwrap().acknowledged);
        for end in [self.sender, self.receiver] {
            assert_eq!((end.entries, end.bytes_done), (end.entries_total, end.bytes_total));
        }
        assert_eq!(self.sender.entries, self.receiver.entries);
        assert_eq!(self.sender.bytes_total, self.receiver.bytes_total);
        assert_eq!(self.sender.files_written, self.receiver.files_written);
        assert_eq!(self.sender.files_deleted, self.receiver.files_deleted);
    }

    pub(crate) fn assert_problem(&self, code: u8, name: &str) {
        let summary = self.summary();
        assert_eq!(summary.exit_code, code, "{:?}", summary.problems);
        let named = summary.problems.iter().any(|p| p.name == name && p.exit_code == code);
        assert!(named, "{name} is not named: {:?}", summary.problems);
    }
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Monitor for Lines {
    fn action(&self, line: &str) {
        self.0.lock().push(line.to_owned());
    }
}

pub(crate) fn context(io_timeout: u32) -> Context {
    Context {
        progress: Arc::new(Progress::default()),
        monitor: Arc::new(()),
        window: 4 << 20,
        memory_budget: session::MEMORY_BUDGET,
        workers: 2,
        io_timeout,
        bandwidth_limit: None,
        compress: session::Compression::Never,
        relayed: false,
        cancel: Cancel::default(),
    }
}

pub(crate) fn hello(options: Options, io_timeout: u32) -> Hello {
    Hello {
        versions: (VERSION, VERSION),
        nonce: handshake::random().unwrap(),
        volume: "a".into(),
        root: RootKind::Tree,
        probe: false,
        window: 4 << 20,
        streams: 1,
        io_timeout,
        options,
    }
}

pub(crate) fn welcome(target: &Target) -> Welcome {
    Welcome {
        version: VERSION,
        nonce: handshake::random().unwrap(),
        session: handshake::random().unwrap(),
        fresh: target.is_fresh(),
        window: 4 << 20,
        streams: 1,
        losses: target.losses().to_vec(),
    }
}

/// The receiving end of a session over `stream`.
pub(crate) async fn receive<S>(mut stream: S, to: &Path, context: Context) -> Result<Received>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let opening = soon(handshake::read_opening(&mut stream)).await?;
    let Opening::Hello(hello) = opening else {
        return Err(session::Error::Protocol("no hello"));
    };
    let target = Target::open(to, &hello).unwrap();
    let welcome = welcome(&target);
    handshake::reply(&mut stream, &Reply::Welcome(Box::new(welcome.clone()))).await?;
    let (_keep, joining) = tokio::sync::mpsc::channel(1);
    session::receive(stream, joining, Agreed::new(*hello, welcome), target, context).await
}

/// A handshake is given its deadline by whoever holds it.
async fn soon<T>(handshake: impl Future<Output = Result<T>>) -> Result<T> {
    let bounded = tokio::time::timeout(Duration::from_secs(1), handshake);
    bounded.await.unwrap_or(Err(session::Error::Timeout(1)))
}

/// The sending end of a session over `stream`.
pub(crate) async fn send<S>(
    mut stream: S,
    from: &Path,
    options: Options,
    context: Context,
) -> Result<Summary>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let source = Source::Tree(volume::Dir::open_root(from).unwrap());
    let agreed = soon(handshake::open(&mut stream, hello(options, context.io_timeout))).await?;
    session::send(vec![stream], agreed, source, context).await
}

/// Runs a future to its end; a hang is a failure.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("the session hangs")
    })
}

pub(crate) fn sync(from: &Path, to: &Path, options: Options) -> Outcome {
    sync_over(from, to, options, Faults::default())
}

pub(crate) fn sync_over(from: &Path, to: &Path, options: Options, faults: Faults) -> Outcome {
    sync_with(from, to, options, faults, None)
}

/// As [`sync_over`]; given up after `patience`, where there is one, since ends that lost a message
/// but still hear each other wait for ever.
pub(crate) fn sync_with(
    from: &Path,
    to: &Path,
    options: Options,
    faults: Faults,
    patience: Option<Duration>,
) -> Outcome {
    let lines = Arc::new(Lines::default());
    let near = Context { monitor: Arc::clone(&lines) as Arc<dyn Monitor>, ..context(20) };
    let far = context(20);
    let (sender, receiver) = (Arc::clone(&near.progress), Arc::clone(&far.progress));
    let (sent, received) = block_on(async {
        let (a, b) = tokio::io::duplex(256 << 10);
        let a = Faulty::new(a, faults);
        if let Some(patience) = patience {
            let cancels = [near.cancel.clone(), far.cancel.clone()];
            tokio::spawn(async move {
                tokio::time::sleep(patience).await;
                cancels.iter().for_each(Cancel::cancel);
            });
        }
        tokio::join!(send(a, from, options, near), receive(b, to, far))
    });
    let actions = std::mem::take(&mut *lines.0.lock());
    let (sender, receiver) = (sender.snapshot(), receiver.snapshot());
    Outcome { sent, received, sender, receiver, actions }
}

/// What happens to the bytes of a stream, by position, as its sender's end sees them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) cut_after_read: Option<u64>,
    pub(crate) cut_after_written: Option<u64>,
    pub(crate) flip_read: Option<u64>,
    pub(crate) flip_written: Option<u64>,
}

/// A stream with faults.
pub(crate) struct Faulty {
    inner: Option<DuplexStream>,
    faults: Faults,
    read: u64,
    written: u64,
}

impl Faulty {
    pub(crate) fn new(inner: DuplexStream, faults: Faults) -> Self {
        Self { inner: Some(inner), faults, read: 0, written: 0 }
    }
}

impl AsyncRead for Faulty {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.faults.cut_after_read.is_some_and(|limit| this.read >= limit) {
            this.inner = None;
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(Ok(())) };
        let left = this.faults.cut_after_read.map_or(u64::MAX, |limit| limit - this.read);
        let mut part = buffer.take(usize::try_from(left).unwrap_or(usize::MAX));
        let polled = Pin::new(inner).poll_read(cx, &mut part);
        let count = part.filled().len();
        if let Some(at) = this.faults.flip_read.and_then(|at| at.checked_sub(this.read))
            && let Some(byte) = part.filled_mut().get_mut(at as usize)
        {
            *byte ^= 1 << (at % 8);
        }
        // What `part` filled is initialised in `buffer` too, of which it is the front.
        let bytes = part.filled().to_vec();
        buffer.put_slice(&bytes);
        this.read += count as u64;
        polled
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.faults.cut_after_written.is_some_and(|limit| this.written >= limit) {
            this.inner = None;
        }
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let left = this.faults.cut_after_written.map_or(u64::MAX, |limit| limit - this.written);
        let mut bytes =
            bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))].to_vec();
        if let Some(at) = this.faults.flip_written.and_then(|at| at.checked_sub(this.written))
            && let Some(byte) = bytes.get_mut(at as usize)
        {
            *byte ^= 1 << (this.written % 8);
        }
        let polled = Pin::new(inner).poll_write(cx, &bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            this.written += *count as u64;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// Syncs a pair and runs `change` when the receiver has answered the first listing: the sender has listed by then, and
/// read no content.
pub(crate) fn sync_after_listing(
    pair: &Pair,
    options: Options,
    change: impl FnOnce() + Send + 'static,
) -> Outcome {
    let (near, far) = (context(20), context(20));
    let (sender, receiver) = (Arc::clone(&near.progress), Arc::clone(&far.progress));
    let (sent, received) = block_on(async {
        let (a, b) = tokio::io::duplex(256 << 10);
        let a = AfterListing { inner: a, written: 0, hello: None, change: Some(Box::new(change)) };
        tokio::join!(send(a, pair.from.path(), options, near), receive(b, pair.to.path(), far))
    });
    let (sender, receiver) = (sender.snapshot(), receiver.snapshot());
    Outcome { sent, received, sender, receiver, actions: Vec::new() }
}

/// The sender's stream: something is run before it reads the first answer to what it wrote behind its hello.
struct AfterListing {
    inner: DuplexStream,
    written: usize,
    hello: Option<usize>,
    change: Option<Box<dyn FnOnce() + Send>>,
}

impl AsyncRead for AfterListing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            let written = self.written;
            if *self.hello.get_or_insert(written) < written {
                self.change.take().into_iter().for_each(|change| change());
            }
        }
        polled
    }
}

impl AsyncWrite for AfterListing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            self.written += count;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Bytes that no block of another seed has.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn write(root: &Path, name: &str, content: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Sets the modification time, in seconds.
pub(crate) fn set_mtime(path: &Path, secs: i64, nanos: u32) {
    let time = rustix::fs::Timespec { tv_sec: secs, tv_nsec: nanos.into() };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

pub(crate) fn delete() -> Options {
    Options { delete: true, ..Options::default() }
}

/// A staging directory in `root`, as an interrupted session leaves it.
pub(crate) fn staging(root: &Path) -> PathBuf {
    let path = root.join("staging");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let number = fs::metadata(&path).unwrap().ino();
    let named = root.join(format!(".pvferry-{number:x}-0123456789abcdef"));
    fs::rename(path, &named).unwrap();
    named
}

/// The crash marker in `root`.
pub(crate) fn crash_marker(root: &Path) -> Option<Vec<u8>> {
    let mut entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let staging = entries.find(|entry| {
        volume::staging::inode_number(entry.file_name().as_encoded_bytes()).is_some()
    })?;
    fs::read(staging.path().join("crash-marker")).ok()
}

/// Where an unfinished entry lies that is to become `name` in the root.
pub(crate) fn staged(root: &Path, name: &str, suffix: &str) -> String {
    let root = volume::Dir::open_root(root).unwrap();
    let name = wire::Name::new(name.as_bytes()).unwrap();
    format!("{}{suffix}", volume::staging::staged_name(&root, &name))
}
