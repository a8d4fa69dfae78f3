//! Progress of one session: a bar on a terminal, or one JSON object a second.
//!
//! A [`Reporter`] polls the counters of the session from a thread of its own, so that the session
//! pays nothing for being watched. It is also the [`Monitor`] that prints errors and actions,
//! in every mode, for these must not get lost where progress is not wanted.

mod bar;
mod json;
mod rate;

use std::{
    str::FromStr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use session::monitor::{Monitor, Phase, Progress};

pub(crate) use self::json::phase_word;
use self::{bar::Bar, rate::RateMeter};
use crate::{Console, Error};

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// A bar on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// A bar. Where standard error is no terminal, only its last state, as a line.
    Bar,
    /// One JSON object a second on standard error.
    Json,
    /// Not at all.
    None,
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        match word {
            "auto" => Ok(Self::Auto),
            "bar" => Ok(Self::Bar),
            "json" => Ok(Self::Json),
            "none" => Ok(Self::None),
            _ => Err(Error::Choice { given: word.into(), choices: "auto, bar, json, none" }),
        }
    }
}

/// Where the changes of a run are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Changes {
    /// On standard output: they are results.
    #[default]
    Stdout,
    /// On standard error: standard output belongs to a report that programs read.
    Stderr,
}

impl Mode {
    fn settle(self, terminal: bool) -> Self {
        match self {
            Self::Auto if terminal => Self::Bar,
            Self::Auto => Self::Json,
            settled => settled,
        }
    }
}

