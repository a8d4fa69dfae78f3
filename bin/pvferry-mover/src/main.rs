//! The `pvferry-mover` command.
//!
//! Here arguments are parsed, crates are wired together, and errors become exit codes and sentences. What reads and writes
//! repositories is in the crate `repository`.

mod cli;
mod maintain;
mod outcome;

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use clap::Parser as _;
use pod::{ExitCode, Report, Shutdown};
use repository::{BackupOptions, Credentials, Location, Repository, RestoreOptions, Snapshot};
use serde_json::{Value, json};
use telemetry::{Console, Format, logging};
use tokio::runtime::Runtime;
use volume::{
    capability::Preflight,
    filter::{Action, FilterRules},
};

use cli::{BackupArgs, Cli, Command, LogFormat, ReportArgs, RepositoryArgs, RestoreArgs};
use outcome::Failure;

fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results, not errors.
            let _ = error.print();
            let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Ok };
            return code.into();
        }
    };
    let format = match cli.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let console = Console::stdio().with_format(format);
    let code = run(cli.command, &console).unwrap_or_else(|failure| {
        console.message(tracing::Level::ERROR, &format!("pvferry-mover: {}", failure.what));
        failure.code
    });
    match console.take_output_error() {
        Some(error) if code == ExitCode::Ok => {
            let text = format!("pvferry-mover: cannot write to standard output: {error}");
            console.message(tracing::Level::ERROR, &text);
            ExitCode::FileIo.into()
        }
        _ => code.into(),
    }
}

fn run(command: Command, console: &Console) -> Result<ExitCode, Failure> {
    let filter = env::var(pod::env::LOG).unwrap_or_else(|_| "warn".to_owned());
    logging::init(&filter, console)
        .map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))?;
    match command {
        Command::Init { repository } => {
            let (location, credentials) = place(&repository)?;
            console.print(&Repository::init(&location, &credentials)?);
            Ok(ExitCode::Ok)
        }
        Command::Backup(args) => backup(&args, console),
        Command::Restore(args) => restore(&args, console),
        Command::Snapshots { repository, json } => snapshots(&repository, json, console),
        Command::Check { repository, read_data } => {
            let (sound, found) = open(&repository)?.check(read_data)?;
            found.iter().for_each(|line| console.print(line));
            Ok(if sound { ExitCode::Ok } else { ExitCode::Partial })
        }
        Command::Forget(args) => maintain::forget(&args, console),
        Command::Prune(args) => maintain::prune(&args, console),
    }
}

fn place(args: &RepositoryArgs) -> Result<(Location, Credentials), Failure> {
    let credentials = match &args.credentials {
        Some(dir) => Credentials::read(dir)?,
        None => Credentials::from_names(|name| env::var(name).ok()),
    };
    let Some(url) = args.repository.as_deref().or(credentials.repository()) else {
        let what = "no repository: pass --repository or set RESTIC_REPOSITORY";
        return Err(Failure::new(ExitCode::Usage, what));
    };
    Ok((Location::parse(url)?, credentials))
}

fn open(args: &RepositoryArgs) -> Result<Repository, Failure> {
    let (location, credentials) = place(args)?;
    Ok(Repository::open(&location, &credentials)?)
}

fn snapshots(args: &RepositoryArgs, as_json: bool, console: &Console) -> Result<ExitCode, Failure> {
    let snapshots = open(args)?.snapshots()?;
    if as_json {
        let list: Vec<_> = snapshots
            .iter()
            .map(|s| {
                json!({ "id": s.id(), "time": s.time(), "host": s.host(), "paths": s.paths(), "tags": s.tags() })
            })
            .collect();
        console.print(&json!(list).to_string());
        return Ok(ExitCode::Ok);
    }
    for snapshot in &snapshots {
        console.print(pod::Text::from(line(snapshot).trim_end()).as_ref());
    }
    Ok(ExitCode::Ok)
}

/// A snapshot on one line.
fn line(snapshot: &Snapshot) -> String {
    let (id, paths, tags) = (snapshot.id(), snapshot.paths().join(" "), snapshot.tags().join(","));
    let (id, time, host) = (&id[..id.len().min(8)], snapshot.time(), snapshot.host());
    format!("{id}  {time}  {host}  {paths}  {tags}")
}

