//! The command line, defined once: the parser, the help, the man page and the completions all come
//! from these types.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use clap::{
    ArgAction, ArgGroup, ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser,
    Subcommand, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser as _, styling},
};
use pod::{Listen, VolumeName};
use tunnel::{Endpoint, ServerName, Target};
use wire::{FilterAction, FilterRule};

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default().bold());

/// Moves the content of volumes between clusters over mutual TLS, and proves that it arrived.
#[derive(Debug, Parser)]
#[command(name = "pvferry", version, styles = STYLES, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// How logs on standard error look
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,

    /// Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) metrics: Option<Listen>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes follow rsync's where it has one:
   0  complete, proved by the manifest of both ends
   1  usage            2  protocol         3  source or destination unfit
   5  start-up         10 socket           11 file I/O
   12 stream           20 signal           22 memory
   23 partial: some entries were left out, each is named
   24 only entries that changed or vanished at the source are missing
   25 limit on deletions
   30 I/O timeout      35 connect timeout";

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy a directory or block device on this machine, over TLS on loopback with throw-away keys
    Copy(CopyArgs),
    /// Send a volume: the container of the Source Transfer Pod that holds it
    Sync(SyncArgs),
    /// Carry plaintext of this pod over mutual TLS to a server
    Tunnel(TunnelArgs),
    /// Receive volumes: the container of the Destination Transfer Pod
    Serve(ServeArgs),
    /// Print one digest of a tree or block device: names, metadata and content
    Digest(DigestArgs),
    /// Name every difference between two trees or block devices
    Verify(VerifyArgs),
    /// Make the keys and certificates of a migration
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Print a completion script
    Completions {
        /// Which shell to complete in
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// What `copy` and `sync` both take.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Remove what the source does not have
    #[arg(long)]
    pub(crate) delete: bool,

    /// Remove no more than N entries; exit with 25 when there would be more
    #[arg(long, value_name = "N", requires = "delete")]
    pub(crate) max_delete: Option<u64>,

    /// Compare content, not size and modification time
    #[arg(long, short = 'c')]
    pub(crate) checksum: bool,

    /// Afterwards read both trees again and compare their digests
    #[arg(long)]
    pub(crate) verify: bool,

    /// Build every file beside and rename it; never patch one in place
    #[arg(long)]
    pub(crate) atomic: bool,

    /// Change nothing; print what would be done
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,

    /// Print every change as it is made
    #[arg(long, short = 'i')]
    pub(crate) itemize: bool,

    /// Leave out what matches, on both sides; the first --exclude or --include that matches decides
    #[arg(long, value_name = "GLOB", action = ArgAction::Append)]
    pub(crate) exclude: Vec<OsString>,

    /// Keep what matches
    #[arg(long, value_name = "GLOB", action = ArgAction::Append)]
    pub(crate) include: Vec<OsString>,

    /// Send at most RATE bytes a second: a number with K, M or G; KiB where it has none
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) bwlimit: Option<u64>,

    /// Compress what is sent
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) compress: Compress,

    /// Use N connections side by side; worth it on long links
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) streams: u32,

    /// Show progress as a bar, or as one JSON object a second
    #[arg(long, default_value = "auto", value_name = "HOW", value_parser = ["auto", "bar", "json", "none"])]
    pub(crate) progress: String,

    /// End with one JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// An empty source is meant; without this it is taken for a wrong mount and refused
    #[arg(long)]
    pub(crate) allow_empty_source: bool,

    /// Keep owner and group as the destination gives them
    #[arg(long, conflicts_with = "verify")]
    pub(crate) no_owner: bool,

    /// Give up after SECONDS without a sign of life from the other end
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) timeout: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compress {
    /// Where a sample shows that it pays
    #[default]
    Auto,
    /// Never
    Never,
    /// Always, with Zstandard
    Zstd,
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Directory whose content is copied, or block device
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,
    /// Directory that becomes like it, or block device
    #[arg(value_name = "DST")]
    pub(crate) destination: PathBuf,
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Directory whose content is sent, or block device
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,

    /// Name of the volume at the server
    #[arg(long, value_name = "NAME")]
    pub(crate) volume: VolumeName,

    #[command(flatten)]
    pub(crate) route: Route,

    /// Directory with ca.crt, tls.crt and tls.key, for --connect
    #[arg(long, value_name = "DIR", requires = "connect")]
    pub(crate) identity: Option<PathBuf>,

    /// Name to ask the server for (SNI), where it is not the host of --connect
    #[arg(long, value_name = "NAME", requires = "connect")]
    pub(crate) server_name: Option<ServerName>,

    /// Leave a completion marker, VOLUME.done, in DIR when it ends, well or badly
    #[arg(long, value_name = "DIR")]
    pub(crate) marker_dir: Option<PathBuf>,

    /// Write the termination message here [default: /dev/termination-log where there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) termination_log: Option<PathBuf>,

    /// How long to wait for the tunnel, the server and the volume, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) wait: u32,

    /// How often to begin again after a connection is lost, within this run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) attempts: u32,

    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Route {
    /// Tunnel of this pod: loopback ADDR:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub(crate) via: Option<Endpoint>,
    /// Server, reached by TLS from this process: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", requires = "identity")]
    pub(crate) connect: Option<Target>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("sockets").required(true).args(["listen", "volume"]))]
