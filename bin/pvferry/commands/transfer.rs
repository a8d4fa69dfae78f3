//! What `copy` and `sync` share: the source, the hello, a session, the end of a run.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use pod::{ExitCode, Outcome, Report, Shutdown};
use session::{
    Cancel, Context, Monitor, Progress, Snapshot, Source, Summary,
    handshake::{self, Agreed},
};
use telemetry::{Changes, Console, Fanout, Mode, Reporter, human, metrics};
use volume::capability::Preflight;
use wire::{FilterRule, Hello, Options, RootKind, VERSION};

use crate::{
    cli::{Compress, TransferArgs},
    link::BoxedLink,
    outcome::{self, Failure},
    setup::{self, Surroundings},
};

/// Bytes of signatures that the receiver may send ahead.
const SIGNATURE_WINDOW: u64 = 8 << 20;

/// A run of `copy` or `sync`: what it is asked to do, and how it is watched.
pub(super) struct Run<'a> {
    volume: String,
    args: TransferArgs,
    filters: Vec<FilterRule>,
    surroundings: &'a Surroundings,
    source: Source,
    /// Both ends are in this process.
    in_one_process: bool,
    pub(super) cancel: Cancel,
    shutdown: Shutdown,
    begun: Instant,
}

impl<'a> Run<'a> {
    /// Prepares to send `source`, and listens for signals.
    pub(super) fn new(
        volume: &str,
        source: Source,
        args: TransferArgs,
        filters: Vec<FilterRule>,
        surroundings: &'a Surroundings,
    ) -> Result<Self, Failure> {
        let cancel = Cancel::default();
        let shutdown = watch_signals(cancel.clone(), surroundings.console.clone())?;
        Ok(Self {
            volume: volume.to_owned(),
            args,
            filters,
            surroundings,
            source,
            in_one_process: false,
            cancel,
            shutdown,
            begun: Instant::now(),
        })
    }

    /// The same where the receiver is in this process, too.
    pub(super) fn in_one_process(self) -> Self {
        Self { in_one_process: true, ..self }
    }

    pub(super) fn args(&self) -> &TransferArgs {
        &self.args
    }

    /// The first message of a session.
    pub(super) fn hello(&self) -> Result<Hello, Failure> {
        let args = &self.args;
        Ok(Hello {
            versions: (VERSION, VERSION),
            nonce: handshake::random()?,
            volume: self.volume.clone(),
            root: match &self.source {
                Source::Tree(_) => RootKind::Tree,
                Source::Device(device) => RootKind::Device(device.size()),
            },
            probe: false,
            window: SIGNATURE_WINDOW,
            streams: args.streams,
            io_timeout: args.timeout,
            options: Options {
                delete: args.delete,
                max_delete: args.max_delete,
                checksum: args.checksum,
                atomic: args.atomic,
                dry_run: args.dry_run,
                itemize: args.itemize(),
                verify: args.verify,
                allow_empty: args.allow_empty_source,
                no_owner: args.no_owner,
                filters: self.filters.clone(),
            },
        })
    }

    /// What is not kept, by what the receiver says and by what this end cannot read. A receiver in another process is
    /// named: its user and its options are not those of this command.
    fn losses(&self, agreed: &Agreed) -> Vec<String> {
        let receiver = if self.in_one_process { "" } else { "serve: " };
        let mut losses: Vec<_> =
            agreed.losses().iter().map(|loss| format!("{receiver}{loss}")).collect();
        let own = Preflight::current().ok().and_then(|rights| match &self.source {
            Source::Tree(root) => rights.of_reading_at(root),
            Source::Device(_) => None,
        });
        let own = own.filter(|_| !self.args.no_owner).map(|loss| loss.to_string());
        losses.extend(own.filter(|own| !losses.contains(own)));
        losses
    }

