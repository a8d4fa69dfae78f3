//! The command line, defined once: the parser, the help, the man page and the completions all come
//! from these types.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use clap::{
    ArgGroup, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser as _, styling},
};
use pod::{Listen, VolumeName};
use tunnel::{Endpoint, ServerName, Target};

mod filters;
mod rsync;
mod transfer;

use transfer::CONNECTION;
pub(crate) use {
    filters::{FilterKind, FilterOption},
    transfer::{Compress, TransferArgs},
};

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default().bold());

/// Copy volumes between clusters over mutual TLS and verify the result
#[derive(Debug, Parser)]
#[command(name = "pvferry", version, styles = STYLES, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Log format on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = LOGS)]
    pub(crate) log_format: LogFormat,

    /// Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses
    #[arg(long, global = true, value_name = "ADDR", help_heading = LOGS)]
    pub(crate) metrics: Option<Listen>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes follow rsync where rsync defines one:
   0  complete: every entry of the source is at the destination
   1  usage error
   2  protocol error
   3  source or destination not usable
   5  cannot start
  10  socket error
  11  file I/O error, or the destination is full or read-only
  12  connection lost
  20  interrupted by a signal
  22  out of memory
  23  partial: entries that failed are listed
  24  only entries that changed or vanished at the source are missing: run again, or ignore it
  25  stopped by --max-delete
  30  timeout during the transfer
  35  timeout while connecting";

/// Headings of the groups of options.
const LOGS: &str = "Logs and metrics";
const KUBERNETES: &str = "Kubernetes";
const PERMISSIONS: &str = "Permissions of the source";

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy a directory or block device locally
    Copy(CopyArgs),
    /// Send a volume (runs in the source pod)
    Sync(SyncArgs),
    /// Forward local plaintext connections to a server over mutual TLS
    Tunnel(TunnelArgs),
    /// Receive volumes (runs in the destination pod)
    Serve(ServeArgs),
    /// Print a digest of a directory tree (names, metadata, content) or block device
    Digest(DigestArgs),
    /// Compare two directory trees or block devices and list every difference
    Verify(VerifyArgs),
    /// Create keys and certificates for a migration
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Print a completion script
    Completions {
        /// Shell to generate the script for
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
#[command(after_help = rsync::ACCEPTED, disable_help_flag = true)]
pub(crate) struct CopyArgs {
    /// Source: directory whose content is copied into DST (with or without a final slash), or block device
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,
    /// Destination directory or block device
    #[arg(value_name = "DST")]
    pub(crate) destination: PathBuf,
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}

#[derive(Debug, Args)]
#[command(after_help = rsync::ACCEPTED, disable_help_flag = true)]
pub(crate) struct SyncArgs {
    /// Source: directory whose content is sent, or block device
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,

    /// Volume at the server that receives the content
    #[arg(long, value_name = "NAME")]
    pub(crate) volume: VolumeName,

    #[command(flatten)]
    pub(crate) route: Route,

    /// Directory with ca.crt, tls.crt and tls.key, for --connect
    #[arg(long, value_name = "DIR", requires = "connect", help_heading = CONNECTION)]
    pub(crate) identity: Option<PathBuf>,

    /// TLS server name (SNI) [default: host of --connect]
    #[arg(long, value_name = "NAME", requires = "connect", help_heading = CONNECTION)]
    pub(crate) server_name: Option<ServerName>,

    /// On exit, write the result to DIR/VOLUME.done (the completion marker)
    #[arg(long, value_name = "DIR", help_heading = KUBERNETES)]
    pub(crate) marker_dir: Option<PathBuf>,

    /// Write the termination message to FILE [default: /dev/termination-log if it exists]
    #[arg(long, value_name = "FILE", help_heading = KUBERNETES)]
    pub(crate) termination_log: Option<PathBuf>,

    /// Fail if the tunnel, the server or the volume is not ready after SECONDS
    #[arg(long, value_name = "SECONDS", default_value_t = 600, help_heading = CONNECTION)]
    pub(crate) wait: u32,

    /// Maximum number of attempts: reconnect and resume after a connection is lost
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = CONNECTION, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) attempts: u32,

    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Route {
    /// Tunnel to send through: loopback ADDR:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", help_heading = CONNECTION)]
    pub(crate) via: Option<Endpoint>,
    /// Server to connect to directly over TLS: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", requires = "identity", help_heading = CONNECTION)]
    pub(crate) connect: Option<Target>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("sockets").required(true).args(["listen", "volume"]))]
