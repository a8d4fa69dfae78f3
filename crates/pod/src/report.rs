//! The report: how one container's run ended, as one JSON object.
//!
//! The same object is printed by `--json`, left as termination message, and written as completion
//! marker. A reader must find `outcome` and `exit_code`; every other field may be missing and is
//! then empty or zero, and fields it does not know are skipped, so that versions can be mixed.
//! Its texts are [`Text`]: a process that reads the report of another container can show them.

use serde::{Deserialize, Serialize, Serializer};
use text::Text;

use crate::ExitCode;

/// The least limit that [`Report::to_json_within`] can keep, in bytes.
pub const MIN_LIMIT: usize = 128;

/// How a run ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything is there, and both ends agree on it.
    Completed,
    /// The run went to its end, but something was left out; the errors name it.
    Partial,
    /// The run did not go to its end.
    Failed,
}

impl From<ExitCode> for Outcome {
    fn from(code: ExitCode) -> Self {
        match code {
            ExitCode::Ok => Self::Completed,
            ExitCode::SourceChanged | ExitCode::Partial | ExitCode::DeleteLimit => Self::Partial,
            _ => Self::Failed,
        }
    }
}

/// One entry that could not be treated as asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryError {
    /// The entry, as an escaped path below the root of the volume.
    pub name: Text,
    /// What went wrong with it.
    pub what: Text,
}

/// What both ends of a session know of a volume, each by itself. Of a success, both report the same.
///
/// `entries` and `bytes_total` of [`Report`] are not part of it. They are figures of the listing, which the ends may count
/// differently: the sender counts a file as it was listed, the receiver as it was sent, and a file can shrink in between. The
/// manifest digest holds the number of all entries, and the size of each as both ends have it, so a comparison would prove no
/// more, and eight volumes would no longer fit into one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// The volume by its name.
    pub volume: Text,
    /// The end in one word.
    pub outcome: Outcome,
    /// The exit code of the sender, if it has sent one.
    pub exit_code: ExitCode,
    /// Nothing was transferred.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Entries that were created, and files whose content was written.
    pub files_written: u64,
    /// Entries that were deleted.
    pub files_deleted: u64,
    /// Bytes of file content that the destination had already.
    pub bytes_matched: u64,
    /// The manifest digest, in hexadecimal.
    pub digest: Option<Text>,
    /// The digest of the whole tree, in hexadecimal, if verification was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree_digest: Option<Text>,
}

impl VolumeReport {
    /// The part of a report that both ends know.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        Self {
            volume: report.volume.clone(),
            outcome: report.outcome,
            exit_code: report.exit_code,
            dry_run: report.dry_run,
            files_written: report.files_written,
            files_deleted: report.files_deleted,
            bytes_matched: report.bytes_matched,
            digest: report.digest.clone(),
            tree_digest: report.tree_digest.clone(),
        }
    }

    /// The whole report on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        json(self)
    }
}

