//! `pvferry tunnel`: carries the plaintext of a pod over mutual TLS, and leaves with its pod.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use pod::{
    ExitCode, Reason, Report, Shutdown, VolumeName, idle::IdleWatch, marker, status, status::Status,
};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::Instant,
};
use tunnel::{Endpoint, Event, IdentitySource, Kind, Role, Tunnel};

use super::{endpoints, transfer, with_runtime};
use crate::{
    cli::TunnelArgs,
    out_of_memory::{self, Destinations},
    outcome::{self, Failure},
    policy,
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
    let sockets = sockets(&args)?;
    let metrics = common.listen()?;
    with_runtime(&policy::tunnel(&args), metrics, surroundings, async {
        carry(args, sockets, surroundings).await
    })
}

/// A socket for plaintext, and what belongs to it.
struct Socket {
    /// The only volume that is reached through it.
    volume: Option<VolumeName>,
    listen: Endpoint,
    identity: IdentitySource,
    /// Where completion markers come, and where sync finds why the server cannot be reached.
    marker_dir: Option<PathBuf>,
    watch: Mutex<IdleWatch>,
}

/// One socket for all volumes, or one for each: then its identity is good for that volume and no other, whatever its
/// client asks for. The bytes are not looked at: the server refuses what the certificate does not permit.
fn sockets(args: &TunnelArgs) -> Result<Vec<Socket>, Failure> {
    let idle = Duration::from_secs(u64::from(args.idle));
    let watch = || Mutex::new(IdleWatch::new(now(), idle));
    if let Some(listen) = &args.listen {
        endpoints::check_marker_dir(args.marker_dir.as_deref())?;
        let identity = setup::identity(&args.identity, Role::Source)?;
        let (listen, marker_dir) = (listen.clone(), args.marker_dir.clone());
        return Ok(vec![Socket { volume: None, listen, identity, marker_dir, watch: watch() }]);
    }
    endpoints::check_volume_dirs(&args.volume)?;
    let volumes = args.volume.len();
    if let Some(count) = args.exit_when.filter(|count| *count as usize > volumes) {
        let what =
            format!("--exit-when {count} can never be reached: only {volumes} volumes are given");
        return Err(Failure::new(ExitCode::Usage, what));
    }
    let socket = |(name, dir): &(VolumeName, PathBuf)| {
        let listen = Endpoint::unix(dir.join(pod::TUNNEL_SOCKET)).map_err(|error| {
            let what = format!("--volume {name}={}: {error}", dir.display());
            Failure::new(ExitCode::Usage, what)
        })?;
        let identity = IdentitySource::of_volume(args.identity.join(name.as_str()), name.as_str())?;
        let (volume, marker_dir) = (Some(name.clone()), Some(dir.clone()));
        Ok(Socket { volume, listen, identity, marker_dir, watch: watch() })
    };
    args.volume.iter().map(socket).collect()
}

async fn carry(
    args: TunnelArgs,
    sockets: Vec<Socket>,
    surroundings: &Surroundings,
) -> Result<(), Failure> {
    let signals =
        Shutdown::install().map_err(|error| Failure::new(ExitCode::StartUp, error.to_string()))?;
    let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
    let silent = Arc::new(AtomicUsize::new(sockets.len()));
    let (stop, stopped) = watch::channel(());
    let mut tunnels = JoinSet::new();
    for socket in &sockets {
        if let Some(dir) = &socket.marker_dir {
            let _ = status::clear(dir);
            warn_of_markers(dir);
        }
        let name = args.server_name.clone().map(String::from);
        let identity = socket.identity.clone();
        let tunnel =
            Tunnel::new(socket.listen.clone(), args.connect.clone(), identity).server_name(name);
        let (socket, silent) = (Arc::clone(socket), Arc::clone(&silent));
        let readiness = surroundings.readiness.clone();
        let events = move |event: Event| {
            if matches!(event, Event::Listening { .. }) && silent.fetch_sub(1, Relaxed) == 1 {
                readiness.set(true);
            }
            socket.on_event(&event);
        };
        let mut stopped = stopped.clone();
        tunnels.spawn(tunnel.run(async move { drop(stopped.changed().await) }, events));
    }
    let reason = tokio::select! {
        reason = reason_to_leave(&sockets, args.exit_when, &signals) => reason,
        // Only one that cannot listen ends by itself.
        Some(ended) = tunnels.join_next() => task(ended),
    };
    drop(stop);
    while let Some(ended) = tunnels.join_next().await {
        task(ended)?;
    }
    reason
}

