//! A child process that does not outlive its test.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before it counts as hung. Nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running child. Its output is read all the time, so that it never waits for a reader.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    /// Several threads may share a child.
    lines: Mutex<Receiver<String>>,
}

/// How a child ended, and what it wrote.
#[derive(Debug)]
pub struct Finished {
    /// As the system says it.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit code.
    ///
    /// # Panics
    /// Where a signal ended the child.
    #[must_use]
    #[track_caller]
    pub fn code(&self) -> i32 {
        let Some(code) = self.status.code() else {
            panic!("ended by signal {:?}:\n{}", self.status.signal(), self.stderr);
        };
        code
    }

    /// Fails unless the exit code is `expected`; the message holds what the child wrote.
    ///
    /// # Panics
    /// Where it is another one, or there is none.
    #[track_caller]
    pub fn expect(&self, expected: i32) -> &Self {
        assert!(
            self.status.code() == Some(expected),
            "{} in place of exit code {expected}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

impl Process {
    /// Starts `command` with empty standard input.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = mpsc::channel();
        let (mut stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let stdout = thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let stderr = thread::spawn(move || {
            let mut all = Vec::new();
            let mut reader = BufReader::new(stderr);
            loop {
                let start = all.len();
                if reader.read_until(b'\n', &mut all).unwrap() == 0 {
                    return all;
                }
                // Nobody may be waiting for lines.
                let _ = sender.send(String::from_utf8_lossy(&all[start..]).into_owned());
            }
        });
        Self { name, child, stdout: Some(stdout), stderr: Some(stderr), lines: Mutex::new(lines) }
    }

    /// Runs `command` to its end.
    ///
    /// # Panics
    /// Where it cannot be started, or hangs.
    #[must_use]
    #[track_caller]
    pub fn run(command: Command) -> Finished {
        Self::start(command).wait()
    }

    /// The number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the child runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The most memory that the child has had resident so far, in bytes.
    ///
    /// # Panics
    /// Where it has ended.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes =
            line.and_then(|line| line.trim().strip_suffix(" kB")).expect("it has ended");
        kibibytes.parse::<u64>().unwrap() * 1024
    }

    /// Waits until a line of standard error holds `text`, and returns it. Lines before it are not seen again.
    ///
    /// # Panics
    /// Where the child ends or hangs without writing it.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) -> String {
        let Some(line) = self.line(text) else {
            panic!("{} ended without saying {text:?}", self.name)
        };
        line
    }

    /// Waits until a line of standard error holds `text`; false where the child ends before. Lines before it are not seen
    /// again.
    ///
    /// # Panics
    /// Where the child hangs without writing it.
    #[must_use]
    #[track_caller]
    pub fn says(&self, text: &str) -> bool {
        self.line(text).is_some()
    }

    /// The same, but `None` where the child ends without writing it.
    ///
    /// # Panics
    /// Where it hangs.
    #[must_use]
    #[track_caller]
    pub fn line(&self, text: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let lines = self.lines.lock();
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return Some(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("{} does not say {text:?}", self.name),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// Where it does not come within two minutes.
    #[must_use]
    #[track_caller]
    pub fn wait(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.kill();
                let (stdout, stderr) = self.output();
                panic!("{} hangs\nstdout: {stdout}\nstderr: {stderr}", self.name);
            }
            thread::sleep(Duration::from_millis(5));
        };
        let (stdout, stderr) = self.output();
        Finished { status, stdout, stderr }
    }

    /// Asks the child to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops the child where it stands (SIGSTOP).
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen child go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the child (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn output(&mut self) -> (String, String) {
        let text = |reader: Option<JoinHandle<Vec<u8>>>| {
            let bytes = reader.map(|reader| reader.join().unwrap()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        (text(self.stdout.take()), text(self.stderr.take()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_code() {
        let finished = Process::run(shell("echo out; echo err >&2; exit 3"));
        finished.expect(3);
        assert_eq!((&*finished.stdout, &*finished.stderr), ("out\n", "err\n"));
        assert_eq!(Process::run(shell("kill -9 $$")).status.signal(), Some(9));
    }

    #[test]
    #[should_panic(expected = "exit code 0")]
    fn a_wrong_code_fails() {
        Process::run(shell("exit 3")).expect(0);
    }

    #[test]
    fn peak_memory_stays_when_memory_is_given_back() {
        let process = Process::start(shell(
            "x=$(head -c 20000000 /dev/zero | tr '\\0' x); x=; echo up >&2; sleep 1000",
        ));
        process.wait_for_line("up");
        assert!(
            (20 << 20..200 << 20).contains(&process.peak_memory()),
            "{}",
            process.peak_memory()
        );
    }

    #[test]
    fn killed_when_dropped() {
        let process = Process::start(shell("echo up >&2; exec sleep 1000"));
        process.wait_for_line("up");
        let pid = process.child.id();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn more_output_than_a_pipe_holds() {
        let finished =
            Process::run(shell("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"));
        assert_eq!((finished.stdout.len(), finished.stderr.len()), (300_000, 300_000));
    }
}