#[command(group = ArgGroup::new("markers").args(["marker_dir", "volume"]))]
pub(crate) struct TunnelArgs {
    /// Listen address for plaintext, for every volume that the identity permits: loopback ADDR:PORT, or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<Endpoint>,

    /// Listen on DIR/tunnel.sock for volume NAME and no other, with the identity in the subdirectory NAME of --identity; its completion marker is expected in DIR. May be given several times, each with its own DIR
    #[arg(long, value_name = "NAME=DIR", value_parser = OsStringValueParser::new().try_map(parse_volume))]
    pub(crate) volume: Vec<(VolumeName, PathBuf)>,

    /// The TLS server: HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Target,

    /// Directory with ca.crt, tls.crt and tls.key, or with --volume one subdirectory with them for each volume; read again when they rotate
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,

    /// Name to ask the server for (SNI), where it is not the host of --connect
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<ServerName>,

    /// Exit 0 once N completion markers exist, in --marker-dir or in the directories of --volume
    #[arg(long, value_name = "N", requires = "markers", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) exit_when: Option<u32>,

    /// Directory of the completion markers, shared with the sync containers; must hold none of an earlier run
    #[arg(long, value_name = "DIR")]
    pub(crate) marker_dir: Option<PathBuf>,

    /// With --exit-when: leave with 30 after SECONDS without any connection
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub(crate) idle: u32,

    /// Write the termination message here if it fails [default: /dev/termination-log where there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) termination_log: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where TLS connections are taken: ADDR:PORT, or :PORT for every address
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Listen,

    /// Directory with ca.crt, tls.crt and tls.key; read again when they rotate
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,

    /// A volume by its name, and where it is mounted; may be given several times
    #[arg(long, value_name = "NAME=PATH", required = true, value_parser = OsStringValueParser::new().try_map(parse_volume))]
    pub(crate) volume: Vec<(VolumeName, PathBuf)>,

    /// Let a source delete files with sync --delete: in every volume, or in NAME. Refused by default
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = EVERY_VOLUME)]
    pub(crate) allow_delete: Vec<Scope>,

    /// Let a source delete at most N entries in each run, in every volume or in NAME; the lower limit of both ends holds
    #[arg(long, value_name = "[NAME=]N", requires = "allow_delete", value_parser = parse_max_delete)]
    pub(crate) max_delete: Vec<(Scope, u64)>,

    /// Accept sync --allow-empty-source: for every volume, or for NAME. Refused by default
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = EVERY_VOLUME)]
    pub(crate) allow_empty_source: Vec<Scope>,

    /// Send no hash or other answer about the content of existing files: in every volume, or in NAME. Changed files are received whole
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = EVERY_VOLUME)]
    pub(crate) no_delta: Vec<Scope>,

    /// Leave when N volumes have been received to their end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) exit_when: Option<u32>,

    /// Write the termination message here [default: /dev/termination-log where there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) termination_log: Option<PathBuf>,

    /// Give up on a session after SECONDS without a sign of life from the other end
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
pub(crate) struct VerifyArgs {
    /// One directory or block device
    #[arg(value_name = "A")]
    pub(crate) a: PathBuf,
    /// The other
    #[arg(value_name = "B")]
    pub(crate) b: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Make a certificate authority, and one identity for each role
    Init {
        /// Where ca.crt, ca.key, source/ and destination/ go
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The id of the migration, which both ends must share
        #[arg(long, value_name = "UID")]
        migration: String,
        /// Validity in hours
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8784))]
        hours: u32,
    },
    /// Issue an identity by an authority that `init` made, for rotation or for one volume
    Issue {
        /// The directory that `init` made
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// For which end
        #[arg(long, value_enum, value_name = "ROLE")]
        role: RoleArg,
        /// A source that may reach this volume only
        #[arg(long, value_name = "NAME")]
        volume: Option<VolumeName>,
        /// Where ca.crt, tls.crt and tls.key go
        #[arg(long, value_name = "OUT")]
        out: PathBuf,
        /// Validity in hours
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8784))]
        hours: u32,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    /// The end that sends
    Source,
    /// The end that receives
    Destination,
}

