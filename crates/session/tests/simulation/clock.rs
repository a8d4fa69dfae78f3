//! Virtual time for sessions that also have threads of the system.
//!
//! The clock of the runtime stands. A thread watches how many bytes have moved; where none do for a moment, it lets the
//! clock jump. Ends that live say something at least every third of their patience, so only an end that hears nothing,
//! and not one whose disk is slow, comes to its time-out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// How often the watcher looks.
const LOOK: Duration = Duration::from_micros(300);
/// Looks without a byte before the clock jumps.
const STILL: u32 = 3;
/// How far it jumps.
const JUMP: Duration = Duration::from_millis(500);
/// Real time after which a session hangs.
const HANGS: Duration = Duration::from_secs(60);

/// Something that happens when so many bytes have moved.
pub(crate) type Event = (u64, Box<dyn FnOnce() + Send>);

/// Runs `session`, on virtual time or with a clock that stands. `moved` says how many bytes have moved so far.
pub(crate) fn run<T>(
    session: impl Future<Output = T>,
    jumps: bool,
    moved: impl Fn() -> u64 + Send + 'static,
    events: Vec<Event>,
) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (jump, mut jumped) = unbounded_channel();
    let watched = Arc::clone(&over);
    let watcher = thread::spawn(move || watch(&moved, jumps, events, &jump, &watched));
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let ended = runtime.block_on(async {
        // The runtime's clock would jump by itself whenever its tasks wait, also for threads. It does not while
        // something blocking runs.
        #[expect(clippy::disallowed_methods, reason = "nothing else keeps the clock standing")]
        tokio::task::spawn_blocking(move || held.recv().is_err());
        let clock = async {
            while let Some(()) = jumped.recv().await {
                tokio::time::advance(JUMP).await;
            }
            panic!("the session hangs");
        };
        tokio::select! {
            ended = session => ended,
            () = clock => unreachable!("it ends with a panic"),
        }
    });
    drop(hold);
    over.store(true, Relaxed);
    watcher.join().unwrap();
    ended
}

fn watch(
    moved: &impl Fn() -> u64,
    jumps: bool,
    mut events: Vec<Event>,
    jump: &UnboundedSender<()>,
    over: &AtomicBool,
) {
    let begun = Instant::now();
    let (mut last, mut still) = (0, 0);
    while !over.load(Relaxed) && begun.elapsed() < HANGS {
        thread::sleep(LOOK);
        let now = moved();
        for (_, event) in events.extract_if(.., |(at, _)| *at <= now) {
            event();
        }
        still = if now == last { still + 1 } else { 0 };
        last = now;
        if jumps && still == STILL {
            still = 0;
            let _ = jump.send(());
        }
    }
}