/// A sync container can end before the tunnel starts, so an early marker counts. It can also be left from an earlier run.
fn warn_of_markers(dir: &Path) {
    for (volume, _) in marker::read_all(dir).unwrap_or_default() {
        let marker = dir.join(format!("{volume}.done"));
        tracing::warn!(
            marker = %marker.display(),
            "this completion marker existed when the tunnel started, and counts: if it is of an earlier run, remove it and start again"
        );
    }
}

/// How the task of a socket ended.
fn task(ended: Result<Result<(), tunnel::Error>, JoinError>) -> Result<(), Failure> {
    let crashed = |error: JoinError| Failure::new(ExitCode::Socket, error.to_string());
    Ok(ended.map_err(crashed)??)
}

/// Waits for the markers, for a signal, or until nobody seems to be left.
async fn reason_to_leave(
    sockets: &[Arc<Socket>],
    exit_when: Option<u32>,
    signals: &Shutdown,
) -> Result<(), Failure> {
    let pod_ended = async {
        let Some(count) = exit_when else { return std::future::pending().await };
        loop {
            let mut markers = Vec::new();
            let mut deserted = true;
            for socket in sockets {
                let found = socket.markers()?;
                // A volume that has ended needs no connection.
                deserted &= socket.volume.is_some() && !found.is_empty()
                    || socket.watch.lock().expired(now());
                markers.extend(found);
            }
            if markers.len() >= count as usize {
                for (volume, report) in markers {
                    tracing::info!(%volume, outcome = ?report.outcome, "sync finished");
                }
                return Ok(());
            }
            if deserted {
                let what = "no connection within --idle, and completion markers are missing: \
                            a sync process probably died without writing one";
                return Err(Failure { retryable: true, ..Failure::new(ExitCode::IoTimeout, what) });
            }
            tokio::time::sleep(marker::POLL_INTERVAL).await;
        }
    };
    tokio::select! {
        ended = pod_ended => ended,
        () = signals.requested() => {
            Err(Failure { retryable: true, ..Failure::new(ExitCode::Signal, transfer::interrupted_by(signals.signal())) })
        }
    }
}

impl Socket {
    /// The markers in its directory. Where it is for one volume, a marker of another one says nothing.
    fn markers(&self) -> Result<Vec<(VolumeName, Report)>, Failure> {
        let Some(dir) = &self.marker_dir else { return Ok(Vec::new()) };
        if let Some(volume) = &self.volume {
            return Ok(marker::read(dir, volume)
                .map(|report| (volume.clone(), report))
                .into_iter()
                .collect());
        }
        marker::read_all(dir).map_err(|error| {
            Failure::new(ExitCode::FileIo, format!("cannot read the completion markers: {error}"))
        })
    }

    fn on_event(&self, event: &Event) {
        let marker_dir = self.marker_dir.as_deref();
        let volume = self.volume.as_ref().map(tracing::field::display);
        match event {
            Event::Listening { address } => tracing::info!(volume, "listening on {address}"),
            Event::Connected { id, .. } => {
                self.watch.lock().opened(*id);
                tracing::debug!(volume, id, "connected");
                if let Some(dir) = marker_dir {
                    let _ = status::clear(dir);
                }
            }
            // Also after it had been connected, where the server refuses our certificate.
            Event::Failed { id, error } => {
                self.watch.lock().ended(*id, now());
                tracing::warn!(volume, id, "{error}");
                if let Some(dir) = marker_dir {
                    let told = status::write(dir, &Status::now(reason(error), error.to_string()));
                    if let Err(error) = told {
                        tracing::warn!("{error}");
                    }
                }
            }
            Event::Closed { id, sent, received, error } => {
                self.watch.lock().ended(*id, now());
                match error {
                    None => tracing::info!(volume, id, sent, received, "connection closed"),
                    Some(tunnel::Error::Local { source, .. }) => {
                        tracing::warn!(
                            volume,
                            id,
                            sent,
                            received,
                            "sync closed the connection: {source}"
                        );
                    }
                    Some(error) => {
                        tracing::warn!(
                            volume,
                            id,
                            sent,
                            received,
                            "connection to the server lost: {error}"
                        );
                    }
                }
            }
            _ => {}
        }
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
