//! `pvferry sync`: sends one volume through the tunnel of its pod, or by TLS of its own.

use std::{cell::RefCell, io::ErrorKind, path::Path, time::Duration};

use pod::{ExitCode, NotReady, Reason, Report, backoff::Backoff, gate, marker, status};
use session::{
    Error, Source,
    handshake::{self, Agreed},
};
use telemetry::Console;
use tunnel::{Connector, Endpoint, Kind, Role, Target};
use wire::{FilterRule, Refusal};

use super::{
    endpoints, filters,
    transfer::{self, Run, Session},
    with_runtime,
};
use crate::{
    cli::{FilterOption, SyncArgs},
    link::BoxedLink,
    out_of_memory::{self, Destinations},
    outcome::Failure,
    policy,
    setup::{self, Common, Surroundings},
};

/// However this ends, it leaves its report: the tunnel of the pod waits for the marker, the controller for the message.
pub(super) fn run(
    args: SyncArgs,
    filters: Vec<FilterOption>,
    common: &Common,
    surroundings: &Surroundings,
) -> ExitCode {
    let (message, place) = match transfer::termination_message(args.termination_log.as_deref()) {
        Ok(message) => (message, Ok(())),
        Err(failure) => (None, Err(failure)),
    };
    let ending = Ending {
        marker_dir: args.marker_dir.clone(),
        message,
        volume: args.volume.clone(),
        console: surroundings.console.clone(),
        json: args.transfer.json,
    };
    let last = Destinations {
        stdout: ending.json,
        message: ending.message.as_deref(),
        marker: ending.marker_dir.as_deref().map(|dir| (dir, &ending.volume)),
    };
    out_of_memory::prepare(ending.volume.as_str(), &last);
    let report =
        place.and_then(|()| begin(args, filters, common, surroundings)).unwrap_or_else(|failure| {
            transfer::not_begun(&ending.console, ending.volume.as_str(), &failure)
        });
    ending.leave(report)
}

fn begin(
    args: SyncArgs,
    filters: Vec<FilterOption>,
    common: &Common,
    surroundings: &Surroundings,
) -> Result<Report, Failure> {
    endpoints::check_marker_dir(args.marker_dir.as_deref())?;
    if let Some(dir) = &args.marker_dir {
        marker::clear(dir, &args.volume).map_err(|error| {
            Failure::new(ExitCode::StartUp, format!("cannot use the marker directory: {error}"))
        })?;
    }
    common.begin(&surroundings.console, args.transfer.log_filter("info"))?;
    let filters = filters::read(&filters)?;
    transfer::check_rate(&args.transfer)?;
    let source = endpoints::open_source(&args.source)?;
    let metrics = common.listen()?;
    with_runtime(&policy::sync(&args), metrics, surroundings, async {
        attempts(args, source, filters, surroundings).await
    })
}

/// Where the report goes when the run is over.
struct Ending {
    marker_dir: Option<std::path::PathBuf>,
    message: Option<std::path::PathBuf>,
    volume: pod::VolumeName,
    console: Console,
    json: bool,
}

impl Ending {
    /// Leaves the report in the message and the marker and on standard output, and takes into it what could not be written.
    /// What is printed comes last: it cannot be taken back.
    fn leave(self, mut report: Report) -> ExitCode {
        self.take_output_error(&mut report);
        self.leave_files(&mut report);
        transfer::print_result(&self.console, &report, self.json);
        if self.take_output_error(&mut report) {
            self.leave_files(&mut report);
        }
        report.exit_code
    }

    /// Takes into the report that something could not be printed; true where that is so.
    fn take_output_error(&self, report: &mut Report) -> bool {
        let Some(error) = self.console.take_output_error() else { return false };
        self.fail(report, Failure::lost_output(&error));
        true
    }

    /// The marker comes after the message, for the tunnel may end by it.
    fn leave_files(&self, report: &mut Report) {
        self.leave_message(report);
        if let Some(dir) = &self.marker_dir
            && let Err(error) = marker::write(dir, &self.volume, report)
        {
            let what = format!("cannot write the completion marker: {error}");
            self.fail(report, Failure::new(ExitCode::FileIo, what));
            self.leave_message(report);
        }
    }

    fn leave_message(&self, report: &mut Report) {
        if let Err(failure) = transfer::leave_message(self.message.as_deref(), report) {
            self.fail(report, failure);
        }
    }

