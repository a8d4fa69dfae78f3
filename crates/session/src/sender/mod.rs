//! The sender: walks the source, sends listings, and content as it is asked for.
//!
//! * [`walk`]: one thread that lists and stats; [`entry_reader`]: what takes part; [`links`]: names of one file.
//! * [`inline`]: threads that complete listings of new directories with the content of small files.
//! * [`files`]: threads that send the files that were asked for: [`small`] ones in batches, large ones
//!   in ranges.
//! * [`delta`]: threads that compare a file with the signature of the receiver's, and [`search`] it.
//! * [`entry`]: what is known of an entry; [`state`]: what the threads share; [`dispatch`]: where each
//!   frame of the receiver goes.

mod delta;
mod dispatch;
mod entry;
mod entry_reader;
mod files;
mod inline;
mod links;
mod moved;
mod search;
mod second_look;
mod small;
pub(crate) mod state;
pub(crate) mod walk;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};
use volume::{Dir, device::BlockSource};
use wire::{Commit, Goodbye, ToReceiver};

use crate::{
    Context, Error, Phase, Result, Summary,
    control::{Outbox, Stopped, start_thread, wind_up},
    handshake::Agreed,
    pace::Pace,
    pump::{self, PumpConfig},
    summary::SOURCE_CHANGED,
};
pub(crate) use small::SMALL;
use state::Shared;
pub(crate) use walk::{device_entry, filters};

const DIGESTS_DIFFER: &str = "the digests of source and destination differ: run the same command again, it compares the content of all files";

/// What is sent.
#[derive(Clone)]
pub enum Source {
    /// A directory tree.
    Tree(Dir),
    /// A block device.
    Device(Arc<BlockSource>),
}

/// Frames queued for each stream.
const QUEUE: usize = 16;

/// Sends `source` over `streams`, the first of which made the handshake, to the commit record.
///
/// # Errors
/// Whatever ends the session before the commit. Problems with single entries are no errors: they are
/// in the summary, with the exit code that they give.
pub async fn send<S>(
    streams: Vec<S>,
    agreed: Agreed,
    source: Source,
    context: Context,
) -> Result<Summary>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    context.monitor.phase(Phase::Transfer);
    let (queues, receivers): (Vec<_>, Vec<_>) =
        streams.iter().map(|_| mpsc::channel(QUEUE)).unzip();
    let weak_queue = queues.first().map(mpsc::Sender::downgrade);
    let outbox = Outbox::new(queues, Arc::clone(&context.progress));
    let shared = Shared::new(agreed, context, outbox, source);
    if let Source::Device(device) = &shared.source {
        walk::expect_device(&shared, device);
    }
    let mut pumps = tokio::task::JoinSet::new();
    let pace = shared.context.bandwidth_limit.map(Pace::new);
    for (stream, queue) in streams.into_iter().zip(receivers) {
        let shared = Arc::clone(&shared);
        let turn = pace.as_ref().map(Pace::join);
        pumps.spawn(async move {
            let progress = Arc::clone(&shared.context.progress);
            let config = PumpConfig {
                io_timeout: shared.agreed.hello.io_timeout,
                pace: turn,
                sent: &progress.wire_sent,
                received: &progress.wire_received,
                ping: ToReceiver::Ping.encode(),
                fail: &|error| shared.control.fail(error),
                leaves_first: shared.context.relayed,
                on_end: &|| shared.is_committed(),
            };
            let ended = pump::run(stream, queue, config, |frame| shared.on_frame(frame)).await;
            // With the commit record here, all is said that the outcome depends on.
            if let (Err(error), false) = (ended, shared.is_committed()) {
                shared.control.fail(error);
            }
        });
    }
    let (done, finished) = oneshot::channel();
    let engine = Arc::clone(&shared);
    thread::Builder::new()
        .name("sender".into())
        .spawn(move || {
            let outcome = run(&engine);
            if outcome.is_err() {
                engine.control.stop();
            }
            drop(engine);
            let _ = done.send(outcome);
        })
        .map_err(Error::Thread)?;
    let cancel = shared.context.cancel.clone();
    let watched = Arc::clone(&shared);
    let watcher = tokio::spawn(async move {
        cancel.cancelled().await;
        watched.control.fail(Error::Cancelled);
    });
    let stopped = Arc::clone(&shared);
    let mut finished = std::pin::pin!(finished);
    let outcome = tokio::select! {
        biased;
        outcome = &mut finished => Some(outcome.unwrap_or(Err(Stopped))),
        () = stopped.control.stopped() => None,
    };
    watcher.abort();
    let last_words = match (shared.control.abort_text(), weak_queue.and_then(|q| q.upgrade())) {
        (Some((code, why)), Some(queue)) if !matches!(outcome, Some(Ok(_))) => {
            Some((ToReceiver::Abort(code, why.into()).encode(), queue))
        }
        _ => None,
    };
    let running = outcome.is_none();
    let engine = async {
        if running {
            let _ = finished.await;
        }
    };
    wind_up(last_words, || shared.close(), pumps, engine).await;
    match outcome.unwrap_or(Err(Stopped)) {
        Ok(summary) => Ok(summary),
        Err(Stopped) => Err(shared.control.take_reason().unwrap_or(Error::Eof)),
    }
}

