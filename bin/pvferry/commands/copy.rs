//! `pvferry copy`: sender and receiver in one process, over TLS on loopback, with keys that are made
//! for the run and never touch the disk.

use std::{path::Path, sync::Arc, time::Duration};

use pod::{ExitCode, Report};
use session::{Context, Error, Progress, Received, handshake, server::Server};
use tokio::{net::TcpListener, time::Instant};
use tunnel::{Acceptor, Connector, Identity, IdentitySource, Target, pki};

use super::{
    endpoints, filters,
    transfer::{self, Run, Session},
    with_runtime,
};
use crate::{
    cli::{CopyArgs, FilterOption},
    link::BoxedLink,
    out_of_memory::{self, Destinations},
    outcome::Failure,
    policy,
    setup::{self, Common, Surroundings},
};

const VOLUME: &str = "copy";
/// For TLS and hello, in a process that talks to itself.
const HANDSHAKE: Duration = Duration::from_secs(30);

pub(super) fn run(
    args: CopyArgs,
    filters: Vec<FilterOption>,
    common: &Common,
    surroundings: &Surroundings,
) -> ExitCode {
    let (json, console) = (args.transfer.json, &surroundings.console);
    out_of_memory::prepare(VOLUME, &Destinations { stdout: json, ..Destinations::default() });
    let report = begin(args, filters, common, surroundings)
        .unwrap_or_else(|failure| transfer::not_begun(console, VOLUME, &failure));
    transfer::print_result(console, &report, json);
    report.exit_code
}

/// Everything that can be refused is refused before the destination is created, and that comes before the sandbox: what
/// does not exist cannot be written to.
fn begin(
    args: CopyArgs,
    filters: Vec<FilterOption>,
    common: &Common,
    surroundings: &Surroundings,
) -> Result<Report, Failure> {
    common.begin(&surroundings.console, args.transfer.log_filter("warn"))?;
    let filters = filters::read(&filters)?;
    transfer::check_rate(&args.transfer)?;
    let source = endpoints::open_source(&args.source)?;
    let metrics = common.listen()?;
    endpoints::prepare(&args.source, &args.destination, args.transfer.dry_run)?;
    with_runtime(&policy::copy(&args), metrics, surroundings, async {
        let run = Run::new(VOLUME, source, args.transfer, filters, surroundings)?.in_one_process();
        surroundings.readiness.set(true);
        let session = match over_loopback(&run, &args.destination).await {
            Ok(session) => session,
            Err(failure) => Session::failed(failure),
        };
        Ok(run.end(&session, 1))
    })
}

async fn over_loopback(run: &Run<'_>, destination: &Path) -> Result<Session, Failure> {
    let setup = |error: &dyn std::fmt::Display| {
        Failure::new(ExitCode::StartUp, format!("cannot set up the loopback connection: {error}"))
    };
    let pair = pki::ephemeral(VOLUME).map_err(|error| setup(&error))?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| setup(&error))?;
    let address = listener.local_addr().map_err(|error| setup(&error))?;
    let server = Server::<BoxedLink>::new(setup::WINDOW);
    let acceptor = Acceptor::new(IdentitySource::fixed(pair.destination));
    let receiving = tokio::spawn(receive(
        listener,
        acceptor,
        server,
        destination.to_owned(),
        run.args().timeout,
    ));
    let session = send(run, &address.into(), pair.source).await;
    // The receiver finishes by itself. Its view adds nothing to what it told the sender, unless it could not tell.
    let received = tokio::time::timeout(Duration::from_secs(10), receiving).await;
    match (session, received) {
        (Err(failure), Ok(Ok(Err(reason)))) if failure.code == ExitCode::Stream => {
            Err(reason.into())
        }
        (session, _) => session,
    }
}

/// Connects to the receiver and runs a session with it.
async fn send(run: &Run<'_>, address: &Target, identity: Identity) -> Result<Session, Failure> {
    let connector = Connector::new(IdentitySource::fixed(identity));
    let connect = async || -> Result<BoxedLink, Failure> {
        let stream = connector.connect(address, None).await?;
        Ok(Box::new(stream) as BoxedLink)
    };
    let mut first = connect().await?;
    let agreed = handshake::open(&mut first, run.hello()?).await?;
    let mut streams = vec![first];
    for _ in 1..agreed.streams() {
        let mut stream = connect().await?;
        handshake::join(&mut stream, agreed.session()).await?;
        streams.push(stream);
    }
    run.send(streams, agreed, false).await
}

async fn receive(
    listener: TcpListener,
    acceptor: Acceptor,
    server: Arc<Server<BoxedLink>>,
    destination: std::path::PathBuf,
    io_timeout: u32,
) -> Result<Received, Error> {
    let mut running = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            ended = wait_for(&mut running) => return ended,
        };
        let Ok((stream, _)) = accepted else { continue };
        let deadline = Instant::now() + HANDSHAKE;
        let Ok((tls, _)) = acceptor.accept(stream, deadline).await else { continue };
        let path = destination.clone();
        let Some(incoming) = server.admit(Box::new(tls) as BoxedLink, |_| Ok(path.into())).await?
        else {
            continue;
        };
        let context = Context {
            progress: Arc::new(Progress::default()),
            monitor: Arc::new(()),
            window: setup::WINDOW,
            memory_budget: session::MEMORY_BUDGET,
            workers: setup::workers(),
            io_timeout,
            bandwidth_limit: None,
            compress: session::Compression::Never,
            relayed: false,
            cancel: session::Cancel::default(),
        };
        running = Some(tokio::spawn(async move {
            let (stream, joining, agreed, target, _registered) = incoming.into_parts();
            session::receive(stream, joining, agreed, target, context).await
        }));
    }
}

async fn wait_for(
    running: &mut Option<tokio::task::JoinHandle<Result<Received, Error>>>,
) -> Result<Received, Error> {
    match running {
        Some(session) => session.await.unwrap_or(Err(Error::Eof)),
        None => std::future::pending().await,
    }
}
