//! From what a session says to what a run reports: exit code, report, sentence.

use std::{io, time::Duration};

use pod::{EntryError, ExitCode, Outcome, Report};
use session::{Error, Snapshot, Summary};
use telemetry::human;

/// How a run ended without a summary.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ExitCode,
    /// One sentence: what failed, on what, what to do.
    pub(crate) what: String,
    pub(crate) retryable: bool,
}

impl Failure {
    pub(crate) fn new(code: ExitCode, what: impl Into<String>) -> Self {
        Self::from_error(code, what, false)
    }

    fn from_error(code: ExitCode, what: impl Into<String>, retryable: bool) -> Self {
        Self { code, what: without_numbers(what.into()), retryable }
    }

    /// A result that could not be written to standard output.
    pub(crate) fn lost_output(error: &io::Error) -> Self {
        Self::new(ExitCode::FileIo, format!("cannot write to standard output: {error}"))
    }
}

/// Removes the number that the standard library puts behind the words of the kernel: ` (os error 2)`.
fn without_numbers(mut text: String) -> String {
    const OPENING: &str = " (os error ";
    let mut from = 0;
    while let Some(at) = text[from..].find(OPENING).map(|at| from + at) {
        let number = &text[at + OPENING.len()..];
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        from = at + OPENING.len();
        if number[digits..].starts_with(')') {
            text.replace_range(at..from + digits + 1, "");
            from = at;
        }
    }
    text
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        // A stream that breaks by a refusal of the other end carries the TLS reason.
        let tls = match error {
            Error::Stream(io) => tunnel::Error::from_io(io),
            _ => None,
        };
        if let Some(tls) = tls {
            let failure = Self::from(tls);
            // The connection stood: what broke is the stream of a session.
            let broke = tls.kind() == tunnel::Kind::Network;
            return Self { code: if broke { ExitCode::Stream } else { failure.code }, ..failure };
        }
        let code = ExitCode::from_number(error.exit_code()).unwrap_or(ExitCode::Protocol);
        Self::from_error(code, error.to_string(), error.is_retryable())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&tunnel::Error> for Failure {
    fn from(error: &tunnel::Error) -> Self {
        use tunnel::Kind;
        let code = match error.kind() {
            _ if matches!(error, tunnel::Error::Listen { .. }) => ExitCode::Socket,
            Kind::Dns | Kind::Refused | Kind::ConnectTimeout => ExitCode::ConnectTimeout,
            Kind::Network | Kind::Local => ExitCode::Socket,
            _ => ExitCode::StartUp,
        };
        Self::from_error(code, error.to_string(), error.is_retryable())
    }
}

impl From<tunnel::Error> for Failure {
    fn from(error: tunnel::Error) -> Self {
        Self::from(&error)
    }
}

impl From<pod::GaveUp> for Failure {
    fn from(gave_up: pod::GaveUp) -> Self {
        let (code, retryable) = (gave_up.exit_code(), gave_up.is_retryable());
        Self::from_error(code, gave_up.to_string(), retryable)
    }
}

/// The report of a run of `volume` that took `seconds`.
pub(crate) fn report(
    volume: &str,
    outcome: &Result<Summary, Failure>,
    progress: Snapshot,
    attempt: u32,
    elapsed: Duration,
) -> Report {
    let mut report = match outcome {
        Ok(summary) => completed(volume, summary),
        Err(failure) => {
            let mut report = Report::new(volume, failure.code, failure.what.clone());
            report.retryable = failure.retryable;
            report.entries = progress.entries_total;
            report.files_written = progress.files_written;
            report.files_deleted = progress.files_deleted;
            report.skipped = progress.skipped;
            report.bytes_total = progress.bytes_total;
            report.bytes_literal = progress.bytes_literal;
            report.bytes_matched = progress.bytes_matched;
            report.wire_sent = progress.wire_sent;
            report.wire_received = progress.wire_received;
            report
        }
    };
    report.attempt = attempt;
    report.seconds = elapsed.as_secs_f64();
    report
}

/// The code of a run whose result could not be written, which alone gives `lost`. A run that had failed before keeps its
/// code.
pub(crate) fn unreported(code: ExitCode, lost: ExitCode) -> ExitCode {
    match Outcome::from(code) {
        Outcome::Failed => code,
        Outcome::Completed | Outcome::Partial => lost,
    }
}

/// The report of a run that ended before its first session.
pub(crate) fn not_begun(volume: &str, failure: &Failure) -> Report {
    let mut report = Report::new(volume, failure.code, failure.what.clone());
    report.retryable = failure.retryable;
    report.attempt = 1;
    report
}

fn completed(volume: &str, summary: &Summary) -> Report {
    let code = ExitCode::from_number(summary.exit_code).unwrap_or(ExitCode::Partial);
    let first = summary.problems.first().map(|p| format!("{}: {}", p.name, p.what));
    let reason = match (summary.problem_count, first.unwrap_or_default()) {
        (0, _) => String::new(),
        // An error of the whole volume belongs to no entry.
        (1, first) if first.starts_with(".: ") => first[3..].to_owned(),
        (1, first) => format!("1 entry failed or incomplete: {first}"),
        // An entry may have several.
        (count, first) => format!("{count} errors; first: {first}"),
    };
    let mut report = Report::new(volume, code, reason);
    report.dry_run = summary.dry_run;
    report.entries = summary.entries;
    report.files_written = summary.files_written;
    report.files_deleted = summary.files_deleted;
    report.skipped = summary.skipped;
    report.all_listed = summary.all_listed;
    report.bytes_total = summary.bytes_total;
    report.bytes_literal = summary.bytes_literal;
    report.bytes_matched = summary.bytes_matched;
    report.wire_sent = summary.wire_sent;
    report.wire_received = summary.wire_received;
    report.round_trips = u64::from(summary.round_trips);
    report.digest = Some(hex(&summary.digest).into());
    report.tree_digest = summary.tree_digest.as_ref().map(|digest| hex(digest).into());
    report.errors = summary
        .problems
        .iter()
        .map(|problem| EntryError { name: problem.name.clone(), what: problem.what.clone() })
        .collect();
    report.errors_omitted = summary.problem_count - summary.problems.len() as u64;
    report
}

/// The summary for people: what was done, how much, how fast. No line is wider than 60 columns, up to numbers of six digits.
pub(crate) fn summary(report: &Report) -> String {
    let (entries, total) =
        (human::counted(report.entries, "entry", "entries"), human::bytes(report.bytes_total));
    let (files, deleted) =
        (human::counted(report.files_written, "file", "files"), report.files_deleted);
    let skipped = match report.skipped {
        0 => String::new(),
        count => format!(", {count} skipped"),
    };
    let (matched, seconds) = (human::bytes(report.bytes_matched), report.seconds);
    if report.dry_run {
        let most = human::bytes(report.bytes_total.saturating_sub(report.bytes_matched));
        return format!(
            "dry run: nothing was changed\n\
             {entries}, {total}{skipped}\n\
             {files} to write, {deleted} to delete\n\
             up to {most} to send, {matched} unchanged",
        );
    }
    let (literal, wire) = (human::bytes(report.bytes_literal), human::bytes(report.wire_sent));
    let rate = human::rate(report.bytes_total as f64 / seconds.max(1e-9));
    let mut text = format!(
        "{entries}, {total}{skipped}\n\
         {files} written, {deleted} deleted\n\
         {literal} sent ({wire} on the wire), {matched} reused\n\
         {seconds:.2} s, {rate}",
    );
    if let (Some(digest), ExitCode::Ok) = (&report.tree_digest, report.exit_code) {
        text += "\n";
        text += &verified(digest);
    }
    text
}

/// The last line of a verification that found both sides equal.
pub(crate) fn verified(digest: &str) -> String {
    let short: String = digest.chars().take(SHORT_DIGEST).collect();
    format!("verified: both sides identical (digest {short})")
}

/// Digits of a digest in the summary.
const SHORT_DIGEST: usize = 16;

/// `bytes` in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