#[command(group = ArgGroup::new("markers").args(["marker_dir", "volume"]))]
pub(crate) struct TunnelArgs {
    /// Listen address for plaintext: loopback ADDR:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<Endpoint>,

    /// Listen on DIR/tunnel.sock for volume NAME only, with the identity in the subdirectory NAME of --identity. Its completion marker is expected in DIR. Can be repeated, with a different DIR for each volume
    #[arg(long, value_name = "NAME=DIR", value_parser = OsStringValueParser::new().try_map(parse_volume))]
    pub(crate) volume: Vec<(VolumeName, PathBuf)>,

    /// TLS server to forward to: HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Target,

    /// Directory with ca.crt, tls.crt and tls.key (with --volume: one such subdirectory per volume); reloaded when they rotate
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,

    /// TLS server name (SNI) [default: host of --connect]
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<ServerName>,

    /// Exit 0 once N completion markers exist in --marker-dir (or in the directories of --volume)
    #[arg(long, value_name = "N", requires = "markers", help_heading = KUBERNETES, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) exit_when: Option<u32>,

    /// Directory of the completion markers, shared with the sync containers. Remove markers of earlier runs first
    #[arg(long, value_name = "DIR", help_heading = KUBERNETES)]
    pub(crate) marker_dir: Option<PathBuf>,

    /// With --exit-when: exit 30 after SECONDS without a connection
    #[arg(long, value_name = "SECONDS", default_value_t = 900, help_heading = KUBERNETES)]
    pub(crate) idle: u32,

    /// On failure, write the termination message to FILE [default: /dev/termination-log if it exists]
    #[arg(long, value_name = "FILE", help_heading = KUBERNETES)]
    pub(crate) termination_log: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Listen address for TLS: ADDR:PORT, or :PORT for all addresses
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Listen,

    /// Directory with ca.crt, tls.crt and tls.key; reloaded when they rotate
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,

    /// Name of a volume and the directory or block device that holds it; can be repeated
    #[arg(long, value_name = "NAME=PATH", required = true, value_parser = OsStringValueParser::new().try_map(parse_volume))]
    pub(crate) volume: Vec<(VolumeName, PathBuf)>,

    /// Allow sync --delete for all volumes, or for volume NAME (refused by default)
    #[arg(long, help_heading = PERMISSIONS, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = EVERY_VOLUME)]
    pub(crate) allow_delete: Vec<Scope>,

    /// Allow at most N deletions per run in each volume, or in volume NAME; if sync sets a limit too, the lower one applies
    #[arg(long, help_heading = PERMISSIONS, value_name = "[NAME=]N", requires = "allow_delete", value_parser = parse_max_delete)]
    pub(crate) max_delete: Vec<(Scope, u64)>,

    /// Allow sync --allow-empty-source for all volumes, or for volume NAME (refused by default)
    #[arg(long, help_heading = PERMISSIONS, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = EVERY_VOLUME)]
    pub(crate) allow_empty_source: Vec<Scope>,

    /// Do not reveal hashes of existing files to the source, for all volumes or for volume NAME; changed files are received whole
    #[arg(long, help_heading = PERMISSIONS, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = EVERY_VOLUME)]
    pub(crate) no_delta: Vec<Scope>,

    /// Exit after N volumes have been received
    #[arg(long, value_name = "N", help_heading = KUBERNETES, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) exit_when: Option<u32>,

    /// Write the termination message to FILE [default: /dev/termination-log if it exists]
    #[arg(long, value_name = "FILE", help_heading = KUBERNETES)]
    pub(crate) termination_log: Option<PathBuf>,

    /// End a session after SECONDS without traffic from the peer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) timeout: u32,
}

/// The volumes that a permission of `serve` is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every volume.
    All,
    /// This one.
    Volume(VolumeName),
}

impl Scope {
    /// Whether it holds for `volume`.
    pub(crate) fn covers(&self, volume: &VolumeName) -> bool {
        match self {
            Self::All => true,
            Self::Volume(name) => name == volume,
        }
    }
}

