//! What the threads of the receiver share, and where each frame goes.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};
use volume::{
    Dir, create, filter::FilterRules, metadata::ApplyOptions, staging::Staging, stat::ReadOptions,
};
use wire::{Commit, EntryId, Goodbye, Metadata, Name, OutFrame, ToReceiver, ToSender, Want};

use super::{
    awaiting::Awaiting,
    crash_marker::CrashMarker,
    deletions::Deletions,
    dirs::DirState,
    file::FileState,
    merge::LinkGroup,
    room::{Forecast, Room},
    target::{Target, TargetKind},
    window::Window,
};
use crate::{
    Context, Error, Result,
    control::{Control, Credit, Outbox, Stopped},
    handshake::Agreed,
    manifest::{self, Manifest, Record},
    memory_budget::{self, MemoryBudget, MemoryReservation},
    sender::filters,
    summary::Problems,
    xattr_hash::XattrHasher,
};

pub(super) struct Shared {
    pub(super) agreed: Agreed,
    pub(super) context: Context,
    pub(super) target: Target,
    pub(super) control: Control,
    pub(super) io_timeout: u32,
    pub(super) crash_marker: CrashMarker,
    pub(super) manifest: Manifest,
    pub(super) key: delta::HashKey,
    pub(super) xattr_hasher: XattrHasher,
    pub(super) filter: FilterRules,
    pub(super) read_options: ReadOptions,
    pub(super) apply_options: ApplyOptions,
    pub(super) problems: Mutex<Problems>,
    /// Bytes of signatures that the sender lets us send.
    pub(super) signature_credit: Arc<Credit>,
    pub(super) signatures: Receiver<Arc<FileState>>,
    signature_queue: Mutex<Option<Sender<Arc<FileState>>>>,
    pub(super) lanes: Mutex<Option<Arc<[Sender<Work>]>>>,
    pub(super) inputs: Vec<Receiver<Work>>,
    outbox: Mutex<Option<Outbox>>,
    pub(super) next_lane: AtomicU64,
    /// Directories whose listing is not complete.
    pub(super) directories: Mutex<HashMap<EntryId, Known>>,
    /// New directories that lie in the staging directory.
    pub(super) unpublished: Mutex<HashMap<EntryId, Arc<DirState>>>,
    /// Files that content is expected for.
    pub(super) files: Mutex<HashMap<EntryId, Arc<FileState>>>,
    /// Entries whose extended attributes were asked for.
    pub(super) awaiting: Mutex<HashMap<EntryId, Awaiting>>,
    /// Names that share an inode, by the first of them.
    pub(super) links: Mutex<HashMap<EntryId, LinkGroup>>,
    pub(super) claimed: Mutex<Claimed>,
    pub(super) deletions: Deletions,
    pub(super) room: Room,
    pub(super) forecast: Forecast,
    /// Large files that may turn out to have been renamed.
    pub(super) postponed: Mutex<Vec<Arc<FileState>>>,
    memory: Arc<MemoryBudget>,
    /// The sender could not read something, and names it itself.
    pub(super) sender_failed: AtomicBool,
    pub(super) reflinks: AtomicBool,
    /// Files that are patched in place and not whole.
    pub(super) half_patched: Mutex<HashSet<EntryId>>,
    pub(super) tally: Mutex<Tally>,
    pub(super) changed: Condvar,
    pub(super) window: Window,
    committed: AtomicBool,
}

