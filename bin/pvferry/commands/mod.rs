//! One module for each command.

mod copy;
mod inspect;
mod manual;
mod pki;
mod serve;
mod sync;
mod transfer;
mod tunnel;

use pod::ExitCode;
use wire::FilterRule;

use crate::{
    cli::{Cli, Command},
    outcome::Failure,
    sandbox::Sandbox,
    setup::{self, Surroundings},
};

pub(crate) use transfer::termination_log;

/// Runs the command that was asked for.
pub(crate) fn run((cli, filters): (Cli, Vec<FilterRule>)) -> ExitCode {
    // What runs in a pod tells more of itself than what runs under somebody's hands.
    let default = match cli.command {
        Command::Sync(_) | Command::Tunnel(_) | Command::Serve(_) => "info",
        _ => "warn",
    };
    let surroundings = match setup::begin(cli.log_format, default) {
        Ok(surroundings) => surroundings,
        Err(failure) => {
            let console = telemetry::Console::stdio();
            console.warn(&format!("pvferry: {}", failure.what));
            return failure.code;
        }
    };
    let console = surroundings.console.clone();
    match dispatch(cli, filters, surroundings) {
        Ok(code) => code,
        Err(failure) => {
            console.warn(&format!("pvferry: {}", failure.what));
            failure.code
        }
    }
}

fn dispatch(
    cli: Cli,
    filters: Vec<FilterRule>,
    surroundings: Surroundings,
) -> Result<ExitCode, Failure> {
    let metrics = cli.metrics;
    match cli.command {
        Command::Copy(args) => {
            copy::prepare(&args, &surroundings)?;
            with_runtime(&Sandbox::copy(&args), async move {
                setup::serve_metrics(&surroundings, metrics).await?;
                copy::run(args, filters, &surroundings).await
            })
        }
        Command::Sync(args) => with_runtime(&Sandbox::sync(&args, metrics.as_ref()), async move {
            setup::serve_metrics(&surroundings, metrics).await?;
            sync::run(args, filters, &surroundings).await
        }),
        Command::Tunnel(args) => {
            with_runtime(&Sandbox::tunnel(&args, metrics.as_ref()), async move {
                setup::serve_metrics(&surroundings, metrics).await?;
                tunnel::run(args, &surroundings).await
            })
        }
        Command::Serve(args) => {
            with_runtime(&Sandbox::serve(&args, metrics.as_ref()), async move {
                setup::serve_metrics(&surroundings, metrics).await?;
                serve::run(args, &surroundings).await
            })
        }
        Command::Digest(args) => inspect::digest(&args, &surroundings),
        Command::Verify(args) => inspect::verify(&args, &surroundings),
        Command::Pki(command) => pki::run(&command),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man => manual::man(),
    }
}

/// Runs `work` in `sandbox`, which has to come before the first thread of the runtime.
fn with_runtime(
    sandbox: &Sandbox,
    work: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    sandbox.enter();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(setup::workers())
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitCode::StartUp, format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(async {
        setup::outlive_the_limit_on_files()?;
        work.await
    });
    // A task that hangs in a system call must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}
