//! Commands that remove: snapshots, and what nothing refers to.

use std::time::Instant;

use pod::{ExitCode, Report};
use repository::{Forget, ForgetSummary, Keep, Policy, Snapshot, SnapshotFilter};
use serde_json::json;
use telemetry::{Console, human};

use crate::{
    Done,
    cli::ForgetArgs,
    finish, open,
    outcome::{self, Failure},
    signals,
};

pub(crate) fn forget(args: &ForgetArgs, console: &Console) -> Result<ExitCode, Failure> {
    outcome::check_termination_log(&args.report)?;
    let begun = Instant::now();
    let done = (|| {
        let (_runtime, stop) = signals()?;
        let summary = open(&args.repository)?.forget(&what(args), args.dry_run, &stop)?;
        if !args.report.json {
            list(&summary, console);
        }
        Ok(of_forget(&summary, args.dry_run))
    })();
    finish(done, begun, &args.report, console)
}

fn what(args: &ForgetArgs) -> Forget {
    if !args.snapshots.is_empty() {
        return Forget::Ids(args.snapshots.clone());
    }
    let keep = |count: Option<Keep>| count.unwrap_or_default();
    let (policy, filter) = (&args.policy, &args.filter);
    let policy = Policy {
        last: keep(policy.keep_last),
        hourly: keep(policy.keep_hourly),
        daily: keep(policy.keep_daily),
        weekly: keep(policy.keep_weekly),
        monthly: keep(policy.keep_monthly),
        yearly: keep(policy.keep_yearly),
        tags: policy.keep_tag.clone(),
    };
    let filter = SnapshotFilter {
        hosts: filter.host.clone(),
        paths: filter.path.clone(),
        tags: filter.tag.clone(),
    };
    Forget::Policy(policy, filter)
}

/// Prints what is kept and removed, one snapshot a line.
fn list(summary: &ForgetSummary, console: &Console) {
    for (what, snapshots) in [("keep", &summary.kept), ("remove", &summary.removed)] {
        for snapshot in snapshots {
            let line = format!("{what:6}  {}", crate::line(snapshot));
            console.print(pod::Text::from(line.trim_end()).as_ref());
        }
    }
}

fn of_forget(summary: &ForgetSummary, dry_run: bool) -> Done {
    let mut report = outcome::of_problems(&summary.problems);
    report.dry_run = dry_run;
    report.files_deleted = if dry_run { 0 } else { summary.removed.len() as u64 };
    let ids = |list: &[Snapshot]| list.iter().map(Snapshot::id).collect::<Vec<_>>();
    let extra = json!({ "kept": ids(&summary.kept), "removed": ids(&summary.removed) });
    Done { report, extra, text: forgotten }
}

fn forgotten(report: &Report) -> String {
    if report.dry_run {
        return "dry run: no snapshot was removed".to_owned();
    }
    let removed = human::counted(report.files_deleted, "snapshot", "snapshots");
    format!("{removed} removed in {:.2} s", report.seconds)
}
