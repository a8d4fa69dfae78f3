//! One module for each command.

mod copy;
mod endpoints;
mod filters;
mod inspect;
mod manual;
mod mounts;
mod permissions;
mod pki;
mod serve;
mod sync;
mod transfer;
mod tunnel;

use std::net::TcpListener;

use pod::ExitCode;
use sandbox::Sandbox;

use crate::{
    cli::{Cli, Command, FilterOption},
    outcome::{self, Failure},
    policy,
    setup::{self, Common, Surroundings},
};

pub(crate) use transfer::termination_log;

/// Runs the command that was asked for.
pub(crate) fn run((cli, filters): (Cli, Vec<FilterOption>)) -> ExitCode {
    let surroundings = Surroundings::new(cli.log_format);
    let console = &surroundings.console;
    let explain = |failure: Failure| {
        console.message(tracing::Level::ERROR, &format!("pvferry: {}", failure.what));
        failure.code
    };
    let code = dispatch(cli, filters, &surroundings).unwrap_or_else(explain);
    // Every command prints through the console: whatever was lost counts here.
    match console.take_output_error() {
        Some(error) => outcome::unreported(code, explain(Failure::lost_output(&error))),
        None => code,
    }
}

fn dispatch(
    cli: Cli,
    filters: Vec<FilterOption>,
    surroundings: &Surroundings,
) -> Result<ExitCode, Failure> {
    let connections = match &cli.command {
        // It holds both ends of each.
        Command::Copy(args) => 2 * args.transfer.streams as usize,
        Command::Sync(args) => args.transfer.streams as usize,
        _ => 0,
    };
    let common = Common { metrics: cli.metrics, connections };
    match cli.command {
        Command::Copy(args) => Ok(copy::run(args, filters, &common, surroundings)),
        Command::Sync(args) => Ok(sync::run(args, filters, &common, surroundings)),
        Command::Tunnel(args) => tunnel::run(args, &common, surroundings),
        Command::Serve(args) => serve::run(args, &common, surroundings),
        command => {
            common.without_metrics()?;
            common.begin(&surroundings.console, "warn")?;
            tool(&command, surroundings)
        }
    }
}

/// The commands that move nothing.
fn tool(command: &Command, surroundings: &Surroundings) -> Result<ExitCode, Failure> {
    match command {
        Command::Digest(args) => {
            policy::enter(&policy::digest(args))?;
            inspect::digest(args, surroundings)
        }
        Command::Verify(args) => {
            policy::enter(&policy::verify(args))?;
            inspect::verify(args, surroundings)
        }
        Command::Pki(command) => pki::run(command, &surroundings.console),
        Command::Completions { shell } => manual::completions(*shell, &surroundings.console),
        Command::Man => manual::man(&surroundings.console),
        Command::Copy(_) | Command::Sync(_) | Command::Tunnel(_) | Command::Serve(_) => {
            Err(Failure::new(ExitCode::Usage, "this command transfers volumes"))
        }
    }
}

/// Runs `work` in `sandbox`, which has to come before the first thread of the runtime, and serves metrics beside it.
fn with_runtime<T>(
    sandbox: &Sandbox,
    metrics: Option<TcpListener>,
    surroundings: &Surroundings,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    policy::enter(sandbox)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(setup::workers())
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitCode::StartUp, format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(async {
        setup::outlive_the_limit_on_files()?;
        setup::serve_metrics(surroundings, metrics)?;
        work.await
    });
    // A task that hangs in a system call must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}
