//! A volume with something outside it that nobody may touch or read.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FileType, IFlags, Mode, OFlags};
use session::{Cancel, Compression, Context, Monitor, Progress};
use tempfile::TempDir;

/// What lies outside, and must never travel. Its first byte comes once in it.
pub(crate) const SECRET: &[u8] = b"\x01this never leaves the place where it lies";

/// Far more than any script takes, also on a slow machine: a session that is not over by then hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A directory with a volume and something outside it.
pub(crate) struct Stage {
    base: TempDir,
    outside: Vec<Seen>,
}

/// All that changes of an entry when it is touched.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) mtime: (i64, i64),
    mode: u32,
    ctime: (i64, i64),
}

impl Seen {
    pub(crate) fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::RegularFile
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        let base = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(base.path().join("outside")).expect("a directory is made");
        fs::write(base.path().join("outside/secret"), SECRET).expect("a file is written");
        let outside = look_at(&base.path().join("outside"));
        Self { base, outside }
    }

    pub(crate) fn volume(&self) -> PathBuf {
        self.base.path().join("volume")
    }

    /// Makes the volume new and empty.
    pub(crate) fn clear(&self) {
        if self.volume().exists() {
            let removed = fs::remove_dir_all(self.volume()).or_else(|_| {
                unlock(&self.volume());
                fs::remove_dir_all(self.volume())
            });
            removed.expect("the volume is removed");
        }
        fs::create_dir(self.volume()).expect("the volume is made");
    }

    /// Fails where anything outside the volume was made, changed or removed.
    pub(crate) fn check_outside(&self) {
        assert_eq!(look_at(&self.base.path().join("outside")), self.outside);
        let names = fs::read_dir(self.base.path()).expect("the base is listed").count();
        assert_eq!(names, 2, "something lies beside the volume");
    }
}

/// Everything below `root` and the root itself, in order.
pub(crate) fn look_at(root: &Path) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).expect("what was listed is there");
        if meta.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory is listed");
            left.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        let (mtime, ctime) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        seen.push(Seen { path, size: meta.size(), mtime, mode: meta.mode(), ctime });
    }
    seen.sort();
    seen
}

/// Takes off what keeps entries from being removed.
fn unlock(root: &Path) {
    for seen in look_at(root).into_iter().filter(|seen| seen.is_file() || seen.path.is_dir()) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        if let Ok(file) = rustix::fs::open(&seen.path, flags, Mode::empty()) {
            let _ = rustix::fs::ioctl_setflags(&file, IFlags::empty());
        }
    }
}

/// Bytes of which no two blocks are alike.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A symbolic link out of the volume.
pub(crate) fn way_out(volume: &Path, name: &str, target: &str) -> io::Result<()> {
    symlink(target, volume.join(name))
}

/// What an end of a session is given here.
pub(crate) fn context() -> Context {
    Context {
        progress: std::sync::Arc::new(Progress::default()),
        monitor: std::sync::Arc::new(()) as std::sync::Arc<dyn Monitor>,
        window: 4 << 20,
        memory_budget: session::MEMORY_BUDGET,
        workers: 2,
        io_timeout: 20,
        bandwidth_limit: None,
        compress: Compression::Never,
        relayed: false,
        cancel: Cancel::default(),
    }
}

/// Runs both ends of a session; neither may hang.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            tokio::time::timeout(DEADLINE, future).await.expect("the session hangs")
        })
    })
}
