//! What every command needs before it begins: limits, logs, metrics.

use std::sync::Arc;

use pod::{ExitCode, Listen};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use telemetry::{
    Console, logging,
    metrics::{self, Metrics, Readiness},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{cli::LogFormat, outcome::Failure};

/// What a command is given by its surroundings.
pub(crate) struct Surroundings {
    pub(crate) console: Console,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Readiness,
}

/// Sets up logs by `RUST_LOG` (else `default`), and allows as many descriptors as the system does.
pub(crate) fn begin(format: LogFormat, default: &str) -> Result<Surroundings, Failure> {
    let console = Console::stdio();
    let filter = std::env::var(pod::env::LOG).unwrap_or_else(|_| default.to_owned());
    let format = match format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::init(format, &filter, &console)
        .map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))?;
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        tracing::debug!("the limit on open files stays as it is: {error}");
    }
    let surroundings = Surroundings {
        console,
        metrics: Arc::new(Metrics::new()),
        readiness: Readiness::default(),
    };
    Ok(surroundings)
}

/// Starts the metrics server where an address is given.
pub(crate) async fn serve_metrics(
    surroundings: &Surroundings,
    address: Option<Listen>,
) -> Result<(), Failure> {
    let Some(address) = address else { return Ok(()) };
    let listener = address.bind().await.map_err(|error| {
        Failure::new(ExitCode::StartUp, format!("cannot serve metrics on {address}: {error}"))
    })?;
    let (shown, readiness) = (Arc::clone(&surroundings.metrics), surroundings.readiness.clone());
    tokio::spawn(metrics::serve(listener, shown, readiness));
    Ok(())
}

/// Has a write beyond the limit on the size of a file fail like any other, in place of a signal that ends the process.
/// To be called within a runtime, which takes the signal.
pub(crate) fn outlive_the_limit_on_files() -> Result<(), Failure> {
    let taken = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()));
    let cannot = |error| Failure::new(ExitCode::StartUp, format!("cannot take a signal: {error}"));
    // Taken for good: nobody has to wait for it.
    taken.map(drop).map_err(cannot)
}

/// Bytes that a receiver lets a sender send ahead, and the half of what it may become on a long line.
pub(crate) const WINDOW: u64 = 16 << 20;

/// Threads for disk and hashing: one a core, and never fewer than two, so that reading and
/// writing overlap.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 16)
}
