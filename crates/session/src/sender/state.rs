//! What the threads of the sender share.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use delta::Layout;
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use volume::{
    Dir, digest,
    stat::ReadOptions,
    unmapped::{self, Unknown},
};
use wire::{Commit, EntryId, FileKind, Hash, Metadata, Name, ToReceiver, WeakStrong};

use super::{
    Source,
    entry::{Chunk, FileRecord, FileRef, Held, Item},
    files::Job,
    inline::InlineJob,
};
use crate::{
    Context, Error, Phase,
    compress::Compressor,
    control::{Control, Credit, Outbox, Stopped, frame_cost},
    handshake::Agreed,
    manifest::{self, Manifest, Record},
    memory_budget::{self, MemoryBudget, MemoryReservation},
    no_owner,
    summary::{Problems, SOURCE_CHANGED},
    verify,
    xattr_hash::XattrHasher,
};

/// Bytes of listed entries that are not settled yet; the walk waits when there are more.
const WALK_BUDGET: u64 = 8 << 20;
/// Most that one listing frame may take of that budget.
pub(super) const MAX_CHUNK_WEIGHT: u64 = WALK_BUDGET / 4;

pub(super) struct Shared {
    pub(super) agreed: Agreed,
    pub(super) context: Context,
    pub(super) source: Source,
    pub(super) control: Control,
    /// Bytes of listings and content that the receiver lets us send.
    pub(super) send_credit: Arc<Credit>,
    /// The receiver was told that there is none left, and has not granted more since.
    told_blocked: AtomicBool,
    pub(super) walk_budget: Arc<Credit>,
    compressor: Compressor,
    memory: Arc<MemoryBudget>,
    pub(super) manifest: Manifest,
    pub(super) key: delta::HashKey,
    pub(super) xattr_hasher: XattrHasher,
    pub(super) problems: Mutex<Problems>,
    /// How many of them the receiver has reported.
    pub(super) receiver_problems: AtomicU64,
    pub(super) read_options: ReadOptions,
    pub(super) jobs: Receiver<Job>,
    pub(super) delta_jobs: Receiver<DeltaJob>,
    pub(super) inline_jobs: Receiver<InlineJob>,
    job_queue: Mutex<Option<Sender<Job>>>,
    inline_queue: Mutex<Option<Sender<InlineJob>>>,
    pub(super) delta_queue: Mutex<Option<Sender<DeltaJob>>>,
    outbox: Mutex<Option<Outbox>>,
    /// Listing frames that wait for their plan, by the id of their first entry.
    pub(super) chunks: Mutex<HashMap<u64, Arc<Chunk>>>,
    /// Directories that the walk has not reached: true where the receiver has none of it.
    pub(super) directories: Mutex<HashMap<EntryId, bool>>,
    /// Files that the receiver may ask for by id: put off, in new directories, or changed.
    pub(super) later: Mutex<HashMap<EntryId, Arc<FileRef>>>,
    /// Files that are compared with a signature.
    pub(super) deltas: Mutex<HashMap<EntryId, Delta>>,
    /// Cost of the answers that were not taken in yet.
    pub(super) unread: AtomicU64,
    /// The end of the listing is on its way.
    pub(super) listed: AtomicBool,
    pub(super) commit: Mutex<Option<Commit>>,
    pub(super) commit_came: Condvar,
    inline: Mutex<Inline>,
    inline_done: Condvar,
    rounds: AtomicU32,
}

/// Listings that are completed by other threads than the walk's.
#[derive(Default)]
struct Inline {
    begun: u64,
    sent: u64,
}

/// Kinds of exchange that each add a round trip to the longest chain.
#[derive(Clone, Copy)]
pub(super) enum Round {
    Content = 1,
    Leaves = 2,
    Blocks = 4,
    Later = 8,
}

/// A file that is to be compared.
pub(super) struct Delta {
    pub(super) inbox: Sender<Answer>,
    /// Queued when the first signature arrives.
    pub(super) job: Option<DeltaJob>,
}

/// A file to compare with the receiver's.
pub(super) struct DeltaJob {
    pub(super) file: Arc<FileRef>,
    pub(super) basis_len: u64,
    pub(super) layout: Layout,
    pub(super) answers: Receiver<Answer>,
}

