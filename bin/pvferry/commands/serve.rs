//! `pvferry serve`: receives volumes.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use parking_lot::Mutex;
use pod::{ExitCode, Report, Shutdown, VolumeReport};
use session::{
    Cancel, Context, Monitor, Progress, Received,
    server::{Incoming, Located, Server},
};
use telemetry::{
    connections::{ConnectionTable, Place},
    log_limit::LogLimit,
    metrics,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{Instant, timeout_at},
};
use tunnel::{Acceptor, IdentitySource, Role, Spiffe};
use wire::Refusal;

use super::{endpoints, permissions, transfer, with_runtime};
use crate::{
    cli::ServeArgs,
    link::BoxedLink,
    out_of_memory::{self, Destinations},
    outcome::{self, Failure},
    policy,
    setup::{self, Common, Surroundings},
};

/// One deadline over TLS and hello together.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// How long a connection stays beside a flood from its own address: several round trips of a long line.
const GRACE: Duration = Duration::from_secs(1);

pub(super) fn run(
    args: ServeArgs,
    common: &Common,
    surroundings: &Surroundings,
) -> Result<ExitCode, Failure> {
    let message = transfer::termination_message(args.termination_log.as_deref())?;
    let last = Destinations { message: message.as_deref(), ..Destinations::default() };
    out_of_memory::prepare("", &last);
    let begun = Clock::now();
    let ended = Ended::default();
    let (mut report, failure) = match begin(args, common, surroundings, &ended) {
        Ok(()) => (total(&ended.lock()), None),
        Err(failure) => (outcome::not_begun("", &failure), Some(failure)),
    };
    // Also of a server that was stopped: what it received before counts.
    report.volumes = ended.lock().values().map(VolumeReport::of).collect();
    report.seconds = begun.elapsed().as_secs_f64();
    let left = transfer::leave_message(message.as_deref(), &report);
    // The reason of the run comes before that of its message.
    match (failure, left) {
        (Some(failure), _) => Err(failure),
        (None, Err(failure)) => Err(failure),
        (None, Ok(())) => Ok(report.exit_code),
    }
}

/// How the last session of each volume ended that came to its end.
type Ended = Arc<Mutex<BTreeMap<String, Report>>>;

fn begin(
    args: ServeArgs,
    common: &Common,
    surroundings: &Surroundings,
    ended: &Ended,
) -> Result<(), Failure> {
    common.begin(&surroundings.console, "info")?;
    endpoints::check_volumes(&args.volume)?;
    permissions::check(&args)?;
    let volumes = args.volume.len();
    if let Some(count) = args.exit_when.filter(|count| *count as usize > volumes) {
        let what =
            format!("--exit-when {count} can never be reached: only {volumes} volumes are served");
        return Err(Failure::new(ExitCode::Usage, what));
    }
    let identity = setup::identity(&args.identity, Role::Destination)?;
    let metrics = common.listen()?;
    with_runtime(&policy::serve(&args), metrics, surroundings, async {
        serve(args, identity, surroundings, Arc::clone(ended)).await
    })
}

/// What all sessions share.
struct Shared {
    volumes: HashMap<String, Located>,
    acceptor: Acceptor,
    server: Arc<Server<BoxedLink>>,
    /// Connections whose peer has not shown its certificate.
    handshakes: Arc<ConnectionTable>,
    /// Connections whose peer has not sent its opening message.
    openings: Arc<ConnectionTable>,
    log_limit: LogLimit,
    ended: Ended,
    one_more: Notify,
    cancel: Cancel,
    io_timeout: u32,
    metrics: Arc<metrics::Metrics>,
}