    /// Runs one session over streams that are agreed on; `relayed` where a tunnel takes them further.
    pub(super) async fn send(
        &self,
        streams: Vec<BoxedLink>,
        agreed: Agreed,
        relayed: bool,
    ) -> Result<Session, Failure> {
        for loss in self.losses(&agreed) {
            self.surroundings
                .console
                .message(tracing::Level::WARN, &format!("pvferry: note: {loss}"));
        }
        let progress = Arc::new(Progress::default());
        let console = &self.surroundings.console;
        let mode =
            self.args.progress().parse().map_err(|error: telemetry::Error| {
                Failure::new(ExitCode::Usage, error.to_string())
            })?;
        // Where nobody reads JSON, it hides what went wrong.
        let in_pod = std::env::var_os(pod::env::KUBERNETES).is_some();
        let mode = match mode {
            Mode::Auto if !in_pod && !console.is_terminal() => Mode::None,
            mode => mode,
        };
        // With --json standard output holds the report and nothing else.
        let changes = if self.args.json { Changes::Stderr } else { Changes::Stdout };
        let reporter = Reporter::start(mode, changes, Arc::clone(&progress), console)
            .map_err(|error| Failure::new(ExitCode::StartUp, error.to_string()))?;
        let reporter = Arc::new(reporter);
        let metrics = &self.surroundings.metrics;
        let measured = metrics.session(&self.volume, Arc::clone(&progress), agreed.is_dry_run());
        let measured = Arc::new(measured);
        let monitors: Vec<Arc<dyn Monitor>> =
            vec![Arc::clone(&reporter) as _, Arc::clone(&measured) as _];
        let context = Context {
            progress: Arc::clone(&progress),
            monitor: Arc::new(Fanout::new(monitors)),
            window: SIGNATURE_WINDOW,
            memory_budget: session::MEMORY_BUDGET,
            workers: setup::workers(),
            io_timeout: self.args.timeout,
            bandwidth_limit: self.args.rate_limit(),
            compress: match self.args.compress() {
                Compress::Auto => session::Compression::Auto,
                Compress::Never => session::Compression::Never,
                Compress::Zstd => session::Compression::Always,
            },
            relayed,
            cancel: self.cancel.clone(),
        };
        let ended = session::send(streams, agreed, self.source.clone(), context).await;
        reporter.finish();
        if let Some(measured) = Arc::into_inner(measured) {
            measured.finish(match &ended {
                Ok(summary) if summary.exit_code == 0 => metrics::Outcome::Completed,
                Ok(_) => metrics::Outcome::Partial,
                Err(_) => metrics::Outcome::Failed,
            });
        }
        Ok(Session { outcome: ended.map_err(Failure::from), progress })
    }

    /// Makes the report of the run, and says on standard error what went wrong.
    pub(super) fn end(&self, session: &Session, attempt: u32) -> Report {
        let snapshot = session.progress.snapshot();
        let elapsed = self.begun.elapsed();
        let mut report =
            outcome::report(&self.volume, &session.outcome, snapshot, attempt, elapsed);
        if report.exit_code == ExitCode::Signal && self.shutdown.is_requested() {
            report.reason = interrupted(self.shutdown.signal(), &snapshot).into();
        }
        let console = &self.surroundings.console;
        if !report.reason.is_empty() {
            console.message(tracing::Level::ERROR, &format!("pvferry: {}", report.reason));
        }
        report
    }
}

/// Makes the report of a run that ended before its first session, and says on standard error why.
pub(super) fn not_begun(console: &Console, volume: &str, failure: &Failure) -> Report {
    console.message(tracing::Level::ERROR, &format!("pvferry: {}", failure.what));
    outcome::not_begun(volume, failure)
}

/// Prints the result. Nothing that may still fail comes after it, so that it says how the process ends.
pub(super) fn print_result(console: &Console, report: &Report, json: bool) {
    if json {
        console.print(&report.to_json());
    } else if report.outcome != Outcome::Failed {
        console.print(&outcome::summary(report));
    }
}

