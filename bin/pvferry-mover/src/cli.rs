//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use repository::{Keep, TagList};

/// Back volumes up to a restic repository and restore them.
#[derive(Debug, Parser)]
#[command(name = "pvferry-mover", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Log format
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
   0  complete and verified
   1  usage, wrong password    3  repository, snapshot, source or destination not usable
   5  start-up                 10 storage not reachable
   11 file I/O, damaged repository
   20 signal
   23 partial: entries that failed are listed
   24 only entries that vanished at the source are missing";

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create an empty repository
    Init {
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Back a directory or block device up into a new snapshot
    Backup(BackupArgs),
    /// Restore a snapshot into an empty directory or onto a block device
    Restore(RestoreArgs),
    /// List snapshots, the oldest first
    Snapshots {
        #[command(flatten)]
        repository: RepositoryArgs,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Check the repository for errors
    Check {
        #[command(flatten)]
        repository: RepositoryArgs,
        /// Read all content and verify it
        #[arg(long)]
        read_data: bool,
    },
    /// Remove snapshots, by id or by policy
    Forget(ForgetArgs),
    /// Remove content that no snapshot needs
    Prune(PruneArgs),
}

/// Where the repository is, and what opens it.
#[derive(Debug, Args)]
pub(crate) struct RepositoryArgs {
    /// Repository: a path or s3:https://HOST/BUCKET/PREFIX [default: RESTIC_REPOSITORY of the credentials]
    #[arg(long, short, value_name = "URL")]
    pub(crate) repository: Option<String>,

    /// Directory with one file per credential: RESTIC_PASSWORD, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ... [default: the
    /// environment variables of these names]
    #[arg(long, value_name = "DIR")]
    pub(crate) credentials: Option<PathBuf>,
}

/// How the result is reported.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    /// Termination message [default: /dev/termination-log if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) termination_log: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Directory or block device to back up
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,

    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,

    /// Host name of the snapshot
    #[arg(long, value_name = "NAME")]
    pub(crate) host: String,

    /// Absolute path of the directory in the snapshot, or of the file that holds the block device
    #[arg(long, value_name = "PATH")]
    pub(crate) path: PathBuf,

    /// Tag of the snapshot
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    pub(crate) tag: Vec<String>,

    /// Exclude matching files (rsync patterns)
    #[arg(long, value_name = "GLOB", action = ArgAction::Append)]
    pub(crate) exclude: Vec<OsString>,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Snapshot: an id, the start of one, or latest; PATH is a directory in it, or a file if DST is a block device [default: the volume]
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(crate) snapshot: String,

    /// Empty directory to restore into, or block device to overwrite
    #[arg(value_name = "DST")]
    pub(crate) destination: PathBuf,

    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,

    /// Read the content of all files back and verify it (a block device is always verified)
    #[arg(long)]
    pub(crate) verify: bool,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// Snapshots to remove: ids, the start of one, or latest
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = ["Policy", "Filter"])]
    pub(crate) snapshots: Vec<String>,

    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,

    #[command(flatten)]
    pub(crate) policy: PolicyArgs,

    #[command(flatten)]
    pub(crate) filter: FilterArgs,

    /// Then remove content that no snapshot needs
    #[arg(long)]
    pub(crate) prune: bool,

    /// Show what would be removed, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,

    /// Show how much would be removed, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// What is kept of the snapshots of each host and set of paths.
#[derive(Debug, Args)]
#[group(id = "Policy", multiple = true)]
pub(crate) struct PolicyArgs {
    /// Keep the last N snapshots of each host and path; N can be unlimited in all of these options
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<Keep>,

    /// Keep the last snapshot of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    pub(crate) keep_hourly: Option<Keep>,

    /// The same with days
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<Keep>,

    /// The same with weeks
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<Keep>,

    /// The same with months
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<Keep>,

    /// The same with years
    #[arg(long, value_name = "N")]
    pub(crate) keep_yearly: Option<Keep>,

    /// Keep snapshots with this tag, or with all tags of a list separated by commas
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    pub(crate) keep_tag: Vec<TagList>,
}

/// Which snapshots the policy is applied to. All others stay.
#[derive(Debug, Args)]
#[group(id = "Filter", multiple = true)]
pub(crate) struct FilterArgs {
    /// Apply the policy to snapshots of this host only
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    pub(crate) host: Vec<String>,

    /// Apply the policy to snapshots of this path only
    #[arg(long, value_name = "PATH", action = ArgAction::Append)]
    pub(crate) path: Vec<String>,

    /// Apply the policy to snapshots with this tag only, or with all tags of a list separated by commas
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    pub(crate) tag: Vec<TagList>,
}
