//! Progress as JSON lines. The field names are fixed: programs read them.
//!
//! Every object has a `type`, for log records and other lines may stand between them.

use serde::Serialize;
use session::monitor::Phase;

use super::Moment;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Progress(ProgressLine),
    Error { name: &'a str, what: &'a str },
    Skipped { name: &'a str, why: &'a str },
    Change { what: &'a str },
}

#[derive(Serialize)]
struct ProgressLine {
    phase: &'static str,
    seconds: f64,
    entries: u64,
    entries_total: u64,
    files_written: u64,
    files_deleted: u64,
    bytes_total: u64,
    bytes_done: u64,
    bytes_literal: u64,
    bytes_matched: u64,
    bytes_hole: u64,
    wire_sent: u64,
    wire_received: u64,
    errors: u64,
    skipped: u64,
    listing_complete: bool,
    bytes_per_second: u64,
    eta_seconds: Option<u64>,
}

/// One object of progress, without the line's end.
pub(super) fn progress(moment: &Moment) -> String {
    let s = &moment.snapshot;
    json(&Line::Progress(ProgressLine {
        phase: phase_word(moment.phase),
        seconds: moment.elapsed.as_millis() as f64 / 1000.0,
        entries: s.entries,
        entries_total: s.entries_total,
        files_written: s.files_written,
        files_deleted: s.files_deleted,
        bytes_total: s.bytes_total,
        bytes_done: s.bytes_done,
        bytes_literal: s.bytes_literal,
        bytes_matched: s.bytes_matched,
        bytes_hole: s.bytes_hole,
        wire_sent: s.wire_sent,
        wire_received: s.wire_received,
        errors: s.errors,
        skipped: s.skipped,
        listing_complete: s.listing_complete,
        bytes_per_second: moment.speed.bytes_per_second as u64,
        eta_seconds: moment.speed.eta(s).map(|eta| eta.as_secs()),
    }))
}

/// One object for an entry that could not be treated as asked.
pub(super) fn error(name: &str, what: &str) -> String {
    json(&Line::Error { name, what })
}

/// One object for an entry of the source that is left out by design.
pub(super) fn skipped(name: &str, why: &str) -> String {
    json(&Line::Skipped { name, why })
}

/// One object for a change of the destination, made or planned.
pub(super) fn change(what: &str) -> String {
    json(&Line::Change { what })
}

/// The word for a phase, here and in metrics.
pub(crate) fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Connect => "connect",
        Phase::Transfer => "transfer",
        Phase::Finish => "finish",
        Phase::Flush => "flush",
        Phase::Verify => "verify",
    }
}

/// These types hold nothing that cannot be serialised.
fn json(line: &Line<'_>) -> String {
    serde_json::to_string(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::rate::Speed;
    use session::monitor::Snapshot;
    use std::time::Duration;

    #[test]
    fn lines_are_the_documented_ones() {
        let moment = Moment {
            phase: Phase::Transfer,
            elapsed: Duration::from_millis(1234),
            snapshot: Snapshot {
                entries: 5,
                entries_total: 9,
                bytes_total: 1000,
                bytes_done: 400,
                listing_complete: true,
                ..Snapshot::default()
            },
            speed: Speed { bytes_per_second: 100.7, entries_per_second: 4.0 },
            finished: false,
        };
        assert_eq!(
            progress(&moment),
            concat!(
                r#"{"type":"progress","phase":"transfer","seconds":1.234,"entries":5,"#,
                r#""entries_total":9,"files_written":0,"files_deleted":0,"bytes_total":1000,"#,
                r#""bytes_done":400,"bytes_literal":0,"bytes_matched":0,"bytes_hole":0,"#,
                r#""wire_sent":0,"wire_received":0,"errors":0,"skipped":0,"listing_complete":true,"#,
                r#""bytes_per_second":100,"eta_seconds":5}"#,
            )
        );
        assert_eq!(error("a\"b", "gone"), r#"{"type":"error","name":"a\"b","what":"gone"}"#);
    }
}