async fn serve(
    args: ServeArgs,
    identity: IdentitySource,
    surroundings: &Surroundings,
    ended: Ended,
) -> Result<(), Failure> {
    let volumes = args.volume.iter().map(|(name, path)| {
        // What stands there now is what the sandbox has let in.
        let identity = volume::device::identity(path).ok();
        let policy = permissions::policy(&args, name);
        (name.as_str().to_owned(), Located { path: path.clone(), identity, policy })
    });
    let shared = Arc::new(Shared {
        volumes: volumes.collect(),
        acceptor: Acceptor::new(identity),
        server: Server::new(setup::WINDOW),
        handshakes: ConnectionTable::new(setup::handshakes(), GRACE),
        openings: ConnectionTable::new(setup::openings(), GRACE),
        log_limit: LogLimit::default(),
        ended,
        one_more: Notify::new(),
        cancel: Cancel::default(),
        io_timeout: args.timeout,
        metrics: Arc::clone(&surroundings.metrics),
    });
    let listener = args.listen.bind().await.map_err(|error| {
        Failure::new(ExitCode::Socket, format!("cannot listen on {}: {error}", args.listen))
    })?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!("listening on {address}");
    }
    surroundings.readiness.set(true);
    let signals =
        Shutdown::install().map_err(|error| Failure::new(ExitCode::StartUp, error.to_string()))?;
    let ended = tokio::select! {
        ended = shared.take_connections(&listener, &signals, args.exit_when) => ended,
        () = shared.log_limit.report_each_period() => Ok(()),
    };
    shared.log_limit.report();
    ended
}

