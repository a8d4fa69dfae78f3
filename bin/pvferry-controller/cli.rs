//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use pod::Listen;

/// Run the volume migrations that DirectVolumeMigration resources describe
#[derive(Debug, Parser)]
#[command(name = "pvferry-controller", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the controller
    Run(RunArgs),
    /// Print the CustomResourceDefinitions
    Crd,
    /// Print the objects that the controller would create for a migration
    Render(RenderArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Image of the transfer pods
    #[arg(long, value_name = "IMAGE", env = "PVFERRY_IMAGE")]
    pub(crate) image: String,
    /// Allow migrations to set images, pull policies and secrets, tolerations, priority classes, service accounts, SELinux options and
    /// labels of pods, and annotations and host names of endpoints. WARNING: anyone who can create a migration can then run any image in
    /// any namespace
    #[arg(long)]
    pub(crate) allow_privileged_fields: bool,
    /// YAML file with defaults for transfer pods: the fields of `spec.pods` except `user`, and `dnsPorts` and `endpointHosts`
    #[arg(long, value_name = "FILE")]
    pub(crate) pod_defaults: Option<PathBuf>,
    /// Only watch migrations in this namespace (default: all namespaces)
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Maximum volumes transferred at once across all migrations (default: no global limit)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) parallel: Option<u16>,
    /// Namespace of the Lease for leader election (default: no leader election; run only one instance)
    #[arg(long, value_name = "NAMESPACE", env = "PVFERRY_LEASE_NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,
    /// Name of this instance in the Lease and in Events
    #[arg(long, value_name = "NAME", env = "HOSTNAME")]
    pub(crate) instance: Option<String>,
    /// Listen address for Prometheus metrics, /healthz and /readyz: ADDR:PORT, or :PORT for all addresses
    #[arg(long, value_name = "ADDR", default_value = ":9090")]
    pub(crate) metrics: Listen,
    /// Write logs as JSON
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// YAML file with a DirectVolumeMigration; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
    /// Image of the transfer pods
    #[arg(long, value_name = "IMAGE", default_value = "localhost/pvferry:dev")]
    pub(crate) image: String,
    /// YAML file with defaults for transfer pods: the fields of `spec.pods` except `user`, and `dnsPorts`
    #[arg(long, value_name = "FILE")]
    pub(crate) pod_defaults: Option<PathBuf>,
}