/// How one run ended, and what it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The end in one word.
    pub outcome: Outcome,
    /// The end in one sentence; empty where there is nothing to explain.
    #[serde(default)]
    pub reason: Text,
    /// The number that the process exits with.
    pub exit_code: ExitCode,
    /// The run only showed what a run would do. Nothing was transferred.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Whether the same run may end better with nothing changed by hand.
    #[serde(default)]
    pub retryable: bool,
    /// The volume by its name; empty where the run has none.
    #[serde(default)]
    pub volume: Text,
    /// Which try this was within the run, from 1.
    #[serde(default)]
    pub attempt: u32,
    /// Entries of the source that were looked at.
    #[serde(default)]
    pub entries: u64,
    /// Entries that were created, and files whose content was written.
    #[serde(default)]
    pub files_written: u64,
    /// Entries that were deleted.
    #[serde(default)]
    pub files_deleted: u64,
    /// Entries of the source that were left out by design: mount points, `lost+found`. Not errors.
    #[serde(default)]
    pub skipped: u64,
    /// Every directory of the source was listed to its end, so that no extraneous entry at the destination was missed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_listed: bool,
    /// Bytes of file content at the source.
    #[serde(default)]
    pub bytes_total: u64,
    /// Bytes of file content that were sent.
    #[serde(default)]
    pub bytes_literal: u64,
    /// Bytes of file content that the destination had already, in files that are whole now.
    #[serde(default)]
    pub bytes_matched: u64,
    /// Bytes sent to the peer, before TLS.
    #[serde(default)]
    pub wire_sent: u64,
    /// Bytes received from the peer, after TLS.
    #[serde(default)]
    pub wire_received: u64,
    /// How often one end had to wait for an answer of the other.
    #[serde(default)]
    pub round_trips: u64,
    /// How long the run took, in seconds.
    #[serde(default, serialize_with = "finite")]
    pub seconds: f64,
    /// The manifest digest that both ends agreed on, in hexadecimal.
    #[serde(default)]
    pub digest: Option<Text>,
    /// The digest of the whole tree at both ends, in hexadecimal, if verification was asked for. `pvferry digest` prints
    /// the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree_digest: Option<Text>,
    /// The id of the snapshot that was created or restored, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Text>,
    /// The first errors with single entries; an entry may have several.
    #[serde(default)]
    pub errors: Vec<EntryError>,
    /// How many more there were than `errors` has room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub errors_omitted: u64,
    /// What a server received, volume by volume. They are never cut: a message without room for all of them has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeReport>,
}

impl Report {
    /// A report with all counts at zero; outcome and `retryable` follow from the code.
    #[must_use]
    pub fn new(volume: impl Into<Text>, code: ExitCode, reason: impl Into<Text>) -> Self {
        Self {
            outcome: code.into(),
            reason: reason.into(),
            exit_code: code,
            dry_run: false,
            retryable: code.is_retryable(),
            volume: volume.into(),
            attempt: 1,
            entries: 0,
            files_written: 0,
            files_deleted: 0,
            skipped: 0,
            all_listed: false,
            bytes_total: 0,
            bytes_literal: 0,
            bytes_matched: 0,
            wire_sent: 0,
            wire_received: 0,
            round_trips: 0,
            seconds: 0.0,
            digest: None,
            tree_digest: None,
            snapshot: None,
            errors: Vec::new(),
            errors_omitted: 0,
            volumes: Vec::new(),
        }
    }

    /// Adds a failure that came after the run itself, such as a report that could not be written. A run that had failed
    /// before keeps its code and reason.
    pub fn fail(&mut self, code: ExitCode, reason: impl Into<Text>) {
        if self.outcome != Outcome::Failed {
            self.exit_code = code;
            self.outcome = code.into();
            self.retryable = code.is_retryable();
            self.reason = reason.into();
        }
    }