    fn fail(&self, report: &mut Report, failure: Failure) {
        self.console.message(tracing::Level::ERROR, &format!("pvferry: {}", failure.what));
        report.fail(failure.code, failure.what);
    }
}

/// Runs sessions until one ends for good.
async fn attempts(
    args: SyncArgs,
    source: Source,
    filters: Vec<FilterRule>,
    surroundings: &Surroundings,
) -> Result<Report, Failure> {
    let route = route(&args)?;
    let marker_dir = args.marker_dir.clone();
    let (wait, limit) = (Duration::from_secs(u64::from(args.wait)), args.attempts);
    let run = Run::new(args.volume.as_str(), source, args.transfer, filters, surroundings)?;
    let mut backoff = Backoff::default();
    let mut attempt = 1;
    let mut lost = None;
    loop {
        let ready = tokio::select! {
            ready = ready(&run, &route, marker_dir.as_deref(), wait) => ready,
            () = run.cancel.cancelled() => Err(Error::Cancelled.into()),
        };
        let session = match ready {
            Ok((streams, agreed)) => {
                surroundings.readiness.set(true);
                run.send(streams, agreed, matches!(route, Route::Via(_))).await?
            }
            Err(failure) => {
                let session = match lost {
                    Some(session) => not_back(session, failure),
                    None => Session::failed(failure),
                };
                return Ok(run.end(&session, attempt));
            }
        };
        match &session.outcome {
            Err(failure) if failure.retryable && attempt < limit && !run.cancel.is_cancelled() => {
                let pause = backoff.next_delay();
                tracing::warn!(
                    attempt,
                    "{}; retrying in {:.1} s",
                    failure.what,
                    pause.as_secs_f64()
                );
                tokio::time::sleep(pause).await;
                attempt += 1;
                lost = Some(session);
            }
            _ => return Ok(run.end(&session, attempt)),
        }
    }
}

/// A session whose connection was lost, after which the server could not be reached again because of `failure`.
fn not_back(lost: Session, failure: Failure) -> Session {
    let what = if failure.code == ExitCode::Signal {
        failure.what
    } else {
        let far = transfer::copied(&lost.progress.snapshot());
        let why = failure.what;
        format!(
            "the connection was lost{far}, and the server did not come back: {why}; run the same command to continue"
        )
    };
    Session { outcome: Err(Failure { what, ..failure }), ..lost }
}

/// How the server is reached.
enum Route {
    Via(Endpoint),
    Connect(Box<Connector>, Target, Option<String>),
}

fn route(args: &SyncArgs) -> Result<Route, Failure> {
    match (&args.route.via, &args.route.connect, &args.identity) {
        (Some(Endpoint::Tcp(address)), _, _) if address.port() == 0 => {
            let what = format!("--via {address}: nothing listens on port 0");
            Err(Failure::new(ExitCode::Usage, what))
        }
        (Some(endpoint), _, _) if endpoint.is_local() => Ok(Route::Via(endpoint.clone())),
        (Some(endpoint), _, _) => {
            let what = format!(
                "--via {endpoint}: plaintext would leave this machine: use --connect with --identity, or a tunnel on loopback"
            );
            Err(Failure::new(ExitCode::Usage, what))
        }
        (None, Some(target), Some(identity)) => {
            let identity = setup::identity(identity, Role::Source)?;
            identity.require_volume(args.volume.as_str())?;
            let connector = Connector::new(identity);
            let name = args.server_name.clone().map(String::from);
            Ok(Route::Connect(Box::new(connector), target.clone(), name))
        }
        _ => Err(Failure::new(ExitCode::Usage, "either --via, or --connect with --identity")),
    }
}

impl Route {
    async fn open(&self) -> Result<BoxedLink, tunnel::Error> {
        Ok(match self {
            Self::Via(endpoint) => Box::new(endpoint.connect().await?),
            Self::Connect(connector, target, name) => {
                Box::new(connector.connect(target, name.as_deref()).await?)
            }
        })
    }
}

