//! How the process ends at SIGTERM, while an API server of the test leaves its calls unanswered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

/// More than the process may take to end, and less than one call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the server was asked for.
enum Call {
    /// It will never be answered.
    Hanging,
    /// The lease was patched with this.
    Patched(String),
}

#[derive(Clone)]
struct Server {
    calls: mpsc::Sender<Call>,
    lease: Arc<OnceLock<String>>,
    /// Calls about the lease are not answered either.
    silent: Arc<AtomicBool>,
}

impl Server {
    fn start(silent: bool) -> (Self, mpsc::Receiver<Call>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (calls, seen) = mpsc::channel();
        let silent = Arc::new(AtomicBool::new(silent));
        let server = Self { calls, lease: Arc::default(), silent };
        let accepted = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = accepted.clone();
                thread::spawn(move || while server.answer(&stream).is_some() {});
            }
        });
        (server, seen, port)
    }

    /// Answers one request of a connection, if it is about the lease; `None` if it is not.
    fn answer(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        reader.read_line(&mut head).ok().filter(|read| *read > 0)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).unwrap();
        if !head.contains("/leases") || self.silent.load(Relaxed) {
            let _ = self.calls.send(Call::Hanging);
            thread::sleep(PATIENCE * 6);
            return None;
        }
        let (code, text) = self.lease(&head, body);
        let answer = format!(
            "HTTP/1.1 {code} Status\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        (&*stream).write_all(answer.as_bytes()).ok()
    }

    fn lease(&self, head: &str, body: String) -> (u16, String) {
        if head.starts_with("PATCH") {
            let _ = self.calls.send(Call::Patched(body));
        } else if !body.is_empty() {
            let _ = self.lease.set(body);
        }
        let missing = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"not found","reason":"NotFound","code":404}"#;
        match self.lease.get() {
            Some(lease) => (200, lease.clone()),
            None => (404, missing.into()),
        }
    }
}

struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Controller {
    fn start(port: u16) -> Self {
        let config = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}], users: [{{name: u, user: {{}}}}]}}"
        );
        let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = directory.join(format!("kubeconfig-{port}"));
        std::fs::write(&file, config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pvferry-controller"))
            .args(["run", "--image", "i", "--lease-namespace", "n", "--instance", "me"])
            .args(["--metrics", "127.0.0.1:0"])
            .env("KUBECONFIG", file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Asks it to end; the code that it ends with.
    fn terminate(mut self) -> Option<i32> {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        for _ in 0..PATIENCE.as_millis() / 20 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("it still runs after {PATIENCE:?}");
    }
}

/// Waits until a call hangs.
fn until_a_call_hangs(seen: &mpsc::Receiver<Call>) {
    while !matches!(seen.recv_timeout(PATIENCE * 3).unwrap(), Call::Hanging) {}
}

#[test]
fn sigterm_releases_the_lease_while_other_calls_hang() {
    let (_server, seen, port) = Server::start(false);
    let controller = Controller::start(port);
    until_a_call_hangs(&seen);
    assert_eq!(controller.terminate(), Some(0));
    let released = |call: Call| match call {
        Call::Patched(patch) => patch.contains(r#""holderIdentity":"""#),
        Call::Hanging => false,
    };
    assert!(seen.try_iter().any(released));
}

#[test]
fn sigterm_ends_the_process_though_the_lease_cannot_be_released() {
    let (server, seen, port) = Server::start(false);
    let controller = Controller::start(port);
    until_a_call_hangs(&seen);
    server.silent.store(true, Relaxed);
    assert_eq!(controller.terminate(), Some(0));
}

#[test]
fn sigterm_ends_the_process_before_it_leads() {
    let (_server, seen, port) = Server::start(true);
    let controller = Controller::start(port);
    until_a_call_hangs(&seen);
    assert_eq!(controller.terminate(), Some(0));
}