/// The arguments of this process, and the filter rules in the order in which they stand there, which
/// decides between them.
pub(crate) fn parse() -> Result<(Cli, Vec<FilterRule>), clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    let filters = matches.subcommand().map_or_else(Vec::new, |(_, command)| filters(command));
    Ok((Cli::from_arg_matches(&matches)?, filters))
}

fn filters(command: &ArgMatches) -> Vec<FilterRule> {
    let mut rules = Vec::new();
    for (name, action) in [("exclude", FilterAction::Exclude), ("include", FilterAction::Include)] {
        if !command.try_contains_id(name).unwrap_or(false) {
            continue;
        }
        let patterns = command.get_many::<OsString>(name).unwrap_or_default();
        let places = command.indices_of(name).unwrap_or_default();
        for (pattern, place) in patterns.zip(places) {
            rules.push((place, FilterRule { action, pattern: pattern.clone().into_vec() }));
        }
    }
    rules.sort_by_key(|(place, _)| *place);
    rules.into_iter().map(|(_, rule)| rule).collect()
}

fn parse_volume(text: OsString) -> Result<(VolumeName, PathBuf), String> {
    let mut parts = text.as_bytes().splitn(2, |byte| *byte == b'=');
    let (Some(name), Some(path)) = (parts.next(), parts.next()) else {
        return Err("not of the form NAME=PATH".into());
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

/// Bytes a second: a number, and K, M or G for powers of 1024; KiB where there is no letter, as
/// rsync has it.
fn parse_rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a rate such as 500K, 20M or 1.5G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: f64 = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "K" | "KIB" => 1024.0,
        "B" => 1.0,
        "M" | "MIB" => 1024.0 * 1024.0,
        "G" | "GIB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let rate = number * unit;
    if rate.is_finite() && (1.0..1e15).contains(&rate) { Ok(rate as u64) } else { Err(wrong()) }
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
    fn filters_keep_their_order() {
        let words =
            ["pvferry", "copy", "--include", "a", "--exclude=b", "s", "d", "--include", "c"];
        let matches = Cli::command().try_get_matches_from(words).unwrap();
        let rules = filters(matches.subcommand().unwrap().1);
        let patterns: Vec<_> = rules.iter().map(|rule| &rule.pattern[..]).collect();
        assert_eq!(patterns, [b"a", b"b", b"c"]);
        assert_eq!(rules[1].action, FilterAction::Exclude);
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

    #[test]
    fn filter_patterns_are_bytes() {
        let pattern = OsString::from_vec(b"*\xff".to_vec());
        let words = ["pvferry", "copy", "--exclude"].map(OsString::from).into_iter();
        let words = words.chain([pattern, "s".into(), "d".into()]);
        let matches = Cli::command().try_get_matches_from(words).unwrap();
        assert_eq!(filters(matches.subcommand().unwrap().1)[0].pattern, b"*\xff");
    }

    #[test]
    fn rates_have_units() {
        assert_eq!(parse_rate("10"), Ok(10 * 1024));
        assert_eq!(parse_rate("1.5M"), Ok(3 << 19));
        assert_eq!(parse_rate("7b"), Ok(7));
        for wrong in ["", "K", "0", "-1M", "1X", "nan", "infG"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