/// What the session writes to.
pub(super) enum TargetKindRef<'a> {
    Tree(Option<&'a Dir>),
    Device(&'a Arc<volume::target_device::TargetDevice>),
    ReadOnlyDevice(&'a Arc<volume::device::BlockSource>),
}

/// What is known of a directory by its id.
#[derive(Clone)]
pub(super) enum Known {
    Ready(Arc<DirState>),
    /// It could not be made or opened, or lies behind a mount point: what the sender says of it is
    /// passed over.
    Lost(#[expect(dead_code, reason = "held, not read")] Arc<MemoryReservation>),
}

/// Inodes of the volume that are taken by a group of names.
pub(super) struct Claimed {
    by_inode: HashMap<(u64, u64), EntryId>,
    memory: MemoryReservation,
}

/// What one inode of [`Claimed`] takes, in bytes.
const CLAIM: u64 = 48;

/// What a worker is given.
pub(super) enum Work {
    /// A message and its cost in credit.
    Message(ToReceiver, u64),
    /// A directory is known now; frames of it that came before can be taken in.
    Directory(EntryId),
    /// As above, of a file.
    File(EntryId),
    /// Credit for the sender.
    Grant(u64),
}

/// What is still on its way.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) frames: u64,
    /// Of these, frames that wait for something they refer to.
    parked: u64,
    listings: u64,
    wants: u64,
    /// What the root is to be.
    pub(super) root: Option<Box<Metadata>>,
    pub(super) end: Option<Box<Metadata>>,
    pub(super) goodbye: Option<Goodbye>,
    /// The first stream is gone: no goodbye will come.
    silent: bool,
}

impl Shared {
    pub(super) fn new(
        agreed: Agreed,
        context: Context,
        outbox: Outbox,
        target: Target,
    ) -> Result<Arc<Self>> {
        let options = &agreed.hello.options;
        let (senders, inputs): (Vec<_>, Vec<_>) =
            (0..context.workers.clamp(2, 16)).map(|_| unbounded()).unzip();
        let (signature_queue, signatures) = unbounded();
        let control = Control::default();
        let crash_marker = match (&target.kind, &target.staging) {
            (TargetKind::Tree(Some(root)), Some(staging)) => {
                CrashMarker::find(root, staging, &options.filters)?
            }
            _ => CrashMarker::default(),
        };
        let room = match &target.kind {
            TargetKind::Tree(root) if options.delete && !options.dry_run => {
                Room::new(root.as_ref())
            }
            _ => Room::new(None),
        };
        let forecast = match &target.kind {
            TargetKind::Tree(root) if !options.delete => Forecast::new(root.as_ref()),
            _ => Forecast::default(),
        };
        let filter = filters(options)?;
        // A peer may be less patient than this end, never more.
        let io_timeout = match agreed.hello.io_timeout {
            0 => context.io_timeout,
            theirs => theirs.min(context.io_timeout),
        };
        let memory = MemoryBudget::new(context.memory_budget);
        let claimed = Claimed { by_inode: HashMap::new(), memory: memory.reserve(&control, 0) };
        Ok(Arc::new(Self {
            signature_credit: control.credit(agreed.hello.window),
            control,
            crash_marker,
            io_timeout,
            manifest: Manifest::new(&agreed.key, options.no_owner),
            key: manifest::content_key(&agreed.key),
            xattr_hasher: XattrHasher::new(&agreed.key),
            filter,
            read_options: ReadOptions::default(),
            apply_options: ApplyOptions { selinux: false, any_owner: options.no_owner },
            problems: Mutex::default(),
            signatures,
            signature_queue: Mutex::new(Some(signature_queue)),
            lanes: Mutex::new(Some(senders.into())),
            inputs,
            outbox: Mutex::new(Some(outbox)),
            next_lane: AtomicU64::new(0),
            directories: Mutex::default(),
            unpublished: Mutex::default(),
            files: Mutex::default(),
            awaiting: Mutex::default(),
            links: Mutex::default(),
            claimed: Mutex::new(claimed),
            deletions: Deletions::new(options.max_delete, agreed.own_limit),
            room,
            forecast,
            postponed: Mutex::default(),
            memory,
            sender_failed: AtomicBool::new(false),
            reflinks: AtomicBool::new(true),
            half_patched: Mutex::default(),
            tally: Mutex::default(),
            changed: Condvar::new(),
            window: Window::new(agreed.welcome.window),
            committed: AtomicBool::new(false),
            agreed,
            context,
            target,
        }))
    }

    pub(super) fn options(&self) -> &wire::Options {
        &self.agreed.hello.options
    }

    pub(super) fn dry_run(&self) -> bool {
        self.options().dry_run
    }

    /// Reserves memory for what is kept of an entry. Over the budget the session ends.
    pub(super) fn reserve(&self, bytes: u64) -> MemoryReservation {
        self.memory.reserve(&self.control, bytes)
    }

    /// Claims an inode of the volume for the group of names that `leader` begins; false where another group has it.
    pub(super) fn claim(&self, inode: (u64, u64), leader: EntryId) -> bool {
        let mut claimed = self.claimed.lock();
        let Claimed { by_inode, memory } = &mut *claimed;
        *by_inode.entry(inode).or_insert_with(|| {
            memory.grow(&self.control, CLAIM);
            leader
        }) == leader
    }

    /// A directory that is passed over.
    pub(super) fn lost_directory(&self) -> Known {
        Known::Lost(Arc::new(self.reserve(memory_budget::ENTRY)))
    }

    /// True where size and time are not enough to take a file for unchanged.
    pub(super) fn by_content(&self) -> bool {
        self.options().checksum || self.crash_marker.untrusted_reason().is_some()
    }

    /// Whether the sender may be told what files of the volume hold. Where it may not, nothing of a file is read: it is
    /// unchanged by its metadata, or received whole.
    pub(super) fn may_compare(&self) -> bool {
        self.agreed.policy.delta
    }

    /// To be called before content is written, which a dry run never does.
    pub(super) fn before_content(&self) -> volume::Result<()> {
        match &self.target.kind {
            _ if self.dry_run() => {
                Err(volume::Error::new("write in a dry run", ".", rustix::io::Errno::PERM))
            }
            TargetKind::Tree(Some(root)) => self.crash_marker.begin(root, self.staging()?),
            _ => Ok(()),
        }
    }

    /// Where unfinished entries lie. A dry run has no such place.
    pub(super) fn staging(&self) -> volume::Result<&Staging> {
        self.target
            .staging
            .as_ref()
            .filter(|_| !self.dry_run())
            .ok_or_else(|| volume::Error::new("write in a dry run", ".", rustix::io::Errno::PERM))
    }

    pub(super) fn target_kind(&self) -> TargetKindRef<'_> {
        match &self.target.kind {
            TargetKind::Tree(root) => TargetKindRef::Tree(root.as_ref()),
            TargetKind::Device(device) => TargetKindRef::Device(device),
            TargetKind::ReadOnlyDevice(device) => TargetKindRef::ReadOnlyDevice(device),
        }
    }

    /// Runs a thread; a panic in it ends the session and nothing else.
    pub(super) fn guard(&self, work: impl FnOnce() -> Result<(), Stopped>) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        if outcome.is_err() {
            self.control.fail(Error::Protocol("internal error in a receiver thread"));
        }
        // Whoever waits for the tally must see the end too.
        let _tally = self.tally.lock();
        self.changed.notify_all();
    }

    pub(super) fn lanes(&self) -> usize {
        self.inputs.len()
    }

    pub(super) fn close_lanes(&self) {
        self.lanes.lock().take();
        self.signature_queue.lock().take();
    }

    pub(super) fn close(&self) {
        self.control.stop();
        self.outbox.lock().take();
        self.close_lanes();
        let _tally = self.tally.lock();
        self.changed.notify_all();
    }

    /// True once the commit record is on its way: then the sender may close.
    pub(super) fn is_committed(&self) -> bool {
        self.committed.load(Relaxed)
    }

    /// Sends the commit record.
    pub(super) fn commit(&self, commit: Commit) -> Result<(), Stopped> {
        self.committed.store(true, Relaxed);
        self.send(&ToSender::Commit(commit))
    }

    /// The stream that would bring the goodbye is gone.
    pub(super) fn no_goodbye(&self) {
        self.tally.lock().silent = true;
        self.changed.notify_all();
    }

    /// Sends a message. Must not be called from a task.
    pub(super) fn send(&self, message: &ToSender) -> Result<(), Stopped> {
        self.send_frame(message.encode())
    }

    pub(super) fn send_frame(&self, frame: OutFrame) -> Result<(), Stopped> {
        self.control.check()?;
        let outbox = self.outbox.lock().clone().ok_or(Stopped)?;
        outbox.send(frame)
    }

    pub(super) fn broken<T>(&self, why: &'static str) -> Result<T, Stopped> {
        self.control.fail(Error::Protocol(why));
        Err(Stopped)
    }

    /// Gives credit back for a frame that was taken in.
    pub(super) fn return_credit(&self, cost: u64) -> Result<(), Stopped> {
        match self.window.give_back(cost) {
            0 => Ok(()),
            granted => self.send(&ToSender::Credit(granted)),
        }
    }

    /// The sender waits for credit: has a worker grant more where the window may grow.
    pub(super) fn more_credit(&self) {
        let more = self.window.blocked();
        if more > 0
            && let Some(lanes) = &*self.lanes.lock()
        {
            self.tally.lock().frames += 1;
            let lane = self.next_lane.fetch_add(1, Relaxed) % lanes.len() as u64;
            let _ = lanes[lane as usize].send(Work::Grant(more));
        }
    }

    /// Wakes the workers that may hold frames of something that was not known.
    fn wake(&self, id: EntryId, lane: Option<u64>, work: fn(EntryId) -> Work) {
        let Some(lanes) = self.lanes.lock().clone() else { return };
        let chosen = match lane {
            Some(lane) => {
                let index = (lane % lanes.len() as u64) as usize;
                &lanes[index..=index]
            }
            None => &lanes[..],
        };
        // A wake-up counts as a frame on its way: what it wakes is not lost.
        self.tally.lock().frames += chosen.len() as u64;
        for lane in chosen {
            let _ = lane.send(work(id));
        }
    }

    /// Makes a directory known.
    pub(super) fn register_directory(&self, id: EntryId, known: Known) {
        self.tally.lock().listings += 1;
        self.directories.lock().insert(id, known);
        self.wake(id, Some(id.0), Work::Directory);
    }

    /// The last frame of a listing came; where it is not complete, the sender names why.
    pub(super) fn listing_ended(&self, directory: EntryId, complete: bool) {
        self.manifest.add_listing(directory, complete);
        if !complete {
            self.sender_failed.store(true, Relaxed);
        }
    }

    /// The listing of a directory is complete.
    pub(super) fn forget_directory(&self, id: EntryId) {
        self.directories.lock().remove(&id);
        self.tally.lock().listings -= 1;
        self.changed.notify_all();
    }

    /// Makes a file known that content will come for.
    pub(super) fn register_file(&self, file: &Arc<FileState>, unasked: bool) {
        self.tally.lock().wants += 1;
        self.files.lock().insert(file.id, Arc::clone(file));
        if unasked {
            self.wake(file.id, None, Work::File);
        }
    }

    /// Nothing more comes for a file.
    pub(super) fn forget_file(&self, id: EntryId) {
        if self.files.lock().remove(&id).is_some() {
            self.tally.lock().wants -= 1;
            self.changed.notify_all();
        }
    }

    /// Keeps an entry until its extended attributes come, which the plan asks for.
    pub(super) fn await_attributes(&self, id: EntryId, awaiting: Awaiting) {
        self.tally.lock().wants += 1;
        self.awaiting.lock().insert(id, awaiting);
    }

    /// The attributes of an entry came and are taken in.
    pub(super) fn attributes_settled(&self) {
        self.tally.lock().wants -= 1;
        self.changed.notify_all();
    }

    /// Asks for files by their ids.
    pub(super) fn ask(&self, wants: Vec<(EntryId, Want)>) -> Result<(), Stopped> {
        if wants.is_empty() { Ok(()) } else { self.send(&ToSender::Wanted(wants)) }
    }

    /// Has the signature of a file's basis computed and sent. In the order in which files are queued.
    pub(super) fn queue_signature(&self, file: &Arc<FileState>) {
        if let Some(queue) = &*self.signature_queue.lock() {
            let _ = queue.send(Arc::clone(file));
        }
    }

    pub(super) fn parked(&self) {
        self.tally.lock().parked += 1;
        self.changed.notify_all();
    }

    pub(super) fn unparked(&self) {
        self.tally.lock().parked -= 1;
    }

    pub(super) fn frame_done(&self) {
        let mut tally = self.tally.lock();
        tally.frames -= 1;
        if tally.frames == 0 || tally.frames == tally.parked {
            self.changed.notify_all();
        }
    }

    /// Waits for what the root of the volume is to be.
    pub(super) fn wait_root(&self) -> Result<Box<Metadata>, Stopped> {
        let mut tally = self.tally.lock();
        loop {
            self.control.check()?;
            match (&tally.root, &tally.end) {
                (Some(root), _) => return Ok(root.clone()),
                (None, Some(_)) => {
                    drop(tally);
                    return self.broken("the listing ends without a root");
                }
                (None, None) => self.changed.wait(&mut tally),
            }
        }
    }

    /// Waits until everything listed is merged; with `content` also until every file has come.
    pub(super) fn wait_settled(&self, content: bool) -> Result<Box<Metadata>, Stopped> {
        let mut tally = self.tally.lock();
        loop {
            self.control.check()?;
            let idle = tally.frames == tally.parked;
            if let (Some(end), true) = (&tally.end, idle) {
                if tally.listings == 0 && (!content || tally.wants == 0) && tally.parked == 0 {
                    return Ok(end.clone());
                }
                // All listings are in, so whatever is not known now will never be.
                if tally.listings == 0 && tally.parked > 0 {
                    drop(tally);
                    return self.broken("content that was not requested");
                }
                if tally.wants == 0 && (tally.listings > 0 || tally.parked > 0) {
                    drop(tally);
                    return self.broken("the listing ends before it is complete");
                }
            }
            self.changed.wait(&mut tally);
        }
    }

    pub(super) fn wait_goodbye(&self) -> Option<Goodbye> {
        let mut tally = self.tally.lock();
        loop {
            if let Some(goodbye) = tally.goodbye {
                return Some(goodbye);
            }
            if tally.silent || self.control.check().is_err() {
                return None;
            }
            self.changed.wait(&mut tally);
        }
    }

    /// Counts content that is here already.
    pub(super) fn count_matched(&self, bytes: u64) {
        self.context.progress.bytes_matched.fetch_add(bytes, Relaxed);
    }

    /// Folds an entry into the manifest, as it is here.
    pub(super) fn record(&self, record: &Record<'_>) {
        self.manifest.add(record);
        // The root is no entry of anything.
        if record.id != EntryId::ROOT {
            self.context.progress.entries.fetch_add(1, Relaxed);
        }
    }

    /// Folds in that an entry is a hard link to the inode of `first`, as it is here.
    pub(super) fn record_link(&self, dir: EntryId, id: EntryId, name: &Name, first: EntryId) {
        self.manifest.add_link(dir, id, name, first);
        self.context.progress.entries.fetch_add(1, Relaxed);
    }

    pub(super) fn count_written(&self) {
        self.context.progress.files_written.fetch_add(1, Relaxed);
    }

    /// Files that never came to their end leave what they have for the next run, unless the volume
    /// is full.
    pub(super) fn abandon_files(&self) {
        let keep = !self.control.is_volume_failure();
        let files: Vec<_> = self.files.lock().drain().map(|(_, file)| file).collect();
        for file in files {
            file.abandon(self, keep);
        }
    }

    /// Directories that never came to their end wait for the next run in the staging directory, unless the volume can
    /// take no more: then they get their own, with what is finished in them, so that nothing hidden takes up the room.
    pub(super) fn abandon_directories(&self) {
        let unpublished = std::mem::take(&mut *self.unpublished.lock());
        if !self.control.is_volume_failure() {
            return;
        }
        let mut dirs: Vec<_> =
            unpublished.values().filter_map(|state| state.dir.as_ref()).collect();
        dirs.retain(|dir| create::publish_directory(dir).is_err());
        // Btrfs refuses a rename over its quota until it has written down what was removed. Where not even that helps, the
        // directory stays as it is.
        if let (false, TargetKindRef::Tree(Some(root))) = (dirs.is_empty(), self.target_kind()) {
            let _ = volume::flush::file_system(root);
            dirs.retain(|dir| create::publish_directory(dir).is_err());
        }
    }
}
