//! `pvferry digest` and `pvferry verify`: what a volume holds, and where two differ.

use std::{os::unix::ffi::OsStrExt as _, path::Path, thread};

use pod::ExitCode;
use serde_json::json;
use telemetry::{Console, human};
use volume::{
    capability::Preflight,
    compare::{self, What},
    digest::{self, DigestOptions, TreeDigest},
    filter::FilterRules,
    stat::ReadOptions,
};
use wire::name::escape;

use super::endpoints::check_readable;
use crate::{
    cli::{DigestArgs, VerifyArgs},
    outcome::{Failure, hex, verified},
    setup::{self, Surroundings},
};

/// Differences in a JSON object, at most: the reader holds all of it.
const MAX_LISTED: usize = 10_000;

pub(super) fn digest(args: &DigestArgs, surroundings: &Surroundings) -> Result<ExitCode, Failure> {
    check_readable(&args.path)?;
    let tree = digest_of(&args.path, setup::workers()).map_err(unfit)?;
    let console = &surroundings.console;
    name_skipped(console, &tree.mount_points);
    note_of_reading(console);
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

fn digest_of(path: &Path, threads: usize) -> volume::Result<TreeDigest> {
    let filter = FilterRules::default();
    let options = DigestOptions {
        read: ReadOptions::default(),
        known_only: true,
        filter: &filter,
        left_out: None,
        threads,
        progress: None,
    };
    digest::digest(path, &options)
}

/// The digest of both sides, if they are equal and everything was read. All processors work on it.
fn equal_digest(args: &VerifyArgs) -> volume::Result<Option<TreeDigest>> {
    let threads = setup::workers().div_ceil(2);
    let (source, destination) = thread::scope(|scope| {
        let other = scope.spawn(|| digest_of(&args.destination, threads));
        let this = digest_of(&args.source, threads);
        // A thread that panicked has proved nothing: the comparison decides.
        (this, other.join().ok().transpose())
    });
    let (mut source, Some(destination)) = (source?, destination?) else { return Ok(None) };
    let complete = source.failed == 0 && destination.failed == 0;
    if !complete || source.digest != destination.digest {
        return Ok(None);
    }
    source.mount_points.extend(destination.mount_points);
    Ok(Some(source))
}

/// Equal digests prove equality; only sides that differ are compared entry by entry.
pub(super) fn verify(args: &VerifyArgs, surroundings: &Surroundings) -> Result<ExitCode, Failure> {
    let console = &surroundings.console;
    check_readable(&args.source)?;
    check_readable(&args.destination)?;
    match equal_digest(args).map_err(unfit)? {
        Some(tree) => {
            name_skipped(console, &tree.mount_points);
            let lost_and_found = name_lost_and_found(args, console);
            note_of_reading(console);
            print_equal(args, console, &tree, lost_and_found);
            Ok(ExitCode::Ok)
        }
        None => list_differences(args, console),
    }
}

fn print_equal(args: &VerifyArgs, console: &Console, tree: &TreeDigest, lost_and_found: u64) {
    let skipped = tree.mount_points.len() as u64 + lost_and_found;
    let (digest, bytes) = (hex(&tree.digest), tree.bytes);
    // As in the summary of a copy: the root is not counted, a device is one entry.
    let entries = (tree.files + tree.dirs).saturating_sub(1).max(u64::from(tree.dirs == 0));
    if args.json {
        let object = json!({
            "identical": true, "entries": entries, "bytes": bytes, "digest": digest,
            "skipped": skipped, "differences": [], "differences_omitted": 0,
        });
        return console.print(&object.to_string());
    }
    let entries = human::counted(entries, "entry", "entries");
    let skipped = match skipped {
        0 => String::new(),
        count => format!(", {count} skipped"),
    };
    console.print(&format!("{entries}, {}{skipped}\n{}", human::bytes(bytes), verified(&digest)));
}

fn list_differences(args: &VerifyArgs, console: &Console) -> Result<ExitCode, Failure> {
    let shown = |path: &Path| escape(path.as_os_str().as_bytes());
    let (source, destination) = (shown(&args.source), shown(&args.destination));
    let mut listed = Vec::new();
    let options = ReadOptions::default();
    let mut one_sided = false;
    let counts = compare::compare(&args.source, &args.destination, &options, &mut |difference| {
        one_sided |= matches!(difference.what, What::OnlyInA | What::OnlyInB);
        if !args.json {
            console.print(&difference.between(&source, &destination).to_string());
        } else if listed.len() < MAX_LISTED {
            let what = difference.what.between(&source, &destination).to_string();
            listed.push(json!({ "name": difference.name, "what": what }));
        }
    })
    .map_err(unfit)?;
    name_skipped(console, &counts.mount_points);
    name_lost_and_found(args, console);
    note_of_reading(console);
    if args.json {
        let object = json!({
            "identical": false, "entries": counts.entries.saturating_sub(1), "bytes": counts.bytes,
            "differences_omitted": counts.differences - listed.len() as u64, "differences": listed,
        });
        console.print(&object.to_string());
    }
    let said = match counts.differences {
        // The digests differ.
        0 => format!("{source} and {destination} changed while they were compared: run it again"),
        count => {
            let differences = human::counted(count, "difference", "differences");
            // The most frequent reason for entries that one side lacks.
            let hint = if one_sided {
                "; verify compares whole trees: after a copy with filters, use copy --verify with the same filters"
            } else {
                ""
            };
            format!("{differences} between {source} and {destination}{hint}")
        }
    };
    console.message(tracing::Level::ERROR, &format!("pvferry: {said}"));
    Ok(ExitCode::Partial)
}

/// What this process cannot read takes no part, so equal results do not prove it equal.
fn note_of_reading(console: &Console) {
    let Ok(preflight) = Preflight::current() else { return };
    let note =
        |text: &str| console.message(tracing::Level::WARN, &format!("pvferry: note: {text}"));
    if let Some(loss) = preflight.of_reading() {
        note(&loss.to_string());
    }
    if preflight.check().iter().any(|loss| loss.missing == "CAP_SYS_ADMIN") {
        note("trusted.* attributes are not read: CAP_SYS_ADMIN is missing");
    }
}

fn name_skipped(console: &Console, mount_points: &[String]) {
    for name in mount_points {
        console.message(tracing::Level::WARN, &format!("{name}: skipped: mount point"));
    }
}

/// Of either side, at its root. Returns how many there are.
fn name_lost_and_found(args: &VerifyArgs, console: &Console) -> u64 {
    let roots = [&args.source, &args.destination].into_iter();
    let found = roots
        .map(|root| root.join("lost+found"))
        .filter(|path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()));
    found.fold(0, |count, path| {
        let shown = escape(path.as_os_str().as_bytes());
        console
            .message(tracing::Level::WARN, &format!("{shown}: skipped: made by the file system"));
        count + 1
    })
}

fn unfit(error: volume::Error) -> Failure {
    Failure::new(ExitCode::Selection, error.to_string())
}
