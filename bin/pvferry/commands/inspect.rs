//! `pvferry digest` and `pvferry verify`: what a volume holds, and where two differ.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use pod::ExitCode;
use serde_json::json;
use telemetry::{Console, human};
use volume::{
    capability::Preflight,
    compare,
    digest::{self, DigestOptions},
    filter::FilterRules,
    stat::ReadOptions,
};
use wire::name::escape;

use crate::{
    cli::{DigestArgs, VerifyArgs},
    outcome::{Failure, hex},
    setup::{self, Surroundings},
};

pub(super) fn digest(args: &DigestArgs, surroundings: &Surroundings) -> Result<ExitCode, Failure> {
    let filter = FilterRules::default();
    let options = DigestOptions {
        read: ReadOptions::default(),
        filter: &filter,
        threads: setup::workers(),
        progress: None,
    };
    let tree = digest::digest(&args.path, &options).map_err(unfit)?;
    let console = &surroundings.console;
    name_skipped(console, &tree.mount_points);
    for error in &tree.errors {
        console.message(tracing::Level::ERROR, &format!("pvferry: {error}"));
    }
    if tree.failed > 0 {
        let what = format!("no digest: {} entries cannot be read", tree.failed);
        return Err(Failure::new(ExitCode::Partial, what));
    }
    let digest = hex(&tree.digest);
    if args.json {
        let object = json!({
            "digest": digest, "files": tree.files, "directories": tree.dirs, "bytes": tree.bytes,
        });
        console.print(&object.to_string());
    } else {
        console.print(&digest);
    }
    Ok(ExitCode::Ok)
}

pub(super) fn verify(args: &VerifyArgs, surroundings: &Surroundings) -> Result<ExitCode, Failure> {
    let console = &surroundings.console;
    let shown = |path: &Path| escape(path.as_os_str().as_bytes());
    let (a, b) = (shown(&args.a), shown(&args.b));
    let counts = compare::compare(&args.a, &args.b, &ReadOptions::default(), &mut |difference| {
        console.print(&difference.between(&a, &b).to_string());
    })
    .map_err(unfit)?;
    name_skipped(console, &counts.mount_points);
    if let Some(loss) = Preflight::current().ok().and_then(Preflight::of_reading) {
        console.message(tracing::Level::WARN, &format!("pvferry: note: {loss}"));
    }
    let entries = human::counted(counts.entries, "entry", "entries");
    if counts.is_equal() {
        let bytes = human::bytes(counts.bytes);
        console.print(&format!("verified: both sides identical ({entries}, {bytes})"));
        return Ok(ExitCode::Ok);
    }
    let differences = human::counted(counts.differences, "difference", "differences");
    console.message(tracing::Level::ERROR, &format!("pvferry: {differences} in {entries}"));
    Ok(ExitCode::Partial)
}

fn name_skipped(console: &Console, mount_points: &[String]) {
    for name in mount_points {
        console.message(tracing::Level::WARN, &format!("{name}: skipped: mount point"));
    }
}

fn unfit(error: volume::Error) -> Failure {
    Failure::new(ExitCode::Selection, error.to_string())
}