/// What the receiver says about a file under comparison, and what the frame costs.
pub(super) enum Answer {
    /// First segment, hashes, last frame.
    Signature(u32, Vec<Hash>, bool, u64),
    Leaves(u32, Vec<Hash>, u64),
    Blocks(Vec<WeakStrong>, bool, u64),
}

impl Shared {
    pub(super) fn new(
        agreed: Agreed,
        context: Context,
        outbox: Outbox,
        source: Source,
    ) -> Arc<Self> {
        let control = Control::default();
        let (job_queue, jobs) = unbounded();
        let (delta_queue, delta_jobs) = unbounded();
        let (inline_queue, inline_jobs) = unbounded();
        Arc::new(Self {
            send_credit: control.credit(agreed.welcome.window),
            told_blocked: AtomicBool::new(false),
            walk_budget: control.credit(WALK_BUDGET),
            control,
            compressor: Compressor::new(context.compress),
            memory: MemoryBudget::new(context.memory_budget),
            manifest: Manifest::new(&agreed.key, agreed.hello.options.no_owner),
            key: manifest::content_key(&agreed.key),
            xattr_hasher: XattrHasher::new(&agreed.key),
            agreed,
            context,
            source,
            problems: Mutex::default(),
            receiver_problems: AtomicU64::new(0),
            read_options: ReadOptions::default(),
            jobs,
            delta_jobs,
            inline_jobs,
            inline_queue: Mutex::new(Some(inline_queue)),
            job_queue: Mutex::new(Some(job_queue)),
            delta_queue: Mutex::new(Some(delta_queue)),
            outbox: Mutex::new(Some(outbox)),
            chunks: Mutex::default(),
            directories: Mutex::default(),
            later: Mutex::default(),
            deltas: Mutex::default(),
            unread: AtomicU64::new(0),
            listed: AtomicBool::new(false),
            commit: Mutex::default(),
            commit_came: Condvar::new(),
            inline: Mutex::default(),
            inline_done: Condvar::new(),
            rounds: AtomicU32::new(0),
        })
    }

    pub(super) fn outbox(&self) -> Result<Outbox, Stopped> {
        self.control.check()?;
        self.outbox.lock().clone().ok_or(Stopped)
    }

    /// Lets the pumps write out what is queued and close.
    pub(super) fn close(&self) {
        self.control.stop();
        self.outbox.lock().take();
        self.close_jobs();
        let _commit = self.commit.lock();
        self.commit_came.notify_all();
        self.inline_done.notify_all();
    }

    pub(super) fn close_jobs(&self) {
        self.job_queue.lock().take();
        self.inline_queue.lock().take();
        self.delta_queue.lock().take();
        self.deltas.lock().clear();
    }

    /// The digest of the whole source, where verification was asked for.
    pub(super) fn source_digest(&self) -> Option<[u8; 32]> {
        let options = &self.agreed.hello.options;
        if !options.verify || options.dry_run {
            return None;
        }
        self.context.monitor.phase(Phase::Verify);
        let digest = match &self.source {
            Source::Tree(root) => verify::tree(root, options, None, self.context.workers),
            Source::Device(device) => {
                digest::content_digest(device.size(), |at, buffer| device.read_at(at, buffer))
            }
        };
        digest.map_err(|error| self.volume_problem(&error)).ok()
    }

