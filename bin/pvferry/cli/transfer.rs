//! The options of a transfer, which `copy` and `sync` share.

use std::ffi::OsString;

use clap::{ArgAction, Args, ValueEnum};

use super::rsync::AlwaysOn;

/// Headings of the groups of options.
pub(super) const CONNECTION: &str = "Connection";
const TRANSFER: &str = "Transfer";
const FILTERS: &str = "Filters";
const DELETION: &str = "Deletion";
const OUTPUT: &str = "Output";

/// The values of `--progress`.
pub(super) const PROGRESS: [&str; 4] = ["auto", "bar", "json", "none"];

/// What `copy` and `sync` both take.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Compare file content instead of size and modification time
    #[arg(long, short = 'c', help_heading = TRANSFER)]
    pub(crate) checksum: bool,

    /// After the transfer, re-read both sides and compare digests
    #[arg(long, help_heading = TRANSFER)]
    pub(crate) verify: bool,

    /// Write changed files to a temporary file and rename it (needs extra space); default is to patch large files in place
    #[arg(long, help_heading = TRANSFER)]
    pub(crate) atomic: bool,

    /// Do not preserve owner and group
    #[arg(long, conflicts_with = "verify", help_heading = TRANSFER)]
    pub(crate) no_owner: bool,

    /// Allow an empty source (refused by default: usually a missing mount)
    #[arg(long, help_heading = TRANSFER)]
    pub(crate) allow_empty_source: bool,

    /// Show what would be done, change nothing
    #[arg(long, short = 'n', help_heading = TRANSFER)]
    pub(crate) dry_run: bool,

    /// Delete files at the destination that are not in the source
    #[arg(long, help_heading = DELETION)]
    pub(crate) delete: bool,

    /// Stop deleting after N entries and exit 25
    #[arg(long, value_name = "N", requires = "delete", help_heading = DELETION)]
    pub(crate) max_delete: Option<u64>,

    /// Exclude matching files (rsync patterns). The first matching rule wins; excluded files are not deleted either
    #[arg(long, value_name = "GLOB", action = ArgAction::Append, help_heading = FILTERS)]
    pub(crate) exclude: Vec<OsString>,

    /// Include matching files, even if a later --exclude matches them
    #[arg(long, value_name = "GLOB", action = ArgAction::Append, help_heading = FILTERS)]
    pub(crate) include: Vec<OsString>,

    /// Read --exclude patterns from FILE, one per line ('-': standard input)
    #[arg(long, value_name = "FILE", action = ArgAction::Append, help_heading = FILTERS)]
    pub(crate) exclude_from: Vec<OsString>,

    /// Read --include patterns from FILE, one per line ('-': standard input)
    #[arg(long, value_name = "FILE", action = ArgAction::Append, help_heading = FILTERS)]
    pub(crate) include_from: Vec<OsString>,

    /// Add a rule in rsync's form: '+ PATTERN' includes, '- PATTERN' excludes, '!' clears all rules before it
    #[arg(long, short = 'f', value_name = "RULE", action = ArgAction::Append, allow_hyphen_values = true, help_heading = FILTERS)]
    pub(crate) filter: Vec<OsString>,

    /// Limit the send rate, e.g. 500K, 20M, 1.5G per second (default unit: KiB; KB and MB count in thousands; 0: no limit)
    #[arg(long, value_name = "RATE", value_parser = parse_rate, help_heading = CONNECTION)]
    bwlimit: Option<u64>,

    /// Compress the data that is sent: auto (if a sample shows that it helps), never, or zstd (always)
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", help_heading = CONNECTION)]
    compress: Compress,

    /// Same as --compress=zstd
    #[arg(short = 'z', conflicts_with = "compress", help_heading = CONNECTION)]
    zstd: bool,

    /// Number of parallel connections (helps on high-latency links)
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = CONNECTION, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) streams: u32,

    /// Fail after SECONDS without traffic from the peer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = CONNECTION, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) timeout: u32,

    /// List every change as it is made
    #[arg(long, short = 'i', alias = "itemize-changes", help_heading = OUTPUT)]
    itemize: bool,

    /// Same as --itemize; -vv adds debug logs
    #[arg(long, short = 'v', action = ArgAction::Count, help_heading = OUTPUT)]
    verbose: u8,

    /// Progress output: bar, or one JSON object per second (auto: bar on a terminal, json in a pod, else none; without a value: bar)
    #[arg(long, default_value = "auto", value_name = "HOW", help_heading = OUTPUT, value_parser = PROGRESS)]
    progress: String,

    /// Same as --progress=bar
    #[arg(short = 'P', conflicts_with = "progress", help_heading = OUTPUT)]
    bar: bool,

    /// Print the result as one JSON object
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) json: bool,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,

    #[command(flatten)]
    _always_on: AlwaysOn,
}

impl TransferArgs {
    /// Bytes a second, if they are limited.
    pub(crate) fn rate_limit(&self) -> Option<u64> {
        self.bwlimit.filter(|rate| *rate > 0)
    }

    pub(crate) fn compress(&self) -> Compress {
        if self.zstd { Compress::Zstd } else { self.compress }
    }

    /// True where every change is listed.
    pub(crate) fn itemize(&self) -> bool {
        self.itemize || self.verbose > 0
    }

    /// The word for how progress is shown.
    pub(crate) fn progress(&self) -> &str {
        if self.bar { "bar" } else { &self.progress }
    }

    /// The filter of logs that `-v` asks for, else `default`.
    pub(crate) fn log_filter(&self, default: &'static str) -> &'static str {
        if self.verbose > 1 { "debug" } else { default }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compress {
    #[default]
    Auto,
    Never,
    Zstd,
}

/// Bytes a second: a number, and K, M or G for powers of 1024, KB, MB or GB for powers of 1000; KiB where there is no
/// letter, as in rsync. Zero means no limit.
fn parse_rate(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "'{text}' is not a rate: expected a number with an optional unit, for example 500K, 20M, 10MB or 0 for no limit"
        )
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: f64 = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "K" | "KIB" => 1024.0,
        "B" => 1.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "M" | "MIB" => 1024.0 * 1024.0,
        "G" | "GIB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let rate = number * unit;
    if number == 0.0 {
        return Ok(0);
    }
    if rate.is_finite() && (1.0..1e15).contains(&rate) { Ok(rate as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!(parse_rate("10"), Ok(10 * 1024));
        assert_eq!(parse_rate("1.5M"), Ok(3 << 19));
        assert_eq!(parse_rate("7b"), Ok(7));
        assert_eq!(parse_rate("10MB"), Ok(10_000_000));
        assert_eq!(parse_rate("0"), Ok(0));
        for wrong in ["", "K", "0.5B", "-1M", "1X", "nan", "infG"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
