//! The standard streams of the process, and the progress bar that may be on them.
//!
//! A line that is written beside a bar tears it: half of the line stands in the bar, and the next
//! redraw wipes the other half. So lines, whoever writes them, go through one [`Console`], which
//! takes the bar away, writes, and puts it back. `indicatif` has a `println` for this, but drops
//! the text when the stream is no terminal; here every line is written.
//!
//! The console also knows the [`Format`] of standard error, so that with JSON no line of it is plain text.
//!
//! Names, and texts of a peer, of an API server or of a certificate can be in each line of standard error, whatever crate
//! writes it. So here is the one place where what does not show itself is escaped: one message or record stays one line.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use indicatif::ProgressBar;
use parking_lot::Mutex;
use serde::Serialize;
use tracing::Level;
use tracing_subscriber::fmt::{
    MakeWriter,
    format::Writer,
    time::{FormatTime, SystemTime},
};

/// How lines on standard error look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object for machines.
    Json,
}

/// Where results, logs and progress go. Clones are the same console.
///
/// A log that nobody reads is no reason to end a transfer, so errors of standard error are ignored. Standard output
/// carries results: the first error of it is kept for [`Console::take_output_error`], and the run is a failure.
#[derive(Clone)]
pub struct Console {
    streams: Arc<Mutex<Streams>>,
    terminal: bool,
    format: Format,
}

struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    bar: Option<ProgressBar>,
    /// The first error of `out`.
    lost: Option<io::Error>,
}

impl Streams {
    fn result(&mut self, text: &[u8]) {
        let written = self.out.write_all(text).and_then(|()| self.out.flush());
        if let Err(error) = written {
            self.lost.get_or_insert(error);
        }
    }

    fn message(&mut self, text: &[u8]) {
        let _ = self.err.write_all(text).and_then(|()| self.err.flush());
    }
}

impl Console {
    /// The standard streams of this process.
    #[must_use]
    pub fn stdio() -> Self {
        let terminal = io::stderr().is_terminal();
        Self::new(Box::new(io::stdout()), Box::new(io::stderr()), terminal)
    }

    /// Any two streams, for results and for everything else. `terminal` says that a bar on
    /// standard error would be seen.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, terminal: bool) -> Self {
        let streams = Arc::new(Mutex::new(Streams { out, err, bar: None, lost: None }));
        Self { streams, terminal, format: Format::Text }
    }

    /// The same streams, with lines of `format` on standard error.
    #[must_use]
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// How lines on standard error look.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether standard error is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a line of results to standard output.
    pub fn print(&self, line: &str) {
        self.print_bytes(format!("{line}\n").as_bytes());
    }

    /// Writes a result that is not a line of text to standard output.
    pub fn print_bytes(&self, bytes: &[u8]) {
        self.write(|streams| streams.result(bytes));
    }

    /// Writes a message to standard error: the text as a line, or a JSON object in the form of log records. Unlike a log
    /// record, no filter drops it.
    pub fn message(&self, level: Level, text: &str) {
        match self.format {
            Format::Text => self.error_line(&text::visible(text)),
            Format::Json => self.object(&record(level, text)),
        }
    }

    /// Writes a line to standard error that is a JSON object already.
    pub(crate) fn object(&self, json: &str) {
        self.error_line(&text::visible_json(json));
    }

    fn error_line(&self, line: &str) {
        self.write(|streams| streams.message(format!("{line}\n").as_bytes()));
    }

    /// Why a result could not be written to standard output, the first time that this happened since the last call.
    #[must_use = "a result that is lost is a failure"]
    pub fn take_output_error(&self) -> Option<io::Error> {
        self.streams.lock().lost.take()
    }

    /// Puts a bar on the terminal, which stays there until it is taken off.
    pub(crate) fn put_bar(&self, bar: ProgressBar) {
        self.streams.lock().bar = Some(bar);
    }

    /// Forgets the bar; what it drew last stays.
    pub(crate) fn take_bar(&self) {
        self.streams.lock().bar = None;
    }

    fn write(&self, write: impl FnOnce(&mut Streams)) {
        let mut streams = self.streams.lock();
        match streams.bar.clone() {
            Some(bar) => bar.suspend(|| write(&mut streams)),
            None => write(&mut streams),
        }
    }
}

