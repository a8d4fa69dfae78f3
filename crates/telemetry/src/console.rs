//! The standard streams of the process, and the progress bar that may be on them.
//!
//! A line that is written beside a bar tears it: half of the line stands in the bar, and the next
//! redraw wipes the other half. So lines, whoever writes them, go through one [`Console`], which
//! takes the bar away, writes, and puts it back. `indicatif` has a `println` for this, but drops
//! the text when the stream is no terminal; here every line is written.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use indicatif::ProgressBar;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

/// Where results, logs and progress go. Clones are the same console.
///
/// Errors of the streams are ignored: that nobody reads a log is no reason to end a transfer.
#[derive(Clone)]
pub struct Console {
    streams: Arc<Mutex<Streams>>,
    terminal: bool,
}

struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    bar: Option<ProgressBar>,
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
        let streams = Arc::new(Mutex::new(Streams { out, err, bar: None }));
        Self { streams, terminal }
    }

    /// Whether standard error is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a line of results to standard output.
    pub fn print(&self, line: &str) {
        self.write(|streams| &mut streams.out, format!("{line}\n").as_bytes());
    }

    /// Writes a line to standard error.
    pub fn warn(&self, line: &str) {
        self.write(|streams| &mut streams.err, format!("{line}\n").as_bytes());
    }

    /// Puts a bar on the terminal, which stays there until it is taken off.
    pub(crate) fn put_bar(&self, bar: ProgressBar) {
        self.streams.lock().bar = Some(bar);
    }

    /// Forgets the bar; what it drew last stays.
    pub(crate) fn take_bar(&self) {
        self.streams.lock().bar = None;
    }

    fn write(&self, stream: fn(&mut Streams) -> &mut Box<dyn Write + Send>, text: &[u8]) {
        let mut streams = self.streams.lock();
        let bar = streams.bar.clone();
        let mut write = || {
            let stream = stream(&mut streams);
            let _ = stream.write_all(text).and_then(|()| stream.flush());
        };
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
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
        self.0.write(|streams| &mut streams.err, record);
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
        console.warn("two");
        // A bar that draws nothing, as where standard error is no terminal.
        console.put_bar(ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::hidden()));
        console.print("three");
        console.warn("four");
        console.make_writer().write_all(b"five\n").unwrap();
        console.take_bar();
        assert_eq!(out.text(), "one\nthree\n");
        assert_eq!(err.text(), "two\nfour\nfive\n");
    }
}
