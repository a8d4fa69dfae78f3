//! The receiver: merges each listing with the volume's own, asks for what it lacks, applies what
//! comes, and proves in a commit record what it then holds.
//!
//! * [`target`]: the volume, opened, locked and found fit.
//! * [`merge`]: one directory's listing against what is there; [`place`], [`place_file`]: what to make, fix
//!   and ask for.
//! * [`awaiting`]: entries whose extended attributes were asked for.
//! * [`file`]: the content of one file while it comes: [`whole`], or as a [`patch`] of a [`basis`], which may
//!   [`rebuild`] it; [`known`]: the hashes of what stands.
//! * [`answer`]: what the sender asks of a basis.
//! * [`signature`]: one thread that hashes the bases.
//! * [`dirs`]: directories, finished when everything in them is.
//! * [`finish`]: the phases at the end, in order: [`renames`], [`links`], [`deletions`], the flush, the commit.
//! * [`room`]: deletions that come earlier where the volume has no room for new content beside them.
//! * [`crash_marker`]: how a power cut or a failed device in the middle of a session is noticed by the next.
//! * [`work`]: the workers; [`state`]: what they share; [`dispatch`]: where each frame of the sender goes.

mod answer;
mod awaiting;
mod basis;
mod crash_marker;
mod deletions;
mod dirs;
mod dispatch;
mod file;
mod finish;
mod kept;
mod known;
mod links;
mod merge;
mod patch;
mod place;
mod place_file;
mod rebuild;
mod renames;
mod reports;
mod room;
mod signature;
mod state;
mod target;
mod whole;
mod window;
mod work;

use std::{fmt::Display, sync::Arc, thread};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};
use wire::{ManifestDigest, ToSender};

use crate::{
    Context, Error, Phase, Result, Summary,
    control::{Outbox, Stopped, start_thread, wind_up},
    handshake::Agreed,
    pump::{self, PumpConfig},
};
use state::{Shared, TargetKindRef};
pub use target::Target;

/// What a receiver knows at the end of a session.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// The figures; `exit_code` is the sender's judgement where it gave one.
    pub summary: Summary,
    /// The sender said goodbye: it has taken in the commit record.
    pub acknowledged: bool,
}

/// Frames queued for each stream.
const QUEUE: usize = 64;

/// Receives into `target` over the streams, the first of which made the handshake; further ones
/// come through `joining`. Ends with the commit record and the sender's judgement of it.
///
/// # Errors
/// Whatever ends the session before the commit. The volume is then in a state that the next session
/// resumes from.
pub async fn receive<S>(
    first: S,
    mut joining: mpsc::Receiver<S>,
    agreed: Agreed,
    target: Target,
    context: Context,
) -> Result<Received>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    context.monitor.phase(Phase::Transfer);
    let (queue, outgoing) = mpsc::channel(QUEUE);
    let weak_queue = queue.downgrade();
    let outbox = Outbox::new(vec![queue], Arc::clone(&context.progress));
    let shared = match Shared::new(agreed, context, outbox, target) {
        Ok(shared) => shared,
        Err(error) => {
            if let Some((code, why)) = error.abort_text() {
                crate::handshake::part(first, ToSender::Abort(code, why.into()).encode()).await;
            }
            return Err(error);
        }
    };
    let mut pumps = tokio::task::JoinSet::new();
    pumps.spawn(run_pump(first, outgoing, Arc::clone(&shared), true));
    let (done, finished) = oneshot::channel();
    let engine = Arc::clone(&shared);
    thread::Builder::new()
        .name("receiver".into())
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
    let mut finished = std::pin::pin!(finished);
    // Streams that join only carry what the sender sends: their queues stay empty until the end.
    let mut silent = Vec::new();
    let further = shared.agreed.streams().saturating_sub(1) as usize;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut finished => break Some(outcome.unwrap_or(Err(Stopped))),
            () = shared.control.stopped() => break None,
            () = cancel.cancelled() => shared.control.fail(Error::Cancelled),
            // A sender that was granted so many streams has no use for more, and each costs buffers.
            Some(stream) = joining.recv(), if silent.len() < further => {
                let (queue, outgoing) = mpsc::channel(1);
                silent.push(queue);
                pumps.spawn(run_pump(stream, outgoing, Arc::clone(&shared), false));
            }
        }
    };
    let last_words = match (shared.control.abort_text(), weak_queue.upgrade()) {
        (Some((code, why)), Some(queue)) if !matches!(outcome, Some(Ok(_))) => {
            Some((ToSender::Abort(code, why.into()).encode(), queue))
        }
        _ => None,
    };
    let running = outcome.is_none();
    let engine = async {
        if running {
            let _ = finished.await;
        }
    };
    let close = || {
        shared.close();
        drop(silent);
    };
    wind_up(last_words, close, pumps, engine).await;
    match outcome.unwrap_or(Err(Stopped)) {
        Ok(received) => Ok(received),
        Err(Stopped) => Err(shared.control.take_reason().unwrap_or(Error::Eof)),
    }
}