/// A message in the form of log records.
fn record(level: Level, message: &str) -> String {
    #[derive(Serialize)]
    struct Record<'a> {
        timestamp: String,
        level: &'static str,
        message: &'a str,
    }
    let mut timestamp = String::new();
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let record = Record { timestamp, level: level.as_str(), message };
    // Nor do strings fail to become JSON.
    serde_json::to_string(&record).unwrap_or_default()
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

/// Writes log records to the standard error of a [`Console`]; one call is one record.
#[derive(Debug)]
pub struct LogWriter(Console);

impl Write for LogWriter {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(record);
        let line = line.strip_suffix('\n').unwrap_or(&line);
        match self.0.format {
            Format::Text => self.0.error_line(&text::visible(line)),
            Format::Json => self.0.object(line),
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Console {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        LogWriter(self.clone())
    }
}

/// A stream that a test can look into.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Sink {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::ProgressDrawTarget;

    #[test]
    fn results_and_the_rest_go_apart_with_and_without_a_bar() {
        let (out, err) = (Sink::default(), Sink::default());
        let console = Console::new(Box::new(out.clone()), Box::new(err.clone()), false);
        console.print("one");
        console.message(Level::ERROR, "two");
        // A bar that draws nothing, as where standard error is no terminal.
        console.put_bar(ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::hidden()));
        console.print("three");
        console.object("{}");
        console.make_writer().write_all(b"five\n").unwrap();
        console.take_bar();
        assert_eq!(out.text(), "one\nthree\n");
        assert_eq!(err.text(), "two\n{}\nfive\n");
        assert!(console.take_output_error().is_none());
    }

    #[test]
    fn a_text_from_outside_stays_in_its_line_and_changes_nothing_else_in_it() {
        let what = "a\u{202e}b\u{2028}c\u{9b}d\ne\x1b[2J";
        for format in [Format::Text, Format::Json] {
            let err = Sink::default();
            let console = Console::new(Box::new(Sink::default()), Box::new(err.clone()), true)
                .with_format(format);
            console.message(Level::ERROR, what);
            console.object(&serde_json::to_string(what).unwrap());
            crate::logging::scoped("info", &console, || tracing::warn!(field = what, "{what}"));
            let text = err.text();
            assert!(text.chars().all(|c| c == '\n' || text::is_shown(c)), "{text:?}");
            assert_eq!(text.lines().count(), 3, "{text}");
            let said: serde_json::Value =
                serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
            assert_eq!(said, what);
            if format == Format::Json {
                let record: serde_json::Value =
                    serde_json::from_str(text.lines().next().unwrap()).unwrap();
                assert_eq!(record["message"], what);
            }
        }
    }

    #[test]
    fn a_message_in_json_is_one_object_whatever_it_holds() {
        let err = Sink::default();
        let console = Console::new(Box::new(Sink::default()), Box::new(err.clone()), false)
            .with_format(Format::Json);
        console.message(Level::ERROR, "two\nlines and \"quotes\"");
        let text = err.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["level"], "ERROR");
        assert_eq!(record["message"], "two\nlines and \"quotes\"");
        assert!(record["timestamp"].as_str().unwrap().starts_with("20"), "{record}");
    }

    #[test]
    fn the_first_lost_result_is_kept_and_a_lost_message_is_not() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let console = Console::new(Box::new(Full), Box::new(Full), false);
        console.message(Level::WARN, "one");
        assert!(console.take_output_error().is_none());
        console.print("two");
        console.print_bytes(b"three");
        assert_eq!(console.take_output_error().unwrap().kind(), io::ErrorKind::StorageFull);
        assert!(console.take_output_error().is_none());
    }
}
