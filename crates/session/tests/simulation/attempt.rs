//! One session with what is done to it.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use session::{
    Cancel, Compression, Context, Error, Progress, Received, Result, Source, Summary, handshake,
    server::Server,
};
use testkit::{Faults, FaultyStream, Rng};
use tokio::io::DuplexStream;
use volume::lock::VolumeLock;
use wire::{Hello, Options, RootKind, VERSION};

use super::{
    clock::{self, Event},
    world::World,
};

/// Seconds of silence that an end bears.
const SILENCE: u32 = 3;
/// Virtual time after which both ends are told to stop, where a lost message can leave them waiting.
const PATIENCE: Duration = Duration::from_secs(40);

/// A session and its faults.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Time passes, and with it patience.
    is_faulty: bool,
    pub(crate) options: Options,
    /// Of each stream, from the sender and to it.
    streams: Vec<[Faults; 2]>,
    compress: Compression,
    workers: usize,
    relayed: bool,
    /// Which end is stopped when so many bytes have moved.
    cancel: Option<(End, u64)>,
    /// When the source changes, and how.
    change: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Near,
    Far,
}

/// How both ends ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) sent: Result<Summary>,
    #[expect(dead_code, reason = "shown where a seed fails")]
    received: Result<Received>,
}

impl Attempt {
    pub(crate) fn with_faults(rng: &mut Rng, world: &World, spoilt: bool) -> Self {
        let checksum = rng.below(8) == 0 || spoilt;
        let mut attempt = Self::clean(rng, checksum);
        attempt.is_faulty = true;
        attempt.options.delete = rng.below(4) > 0;
        attempt.options.dry_run = rng.below(24) == 0;
        attempt.options.max_delete = (rng.below(12) == 0).then(|| rng.below(4));
        for _ in 0..rng.below(3) {
            attempt.add_fault(rng, world.bytes);
        }
        attempt
    }

    /// A session that nothing happens to; by content where an earlier one may have left what only looks right.
    pub(crate) fn clean(rng: &mut Rng, checksum: bool) -> Self {
        let bit = |rng: &mut Rng| rng.below(2) == 0;
        let options = Options {
            delete: true,
            checksum,
            allow_empty: true,
            atomic: bit(rng),
            verify: bit(rng),
            itemize: bit(rng),
            ..Options::default()
        };
        Self {
            is_faulty: false,
            options,
            streams: vec![[Faults::default(); 2]; 1 + rng.below(3) as usize],
            compress: *rng.pick(&[Compression::Never, Compression::Always]),
            workers: 1 + rng.below(3) as usize,
            relayed: bit(rng),
            cancel: None,
            change: None,
        }
    }

    fn add_fault(&mut self, rng: &mut Rng, bytes: u64) {
        // Half of them near the beginning, where most of the dialogue is.
        let at = if rng.below(2) == 0 { rng.below(3000) } else { rng.below(bytes + 3000) };
        let streams = self.streams.len() as u64;
        let faults = &mut self.streams[rng.below(streams) as usize][rng.below(2) as usize];
        match rng.below(12) {
            0 | 1 => faults.cut = Some(at),
            2 => faults.end = Some(at),
            3 => faults.stall = Some(at),
            4 | 5 => {
                // Streams overtake each other; some wait for longer than anybody bears.
                faults.pause = Some((at, Duration::from_millis(rng.below(6000))));
            }
            6 | 7 => faults.chunk = Some(1 + rng.below(2000) as usize),
            8 => faults.flip = Some(at),
            9 => self.cancel = Some((*rng.pick(&[End::Near, End::Far]), at)),
            10 => self.change = Some((at, rng.next_u64())),
            _ => {
                // The peer is gone: nothing moves in either direction.
                for stream in &mut self.streams {
                    stream.iter_mut().for_each(|faults| faults.stall = Some(at));
                }
            }
        }
    }

    /// A byte changes on its way. Under TLS that is the end of the stream; here it is what faulty memory would do.
    fn flips(&self) -> bool {
        self.streams.iter().flatten().any(|faults| faults.flip.is_some())
    }

    /// The source is not what it was when the session began.
    pub(crate) fn changes_source(&self) -> bool {
        self.change.is_some()
    }

    /// What arrived may be wrong, and be named as wrong, and look right to who compares sizes and times.
    pub(crate) fn spoils_content(&self) -> bool {
        self.flips()
    }

