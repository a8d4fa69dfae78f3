//! One rate that all streams of a session share.
//!
//! Streams that have something to send take turns: who asked first goes first, for a tenth of a second's worth at most, and
//! then stands behind the others. So one busy stream has the whole rate, none waits longer than all others take for one
//! turn each, and the sum never exceeds the rate by more than one turn. A stream whose turn comes while its connection
//! takes nothing gives the turn away: a slow connection holds no one up.
//!
//! Knows no clock: the caller says what time it is.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::pump::PROGRESS;

/// Turns that fit into a second.
const TURNS_A_SECOND: u64 = 10;

/// The slowest rate, in bytes a second, at which a peer that waits for `io_timeout` seconds hears of each of so many streams
/// in time, twice over.
#[must_use]
pub fn slowest(streams: u32, io_timeout: u32) -> u64 {
    (2 * PROGRESS as u64 * u64::from(streams)).div_ceil(u64::from(io_timeout.max(1)))
}

/// The rate of a session, and who waits for it.
pub(crate) struct Pace {
    /// Bytes a second.
    rate: u64,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    /// When the next turn may begin.
    free_at: Option<Instant>,
    /// Streams that have something to send, in the order of their turns.
    waiting: VecDeque<(u32, Waker)>,
    streams: u32,
}

impl Line {
    /// Takes a stream out of the line, and wakes the one whose turn is next.
    fn leave(&mut self, id: u32) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        if let Some((_, waker)) = self.waiting.front() {
            waker.wake_by_ref();
        }
    }
}

impl Pace {
    /// A pace of `rate` bytes a second.
    pub(crate) fn new(rate: u64) -> Arc<Self> {
        Arc::new(Self { rate: rate.max(1), line: Mutex::default() })
    }

    /// A place for one more stream.
    pub(crate) fn join(self: &Arc<Self>) -> Turn {
        let mut line = self.line.lock();
        line.streams += 1;
        Turn { pace: Arc::clone(self), id: line.streams }
    }
}

/// The place of one stream.
pub(crate) struct Turn {
    pace: Arc<Pace>,
    id: u32,
}

impl Turn {
    /// How many bytes may be sent now. Otherwise the stream stands in the line, and wakes when it comes to the front;
    /// `Err` says when it may go on if it is there.
    ///
    /// A turn that was given has to be ended with [`end`](Self::end).
    pub(crate) fn poll(&self, now: Instant, cx: &Context<'_>) -> Poll<Result<usize, Instant>> {
        let mut line = self.pace.line.lock();
        match line.waiting.iter_mut().find(|(id, _)| *id == self.id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => line.waiting.push_back((self.id, cx.waker().clone())),
        }
        if line.waiting.front().is_none_or(|(id, _)| *id != self.id) {
            return Poll::Pending;
        }
        match line.free_at {
            Some(free_at) if free_at > now => Poll::Ready(Err(free_at)),
            _ => Poll::Ready(Ok((self.pace.rate / TURNS_A_SECOND).max(1) as usize)),
        }
    }