    /// Whether the volume is there, whole. Outcome and exit code must both say so, and a dry run moves nothing.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.outcome == Outcome::Completed && self.exit_code == ExitCode::Ok && !self.dry_run
    }

    /// How many errors with single entries there were.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.errors_omitted.saturating_add(self.errors.len() as u64)
    }

    /// The whole report on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        json(self)
    }

    /// The report as a termination message for a pod of up to three containers: at most
    /// [`LIMIT`](crate::termination::LIMIT) bytes.
    #[must_use]
    pub fn to_termination_message(&self) -> String {
        self.to_json_within(crate::termination::LIMIT)
    }

    /// The report as valid JSON of at most `limit` bytes; a limit below [`MIN_LIMIT`] counts as
    /// that.
    ///
    /// Outcome, exit code and `retryable` are always kept. Long texts are cut and end in `…`;
    /// errors are dropped from the end and counted in `errors_omitted`; where the counts do not
    /// fit either, they go too.
    #[must_use]
    pub fn to_json_within(&self, limit: usize) -> String {
        let limit = limit.max(MIN_LIMIT);
        let whole = self.to_json();
        if whole.len() <= limit {
            return whole;
        }
        self.shortened(limit).unwrap_or_else(|| self.outline(limit))
    }

    /// Cuts texts and drops errors; `None` where that does not suffice.
    fn shortened(&self, limit: usize) -> Option<String> {
        // Beside the reports of eight volumes there is little room for texts.
        let reason = if self.volumes.is_empty() { limit / 4 } else { limit / 16 };
        let mut short = Self {
            reason: clip(&self.reason, reason),
            volume: clip(&self.volume, limit / 16),
            digest: self.digest.as_ref().map(|digest| clip(digest, 128)),
            tree_digest: self.tree_digest.as_ref().map(|digest| clip(digest, 128)),
            snapshot: self.snapshot.as_ref().map(|id| clip(id, 128)),
            errors: Vec::new(),
            volumes: self.volumes.clone(),
            // The most digits that the number can take, so that the real one fits.
            errors_omitted: u64::MAX,
            ..*self
        };
        let mut room = limit.checked_sub(json(&short).len())?;
        for error in &self.errors {
            let error =
                EntryError { name: clip(&error.name, limit / 8), what: clip(&error.what, 256) };
            // One for the comma between two.
            let Some(left) = room.checked_sub(json(&error).len() + 1) else { break };
            room = left;
            short.errors.push(error);
        }
        let omitted = (self.errors.len() - short.errors.len()) as u64;
        short.errors_omitted = self.errors_omitted.saturating_add(omitted);
        Some(json(&short))
    }

    /// Only what decides the fate of the run.
    fn outline(&self, limit: usize) -> String {
        #[derive(Serialize)]
        struct Outline<'a> {
            outcome: Outcome,
            reason: &'a str,
            exit_code: ExitCode,
            retryable: bool,
        }
        let (outcome, exit_code, retryable) = (self.outcome, self.exit_code, self.retryable);
        let outline = |reason: &str| json(&Outline { outcome, reason, exit_code, retryable });
        outline(&clip(&self.reason, limit - outline("").len()))
    }
}

/// The longest prefix of `text` that takes at most `limit` bytes inside a JSON string, with an
/// ellipsis where something was cut and one fits.
fn clip(text: &Text, limit: usize) -> Text {
    const ELLIPSIS: char = '…';
    let mut used = 0;
    let mut with_ellipsis = None;
    for (at, c) in text.char_indices() {
        if used + ELLIPSIS.len_utf8() <= limit {
            with_ellipsis = Some(at);
        }
        used += escaped_len(c);
        if used > limit {
            let Some(end) = with_ellipsis else { return Text::default() };
            let mut cut = text[..end].to_owned();
            cut.push(ELLIPSIS);
            return cut.into();
        }
    }
    text.clone()
}

/// How many bytes a character takes inside a JSON string (RFC 8259, section 7).
fn escaped_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