    pub(crate) fn run(&self, world: &World) -> Ended {
        let ended = self.run_to_its_end(world);
        // Threads that were not waited for may still write; they hold the volume until they are through.
        let root = volume::Dir::open_root_writable(world.to.path()).unwrap();
        let begun = Instant::now();
        while VolumeLock::acquire(&root).unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the volume is never let go");
            std::thread::sleep(Duration::from_millis(1));
        }
        ended
    }

    fn run_to_its_end(&self, world: &World) -> Ended {
        let (near, far) = (self.context(), self.context());
        let counters = [Arc::clone(&near.progress), Arc::clone(&far.progress)];
        let moved = move || {
            let ends = counters.iter().map(|progress| progress.snapshot());
            ends.map(|end| end.wire_sent + end.wire_received).sum()
        };
        let cancels = [near.cancel.clone(), far.cancel.clone()];
        let events = self.events(world, &cancels);
        let session = async {
            let patience = async {
                if self.flips() {
                    tokio::time::sleep(PATIENCE).await;
                    cancels.iter().for_each(Cancel::cancel);
                }
                std::future::pending().await
            };
            let (near_streams, far_streams) = self.connect();
            let both = async {
                let sender = self.send(near_streams, world.from.path(), near);
                tokio::join!(sender, receive(far_streams, world.to.path(), far))
            };
            tokio::select! {
                (sent, received) = both => Ended { sent, received },
                ended = patience => ended,
            }
        };
        clock::run(session, self.is_faulty, moved, events)
    }

    fn context(&self) -> Context {
        Context {
            progress: Arc::new(Progress::default()),
            monitor: Arc::new(()),
            window: 4 << 20,
            memory_budget: session::MEMORY_BUDGET,
            workers: self.workers,
            io_timeout: SILENCE,
            bandwidth_limit: None,
            compress: self.compress,
            relayed: self.relayed,
            cancel: Cancel::default(),
        }
    }

    fn events(&self, world: &World, cancels: &[Cancel; 2]) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        if let Some((end, at)) = self.cancel {
            let cancel = cancels[end as usize].clone();
            // What is counted is sent by one end and received by the other.
            events.push((2 * at, Box::new(move || cancel.cancel())));
        }
        if let Some((at, seed)) = self.change {
            let source = Arc::clone(&world.from);
            events.push((
                2 * at,
                Box::new(move || {
                    source.mutate(seed, 2);
                }),
            ));
        }
        events
    }

    fn connect(&self) -> (Vec<FaultyStream<DuplexStream>>, Vec<DuplexStream>) {
        let connect = |[forward, backward]: &[Faults; 2]| {
            let (near, far) = tokio::io::duplex(64 << 10);
            (FaultyStream::new(near, *backward, *forward), far)
        };
        self.streams.iter().map(connect).unzip()
    }

    async fn send(
        &self,
        streams: Vec<FaultyStream<DuplexStream>>,
        from: &Path,
        context: Context,
    ) -> Result<Summary> {
        let hello = Hello {
            versions: (VERSION, VERSION),
            nonce: handshake::random()?,
            volume: "a".into(),
            root: RootKind::Tree,
            probe: false,
            window: 4 << 20,
            streams: streams.len() as u32,
            io_timeout: context.io_timeout,
            options: self.options.clone(),
        };
        let mut streams = streams.into_iter();
        let mut joined = Vec::new();
        let agreed = soon(async {
            let mut first = streams.next().ok_or(Error::Eof)?;
            let agreed = handshake::open(&mut first, hello).await?;
            joined.push(first);
            for mut stream in streams {
                handshake::join(&mut stream, agreed.session()).await?;
                joined.push(stream);
            }
            Ok(agreed)
        });
        let agreed = agreed.await?;
        let source = Source::Tree(volume::Dir::open_root(from)?);
        session::send(joined, agreed, source, context).await
    }
}

/// The receiving end, as a server that is given one stream after the other.
async fn receive(streams: Vec<DuplexStream>, to: &Path, context: Context) -> Result<Received> {
    let server = Server::new(4 << 20);
    let mut streams = streams.into_iter();
    let first = streams.next().ok_or(Error::Eof)?;
    let admitted = soon(server.admit(first, |_| Ok(to.to_owned().into()))).await?;
    let incoming = admitted.ok_or(Error::Protocol("no hello"))?;
    let mut joins = tokio::task::JoinSet::new();
    for stream in streams {
        let (server, to) = (Arc::clone(&server), to.to_owned());
        joins.spawn(async move {
            soon(server.admit(stream, |_| Ok(to.clone().into()))).await.map(drop)
        });
    }
    let (first, joining, agreed, target, registered) = incoming.into_parts();
    let received = session::receive(first, joining, agreed, target, context).await;
    drop(registered);
    received
}

/// A handshake is given its deadline by whoever holds it.
async fn soon<T>(handshake: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = Duration::from_secs(15);
    tokio::time::timeout(limit, handshake).await.unwrap_or(Err(Error::Timeout(15)))
}