/// How a session went.
pub(super) struct Session {
    pub(super) outcome: Result<Summary, Failure>,
    pub(super) progress: Arc<Progress>,
}

impl Session {
    /// A session that never began.
    pub(super) fn failed(failure: Failure) -> Self {
        Self { outcome: Err(failure), progress: Arc::default() }
    }
}

/// Refuses a rate at which the peer would take this end for silent.
pub(super) fn check_rate(args: &TransferArgs) -> Result<(), Failure> {
    let Some(rate) = args.rate_limit() else { return Ok(()) };
    let slowest = session::slowest_rate(args.streams, args.timeout);
    if rate >= slowest {
        return Ok(());
    }
    let what = format!(
        "--bwlimit: {rate} bytes a second are too few for --streams {} and --timeout {}: at least {slowest} are needed",
        args.streams, args.timeout
    );
    Err(Failure::new(ExitCode::Usage, what))
}

/// The first signal ends the session in an orderly way, the second the process.
fn watch_signals(cancel: Cancel, console: Console) -> Result<Shutdown, Failure> {
    let shutdown =
        Shutdown::install().map_err(|error| Failure::new(ExitCode::StartUp, error.to_string()))?;
    let watched = shutdown.clone();
    tokio::spawn(async move {
        watched.requested().await;
        cancel.cancel();
        if console.is_terminal() {
            let what = "stopping; press Ctrl-C again to exit immediately";
            console.message(tracing::Level::WARN, what);
        }
        watched.insisted().await;
        #[allow(clippy::disallowed_methods, reason = "the user insists: nothing more to wait for")]
        std::process::exit(i32::from(ExitCode::Signal.number()));
    });
    Ok(shutdown)
}

/// Why a process ends that a signal stopped.
pub(super) fn interrupted_by(signal: Option<&str>) -> String {
    signal.map_or_else(|| "interrupted".into(), |signal| format!("interrupted ({signal})"))
}

/// What a run says that a signal ended: how far it came, and that the next one goes on from there.
fn interrupted(signal: Option<&str>, progress: &Snapshot) -> String {
    let copied = copied(progress);
    let interrupted = interrupted_by(signal);
    format!("{interrupted}{copied}; run the same command to continue")
}

/// How far a session came. What still waited to be sent when it ended does not count.
pub(super) fn copied(progress: &Snapshot) -> String {
    let so_far = if progress.listing_complete { "" } else { " so far" };
    match progress.bytes_total {
        0 => String::new(),
        total => {
            let done = progress.bytes_done.saturating_sub(progress.bytes_unsent());
            let (done, total) = (human::bytes(done), human::bytes(total));
            format!(" with {done} of {total} copied{so_far}")
        }
    }
}

/// Where the termination message goes: where told, else where Kubernetes looks, if it does. The file is opened once, so
/// that a run whose message could not be written does not begin.
pub(super) fn termination_message(given: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = termination_log(given) else { return Ok(None) };
    pod::termination::check(&path).map_err(|error| {
        Failure::new(ExitCode::StartUp, format!("cannot write the termination message: {error}"))
    })?;
    Ok(Some(path))
}

/// The path of the termination message, where one is wanted.
pub(crate) fn termination_log(given: Option<&Path>) -> Option<PathBuf> {
    let default = Path::new(pod::termination::DEFAULT_PATH);
    let path = given.or_else(|| default.exists().then_some(default));
    path.map(Path::to_owned)
}

/// Writes the termination message where one is wanted.
pub(super) fn leave_message(path: Option<&Path>, report: &Report) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let containers = std::env::var(pod::env::CONTAINERS).ok().and_then(|n| n.parse().ok());
    let limit = pod::termination::message_limit(containers.unwrap_or(1));
    pod::termination::write(path, report, limit).map_err(|error| {
        Failure::new(ExitCode::FileIo, format!("cannot write the termination message: {error}"))
    })
}