impl Shared {
    async fn take_connections(
        self: &Arc<Self>,
        listener: &TcpListener,
        signals: &Shutdown,
        exit_when: Option<u32>,
    ) -> Result<(), Failure> {
        let mut sessions = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.enough(exit_when) => return Ok(()),
                () = signals.requested() => {
                    self.cancel.cancel();
                    let drain = async { while sessions.join_next().await.is_some() {} };
                    let _ = tokio::time::timeout(Duration::from_secs(10), drain).await;
                    // The last session ended well while the signal came.
                    if self.is_enough(exit_when) {
                        return Ok(());
                    }
                    let ended = Failure::new(ExitCode::Signal, transfer::interrupted_by(signals.signal()));
                    return Err(Failure { retryable: true, ..ended });
                }
                Some(_) = sessions.join_next() => continue,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let place = self.handshakes.admit(peer.ip()).await;
                    let shared = Arc::clone(self);
                    sessions.spawn(async move { shared.connection(stream, peer, place).await });
                }
                Err(error) => {
                    // Out of descriptors, most likely: those of the cache, and a pause, in which others may end.
                    volume::descriptors::release();
                    if self.log_limit.admits("accept") {
                        tracing::warn!("cannot accept a connection: {error}");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// What `step` comes to; `None` where a newer connection took its place before that.
    async fn in_place<T>(
        &self,
        place: Place,
        peer: SocketAddr,
        step: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            biased;
            done = step => Some(done),
            () = place.evicted() => {
                self.refused("evicted", peer, &"closed for a newer connection");
                None
            }
        }
    }

    /// A connection that came to nothing. Anybody can cause these lines, so there is a limit on them.
    fn refused(&self, class: &'static str, peer: SocketAddr, why: &dyn std::fmt::Display) {
        if self.log_limit.admits(class) {
            tracing::warn!(%peer, "{why}");
        }
    }
    async fn enough(&self, exit_when: Option<u32>) {
        loop {
            let notified = self.one_more.notified();
            if self.is_enough(exit_when) {
                return;
            }
            notified.await;
        }
    }

    fn is_enough(&self, exit_when: Option<u32>) -> bool {
        exit_when.is_some_and(|count| self.ended.lock().len() >= count as usize)
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        let deadline = Instant::now() + HANDSHAKE;
        let accepted = self.in_place(place, peer, self.acceptor.accept(stream, deadline)).await;
        let (tls, spiffe) = match accepted {
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => return self.refused(error.kind().as_str(), peer, &error),
            None => return,
        };
        let place = self.openings.admit(peer.ip()).await;
        let locate = |volume: &str| self.locate(volume, &spiffe);
        let admitted = timeout_at(deadline, self.server.admit(Box::new(tls) as BoxedLink, locate));
        match self.in_place(place, peer, admitted).await {
            Some(Ok(Ok(Some(incoming)))) => self.session(incoming, &peer.to_string()).await,
            None | Some(Ok(Ok(None))) => {}
            Some(Ok(Err(error))) => self.refused("opening", peer, &error),
            Some(Err(_)) => {
                let why = format!("no hello within {} s", HANDSHAKE.as_secs());
                self.refused("silent", peer, &why);
            }
        }
    }

    /// The path of a volume, for whoever may write to it. Who may not is told nothing else than who
    /// asks for what is not there.
    fn locate(&self, volume: &str, spiffe: &Spiffe) -> Result<Located, (Refusal, String)> {
        let shown = wire::name::escape(volume.as_bytes());
        if !spiffe.may_access(volume) {
            let why = format!("certificate {spiffe} is not authorized for volume {shown}");
            return Err((Refusal::NotAuthorised, why));
        }
        let known = self.volumes.get(volume).cloned();
        known.ok_or_else(|| {
            (Refusal::UnknownVolume, format!("volume {shown} not found on this server"))
        })
    }

    async fn session(&self, incoming: Incoming<BoxedLink>, peer: &str) {
        let volume = incoming.volume().to_owned();
        tracing::info!(peer, volume, "session started");
        let begun = Clock::now();
        let progress = Arc::new(Progress::default());
        let (stream, joining, agreed, target, registered) = incoming.into_parts();
        let dry_run = agreed.is_dry_run();
        if !dry_run {
            // What an earlier session came to no longer holds.
            self.ended.lock().remove(&volume);
        }
        let measured = Arc::new(self.metrics.session(&volume, Arc::clone(&progress), dry_run));
        let context = Context {
            progress: Arc::clone(&progress),
            monitor: Arc::clone(&measured) as Arc<dyn Monitor>,
            window: setup::WINDOW,
            memory_budget: session::MEMORY_BUDGET,
            workers: setup::workers(),
            io_timeout: self.io_timeout,
            bandwidth_limit: None,
            compress: session::Compression::Never,
            relayed: false,
            cancel: self.cancel.clone(),
        };
        let received = session::receive(stream, joining, agreed, target, context).await;
        drop(registered);
        let (done, outcome) = match received {
            Ok(Received { summary, acknowledged }) => (acknowledged, Ok(summary)),
            Err(error) => (false, Err(Failure::from(error))),
        };
        let snapshot = progress.snapshot();
        let report = outcome::report(&volume, &outcome, snapshot, 1, begun.elapsed());
        if let Some(measured) = Arc::into_inner(measured) {
            measured.finish(match report.outcome {
                pod::Outcome::Completed => metrics::Outcome::Completed,
                pod::Outcome::Partial => metrics::Outcome::Partial,
                pod::Outcome::Failed => metrics::Outcome::Failed,
            });
        }
        let (code, reason) = (report.exit_code.number(), &*report.reason);
        if done && report.dry_run {
            // It received nothing, so it does not count for `--exit-when`.
            tracing::info!(peer, volume, code, reason, "dry run ended");
        } else if done {
            tracing::info!(
                peer,
                volume,
                code,
                reason,
                written = report.files_written,
                // Of a server that goes on, this is the only report.
                report = VolumeReport::of(&report).to_json(),
                "session ended"
            );
            self.ended.lock().insert(volume, report);
            self.one_more.notify_waiters();
        } else {
            tracing::warn!(peer, volume, code, reason, "session failed");
        }
    }
}

/// One report of all volumes: the worst code, the sums.
fn total(ended: &BTreeMap<String, Report>) -> Report {
    let code = ended.values().fold(ExitCode::Ok, |worst, report| worst.worst(report.exit_code));
    let names: Vec<_> = ended.keys().map(String::as_str).collect();
    let reason = ended.values().map(|report| report.reason.as_str()).find(|r| !r.is_empty());
    let mut all = Report::new(names.join(","), code, reason.unwrap_or_default());
    all.attempt = 1;
    for report in ended.values() {
        all.entries += report.entries;
        all.files_written += report.files_written;
        all.files_deleted += report.files_deleted;
        all.bytes_total += report.bytes_total;
        all.bytes_literal += report.bytes_literal;
        all.bytes_matched += report.bytes_matched;
        all.wire_sent += report.wire_sent;
        all.wire_received += report.wire_received;
        all.errors.extend(report.errors.iter().cloned());
        all.errors_omitted += report.errors_omitted;
    }
    if let [only] = &ended.values().collect::<Vec<_>>()[..] {
        all.digest.clone_from(&only.digest);
        all.tree_digest.clone_from(&only.tree_digest);
    }
    all
}
