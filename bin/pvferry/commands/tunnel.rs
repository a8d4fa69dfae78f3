//! `pvferry tunnel`: carries the plaintext of a pod over mutual TLS, and leaves with its pod.

use std::{path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use pod::{ExitCode, Reason, Shutdown, idle::IdleWatch, marker, status, status::Status};
use tokio::time::Instant;
use tunnel::{Event, IdentitySource, Kind, Role, Tunnel};

use super::{endpoints, transfer, with_runtime};
use crate::{
    cli::TunnelArgs,
    out_of_memory::{self, Destinations},
    outcome::{self, Failure},
    sandbox::Sandbox,
    setup::{self, Common, Surroundings},
};

pub(super) fn run(
    args: TunnelArgs,
    common: &Common,
    surroundings: &Surroundings,
) -> Result<ExitCode, Failure> {
    let message = transfer::termination_message(args.termination_log.as_deref())?;
    let last = Destinations { message: message.as_deref(), ..Destinations::default() };
    out_of_memory::prepare("", &last);
    begin(args, common, surroundings).inspect_err(|failure| {
        let report = outcome::not_begun("", failure);
        // The reason of the run comes before that of its message.
        if let Err(unwritten) = transfer::leave_message(message.as_deref(), &report) {
            surroundings
                .console
                .message(tracing::Level::ERROR, &format!("pvferry: {}", unwritten.what));
        }
    })?;
    // That it ended well proves nothing about a volume, so there is no message then.
    Ok(ExitCode::Ok)
}

fn begin(args: TunnelArgs, common: &Common, surroundings: &Surroundings) -> Result<(), Failure> {
    common.begin(&surroundings.console, "info")?;
    endpoints::check_marker_dir(args.marker_dir.as_deref())?;
    let identity = setup::identity(&args.identity, Role::Source)?;
    let metrics = common.listen()?;
    with_runtime(&Sandbox::tunnel(&args), metrics, surroundings, async {
        carry(args, identity, surroundings).await
    })
}

async fn carry(
    args: TunnelArgs,
    identity: IdentitySource,
    surroundings: &Surroundings,
) -> Result<(), Failure> {
    let name = args.server_name.map(String::from);
    let tunnel = Tunnel::new(args.listen, args.connect, identity).server_name(name);
    let signals =
        Shutdown::install().map_err(|error| Failure::new(ExitCode::StartUp, error.to_string()))?;
    let idle = Duration::from_secs(u64::from(args.idle));
    let watch = Arc::new(Mutex::new(IdleWatch::new(now(), idle)));
    if let Some(dir) = &args.marker_dir {
        let _ = status::clear(dir);
    }
    let events = {
        let (watch, dir) = (Arc::clone(&watch), args.marker_dir.clone());
        let readiness = surroundings.readiness.clone();
        move |event: Event| on_event(&event, &watch, dir.as_ref(), &readiness)
    };
    let ended = Arc::new(Mutex::new(Ok(())));
    let leave = {
        let ended = Arc::clone(&ended);
        async move {
            let reason = reason_to_leave(&args.marker_dir, args.exit_when, &watch, &signals).await;
            *ended.lock() = reason;
        }
    };
    tunnel.run(leave, events).await?;
    std::mem::replace(&mut *ended.lock(), Ok(()))
}

/// Waits for the markers, for a signal, or until nobody seems to be left.
async fn reason_to_leave(
    marker_dir: &Option<PathBuf>,
    exit_when: Option<u32>,
    watch: &Mutex<IdleWatch>,
    signals: &Shutdown,
) -> Result<(), Failure> {
    let markers = async {
        let (Some(dir), Some(count)) = (marker_dir, exit_when) else {
            return std::future::pending().await;
        };
        let found = marker::wait_for(dir, count as usize, marker::POLL_INTERVAL).await;
        let markers = found.map_err(|error| {
            Failure::new(ExitCode::FileIo, format!("cannot watch the markers: {error}"))
        })?;
        for (volume, report) in markers {
            tracing::info!(%volume, outcome = ?report.outcome, "sync container is done");
        }
        Ok(())
    };
    let deserted = async {
        if exit_when.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(marker::POLL_INTERVAL).await;
            if watch.lock().expired(now()) {
                let what = "no connection for too long and not all markers are there: \
                            a sync container must have died without leaving one";
                return Err(Failure { retryable: true, ..Failure::new(ExitCode::IoTimeout, what) });
            }
        }
    };
    tokio::select! {
        ended = markers => ended,
        ended = deserted => ended,
        () = signals.requested() => {
            Err(Failure { retryable: true, ..Failure::new(ExitCode::Signal, "ended by a signal") })
        }
    }
}

fn on_event(
    event: &Event,
    watch: &Mutex<IdleWatch>,
    marker_dir: Option<&PathBuf>,
    readiness: &telemetry::metrics::Readiness,
) {
    match event {
        Event::Listening { address } => {
            readiness.set(true);
            tracing::info!("listening on {address}");
        }
        Event::Connected { id, .. } => {
            watch.lock().opened(*id);
            tracing::debug!(id, "connected");
            if let Some(dir) = marker_dir {
                let _ = status::clear(dir);
            }
        }
        // Also after it had been connected, where the server refuses our certificate.
        Event::Failed { id, error } => {
            watch.lock().ended(*id, now());
            tracing::warn!(id, "{error}");
            if let Some(dir) = marker_dir {
                let told = status::write(dir, &Status::now(reason(error), error.to_string()));
                if let Err(error) = told {
                    tracing::warn!("{error}");
                }
            }
        }
        Event::Closed { id, sent, received, error } => {
            watch.lock().ended(*id, now());
            match error {
                None => tracing::info!(id, sent, received, "connection ended"),
                Some(error) => tracing::warn!(id, sent, received, "connection broke: {error}"),
            }
        }
        _ => {}
    }
}

fn reason(error: &tunnel::Error) -> Reason {
    match error.kind() {
        Kind::Dns => Reason::Dns,
        Kind::Refused => Reason::Refused,
        Kind::ConnectTimeout => Reason::Timeout,
        Kind::Identity => Reason::Identity,
        _ => Reason::Tls,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