/// Waits until the volume answers, through whatever lies between.
async fn ready(
    run: &Run<'_>,
    route: &Route,
    marker_dir: Option<&Path>,
    wait: Duration,
) -> Result<(Vec<BoxedLink>, Agreed), Failure> {
    // The gate speaks of readiness; what a refusal means for the exit code is the session's to say.
    let refused = RefCell::new(None);
    let attempt = async || {
        refused.take();
        let mut first =
            route.open().await.map_err(|error| not_reached(route, &error, marker_dir))?;
        let hello = run.hello().map_err(|failure| NotReady::new(Reason::Protocol, failure.what))?;
        let agreed = handshake::open(&mut first, hello).await.map_err(|error| {
            *refused.borrow_mut() = match &error {
                Error::Refused(..) | Error::Decode(_) => Some(Failure::from(&error)),
                _ => None,
            };
            not_agreed(route, &error, marker_dir)
        })?;
        let mut streams = vec![first];
        // Until all streams are there the session has not begun: one that is lost is no reason to end the run.
        for _ in 1..agreed.streams() {
            let mut stream =
                route.open().await.map_err(|error| not_reached(route, &error, marker_dir))?;
            let joined = handshake::join(&mut stream, agreed.session()).await;
            joined.map_err(|error| not_agreed(route, &error, marker_dir))?;
            streams.push(stream);
        }
        Ok((streams, agreed))
    };
    gate::wait_ready(wait, attempt).await.map_err(|gave_up| {
        let failure = Failure::from(gave_up);
        match refused.take() {
            Some(refusal) => Failure { what: failure.what, ..refusal },
            None => failure,
        }
    })
}

fn not_reached(route: &Route, error: &tunnel::Error, marker_dir: Option<&Path>) -> NotReady {
    if matches!(route, Route::Via(_)) && is_reset(error) {
        return broken_off(route, error.to_string(), marker_dir);
    }
    let reason = match (route, error.kind()) {
        (Route::Via(_), _) => Reason::NotStarted,
        (_, Kind::Dns) => Reason::Dns,
        (_, Kind::Refused) => Reason::Refused,
        (_, Kind::ConnectTimeout) => Reason::Timeout,
        (_, Kind::Identity) => Reason::Identity,
        _ => Reason::Tls,
    };
    let what = match error {
        tunnel::Error::Local { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            format!("{error}: run sync as the same user as the tunnel")
        }
        _ => Failure::from(error).what,
    };
    NotReady { retryable: error.is_retryable(), ..NotReady::new(reason, what) }
}

/// True where something listens that took the connection and closed it at once, so fast that connecting failed by it.
fn is_reset(error: &tunnel::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    source.is_some_and(|io| io.kind() == ErrorKind::ConnectionReset)
}

/// A connection that a tunnel took and closed again: the reason lies in its status file.
fn broken_off(route: &Route, what: String, marker_dir: Option<&Path>) -> NotReady {
    match (marker_dir.and_then(status::read), route) {
        (Some(status), _) => status.into(),
        (None, Route::Via(endpoint)) => {
            let why = "if a tunnel listens there, its log has the reason; if serve does, use --connect with --identity";
            NotReady::new(Reason::Tls, format!("{endpoint} closed the connection: {why} ({what})"))
        }
        (None, _) => NotReady::new(Reason::Tls, what),
    }
}

/// Why the far end did not agree. A tunnel can only close a connection that it cannot carry; the
/// reason lies in its status file.
fn not_agreed(route: &Route, error: &Error, marker_dir: Option<&Path>) -> NotReady {
    if let Error::Stream(io) = error
        && let Some(tls) = tunnel::Error::from_io(io)
    {
        let reason = if tls.kind() == Kind::Identity { Reason::Identity } else { Reason::Tls };
        return NotReady {
            retryable: tls.is_retryable(),
            ..NotReady::new(reason, tls.to_string())
        };
    }
    match error {
        Error::Refused(refusal, _) => {
            let reason = match refusal {
                Refusal::UnknownVolume => Reason::UnknownVolume,
                Refusal::NotAuthorised => Reason::Identity,
                Refusal::Busy => Reason::Busy,
                Refusal::Unavailable => Reason::Refused,
                _ => Reason::Protocol,
            };
            NotReady { retryable: error.is_retryable(), ..NotReady::new(reason, error.to_string()) }
        }
        Error::Eof | Error::Stream(_) => broken_off(route, error.to_string(), marker_dir),
        _ => NotReady::new(Reason::Protocol, error.to_string()),
    }
}