    /// Runs a worker; its end by anything but the end of the session ends the session.
    pub(super) fn guard(self: &Arc<Self>, work: fn(&Arc<Self>) -> Result<(), Stopped>) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(self)));
        if outcome.is_err() {
            self.control.fail(Error::Protocol("internal error in a sender thread"));
        }
    }

    pub(super) fn queue(&self, job: Job) -> Result<(), Stopped> {
        match &*self.job_queue.lock() {
            Some(queue) => queue.send(job).map_err(|_| Stopped),
            None => Err(Stopped),
        }
    }

    pub(super) fn queue_inline(&self, job: InlineJob) -> Result<(), Stopped> {
        match &*self.inline_queue.lock() {
            Some(queue) => queue.send(job).map_err(|_| Stopped),
            None => Err(Stopped),
        }
    }

    pub(super) fn round(&self, round: Round) {
        self.rounds.fetch_or(round as u32, Relaxed);
    }

    /// Hello and welcome, listing and commit, and one more for each kind of exchange between them.
    pub(super) fn round_trips(&self) -> u32 {
        2 + self.rounds.load(Relaxed).count_ones()
    }

    pub(super) fn broken<T>(&self, why: &'static str) -> Result<T, Stopped> {
        self.control.fail(Error::Protocol(why));
        Err(Stopped)
    }

    /// Names a problem with an entry of the source.
    pub(super) fn problem(&self, name: &str, what: &str, exit_code: u8) {
        self.context.progress.errors.fetch_add(1, Relaxed);
        self.context.monitor.error(name, what);
        self.problems.lock().add(name, what, exit_code);
    }

    /// Reduces metadata that were read in `dir` to what this session keeps of them, and answers what this end cannot know.
    /// They are those of the entry `name`, or of the root.
    pub(super) fn keep(
        &self,
        dir: &Dir,
        name: Option<&Name>,
        meta: &mut Metadata,
    ) -> Option<Unknown> {
        let unknown = unmapped::find(dir, name, meta);
        let of_owner = matches!(unknown, Some(Unknown::Owner | Unknown::Rights));
        if self.agreed.hello.options.no_owner {
            no_owner::drop_what_needs_it(meta);
            return unknown.filter(|_| !of_owner);
        }
        if of_owner {
            no_owner::drop_rights(meta);
        }
        if unknown == Some(Unknown::Owner) {
            unmapped::withhold(meta);
        }
        unknown
    }

    /// Reports an entry of the source that is left out by design. It has no effect on the exit code.
    pub(super) fn skipped(&self, name: &str, why: &str) {
        self.context.progress.skipped.fetch_add(1, Relaxed);
        self.context.monitor.skipped(name, why);
    }

    /// Reports an entry that is not at the receiver as it was listed, because somebody changed it meanwhile. Another run may find it
    /// at rest.
    pub(super) fn source_changed(&self, name: &str, what: &str) {
        self.problem(name, what, SOURCE_CHANGED);
    }

    /// Takes in what the receiver reports.
    pub(super) fn receiver_problem(&self, problem: &wire::Problem) {
        self.receiver_problems.fetch_add(1, Relaxed);
        self.problem(&problem.name, &problem.what, problem.exit_code);
    }

    /// Names a failed operation on an entry of the source.
    pub(super) fn volume_problem(&self, error: &volume::Error) {
        if error.is_changed() {
            return self.source_changed(&error.name, error.operation);
        }
        if error.is_vanished() {
            return self.problem(
                &error.name,
                "vanished at the source during the run",
                SOURCE_CHANGED,
            );
        }
        let what = match error.errno {
            Errno::ACCESS | Errno::PERM => {
                format!("cannot be read at the source: {}", volume::reason(error.errno))
            }
            _ => error.what(),
        };
        self.problem(&error.name, &what, 23);
    }

    /// Takes credit of the receiver, waiting until there is enough. The receiver is told that it is
    /// waited for: it may have room for more.
    pub(super) fn take_credit(&self, cost: u64) -> Result<(), Stopped> {
        if self.send_credit.try_acquire(cost) {
            return Ok(());
        }
        if !self.told_blocked.swap(true, Relaxed) {
            self.outbox()?.send(ToReceiver::Blocked.encode())?;
        }
        self.send_credit.acquire(cost)
    }

    /// The receiver grants more credit.
    pub(super) fn granted(&self, bytes: u64) {
        self.told_blocked.store(false, Relaxed);
        self.send_credit.grant(bytes);
    }

    /// Sends a listing or content, once the receiver has room for it.
    pub(super) fn send_charged(&self, lane: u64, frame: wire::OutFrame) -> Result<(), Stopped> {
        let len = frame.wire_len();
        self.compressor.watch(len, || self.take_credit(frame_cost(len)))?;
        let frame = self.compressor.apply(frame);
        self.compressor.watch(0, || self.outbox()?.send_on(lane, frame))
    }

    /// Counts an entry as equal at both ends, in the manifest and for watchers.
    pub(super) fn settle(&self, parent: EntryId, id: EntryId, item: &Item) {
        let (link, entry) = (item.link, &item.entry);
        if let Some(first) = link.filter(|&first| first != id) {
            // The inode is that of the first name, whose record says all else.
            self.manifest.add_link(parent, id, &entry.name, first);
            self.context.progress.entries.fetch_add(1, Relaxed);
            return;
        }
        self.settle_as(&FileRecord { parent, id, link, entry, content: None });
        if entry.meta.kind == FileKind::File {
            self.context.progress.bytes_done.fetch_add(entry.meta.size, Relaxed);
        }
    }

    /// Counts a file that cannot be sent: nothing more is done for it.
    pub(super) fn given_up(&self, file: &FileRef) {
        self.context.progress.entries.fetch_add(1, Relaxed);
        file.done.finish(&self.context.progress.bytes_done);
    }

    pub(super) fn settle_as(&self, file: &FileRecord<'_>) {
        self.manifest.add(&Record {
            parent: file.parent,
            id: file.id,
            name: Some(&file.entry.name),
            meta: &file.entry.meta,
            target: &file.entry.target,
            link: file.link,
            content: file.content,
        });
        self.context.progress.entries.fetch_add(1, Relaxed);
    }

    /// Keeps a listing frame until its plan comes.
    pub(super) fn remember_chunk(&self, chunk: &Arc<Chunk>) {
        self.chunks.lock().insert(chunk.first, Arc::clone(chunk));
    }

    /// Tells that the walk will come to a directory.
    pub(super) fn expect_directory(&self, id: EntryId, new: bool) {
        self.directories.lock().insert(id, new);
    }

    /// True where the receiver is known to have nothing of the directory the walk now enters.
    pub(super) fn enter_directory(&self, id: EntryId) -> bool {
        self.directories.lock().remove(&id).unwrap_or(false)
    }

    /// Reserves memory for what is kept of an entry. Over the budget the session ends.
    pub(super) fn reserve(&self, bytes: u64) -> MemoryReservation {
        self.memory.reserve(&self.control, bytes)
    }

    /// Keeps a file that the receiver may ask for by its id. Such files may be many and must not stop the walk, so they come
    /// out of the memory budget and not out of that of the walk.
    pub(super) fn remember_file(&self, mut file: FileRef) {
        file.held = Held::Memory(self.reserve(memory_budget::of_entry(file.entry())).into());
        self.later.lock().insert(file.id, Arc::new(file));
    }

    /// A listing that other threads will complete: its place in the order of the walk.
    pub(super) fn inline_begins(&self) -> u64 {
        let mut inline = self.inline.lock();
        inline.begun += 1;
        inline.begun - 1
    }

    /// Waits until all listings before `ticket` are on their way, runs `send`, and lets the next one
    /// follow: the frames of a directory must keep their order.
    pub(super) fn inline_sends(
        &self,
        ticket: u64,
        send: impl FnOnce() -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        self.wait_for_inline(|inline| inline.sent == ticket)?;
        send()?;
        self.inline.lock().sent += 1;
        self.inline_done.notify_all();
        Ok(())
    }

    /// Waits until every listing with content is on its way.
    pub(super) fn all_inline_sent(&self) -> Result<(), Stopped> {
        self.wait_for_inline(|inline| inline.sent == inline.begun)
    }

    fn wait_for_inline(&self, until: impl Fn(&Inline) -> bool) -> Result<(), Stopped> {
        let mut inline = self.inline.lock();
        while !until(&inline) {
            self.control.check()?;
            self.inline_done.wait_for(&mut inline, std::time::Duration::from_millis(100));
        }
        self.control.check()
    }

    /// True once the receiver's commit record is here: then it may close.
    pub(super) fn is_committed(&self) -> bool {
        self.commit.lock().is_some()
    }

    pub(super) fn wait_for_commit(&self) -> Result<Commit, Stopped> {
        let mut commit = self.commit.lock();
        loop {
            if let Some(commit) = *commit {
                return Ok(commit);
            }
            self.control.check()?;
            self.commit_came.wait(&mut commit);
        }
    }

    /// A file is no longer compared; what still comes for it is dropped. Comes before the end of the
    /// file is told: the receiver may answer that with asking again.
    pub(super) fn end_delta(&self, id: EntryId) {
        self.deltas.lock().remove(&id);
    }
}