/// What stands for an option without a name. An empty name is none: a variable that is not set must not permit more than one
/// that is.
const EVERY_VOLUME: &str = "*";

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            EVERY_VOLUME => Ok(Self::All),
            name => name.parse().map(Self::Volume).map_err(|error| format!("{error}")),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DigestArgs {
    /// Directory or block device
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Print one JSON object with counts
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Exits 0 if both sides are identical, and 23 if they differ.")]
pub(crate) struct VerifyArgs {
    /// Source directory or block device
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,
    /// Destination directory or block device
    #[arg(value_name = "DST")]
    pub(crate) destination: PathBuf,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Create a certificate authority and one identity per role
    Init {
        /// Directory to create ca.crt, ca.key, source/ and destination/ in
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// ID of the migration; source and destination must use the same
        #[arg(long, value_name = "UID")]
        migration: String,
        /// Validity in hours
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8784))]
        hours: u32,
    },
    /// Issue an identity with an existing authority: for rotation, or for one volume
    Issue {
        /// Directory created by `pvferry pki init`
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Role of the identity: source (sync, tunnel) or destination (serve)
        #[arg(long, value_enum, value_name = "ROLE")]
        role: RoleArg,
        /// Restrict a source identity to this volume
        #[arg(long, value_name = "NAME")]
        volume: Option<VolumeName>,
        /// Directory to write ca.crt, tls.crt and tls.key to
        #[arg(long, value_name = "OUT")]
        out: PathBuf,
        /// Validity in hours
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8784))]
        hours: u32,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    Source,
    Destination,
}

/// The arguments of this process, and its filter options in the order in which they stand there.
pub(crate) fn parse() -> Result<(Cli, Vec<FilterOption>), clap::Error> {
    let arguments = rsync::with_progress_value(std::env::args_os());
    let arguments = rsync::with_help(arguments);
    let matches = Cli::command().try_get_matches_from(arguments)?;
    let filters = matches.subcommand().map_or_else(Vec::new, |(_, command)| filters::of(command));
    Ok((Cli::from_arg_matches(&matches)?, filters))
}

/// What to say of a refused command line instead of what the parser does, if there is something to say.
pub(crate) fn hint(error: &clap::Error) -> Option<String> {
    let command = Cli::command();
    let commands: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
    let arguments: Vec<_> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    rsync::hint(error, &commands, &arguments)
}

fn parse_volume(text: OsString) -> Result<(VolumeName, PathBuf), String> {
    let mut parts = text.as_bytes().splitn(2, |byte| *byte == b'=');
    let (Some(name), Some(path)) = (parts.next(), parts.next()) else {
        return Err("expected NAME=PATH".into());
    };
    if path.is_empty() {
        return Err("the path is empty".into());
    }
    let name = String::from_utf8_lossy(name).parse().map_err(|error| format!("{error}"))?;
    Ok((name, OsString::from_vec(path.to_vec()).into()))
}

/// A number, or `NAME=` and a number.
fn parse_max_delete(text: &str) -> Result<(Scope, u64), String> {
    let (scope, number) = match text.split_once('=') {
        Some((name, number)) if !name.is_empty() => (name.parse()?, number),
        Some(_) => return Err("expected N or NAME=N".into()),
        None => (Scope::All, text),
    };
    let number = number.parse().map_err(|_| format!("'{number}' is not a number of entries"))?;
    Ok((scope, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// The manual page comes from this text.
    #[test]
    fn help_lists_every_exit_code_and_no_other() {
        let words = EXIT_CODES.split_whitespace().filter_map(|word| word.parse::<u8>().ok());
        let mut listed: Vec<_> = words.collect();
        listed.sort_unstable();
        let mut codes = pod::ExitCode::BY_BADNESS.map(pod::ExitCode::number);
        codes.sort_unstable();
        assert_eq!(listed, codes);
    }

    #[test]
    fn volume_paths_are_bytes_and_may_hold_an_equals_sign() {
        let parse = |text: &[u8]| parse_volume(OsString::from_vec(text.to_vec()));
        let (name, path) = parse(b"a=/x=\xff").unwrap();
        assert_eq!((name.as_str(), path.as_os_str().as_bytes()), ("a", &b"/x=\xff"[..]));
        for wrong in [&b""[..], b"a", b"a=", b"=/x", b"a\xff=/x", b"../a=/x"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