/// The threads of the sender, from the first listing to the commit record.
fn run(shared: &Arc<Shared>) -> Result<Summary, Stopped> {
    let (commit, tree) = thread::scope(|scope| {
        let start = |work| start_thread(&shared.control, scope, move || shared.guard(work));
        let start_all = || {
            for _ in 0..shared.context.workers.max(2) {
                start(files::work)?;
                start(inline::work)?;
            }
            (0..shared.context.workers.div_ceil(2)).try_for_each(|_| start(delta::work))
        };
        let outcome = start_all().and_then(|()| drive(shared));
        // The workers wait on these queues; closing them lets the scope end.
        shared.close_jobs();
        outcome
    })?;
    // Only now that the workers are done is the own manifest complete.
    let (summary, differs) = shared.judge(&commit, tree);
    let goodbye = Goodbye { exit_code: summary.exit_code, differs };
    shared.outbox()?.send(ToReceiver::Goodbye(goodbye).encode())?;
    Ok(summary)
}

/// Lists everything and waits for the commit record; the own tree digest where one was asked for.
fn drive(shared: &Arc<Shared>) -> Result<(Commit, Option<[u8; 32]>), Stopped> {
    match &shared.source {
        Source::Tree(root) => walk::walk(shared, root)?,
        Source::Device(device) => walk::announce_device(shared, device)?,
    }
    shared.context.progress.listing_complete.store(true, Relaxed);
    let tree = shared.source_digest();
    Ok((shared.wait_for_commit()?, tree))
}

impl Shared {
    /// The exit code and the figures that follow from the receiver's commit record, and whether what both ends hold
    /// differs for no reason that was reported.
    fn judge(&self, commit: &Commit, tree: Option<[u8; 32]>) -> (Summary, bool) {
        let (own, entries) = self.manifest.digest();
        let mut problems = self.problems.lock();
        let dry_run = self.agreed.hello.options.dry_run;
        let reported = self.receiver_problems.load(Relaxed);
        let named = problems.count;
        let (clean, changed) = (problems.count == 0, problems.worst == SOURCE_CHANGED);
        // An entry that changed at the source is in neither manifest: they must be equal all the same.
        if (clean || changed) && !dry_run {
            // Only the sender can see that its source changes; what the receiver reports can only follow from that.
            if commit.problems != reported || (changed && problems.count == reported) {
                problems.add(".", "the peer reports errors without listing them", 23);
            } else if commit.manifest != own || commit.entries != entries {
                problems.add(
                    ".",
                    "the manifests of source and destination differ: run again with --checksum",
                    23,
                );
            }
        }
        let verify = self.agreed.hello.options.verify && !dry_run;
        // The destination's digest leaves out what only the destination has, so both must be equal all the same.
        let only_kept = problems.are_only_kept();
        if (clean || only_kept) && verify && (tree.is_none() || commit.tree != tree) {
            if only_kept {
                // The last line of the run has room for the first problem only.
                self.context.monitor.error(".", DIGESTS_DIFFER);
            }
            problems.add(".", DIGESTS_DIFFER, 23);
        }
        let differs = problems.count > named;
        // Only the receiver knows what it wrote, and what it had of files that are whole now; until its commit record these
        // stand at zero here.
        let progress = &self.context.progress;
        progress.files_written.store(commit.files_written, Relaxed);
        progress.files_deleted.store(commit.files_deleted, Relaxed);
        progress.bytes_matched.store(commit.bytes_matched, Relaxed);
        let snapshot = progress.snapshot();
        let summary = Summary {
            entries: snapshot.entries_total,
            files_written: commit.files_written,
            files_deleted: commit.files_deleted,
            skipped: snapshot.skipped,
            all_listed: self.manifest.all_listed(),
            bytes_total: snapshot.bytes_total,
            bytes_literal: snapshot.bytes_literal,
            bytes_matched: snapshot.bytes_matched,
            wire_sent: snapshot.wire_sent,
            wire_received: snapshot.wire_received,
            round_trips: self.round_trips(),
            digest: own,
            tree_digest: tree,
            problems: std::mem::take(&mut problems.named),
            problem_count: problems.count,
            dry_run,
            exit_code: problems.worst,
            losses: self.agreed.welcome.losses.clone(),
        };
        (summary, differs)
    }
}