    /// Ends the turn, in which `sent` bytes went out.
    pub(crate) fn end(&self, now: Instant, sent: usize) {
        let mut line = self.pace.line.lock();
        if sent > 0 {
            let cost = Duration::from_secs_f64(sent as f64 / self.pace.rate as f64);
            line.free_at = Some(line.free_at.map_or(now, |free_at| free_at.max(now)) + cost);
        }
        line.leave(self.id);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.pace.line.lock().leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU64, task::Waker};

    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt as _, DuplexStream, duplex},
        sync::mpsc,
    };
    use wire::{OutFrame, ToReceiver};

    use super::*;
    use crate::pump::{self, PumpConfig};

    const RATE: u64 = 1000;

    /// What one stream of the model does: how much it has to send, and how often its connection takes nothing.
    #[derive(Debug, Clone)]
    struct Sender {
        left: usize,
        stuck: u32,
    }

    /// Lets senders share a pace until all is sent; answers with what was sent when, by whom.
    fn share(mut senders: Vec<Sender>) -> Vec<(Duration, usize, usize)> {
        let start = Instant::now();
        let pace = Pace::new(RATE);
        let turns: Vec<_> = senders.iter().map(|_| pace.join()).collect();
        let cx = Context::from_waker(Waker::noop());
        let (mut now, mut sent) = (start, Vec::new());
        while senders.iter().any(|sender| sender.left > 0) {
            let mut next = None;
            let mut went = false;
            for (index, sender) in senders.iter_mut().enumerate() {
                if sender.left == 0 {
                    continue;
                }
                match turns[index].poll(now, &cx) {
                    Poll::Ready(Ok(_)) if sender.stuck > 0 => {
                        sender.stuck -= 1;
                        turns[index].end(now, 0);
                        went = true;
                    }
                    Poll::Ready(Ok(allowed)) => {
                        let count = allowed.min(sender.left);
                        sender.left -= count;
                        turns[index].end(now, count);
                        sent.push((now - start, index, count));
                        went = true;
                    }
                    Poll::Ready(Err(free_at)) => next = Some(free_at),
                    Poll::Pending => {}
                }
            }
            if !went {
                now = next.expect("nobody has a turn and nobody waits for the clock");
            }
        }
        sent
    }

    fn sender() -> impl Strategy<Value = Sender> {
        (0..3000_usize, 0..5_u32).prop_map(|(left, stuck)| Sender { left, stuck })
    }

    proptest! {
        #[test]
        fn the_sum_keeps_to_the_rate_and_uses_all_of_it(senders in prop::collection::vec(sender(), 1..8)) {
            let total: usize = senders.iter().map(|sender| sender.left).sum();
            let sent = share(senders);
            let mut before = 0;
            for &(at, _, count) in &sent {
                // What went before has taken its time, and no time was wasted.
                let due = Duration::from_secs_f64(before as f64 / RATE as f64);
                prop_assert!(at.abs_diff(due) < Duration::from_millis(1), "{at:?} {due:?}");
                before += count;
            }
            prop_assert_eq!(before, total);
        }

        #[test]
        fn nobody_waits_for_more_than_a_turn_of_each_other(senders in prop::collection::vec(sender(), 2..8)) {
            let count = senders.len();
            let left: Vec<_> = senders.iter().map(|sender| sender.left).collect();
            let sent = share(senders.into_iter().map(|sender| Sender { stuck: 0, ..sender }).collect());
            for (index, left) in left.into_iter().enumerate() {
                let turns: Vec<_> = (0..sent.len()).filter(|&at| sent[at].1 == index).collect();
                prop_assert!(turns.windows(2).all(|pair| pair[1] - pair[0] <= count), "{:?}", turns);
                prop_assert!(left == 0 || turns[0] < count);
            }
        }
    }

    #[test]
    fn a_stream_that_ends_in_its_turn_lets_the_next_one_go() {
        let (pace, now) = (Pace::new(RATE), Instant::now());
        let (first, second) = (pace.join(), pace.join());
        let cx = Context::from_waker(Waker::noop());
        assert!(first.poll(now, &cx).is_ready());
        assert!(second.poll(now, &cx).is_pending());
        drop(first);
        assert!(matches!(second.poll(now, &cx), Poll::Ready(Ok(100))));
    }

    /// A stream that sends `frames` frames of 100 bytes at the pace, and answers when the last of them is out.
    async fn pump(
        turn: Turn,
        mut peer: DuplexStream,
        own: DuplexStream,
        frames: usize,
    ) -> Duration {
        let start = Instant::now();
        let (queue, outgoing) = mpsc::channel(frames.max(1));
        for _ in 0..frames {
            let frame = OutFrame { head: vec![0; 100].into(), ..ToReceiver::Ping.encode() };
            queue.try_send(frame).unwrap_or_else(|_| unreachable!("there is room"));
        }
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            let _ = peer.read_to_end(&mut got).await;
            got.len()
        });
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let config = PumpConfig {
            io_timeout: 1000,
            pace: Some(turn),
            sent: &sent,
            received: &received,
            ping: ToReceiver::Ping.encode(),
            fail: &|error| unreachable!("{error}"),
            leaves_first: true,
            on_end: &|| true,
        };
        drop(queue);
        pump::run(own, outgoing, config, |_| Ok(())).await.unwrap();
        let took = start.elapsed();
        assert_eq!(reader.await.unwrap(), frames * 100);
        took
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_stream_has_the_whole_rate_beside_idle_ones() {
        let pace = Pace::new(RATE);
        let idle: Vec<_> = (0..15).map(|_| pace.join()).collect();
        let (own, peer) = duplex(1 << 20);
        let took = pump(pace.join(), peer, own, 100).await;
        // 10,000 bytes, of which the first tenth of a second's worth goes at once.
        assert!((9..=11).contains(&took.as_secs()), "{took:?}");
        drop(idle);
    }

    #[tokio::test(start_paused = true)]
    async fn busy_streams_share_the_rate_and_end_together() {
        let pace = Pace::new(RATE);
        let mut streams = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (own, peer) = duplex(1 << 20);
            streams.spawn(pump(pace.join(), peer, own, 25));
        }
        while let Some(took) = streams.join_next().await {
            let took = took.unwrap();
            assert!((9..=11).contains(&took.as_secs()), "{took:?}");
        }
    }
}