/// Reports the progress of one session until it is finished or dropped.
#[derive(Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Reporter {
    /// Starts to report what `progress` counts to `console`.
    ///
    /// # Errors
    /// [`Error::Thread`] where no thread can be had.
    pub fn start(
        mode: Mode,
        changes: Changes,
        progress: Arc<Progress>,
        console: &Console,
    ) -> Result<Self, Error> {
        let view = match mode.settle(console.is_terminal()) {
            Mode::Bar => View::Bar(Bar::new(console)),
            Mode::Json => View::Json,
            Mode::Auto | Mode::None => View::None,
        };
        let shared = Arc::new(Shared {
            view,
            changes,
            progress,
            console: console.clone(),
            state: Mutex::new(State { phase: Phase::Connect, finished: false }),
            changed: Condvar::new(),
        });
        let thread = match shared.view {
            View::None => None,
            _ => Some(spawn(Arc::clone(&shared)).map_err(Error::Thread)?),
        };
        Ok(Self { shared, thread: Mutex::new(thread) })
    }

    /// Shows the last state once more and leaves it on the console. Later calls do nothing.
    pub fn finish(&self) {
        self.shared.state.lock().finished = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the progress thread panicked");
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Monitor for Reporter {
    fn phase(&self, phase: Phase) {
        self.shared.state.lock().phase = phase;
        self.shared.changed.notify_all();
    }

    fn error(&self, name: &str, what: &str) {
        let Shared { console, view, .. } = &*self.shared;
        match view {
            View::Json => console.object(&json::error(name, what)),
            View::Bar(_) | View::None => {
                console.message(tracing::Level::ERROR, &format!("{name}: {what}"));
            }
        }
    }

    fn skipped(&self, name: &str, why: &str) {
        let Shared { console, view, .. } = &*self.shared;
        match view {
            View::Json => console.object(&json::skipped(name, why)),
            View::Bar(_) | View::None => {
                console.message(tracing::Level::WARN, &format!("{name}: skipped: {why}"));
            }
        }
    }

    fn action(&self, line: &str) {
        let Shared { console, view, changes, .. } = &*self.shared;
        match (changes, view) {
            (Changes::Stdout, _) => console.print(line),
            (Changes::Stderr, View::Json) => console.object(&json::change(line)),
            (Changes::Stderr, View::Bar(_) | View::None) => {
                console.message(tracing::Level::INFO, line);
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    view: View,
    changes: Changes,
    progress: Arc<Progress>,
    console: Console,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum View {
    Bar(Bar),
    Json,
    None,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    finished: bool,
}

fn spawn(shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("progress".into()).spawn(move || shared.run())
}

impl Shared {
    fn run(&self) {
        let interval = match self.view {
            View::Bar(_) => Duration::from_millis(100),
            View::Json | View::None => Duration::from_secs(1),
        };
        let start = Instant::now();
        let mut meter = RateMeter::default();
        let mut tick = start + interval;
        loop {
            let state = self.wait_until(tick);
            let now = start.elapsed();
            let snapshot = self.progress.snapshot();
            meter.sample(now, &snapshot);
            let moment = Moment {
                phase: state.phase,
                elapsed: now,
                snapshot,
                speed: meter.speed(),
                finished: state.finished,
            };
            match &self.view {
                View::Bar(bar) => bar.show(&self.console, &moment),
                View::Json => self.console.object(&json::progress(&moment)),
                View::None => {}
            }
            if state.finished {
                return;
            }
            tick += interval;
        }
    }

    /// Sleeps until `tick`, or until the session has finished. The bar is also woken by a phase.
    fn wait_until(&self, tick: Instant) -> State {
        let mut state = self.state.lock();
        let phase = state.phase;
        loop {
            let woken = matches!(self.view, View::Bar(_)) && state.phase != phase;
            if state.finished || woken || self.changed.wait_until(&mut state, tick).timed_out() {
                return *state;
            }
        }
    }
}

/// All there is to show at one moment.
#[derive(Debug)]
struct Moment {
    phase: Phase,
    /// Since the reporter started.
    elapsed: Duration,
    snapshot: session::monitor::Snapshot,
    speed: rate::Speed,
    finished: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Sink;
    use std::sync::atomic::Ordering::Relaxed;

    fn run(mode: Mode) -> (String, String) {
        run_with(mode, Changes::Stdout)
    }

    fn run_with(mode: Mode, changes: Changes) -> (String, String) {
        let (out, err) = (Sink::default(), Sink::default());
        let console = Console::new(Box::new(out.clone()), Box::new(err.clone()), false);
        let progress = Arc::new(Progress::default());
        let reporter = Reporter::start(mode, changes, Arc::clone(&progress), &console).unwrap();
        reporter.phase(Phase::Transfer);
        reporter.error("a/b", "permission denied");
        reporter.skipped("m", "mount point");
        reporter.action("delete c");
        progress.bytes_total.store(2048, Relaxed);
        progress.bytes_done.store(1024, Relaxed);
        progress.listing_complete.store(true, Relaxed);
        reporter.phase(Phase::Verify);
        reporter.finish();
        drop(reporter);
        (out.text(), err.text())
    }

    #[test]
    fn json_ends_with_the_last_state() {
        for mode in [Mode::Json, Mode::Auto] {
            let (out, err) = run(mode);
            assert_eq!(out, "delete c\n");
            let lines: Vec<serde_json::Value> =
                err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let (first, last) = (&lines[0], &lines[lines.len() - 1]);
            assert_eq!(first["type"], "error");
            assert_eq!(first["name"], "a/b");
            assert_eq!(lines[1]["type"], "skipped");
            assert_eq!(lines[1]["why"], "mount point");
            assert_eq!(last["type"], "progress");
            assert_eq!(last["phase"], "verify");
            assert_eq!(last["bytes_done"], 1024);
        }
    }

    #[test]
    fn a_bar_without_terminal_leaves_one_line() {
        let (out, err) = run(Mode::Bar);
        assert_eq!(out, "delete c\n");
        let lines: Vec<_> = err.lines().collect();
        assert_eq!(lines[0], "a/b: permission denied");
        assert_eq!(lines[1], "m: skipped: mount point");
        assert!(lines[2].starts_with("Verify  1.00 KiB/2.00 KiB  in "), "{err}");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn no_progress_still_tells_of_errors() {
        let told = "a/b: permission denied\nm: skipped: mount point\n";
        assert_eq!(run(Mode::None), ("delete c\n".into(), told.into()));
    }

    #[test]
    fn changes_beside_a_report_go_to_stderr_in_the_form_of_progress() {
        let (out, err) = run_with(Mode::None, Changes::Stderr);
        assert_eq!(out, "");
        assert!(err.lines().any(|line| line == "delete c"), "{err}");

        let (out, err) = run_with(Mode::Json, Changes::Stderr);
        assert_eq!(out, "");
        let lines =
            err.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let change = lines.into_iter().find(|line| line["type"] == "change").unwrap();
        assert_eq!(change["what"], "delete c");
    }

    #[test]
    fn auto_is_a_bar_where_somebody_looks() {
        assert_eq!(Mode::Auto.settle(true), Mode::Bar);
        assert_eq!(Mode::Auto.settle(false), Mode::Json);
        assert_eq!(Mode::None.settle(true), Mode::None);
        assert_eq!("bar".parse::<Mode>().unwrap(), Mode::Bar);
        assert!("".parse::<Mode>().is_err());
    }
}