/// One line of JSON. The types of this module cannot fail to serialise; if one ever did, an empty
/// message would be read as a failure, never as a success.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// JSON has no infinity, and nobody needs more than milliseconds.
fn finite<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let rounded = (seconds * 1000.0).round() / 1000.0;
    serializer.serialize_f64(if rounded.is_finite() { rounded } else { 0.0 })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, option, prelude::*, sample::select};

    /// Texts that are hard to fit: long, and with many characters that JSON escapes.
    fn text() -> impl Strategy<Value = Text> {
        let text = prop_oneof![
            any::<String>(),
            Just(String::new()),
            "[a-z/ ]{0,300}",
            vec(select(vec!['a', '\0', '\n', '…', '𝄞', '"', '\\']), 0..500)
                .prop_map(String::from_iter),
            (select(vec!["n", "\u{1}", "…"]), 0..5000_usize).prop_map(|(c, n)| c.repeat(n)),
        ];
        text.prop_map(Text::from)
    }

    prop_compose! {
        fn report()(
            code in select(ExitCode::BY_BADNESS.to_vec()),
            (reason, volume) in (text(), text()),
            (digest, tree_digest) in (option::of(text()), option::of(text())),
            errors in vec((text(), text()), 0..12),
            errors_omitted in prop_oneof![Just(0), any::<u64>()],
            counts: [u64; 10],
            seconds in prop_oneof![0.0..1e9, Just(f64::NAN), Just(f64::INFINITY)],
            retryable: bool,
        ) -> Report {
            let [entries, files_written, files_deleted, skipped, bytes_total, bytes_literal, bytes_matched,
                wire_sent, wire_received, round_trips] = counts;
            Report {
                retryable, digest, tree_digest, errors_omitted, seconds, entries, files_written, files_deleted, skipped,
                bytes_total, bytes_literal, bytes_matched, wire_sent, wire_received, round_trips,
                errors: errors.into_iter().map(|(name, what)| EntryError { name, what }).collect(),
                ..Report::new(volume, code, reason)
            }
        }
    }

    fn parse(json: &str) -> Report {
        serde_json::from_str(json).unwrap()
    }

    proptest! {
        #[test]
        fn json_says_it_all(report in report()) {
            let read = parse(&report.to_json());
            let exact = if report.seconds.is_finite() { report.seconds } else { 0.0 };
            prop_assert!((read.seconds - exact).abs() <= 0.000_501);
            prop_assert_eq!(read.clone(), Report { seconds: read.seconds, ..report });
        }

        #[test]
        fn messages_fit_and_keep_the_verdict(report in report(), limit in 0usize..6000) {
            for (message, limit) in [
                (report.to_termination_message(), 4096),
                (report.to_json_within(limit), limit.max(MIN_LIMIT)),
            ] {
                prop_assert!(message.len() <= limit, "{} of {}", message.len(), limit);
                let read = parse(&message);
                prop_assert_eq!(read.outcome, report.outcome);
                prop_assert_eq!(read.exit_code, report.exit_code);
                prop_assert_eq!(read.retryable, report.retryable);
            }
        }

        #[test]
        fn no_error_is_lost_uncounted(report in report()) {
            let read = parse(&report.to_termination_message());
            let all = |r: &Report| r.errors_omitted.saturating_add(r.errors.len() as u64);
            prop_assert_eq!(all(&read), all(&report));
            prop_assert_eq!(read.bytes_total, report.bytes_total);
        }

        #[test]
        fn clip_is_a_prefix_within_the_limit(text in text(), limit in 0usize..3000) {
            let cut = clip(&text, limit);
            prop_assert!(json(&cut).len() - 2 <= limit);
            if json(&text).len() - 2 <= limit {
                prop_assert_eq!(cut, text);
            } else {
                prop_assert!(text.starts_with(cut.strip_suffix('…').unwrap_or_default()));
                // The next character, of 6 bytes at most, would not have left room for the ellipsis.
                prop_assert!(limit < 3 || json(&cut).len() - 2 + 6 > limit);
            }
        }
    }

    proptest! {
        #[test]
        fn texts_of_a_report_that_is_read_are_safe_to_show(text: String, n in 0_usize..3) {
            let text = format!("{text}{}", ["", "\u{202e}", "\u{2028}\n"][n]);
            let json = serde_json::json!({
                "outcome": "partial", "exit_code": 23, "reason": text, "volume": text, "digest": text,
                "tree_digest": text, "errors": [{ "name": text, "what": text }], "volumes": [{
                    "volume": text, "outcome": "partial", "exit_code": 23, "files_written": 0, "files_deleted": 0,
                    "bytes_matched": 0, "digest": text, "tree_digest": text,
                }],
            });
            // Every text of the report: a new field is in here as well.
            let read = serde_json::to_value(parse(&json.to_string())).unwrap();
            let mut values = vec![&read];
            let mut texts = 0;
            while let Some(value) = values.pop() {
                match value {
                    serde_json::Value::String(text) => {
                        prop_assert!(text.chars().all(text::is_shown), "{text:?}");
                        texts += 1;
                    }
                    serde_json::Value::Array(list) => values.extend(list),
                    serde_json::Value::Object(map) => values.extend(map.values()),
                    _ => {}
                }
            }
            prop_assert_eq!(texts, 11);
        }
    }

    #[test]
    fn field_names_are_the_documented_ones_in_order() {
        let mut report = Report::new("data", ExitCode::Partial, "1 entry left out");
        report.errors.push(EntryError { name: "a/b".into(), what: "permission denied".into() });
        report.seconds = 1.234_56;
        assert_eq!(
            report.to_json(),
            concat!(
                r#"{"outcome":"partial","reason":"1 entry left out","exit_code":23,"#,
                r#""retryable":false,"volume":"data","attempt":1,"entries":0,"files_written":0,"#,
                r#""files_deleted":0,"skipped":0,"bytes_total":0,"bytes_literal":0,"bytes_matched":0,"#,
                r#""wire_sent":0,"wire_received":0,"round_trips":0,"seconds":1.235,"#,
                r#""digest":null,"errors":[{"name":"a/b","what":"permission denied"}]}"#,
            )
        );
    }

    #[test]
    fn verdict_is_required_and_the_rest_is_not() {
        assert!(serde_json::from_str::<Report>("{}").is_err());
        assert!(serde_json::from_str::<Report>(r#"{"outcome":"completed"}"#).is_err());
        assert!(serde_json::from_str::<Report>(r#"{"exit_code":0}"#).is_err());
        assert!(parse(r#"{"outcome":"completed","exit_code":0,"new":[1]}"#).is_success());
        assert!(!parse(r#"{"outcome":"completed","exit_code":23}"#).is_success());
        assert!(!parse(r#"{"outcome":"completed","exit_code":0,"dry_run":true}"#).is_success());
        assert!(!parse(r#"{"outcome":"partial","exit_code":0}"#).is_success());
    }

    #[test]
    fn a_later_failure_counts_unless_the_run_had_failed() {
        for code in [ExitCode::Ok, ExitCode::Partial] {
            let mut report = Report::new("data", code, "");
            report.fail(ExitCode::FileIo, "lost");
            assert_eq!((report.exit_code, report.outcome), (ExitCode::FileIo, Outcome::Failed));
            assert_eq!(report.reason, "lost");
        }
        let mut report = Report::new("data", ExitCode::ConnectTimeout, "nobody listens");
        let before = report.clone();
        report.fail(ExitCode::FileIo, "lost");
        assert_eq!(report, before);
    }

    #[test]
    fn eight_volumes_fit_into_a_message_whole_whatever_else_is_there() {
        let volume = |number: usize| VolumeReport {
            volume: format!("{}-{number}", "v".repeat(40)).into(),
            outcome: Outcome::Completed,
            exit_code: ExitCode::SourceChanged,
            dry_run: false,
            files_written: u64::MAX,
            files_deleted: u64::MAX,
            bytes_matched: u64::MAX,
            digest: Some("d".repeat(64).into()),
            tree_digest: Some("e".repeat(64).into()),
        };
        let mut report = Report::new("n".repeat(400), ExitCode::Partial, "long ".repeat(1000));
        report.volumes = (992..1000).map(volume).collect();
        report.digest = Some("d".repeat(64).into());
        for count in [
            &mut report.entries,
            &mut report.files_written,
            &mut report.files_deleted,
            &mut report.skipped,
            &mut report.bytes_total,
            &mut report.bytes_literal,
            &mut report.bytes_matched,
            &mut report.wire_sent,
            &mut report.wire_received,
            &mut report.round_trips,
        ] {
            *count = u64::MAX;
        }
        let error = EntryError { name: "n".repeat(255).into(), what: "permission denied".into() };
        report.errors = vec![error; 100];
        let message = report.to_termination_message();
        assert!(message.len() <= 4096, "{}", message.len());
        assert_eq!(parse(&message).volumes, report.volumes);
    }

    #[test]
    fn the_first_errors_are_those_kept() {
        let mut report = Report::new("data", ExitCode::Partial, "left out");
        report.errors = (0..500)
            .map(|n| EntryError {
                name: format!("dir/{n}").into(),
                what: "permission denied".into(),
            })
            .collect();
        let read = parse(&report.to_termination_message());
        assert!(read.errors.len() > 40, "{}", read.errors.len());
        assert_eq!(read.errors, report.errors[..read.errors.len()]);
        assert_eq!(read.errors_omitted as usize, 500 - read.errors.len());
    }
}
