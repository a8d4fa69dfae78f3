//! From what a run says to what the process reports: exit code, report, sentence.

use std::{
    env,
    path::{Path, PathBuf},
};

use pod::{EntryError, ExitCode, Report, termination};
use repository::{BackupSummary, Found, Kind, RestoreSummary, Snapshot};
use serde_json::Value;
use telemetry::human;

use crate::cli::ReportArgs;

/// How a run ended without a summary.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ExitCode,
    pub(crate) what: String,
    retryable: bool,
}

impl Failure {
    pub(crate) fn new(code: ExitCode, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), retryable: false }
    }

    pub(crate) fn report(&self) -> Report {
        let mut report = Report::new("", self.code, self.what.clone());
        report.retryable = self.retryable;
        report
    }
}

impl From<repository::Error> for Failure {
    fn from(error: repository::Error) -> Self {
        let code = match error.kind {
            Kind::Usage => ExitCode::Usage,
            Kind::Selection => ExitCode::Selection,
            Kind::Storage => ExitCode::Socket,
            Kind::Locked => ExitCode::StartUp,
            Kind::Damaged | Kind::Volume => ExitCode::FileIo,
            Kind::Stopped => ExitCode::Signal,
        };
        Self { code, retryable: error.is_retryable(), what: error.what }
    }
}

/// A report of a run that went to its end.
pub(crate) fn of_problems(problems: &Found) -> Report {
    let code = ExitCode::from_number(problems.exit_code()).unwrap_or(ExitCode::Partial);
    let first = problems.first.first().map(|p| format!("{}: {}", p.name, p.what));
    let reason = match (problems.count, first.unwrap_or_default()) {
        (0, _) => String::new(),
        (1, first) => format!("failed or incomplete: {first}"),
        (count, first) => format!("{count} errors, the first: {first}"),
    };
    let mut report = Report::new("", code, reason);
    let error = |problem: &repository::Problem| EntryError {
        name: problem.name.clone().into(),
        what: problem.what.clone().into(),
    };
    report.errors = problems.first.iter().map(error).collect();
    report.errors_omitted = problems.count - report.errors.len() as u64;
    report
}

fn report(snapshot: &Snapshot, problems: &Found, digest: &[u8]) -> Report {
    let mut report = of_problems(problems);
    report.digest = Some(hex(digest).into());
    report.snapshot = Some(snapshot.id().into());
    report
}

pub(crate) fn of_backup(summary: &BackupSummary) -> Report {
    let mut report = report(&summary.snapshot, &summary.problems, &summary.digest);
    report.entries = summary.entries;
    report.skipped = summary.skipped;
    report.bytes_total = summary.bytes_total;
    report.bytes_literal = summary.bytes_read;
    report.wire_sent = summary.snapshot.bytes_stored();
    report
}

pub(crate) fn of_restore(snapshot: &Snapshot, summary: &RestoreSummary) -> Report {
    let mut report = report(snapshot, &summary.problems, &summary.digest);
    report.entries = summary.entries;
    report.files_written = summary.files_written;
    report.bytes_total = summary.bytes_total;
    report.bytes_literal = summary.bytes_total;
    report
}

pub(crate) fn sentence(report: &Report) -> String {
    format!(
        "snapshot {}: {}, {} in {:.2} s",
        report.snapshot.as_ref().map_or("", |id| &id[..id.len().min(8)]),
        human::counted(report.entries, "entry", "entries"),
        human::bytes(report.bytes_total),
        report.seconds,
    )
}

/// The report as one JSON object, with fields of its own for a command.
pub(crate) fn json(report: &Report, extra: &Value) -> String {
    let text = report.to_json();
    let (Some(extra), Ok(Value::Object(mut whole))) =
        (extra.as_object(), serde_json::from_str(&text))
    else {
        return text;
    };
    whole.extend(extra.clone());
    Value::Object(whole).to_string()
}

fn termination_log(args: &ReportArgs) -> Option<PathBuf> {
    let default = || Some(PathBuf::from(termination::DEFAULT_PATH)).filter(|path| path.exists());
    args.termination_log.clone().or_else(default)
}

/// Refuses a termination message that could not be written at the end.
pub(crate) fn check_termination_log(args: &ReportArgs) -> Result<(), Failure> {
    let check = |path: PathBuf| {
        termination::check(&path)
            .map_err(|error| Failure::new(ExitCode::StartUp, error.to_string()))
    };
    termination_log(args).map_or(Ok(()), check)
}

pub(crate) fn write_termination_log(args: &ReportArgs, report: &Report) -> Result<(), String> {
    let containers = env::var(pod::env::CONTAINERS).ok().and_then(|count| count.parse().ok());
    let limit = termination::message_limit(containers.unwrap_or(1));
    let write = |path: &Path| termination::write(path, report, limit).map_err(|e| e.to_string());
    termination_log(args).map_or(Ok(()), |path| write(&path))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
