//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

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