/// A runtime that carries signals, and the flag that they set.
fn signals() -> Result<(Runtime, Arc<AtomicBool>), Failure> {
    let start = |error: String| Failure::new(ExitCode::StartUp, error);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| start(error.to_string()))?;
    let stop = Arc::new(AtomicBool::new(false));
    let (entered, flag) = (runtime.enter(), Arc::clone(&stop));
    let shutdown = Shutdown::install().map_err(|error| start(error.to_string()))?;
    tokio::spawn(async move {
        shutdown.requested().await;
        flag.store(true, Ordering::Relaxed);
    });
    drop(entered);
    Ok((runtime, stop))
}

fn backup(args: &BackupArgs, console: &Console) -> Result<ExitCode, Failure> {
    outcome::check_termination_log(&args.report)?;
    let begun = Instant::now();
    let done = (|| {
        let (_runtime, stop) = signals()?;
        let rules = args.exclude.iter().map(|glob| (Action::Exclude, glob.as_encoded_bytes()));
        let filter = FilterRules::parse(rules)
            .map_err(|error| Failure::new(ExitCode::Usage, format!("--exclude: {error}")))?;
        let repository = open(&args.repository)?;
        note(console, Preflight::current().ok().and_then(Preflight::of_reading));
        let options = BackupOptions {
            source: args.source.clone(),
            host: args.host.clone(),
            path: args.path.clone(),
            tags: args.tag.clone(),
            filter,
        };
        Ok(outcome::of_backup(&repository.backup(&options, &stop)?))
    })();
    let done = done.map(Done::of_volume);
    finish(done, begun, &args.report, console)
}

fn restore(args: &RestoreArgs, console: &Console) -> Result<ExitCode, Failure> {
    outcome::check_termination_log(&args.report)?;
    let begun = Instant::now();
    let done = (|| {
        let (_runtime, stop) = signals()?;
        let (id, path) = match args.snapshot.split_once(':') {
            Some((id, path)) => (id, Some(path.into())),
            None => (&*args.snapshot, None),
        };
        let repository = open(&args.repository)?;
        let snapshot = repository.find(id)?;
        note(console, Preflight::current().ok().into_iter().flat_map(Preflight::check));
        let options =
            RestoreOptions { path, destination: args.destination.clone(), verify: args.verify };
        let summary = repository.restore(&snapshot, &options, &stop)?;
        Ok(outcome::of_restore(&snapshot, &summary))
    })();
    let done = done.map(Done::of_volume);
    finish(done, begun, &args.report, console)
}

fn note(console: &Console, losses: impl IntoIterator<Item = volume::capability::Loss>) {
    for loss in losses {
        console.message(tracing::Level::WARN, &format!("pvferry-mover: note: {loss}"));
    }
}

/// How a run went to its end.
struct Done {
    report: Report,
    /// Fields of the JSON object that only this command has.
    extra: Value,
    /// What a success prints.
    text: Box<dyn Fn(&Report) -> String>,
}

impl From<Failure> for Done {
    fn from(failure: Failure) -> Self {
        Self::of_volume(failure.report())
    }
}

impl Done {
    fn of_volume(report: Report) -> Self {
        Self { report, extra: Value::Null, text: Box::new(outcome::sentence) }
    }
}

/// Reports how a run ended: to the pod, and to standard output or the terminal.
fn finish(
    done: Result<Done, Failure>,
    begun: Instant,
    args: &ReportArgs,
    console: &Console,
) -> Result<ExitCode, Failure> {
    let Done { mut report, extra, text } = done.unwrap_or_else(Done::from);
    report.seconds = begun.elapsed().as_secs_f64();
    for error in &report.errors {
        console.message(tracing::Level::ERROR, &format!("{}: {}", &*error.name, &*error.what));
    }
    if let Err(what) = outcome::write_termination_log(args, &report) {
        report.fail(ExitCode::FileIo, what);
    }
    if args.json {
        console.print(&outcome::json(&report, &extra));
    } else if report.exit_code == ExitCode::Ok {
        console.print(&text(&report));
    }
    if report.exit_code != ExitCode::Ok {
        console.message(tracing::Level::ERROR, &format!("pvferry-mover: {}", &*report.reason));
    }
    Ok(report.exit_code)
}
