//! Commands that remove: snapshots, and what nothing refers to.

use std::time::Instant;

use pod::{ExitCode, Report};
use repository::{
    Forget, ForgetOptions, ForgetSummary, Keep, Policy, PruneSummary, Snapshot, SnapshotFilter,
};
use serde_json::json;
use telemetry::{Console, human};

use crate::{
    Done,
    cli::{ForgetArgs, PruneArgs},
    finish, open,
    outcome::{self, Failure},
    signals,
};

pub(crate) fn forget(args: &ForgetArgs, console: &Console) -> Result<ExitCode, Failure> {
    outcome::check_termination_log(&args.report)?;
    let begun = Instant::now();
    let done = (|| {
        let (_runtime, stop) = signals()?;
        let options = ForgetOptions { what: what(args), prune: args.prune, dry_run: args.dry_run };
        let summary = open(&args.repository)?.forget(&options, &stop)?;
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
    let pruned = summary.pruned.as_ref();
    let mut report = outcome::of_problems(pruned.map_or(&summary.problems, |p| &p.problems));
    report.dry_run = dry_run;
    let removed = if dry_run { 0 } else { summary.removed.len() as u64 };
    report.files_deleted = removed + pruned.map_or(0, |pruned| pruned.files);
    let ids = |list: &[Snapshot]| list.iter().map(Snapshot::id).collect::<Vec<_>>();
    let mut extra = json!({ "kept": ids(&summary.kept), "removed": ids(&summary.removed) });
    if let Some(pruned) = pruned {
        extra["bytes_freed"] = pruned.freed.into();
    }
    let freed = pruned.map_or_else(String::new, |p| format!(", {}", freed(p.freed, dry_run)));
    let text = move |report: &Report| {
        if report.dry_run {
            return format!("dry run: no snapshot was removed{freed}");
        }
        let removed = human::counted(removed, "snapshot", "snapshots");
        format!("{removed} removed{freed} in {:.2} s", report.seconds)
    };
    Done { report, extra, text: Box::new(text) }
}

pub(crate) fn prune(args: &PruneArgs, console: &Console) -> Result<ExitCode, Failure> {
    outcome::check_termination_log(&args.report)?;
    let begun = Instant::now();
    let done = (|| {
        let (_runtime, stop) = signals()?;
        let summary = open(&args.repository)?.prune(args.dry_run, &stop)?;
        Ok(of_prune(&summary, args.dry_run))
    })();
    finish(done, begun, &args.report, console)
}

fn of_prune(summary: &PruneSummary, dry_run: bool) -> Done {
    let mut report = outcome::of_problems(&summary.problems);
    report.dry_run = dry_run;
    report.files_deleted = summary.files;
    let extra = json!({ "bytes_freed": summary.freed });
    let freed = freed(summary.freed, dry_run);
    let text = move |report: &Report| {
        if report.dry_run {
            return format!("dry run: nothing was removed, {freed}");
        }
        let files = human::counted(report.files_deleted, "file", "files");
        format!("{files} removed, {freed} in {:.2} s", report.seconds)
    };
    Done { report, extra, text: Box::new(text) }
}

/// How much room there is afterwards.
fn freed(bytes: i64, dry_run: bool) -> String {
    let size = human::bytes(bytes.unsigned_abs());
    match (bytes < 0, dry_run) {
        (false, false) => format!("{size} freed"),
        (false, true) => format!("about {size} would be freed"),
        (true, _) => format!("{size} added to the index"),
    }
}
