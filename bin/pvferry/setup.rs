//! What every command needs before it begins: limits, logs, metrics.

use std::{net, path::Path, sync::Arc};

use pod::{ExitCode, Listen};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use telemetry::{
    Console, Format, logging,
    metrics::{self, Metrics, Readiness},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tunnel::{IdentitySource, Role};

use crate::{cli::LogFormat, out_of_memory, outcome::Failure};

/// What a command is given by its surroundings.
pub(crate) struct Surroundings {
    pub(crate) console: Console,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Readiness,
}

impl Surroundings {
    pub(crate) fn new(log_format: LogFormat) -> Self {
        let format = match log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => {
                out_of_memory::report_in_json();
                Format::Json
            }
        };
        Self {
            console: Console::stdio().with_format(format),
            metrics: Arc::new(Metrics::new()),
            readiness: Readiness::default(),
        }
    }
}

/// The options of every command.
pub(crate) struct Common {
    pub(crate) metrics: Option<Listen>,
    /// Connections of which this process holds the ends, beside those that every command has.
    pub(crate) connections: usize,
}

/// Descriptors without which a command could fail at any moment: `copy`, which takes the most, works with 18.
const FEWEST_DESCRIPTORS: usize = 24;

impl Common {
    /// Sets up logs by `RUST_LOG` (else `default`), and allows as many descriptors as the system does. Too few are refused.
    pub(crate) fn begin(&self, console: &Console, default: &str) -> Result<(), Failure> {
        let filter = std::env::var(pod::env::LOG).unwrap_or_else(|_| default.to_owned());
        logging::init(&filter, console)
            .map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))?;
        let mut files = getrlimit(Resource::Nofile);
        files.current = files.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, files) {
            tracing::debug!("cannot raise the limit on open files: {error}");
        }
        let (limit, need) =
            (volume::descriptors::limit(), FEWEST_DESCRIPTORS.saturating_add(self.connections));
        if limit < need {
            let what = format!(
                "the limit on open files is {limit}, but at least {need} are needed: raise it (ulimit -n)"
            );
            return Err(Failure::new(ExitCode::StartUp, what));
        }
        Ok(())
    }

    /// Listens for readers of metrics, if an address is given. This comes before the sandbox, which hides the files that
    /// names are looked up with.
    pub(crate) fn listen(&self) -> Result<Option<net::TcpListener>, Failure> {
        let Some(address) = &self.metrics else { return Ok(None) };
        address.bind_blocking().map(Some).map_err(|error| {
            Failure::new(ExitCode::StartUp, format!("cannot serve metrics on {address}: {error}"))
        })
    }

    /// Refuses options that a command without a server of metrics would ignore.
    pub(crate) fn without_metrics(&self) -> Result<(), Failure> {
        match self.metrics {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                ExitCode::Usage,
                "--metrics works with copy, sync, tunnel and serve only",
            )),
        }
    }
}

/// Serves metrics to the readers that come to `listener`.
pub(crate) fn serve_metrics(
    surroundings: &Surroundings,
    listener: Option<net::TcpListener>,
) -> Result<(), Failure> {
    let Some(listener) = listener else { return Ok(()) };
    let listener = TcpListener::from_std(listener).map_err(|error| {
        Failure::new(ExitCode::StartUp, format!("cannot serve metrics: {error}"))
    })?;
    let (shown, readiness) = (Arc::clone(&surroundings.metrics), surroundings.readiness.clone());
    tokio::spawn(metrics::serve(listener, shown, readiness));
    Ok(())
}

/// The identity in `directory`, which must be for `role`: with another one every connection would fail.
pub(crate) fn identity(directory: &Path, role: Role) -> Result<IdentitySource, Failure> {
    let identity = IdentitySource::new(directory).map_err(|error| {
        let failure = Failure::from(error);
        // The directory of an authority holds one identity for each role.
        let meant = directory.join(role.as_str());
        if meant.join("tls.crt").exists() && !directory.join("tls.crt").exists() {
            let what = format!("{}; did you mean {}?", failure.what, meant.display());
            return Failure { what, ..failure };
        }
        failure
    })?;
    identity.require(role)?;
    Ok(identity)
}

/// Has a write beyond the limit on the size of a file fail like any other, in place of a signal that ends the process.
/// To be called within a runtime, which takes the signal.
pub(crate) fn outlive_the_limit_on_files() -> Result<(), Failure> {
    let taken = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()));
    let cannot = |error| {
        Failure::new(ExitCode::StartUp, format!("cannot install a signal handler: {error}"))
    };
    // Taken for good: nobody has to wait for it.
    taken.map(drop).map_err(cannot)
}

/// Bytes that a receiver lets a sender send ahead, and the half of what it may become on a long line.
pub(crate) const WINDOW: u64 = 16 << 20;

/// Descriptors that the threads of one core may need at a time: files that are read, and at the other end of a
/// `copy` written and copied from.
const DESCRIPTORS_PER_WORKER: usize = 16;

/// Connections at a server whose TLS handshake is not over. Each may have sent 16 KiB, and costs about as much again. A
/// quarter of the descriptors at most, also while evicted ones are not gone; the others are for what was admitted.
pub(crate) fn handshakes() -> usize {
    (volume::descriptors::limit() / 8).clamp(4, 1024)
}

/// Connections at a server that are authenticated and have not sent their opening message, which may take 256 KiB.
pub(crate) fn openings() -> usize {
    (volume::descriptors::limit() / 16).clamp(4, 256)
}

/// Threads for disk and hashing: one a core, and never fewer than two, so that reading and
/// writing overlap. A low limit on open files allows for fewer.
pub(crate) fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    cores.min(volume::descriptors::limit() / DESCRIPTORS_PER_WORKER).clamp(2, 16)
}
