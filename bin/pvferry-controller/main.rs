//! The `pvferry-controller` command.
//!
//! Here arguments are parsed, the process gives up what it does not need, crates are wired together, and errors become exit
//! codes and sentences. What schedules transfers
//! is in the crate `controller`, what makes identities in `tunnel`.

mod cli;
mod issuer;
mod policy;

use std::{fmt, io::Read as _, path::Path, sync::Arc};

use clap::Parser as _;
use controller::{Home, Settings, api, build::Defaults, metrics::Metrics, render};
use futures::FutureExt as _;
use pod::{ExitCode, Shutdown};
use telemetry::{
    Console, Format, logging,
    metrics::{Exposition, Readiness, serve},
};
use tokio::net::TcpListener;

use cli::{Cli, Command, RenderArgs, RunArgs};

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
    let log_json = matches!(&cli.command, Command::Run(args) if args.log_json);
    let format = if log_json { Format::Json } else { Format::Text };
    let console = Console::stdio().with_format(format);
    let outcome = match cli.command {
        Command::Run(args) => run(args, &console),
        Command::Crd => definitions().map(|text| console.print(text.trim_end())),
        Command::Render(args) => rendered(&args).map(|text| console.print(text.trim_end())),
    };
    match outcome {
        Ok(()) => ExitCode::Ok.into(),
        Err((code, what)) => {
            // A message is one line. Errors of YAML show their place in several.
            for line in format!("pvferry-controller: {what}").lines() {
                console.message(tracing::Level::ERROR, line);
            }
            code.into()
        }
    }
}

type Failed = (ExitCode, String);

fn definitions() -> Result<String, Failed> {
    let mut documents = String::new();
    for definition in api::definitions() {
        render::document(&mut documents, &definition).map_err(|why| (ExitCode::Protocol, why))?;
    }
    Ok(documents)
}

fn rendered(args: &RenderArgs) -> Result<String, Failed> {
    let text = read(&args.from).map_err(|error| {
        (ExitCode::Selection, format!("cannot read {}: {error}", args.from.display()))
    })?;
    let mut migration = render::parse(&text).map_err(|error| {
        let file = args.from.display();
        (ExitCode::Usage, format!("{file} is not a valid DirectVolumeMigration: {error}"))
    })?;
    migration.metadata.uid.get_or_insert_with(|| "00000000-0000-0000-0000-000000000000".into());
    migration.metadata.namespace.get_or_insert_with(|| "default".into());
    let pods = pod_defaults(args.pod_defaults.as_deref())?;
    let defaults = Defaults { image: args.image.clone(), allow_privileged_fields: true, pods };
    render::render(&migration, &defaults).map_err(|why| (ExitCode::Usage, why))
}

fn pod_defaults(file: Option<&Path>) -> Result<api::PodDefaults, Failed> {
    let Some(file) = file else { return Ok(api::PodDefaults::default()) };
    let shown = file.display();
    let text = read(file)
        .map_err(|error| (ExitCode::Selection, format!("cannot read {shown}: {error}")))?;
    api::PodDefaults::parse(&text).map_err(|error| (ExitCode::Usage, format!("{shown}: {error}")))
}

fn read(path: &Path) -> std::io::Result<String> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}

/// Metrics as the HTTP server takes them.
struct Shown(Arc<Metrics>);

impl Exposition for Shown {
    fn exposition(&self) -> Result<String, fmt::Error> {
        Ok(self.0.text())
    }
}

/// The API server, read on this thread: the sandbox closes the kubeconfig, and comes before the first thread of the runtime.
fn home() -> Result<Home, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(Home::find())?)
}

fn run(args: RunArgs, console: &Console) -> Result<(), Failed> {
    let start = |error: &dyn fmt::Display| (ExitCode::StartUp, error.to_string());
    let filter = std::env::var(pod::env::LOG).unwrap_or_else(|_| "info,kube=warn".into());
    logging::init(&filter, console).map_err(|error| (ExitCode::Usage, error.to_string()))?;
    let pods = pod_defaults(args.pod_defaults.as_deref())?;
    let listener = args
        .metrics
        .bind_blocking()
        .map_err(|error| start(&format!("cannot serve metrics on {}: {error}", args.metrics)))?;
    let home = home().map_err(|error| start(&error))?;
    // No volume that could be out of reach.
    let _ = policy::run(&home).enter();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| start(&error))?;
    let outcome = runtime.block_on(async {
        let readiness = Readiness::default();
        let metrics = Arc::new(Metrics::default());
        let listener = TcpListener::from_std(listener).map_err(|error| start(&error))?;
        tokio::spawn(serve(listener, Arc::new(Shown(Arc::clone(&metrics))), readiness.clone()));
        let signals = Shutdown::install().map_err(|error| start(&error))?;
        let stop = async move { signals.requested().await }.boxed().shared();
        let settings = Settings {
            defaults: Defaults {
                image: args.image,
                allow_privileged_fields: args.allow_privileged_fields,
                pods,
            },
            issuer: Arc::new(issuer::ThrowAway),
            metrics,
            lease_namespace: args.lease_namespace,
            instance: args.instance.unwrap_or_else(|| format!("pid-{}", std::process::id())),
            namespace: args.namespace,
            parallel: args.parallel.map(usize::from),
        };
        controller::run(settings, home, || readiness.set(true), stop)
            .await
            .map_err(|error| start(&error))
    });
    // A thread that looks up a name cannot be interrupted, and is not waited for.
    runtime.shutdown_background();
    outcome
}