async fn run_pump<S>(
    stream: S,
    queue: mpsc::Receiver<wire::OutFrame>,
    shared: Arc<Shared>,
    first: bool,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let progress = Arc::clone(&shared.context.progress);
    let config = PumpConfig {
        io_timeout: shared.io_timeout,
        pace: None,
        sent: &progress.wire_sent,
        received: &progress.wire_received,
        ping: ToSender::Ping.encode(),
        fail: &|error| match error {
            Error::Timeout(_) if shared.is_committed() => shared.no_goodbye(),
            error => shared.control.fail(error),
        },
        leaves_first: false,
        on_end: &|| {
            let committed = shared.is_committed();
            if committed && first {
                shared.no_goodbye();
            }
            committed
        },
    };
    let ended = pump::run(stream, queue, config, |frame| shared.on_frame(frame)).await;
    match ended {
        Err(error) if !shared.is_committed() => shared.control.fail(error),
        // Once everything is applied and flushed, all that can still be lost is the goodbye.
        _ if first => shared.no_goodbye(),
        _ => {}
    }
}

/// The threads of the receiver, from the first listing to the sender's goodbye.
fn run(shared: &Arc<Shared>) -> Result<Received, Stopped> {
    let outcome = thread::scope(|scope| {
        let control = &shared.control;
        let start_all = || {
            for lane in 0..shared.lanes() {
                start_thread(control, scope, move || shared.guard(|| work::work(shared, lane)))?;
            }
            start_thread(control, scope, || shared.guard(|| signature::work(shared)))
        };
        let outcome = start_all().and_then(|()| finish::drive(shared));
        if outcome.is_err() {
            shared.control.stop();
        }
        shared.close_lanes();
        outcome
    });
    shared.abandon_files();
    shared.abandon_directories();
    if let (Err(_), TargetKindRef::Tree(Some(root)), Ok(staging)) =
        (&outcome, shared.target_kind(), shared.staging())
    {
        // Not everything was looked at.
        let half_patched = shared.crash_marker.was_left() || !shared.half_patched.lock().is_empty();
        shared.crash_marker.leave(root, staging, half_patched);
    }
    outcome
}

impl Shared {
    fn received(
        &self,
        manifest: ManifestDigest,
        tree: Option<ManifestDigest>,
        exit_code: Option<u8>,
    ) -> Received {
        let snapshot = self.context.progress.snapshot();
        let mut problems = self.problems.lock();
        let summary = Summary {
            entries: snapshot.entries_total,
            files_written: snapshot.files_written,
            files_deleted: snapshot.files_deleted,
            skipped: snapshot.skipped,
            all_listed: self.manifest.all_listed(),
            bytes_total: snapshot.bytes_total,
            bytes_literal: snapshot.bytes_literal,
            bytes_matched: snapshot.bytes_matched,
            wire_sent: snapshot.wire_sent,
            wire_received: snapshot.wire_received,
            round_trips: 0,
            digest: manifest,
            tree_digest: tree,
            problems: std::mem::take(&mut problems.named),
            problem_count: problems.count,
            dry_run: self.dry_run(),
            exit_code: exit_code.unwrap_or(problems.worst),
            losses: self.agreed.welcome.losses.clone(),
        };
        Received { summary, acknowledged: exit_code.is_some() }
    }

    /// Counts and keeps a problem, and tells the sender of it.
    fn problem(
        &self,
        name: &(impl Display + ?Sized),
        what: &str,
        exit_code: u8,
    ) -> Result<(), Stopped> {
        let name = name.to_string();
        self.context.progress.errors.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.context.monitor.error(&name, what);
        self.problems.lock().add(&name, what, exit_code);
        let problem = wire::Problem { name: name.into(), what: what.into(), exit_code };
        self.send(&ToSender::Problem(problem))
    }
}
