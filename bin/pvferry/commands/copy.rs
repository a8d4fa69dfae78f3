//! `pvferry copy`: sender and receiver in one process, over TLS on loopback, with keys that are made
//! for the run and never touch the disk.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::Duration};

use pod::ExitCode;
use session::{Context, Error, Progress, Received, handshake, server::Server};
use tokio::{net::TcpListener, time::Instant};
use tunnel::{Acceptor, Connector, IdentitySource, pki};
use wire::FilterRule;

use super::transfer::{Run, Session};
use crate::{
    cli::CopyArgs,
    link::BoxedLink,
    outcome::{self, Failure},
    setup::{self, Surroundings},
};

const VOLUME: &str = "copy";
/// For TLS and hello, in a process that talks to itself.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Sees to it that the destination is there, which is to come before the sandbox: what is not there cannot be written to.
pub(super) fn prepare(args: &CopyArgs, surroundings: &Surroundings) -> Result<(), Failure> {
    // What else the source may be, or lack, is told when it is opened.
    if !args.source.is_dir() {
        return Ok(());
    }
    let prepared = make_fit(&args.source, &args.destination, args.transfer.dry_run);
    prepared.inspect_err(|failure| not_begun(args.transfer.json, failure, surroundings))
}

pub(super) async fn run(
    args: CopyArgs,
    filters: Vec<FilterRule>,
    surroundings: &Surroundings,
) -> Result<ExitCode, Failure> {
    let json = args.transfer.json;
    let ended = begin(args, filters, surroundings).await;
    ended.inspect_err(|failure| not_begun(json, failure, surroundings))
}

/// Prints the report of a run that came to nothing, where one is wanted.
fn not_begun(json: bool, failure: &Failure, surroundings: &Surroundings) {
    if json {
        surroundings.console.print(&outcome::not_begun(VOLUME, failure).to_json());
    }
}

async fn begin(
    args: CopyArgs,
    filters: Vec<FilterRule>,
    surroundings: &Surroundings,
) -> Result<ExitCode, Failure> {
    let run = Run::new(VOLUME, &args.source, args.transfer, filters, surroundings)?;
    surroundings.readiness.set(true);
    let session = match transfer(&run, &args.destination).await {
        Ok(session) => session,
        Err(failure) => Session::failed(failure),
    };
    Ok(run.end(&session, 1).exit_code)
}

/// Makes the destination where only its last component is missing, and refuses one that lies within
/// the source, or the other way round: to copy would feed on itself, to delete would eat the source.
fn make_fit(source: &Path, destination: &Path, dry_run: bool) -> Result<(), Failure> {
    let unfit = |what: String| Failure::new(ExitCode::Selection, what);
    let shown = destination.display();
    match fs::metadata(destination) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(unfit(format!("the destination {shown} is not a directory"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if dry_run {
                return Ok(());
            }
            fs::create_dir(destination)
                .map_err(|error| unfit(format!("cannot make the destination {shown}: {error}")))?;
        }
        Err(error) => return Err(unfit(format!("cannot open the destination {shown}: {error}"))),
    }
    for (inner, outer, what) in [
        (source, destination, "the source lies in the destination"),
        (destination, source, "the destination lies in the source"),
    ] {
        if lies_in(inner, outer).unwrap_or(false) {
            return Err(unfit(format!("{what}: that cannot be copied")));
        }
    }
    Ok(())
}

/// True where `inner` is `outer` or below it, by walking up from the one to the root.
fn lies_in(inner: &Path, outer: &Path) -> io::Result<bool> {
    let id = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let outer = id(outer)?;
    let mut at = inner.to_owned();
    let mut last = None;
    loop {
        let here = id(&at)?;
        if here == outer {
            return Ok(true);
        }
        if last == Some(here) {
            return Ok(false);
        }
        last = Some(here);
        at.push("..");
    }
}

async fn transfer(run: &Run<'_>, destination: &Path) -> Result<Session, Failure> {
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
    let connector = Connector::new(IdentitySource::fixed(pair.source));
    let connect = async || -> Result<BoxedLink, Failure> {
        let stream = connector.connect(&address.into(), None).await?;
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
    let session = run.send(streams, agreed, false).await;
    // The receiver finishes by itself; its view adds nothing to what it told the sender.
    let _ = tokio::time::timeout(Duration::from_secs(10), receiving).await;
    session
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
        let Some(incoming) = server.admit(Box::new(tls) as BoxedLink, |_| Ok(path)).await? else {
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
