//! How the threads and tasks of one end stop together, and how they wait for credit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Scope},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, mpsc};
use wire::OutFrame;

use crate::{Error, Progress};

/// A request from outside to end a session early. Clones share it.
#[derive(Clone, Default)]
pub struct Cancel(Arc<(AtomicBool, Notify)>);

impl Cancel {
    /// Asks for the end.
    pub fn cancel(&self) {
        self.0.0.store(true, Ordering::Release);
        self.0.1.notify_waiters();
    }

    /// True once the end was asked for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    /// Waits for the request.
    pub async fn cancelled(&self) {
        loop {
            let notified = self.0.1.notified();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }
}

/// Starts a thread of a session. Where the system has none to give, the session ends for that reason.
pub(crate) fn start_thread<'scope>(
    control: &Control,
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() + Send + 'scope,
) -> Result<(), Stopped> {
    let started = thread::Builder::new().spawn_scoped(scope, work);
    started.map(drop).map_err(|error| {
        control.fail(Error::Thread(error));
        Stopped
    })
}

/// How long the end of a session may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The session is ending; whoever gets this leaves without a word, for the reason is kept elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// The end of a session, for all of its threads: the first reason counts.
#[derive(Default)]
pub(crate) struct Control {
    stopped: AtomicBool,
    reason: Mutex<Option<Error>>,
    notify: Notify,
    credits: Mutex<Vec<Arc<Credit>>>,
}

impl Control {
    /// Ends the session for `reason`, unless there is an earlier one. A thread may notice that a
    /// stream is gone, and stop, before the stream's own task says why: that reason still counts.
    ///
    /// A peer that gives up says why on one stream and closes the others, in any order. What it says
    /// counts more than a stream that ended.
    pub(crate) fn fail(&self, reason: impl Into<Error>) {
        let reason = reason.into();
        let mut earlier = self.reason.lock();
        let line_only = matches!(&*earlier, Some(Error::Eof | Error::Stream(_)));
        if earlier.is_none() || line_only && matches!(reason, Error::Aborted(..)) {
            *earlier = Some(reason);
        }
        drop(earlier);
        self.stop();
    }

    /// Ends the session: every waiter wakes.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        for credit in self.credits.lock().iter() {
            credit.close();
        }
        self.notify.notify_waiters();
    }

    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.stopped.load(Ordering::Acquire) { Err(Stopped) } else { Ok(()) }
    }

    pub(crate) fn take_reason(&self) -> Option<Error> {
        self.reason.lock().take()
    }

    /// What the peer shall be told of the reason.
    pub(crate) fn abort_text(&self) -> Option<(u8, String)> {
        self.reason.lock().as_ref().and_then(Error::abort_text)
    }

    /// True where the session ends because the volume can take no more.
    pub(crate) fn is_volume_failure(&self) -> bool {
        matches!(&*self.reason.lock(), Some(Error::Volume(e)) if e.is_volume_failure())
    }

    pub(crate) async fn stopped(&self) {
        loop {
            let notified = self.notify.notified();
            if self.stopped.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }

    /// A semaphore that opens when the session ends.
    pub(crate) fn credit(&self, amount: u64) -> Arc<Credit> {
        let credit = Arc::new(Credit::new(amount));
        self.credits.lock().push(Arc::clone(&credit));
        credit
    }
}

/// What a frame of `wire_len` bytes takes of the other end's credit: a short frame costs more memory
/// there than it has bytes.
pub(crate) fn frame_cost(wire_len: usize) -> u64 {
    (wire_len as u64).max(256)
}

/// A counting semaphore for threads: bytes that may be sent, or work that may be begun. It serves in
/// the order of asking, so that whoever needs much is not passed over for ever.
pub(crate) struct Credit {
    state: Mutex<CreditState>,
    changed: Condvar,
}

struct CreditState {
    amount: u64,
    /// Tickets handed out, and the one that is served.
    next: u64,
    serving: u64,
    closed: bool,
}

impl Credit {
    fn new(amount: u64) -> Self {
        let state = CreditState { amount, next: 0, serving: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Takes `amount`, waiting until it is there.
    pub(crate) fn acquire(&self, amount: u64) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        let ticket = state.next;
        state.next += 1;
        while !state.closed && (state.serving != ticket || state.amount < amount) {
            self.changed.wait(&mut state);
        }
        if state.closed {
            return Err(Stopped);
        }
        state.serving += 1;
        state.amount -= amount;
        if state.serving < state.next {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Takes `amount` where it is there and nobody waits.
    pub(crate) fn try_acquire(&self, amount: u64) -> bool {
        let mut state = self.state.lock();
        let free = !state.closed && state.serving == state.next && state.amount >= amount;
        if free {
            state.amount -= amount;
        }
        free
    }

    /// Gives `amount` back, or grants more.
    pub(crate) fn grant(&self, amount: u64) {
        let mut state = self.state.lock();
        state.amount = state.amount.saturating_add(amount);
        self.changed.notify_all();
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

/// Where threads put frames; one bounded queue a stream.
#[derive(Clone)]
pub(crate) struct Outbox {
    queues: Arc<[mpsc::Sender<OutFrame>]>,
    progress: Arc<Progress>,
}

impl Outbox {
    pub(crate) fn new(queues: Vec<mpsc::Sender<OutFrame>>, progress: Arc<Progress>) -> Self {
        Self { queues: queues.into(), progress }
    }

    /// Queues `frame` on a stream chosen by `lane`, waiting while the queue is full. Frames of one
    /// lane keep their order. Must not be called from a task.
    pub(crate) fn send_on(&self, lane: u64, frame: OutFrame) -> Result<(), Stopped> {
        let index = (lane % self.queues.len() as u64) as usize;
        let len = frame.wire_len() as u64;
        self.progress.wire_queued.fetch_add(len, Ordering::Relaxed);
        self.queues[index].blocking_send(frame).map_err(|_| Stopped)
    }

    /// Queues `frame` on the first stream.
    pub(crate) fn send(&self, frame: OutFrame) -> Result<(), Stopped> {
        self.send_on(0, frame)
    }
}

/// The end of a session as its streams see it: what is queued goes out, last of all why the session
/// ends, and every task is over when this returns. Bounded, so that a peer that reads nothing holds
/// no one up.
pub(crate) async fn wind_up(
    last_words: Option<(OutFrame, mpsc::Sender<OutFrame>)>,
    close: impl FnOnce(),
    mut pumps: tokio::task::JoinSet<()>,
    engine: impl Future<Output = ()>,
) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    if let Some((frame, queue)) = last_words {
        let _ = tokio::time::timeout_at(deadline, queue.send(frame)).await;
    }
    close();
    let drain = async { while pumps.join_next().await.is_some() {} };
    let _ = tokio::time::timeout_at(deadline, drain).await;
    pumps.shutdown().await;
    // Threads of this end may still be in a call that takes its time: who comes next must find the
    // volume free.
    let _ = tokio::time::timeout_at(deadline, engine).await;
}
