//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use pod::Listen;

/// Schedules transfer pods and tells their story in custom resources
#[derive(Debug, Parser)]
#[command(name = "pvferry-controller", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch migrations and carry them out
    Run(RunArgs),
    /// Print the definitions of the custom resources
    Crd,
    /// Print the pods that a migration would get
    Render(RenderArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Image of the transfer pods, where a migration names none
    #[arg(long, value_name = "IMAGE", env = "PVFERRY_IMAGE")]
    pub(crate) image: String,
    /// Let migrations choose images, pull policies and secrets, tolerations, priority, service accounts, SELinux options, labels, and
    /// annotations and host names of endpoints. WARNING: anyone who can create a migration can then run any image in any namespace
    #[arg(long)]
    pub(crate) open: bool,
    /// File with defaults for transfer pods, as YAML: the fields of `spec.pods` except `user`, `dnsPorts` and `endpointHosts`
    #[arg(long, value_name = "FILE")]
    pub(crate) pod_defaults: Option<PathBuf>,
    /// Migrations of this namespace only
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Volumes that are moved at a time, over all migrations; no limit but theirs where nothing is said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) parallel: Option<u16>,
    /// Elect a leader by a Lease in this namespace; without it, this must be the only instance
    #[arg(long, value_name = "NAMESPACE", env = "PVFERRY_LEASE_NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,
    /// Name of this instance, as the Lease and Events show it
    #[arg(long, value_name = "NAME", env = "HOSTNAME")]
    pub(crate) instance: Option<String>,
    /// Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address
    #[arg(long, value_name = "ADDR", default_value = ":9090")]
    pub(crate) metrics: Listen,
    /// Log as JSON
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// The migration, as YAML; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
    /// Image of the transfer pods, where the migration names none
    #[arg(long, value_name = "IMAGE", default_value = "localhost/pvferry:dev")]
    pub(crate) image: String,
    /// File with defaults for transfer pods, as YAML: the fields of `spec.pods` except `user`, and `dnsPorts`
    #[arg(long, value_name = "FILE")]
    pub(crate) pod_defaults: Option<PathBuf>,
}
