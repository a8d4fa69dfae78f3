//! What containers of a pod leave for each other: markers and termination messages.

use std::{fs, path::Path, sync::LazyLock};

use arbitrary::Unstructured;
use pod::{
    EntryError, ExitCode, Outcome, Report, VolumeName, marker as markers, report::MIN_LIMIT,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::script::{byte, number, some_bytes};

static DIRECTORY: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary directory"));

/// A marker of which the bytes up to the first NUL are the name and the rest is the content. Whatever it holds, it
/// counts as one ended run, and as a success only where it says so in as many words.
pub fn marker(bytes: &[u8]) {
    let (name, content) = match bytes.iter().position(|&byte| byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (&b"v"[..], bytes),
    };
    let name = String::from_utf8_lossy(name);
    let Ok(volume) = name.parse::<VolumeName>() else { return };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!((1..=VolumeName::MAX).contains(&name.len()) && name.bytes().all(plain));
    assert!(!name.starts_with('.'));

    let path = DIRECTORY.path().join(format!("{volume}.done"));
    fs::write(&path, content).expect("a marker is written");
    let read = markers::read_all(DIRECTORY.path());
    fs::remove_file(&path).expect("the marker is removed");
    let read = read.expect("the directory can be read");
    let [(found, report)] = &read[..] else { panic!("{} markers", read.len()) };
    assert_eq!(*found, volume);
    assert!(!report.is_success() || says_success(content));
    write_again(DIRECTORY.path(), &volume, report);
}

/// An independent reading of what a success looks like. What stands in fields that nobody knows need not be sound,
/// as long as it is text.
fn says_success(content: &[u8]) -> bool {
    match serde_json::from_slice::<Value>(content) {
        Ok(value) => value["outcome"] == "completed" && value["exit_code"] == 0,
        Err(_) => str::from_utf8(content).is_ok(),
    }
}

/// What was read says the same when it is written and read once more.
fn write_again(dir: &Path, volume: &VolumeName, report: &Report) {
    markers::write(dir, volume, report).expect("a marker is written");
    let again = markers::read_all(dir).expect("the directory can be read");
    markers::clear(dir, volume).expect("the marker is removed");
    assert_eq!(verdict(&again[0].1), verdict(report));
}

/// Any report as a message of any length: it fits, it is JSON, and it keeps its verdict.
pub fn report(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let code = ExitCode::BY_BADNESS[usize::from(byte(&mut u)) % ExitCode::BY_BADNESS.len()];
    let limit = number(&mut u) as usize % 6000;
    let mut report = Report::new(text(&mut u), code, text(&mut u));
    report.retryable = byte(&mut u).is_multiple_of(2);
    report.seconds = f64::from_bits(number(&mut u));
    report.bytes_total = number(&mut u);
    report.errors_omitted = number(&mut u);
    report.digest = (byte(&mut u).is_multiple_of(2)).then(|| text(&mut u).into());
    for _ in 0..byte(&mut u) % 16 {
        report.errors.push(EntryError { name: text(&mut u).into(), what: text(&mut u).into() });
    }
    let all = |report: &Report| report.errors_omitted.saturating_add(report.errors.len() as u64);
    for limit in [limit, pod::termination::LIMIT] {
        let message = report.to_json_within(limit);
        assert!(message.len() <= limit.max(MIN_LIMIT), "{} of {limit}", message.len());
        let read: Report = serde_json::from_str(&message).expect("a report");
        assert_eq!(verdict(&read), verdict(&report));
        assert!(limit < pod::termination::LIMIT || all(&read) == all(&report));
        let shown: Value = serde_json::from_str(&message).expect("JSON");
        assert_eq!(shown["exit_code"], u64::from(code.number()));
    }
}

fn verdict(report: &Report) -> (Outcome, ExitCode, bool) {
    (report.outcome, report.exit_code, report.retryable)
}

/// Text, some of it long, some of characters that JSON escapes.
fn text(u: &mut Unstructured<'_>) -> String {
    let piece = some_bytes(u, 40);
    let times = usize::from(byte(u));
    String::from_utf8_lossy(&piece).repeat(if times > 200 { times } else { 1 })
}
