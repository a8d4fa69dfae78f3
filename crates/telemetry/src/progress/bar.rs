//! The progress bar.
//!
//! One line, never wider than the terminal: the phase, a bar, and then as many of percentage, bytes,
//! rate, ETA and files as fit, in this order. Nothing is cut in the middle, for half a number is a wrong
//! number. While the source is still being listed a fraction of the total would be a lie, so a
//! spinner stands where the bar will be.

use std::io;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use session::monitor::Phase;

use super::Moment;
use crate::{Console, human};

/// The least width at which a bar says anything.
const LEAST_BAR: usize = 6;
const GAP: &str = "  ";

/// A bar on standard error, or what is left of one where that is no terminal.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
    /// Whether the bar stands where at first there is a spinner.
    bounded: Mutex<bool>,
}

impl Bar {
    pub(super) fn new(console: &Console) -> Self {
        let target = if console.is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_style(unbounded());
        console.put_bar(bar.clone());
        Self { bar, bounded: Mutex::new(false) }
    }

    pub(super) fn show(&self, console: &Console, moment: &Moment) {
        let label = label(moment.phase);
        let s = &moment.snapshot;
        let mut bounded = self.bounded.lock();
        if s.listing_complete && !*bounded {
            self.bar.set_style(with_bar());
            *bounded = true;
        }
        // Position and length may be a moment apart; more than everything is never shown.
        self.bar.set_length(s.bytes_total.max(s.bytes_done));
        self.bar.set_position(s.bytes_done);
        self.bar.set_prefix(label);
        let taken = label.len() + if *bounded { LEAST_BAR + 2 * GAP.len() } else { 3 };
        self.bar.set_message(details(moment, width().saturating_sub(taken)));
        self.bar.tick();
        if moment.finished {
            // A last line as wide as the terminal would run into the summary, which says all that it does.
            self.bar.finish_and_clear();
            console.take_bar();
            if !console.is_terminal() {
                let line = format!("{label}{GAP}{}", details(moment, usize::MAX));
                console.message(tracing::Level::INFO, &line);
            }
        }
    }
}

/// As many details as fit into `room` columns.
fn details(moment: &Moment, room: usize) -> String {
    let mut text = String::new();
    for part in parts(moment) {
        let gap = if text.is_empty() { "" } else { GAP };
        if text.len() + gap.len() + part.len() > room {
            break;
        }
        text.push_str(gap);
        text.push_str(&part);
    }
    text
}

/// The details, the most wanted first. All are ASCII, so that bytes are columns.
fn parts(moment: &Moment) -> Vec<String> {
    let s = &moment.snapshot;
    let (done, total) = (human::bytes(s.bytes_done), human::bytes(s.bytes_total));
    let (files, all) = (human::count(s.entries), human::count(s.entries_total));
    let speed = human::rate(moment.speed.bytes_per_second);
    let mut parts = Vec::new();
    if moment.phase == Phase::Connect && !moment.finished {
        parts.push(human::duration(moment.elapsed));
    } else if moment.finished {
        parts.push(format!("{done}/{total}"));
        parts.push(format!("in {}", human::duration(moment.elapsed)));
        parts.push(format!("{files}/{all} files"));
    } else if s.listing_complete {
        parts.extend(percentage(s.bytes_done, s.bytes_total));
        parts.push(format!("{done}/{total}"));
        parts.push(speed);
        parts.extend(moment.speed.eta(s).map(|eta| format!("ETA {}", human::duration(eta))));
        parts.push(format!("{files}/{all} files"));
    } else {
        parts.push(format!("{done} of {total} so far"));
        parts.push(speed);
        parts.push(format!("{files} of {all} files so far"));
    }
    match s.errors {
        0 => {}
        1 => parts.push("1 error".into()),
        errors => parts.push(format!("{} errors", human::count(errors))),
    }
    parts
}

/// Rounded down, so that 100% is everything. `None` where there are no bytes to speak of.
fn percentage(done: u64, total: u64) -> Option<String> {
    let percent = u128::from(done.min(total)) * 100 / u128::from((total > 0).then_some(total)?);
    Some(format!("{percent}%"))
}

fn label(phase: Phase) -> &'static str {
    match phase {
        Phase::Connect => "Connect",
        Phase::Transfer => "Transfer",
        Phase::Finish => "Finish",
        Phase::Flush => "Flush",
        Phase::Verify => "Verify",
    }
}

fn with_bar() -> ProgressStyle {
    style("{prefix}  {wide_bar}  {msg}").progress_chars("█▉▊▋▌▍▎▏·")
}

fn unbounded() -> ProgressStyle {
    style("{prefix} {spinner} {msg}")
}

/// A template that is no template would show as the default bar; a test sees that there is none.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The columns of the terminal now: people resize.
fn width() -> usize {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::rate::Speed;
    use proptest::prelude::*;
    use session::monitor::Snapshot;
    use std::time::Duration;

    fn moment(listing_complete: bool, finished: bool) -> Moment {
        Moment {
            phase: Phase::Transfer,
            elapsed: Duration::from_secs(64),
            snapshot: Snapshot {
                entries: 12_345,
                entries_total: 20_001,
                bytes_total: 2 << 30,
                bytes_done: 1 << 30,
                errors: 3,
                listing_complete,
                ..Snapshot::default()
            },
            speed: Speed { bytes_per_second: 67_108_864.0, entries_per_second: 1000.0 },
            finished,
        }
    }

    #[test]
    fn details_say_what_is_known() {
        assert_eq!(
            details(&moment(true, false), 200),
            "50%  1.00 GiB/2.00 GiB  64.0 MiB/s  ETA 16s  12,345/20,001 files  3 errors"
        );
        assert_eq!(
            details(&moment(false, false), 200),
            "1.00 GiB of 2.00 GiB so far  64.0 MiB/s  12,345 of 20,001 files so far  3 errors"
        );
        assert_eq!(
            details(&moment(true, true), 200),
            "1.00 GiB/2.00 GiB  in 1m 04s  12,345/20,001 files  3 errors"
        );
    }

    #[test]
    fn all_is_not_shown_before_it_is_there() {
        assert_eq!(percentage(0, 0), None);
        assert_eq!(percentage(u64::MAX - 1, u64::MAX).as_deref(), Some("99%"));
        assert_eq!(percentage(7, 7).as_deref(), Some("100%"));
        assert_eq!(percentage(8, 7).as_deref(), Some("100%"));
    }

    #[test]
    fn templates_are_templates() {
        assert!(ProgressStyle::with_template("{prefix}  {wide_bar}  {msg}").is_ok());
        assert!(ProgressStyle::with_template("{prefix} {spinner} {msg}").is_ok());
    }

    proptest! {
        #[test]
        fn details_fit_and_are_whole(room in 0..120_usize, listing: bool, finished: bool) {
            let moment = moment(listing, finished);
            let text = details(&moment, room);
            prop_assert!(text.is_ascii() && text.len() <= room);
            let whole = parts(&moment).join(GAP);
            prop_assert!(whole.starts_with(&text));
            prop_assert!(text.len() == whole.len() || text.is_empty() || whole[text.len()..].starts_with(GAP));
        }
    }
}
