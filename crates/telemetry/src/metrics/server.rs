//! A small HTTP server: `/metrics` for Prometheus, `/healthz` and `/readyz` for the kubelet.
//!
//! Anybody who reaches the pod reaches it, so it is frugal: one request a connection, a few seconds to
//! ask it, and a fixed number of connections at a time. A new one takes the place of the oldest, so that
//! idle connections cannot keep a probe waiting.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::connections::ConnectionTable;

/// How many connections stay open; a probe needs its place for as long as its answer takes.
const CONNECTIONS: usize = 256;
/// How long a connection stays beside a flood from its own address. A kubelet waits for a second in all.
const GRACE: Duration = Duration::from_millis(20);
/// How long a connection may last, from accept to close: one deadline over question and answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed accept, which is most often a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Something that is shown as metrics.
pub trait Exposition: Send + Sync + 'static {
    /// All of it, in OpenMetrics text.
    ///
    /// # Errors
    /// Where something cannot be shown.
    fn exposition(&self) -> Result<String, std::fmt::Error>;
}

/// Whether the process is ready for work. Clones share the state, which begins as not ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says from now on whether the process is ready.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers requests on `listener` until the future is dropped, which ends all connections too.
///
/// * `/metrics`: all metrics, in OpenMetrics text.
/// * `/healthz`: 200 as long as anything answers.
/// * `/readyz`: 200 while `readiness` is set, 503 while it is not.
pub async fn serve<M: Exposition>(listener: TcpListener, metrics: Arc<M>, readiness: Readiness) {
    let table = ConnectionTable::new(CONNECTIONS, GRACE);
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = accept(&listener).await;
        let place = table.admit(peer.ip()).await;
        let (metrics, readiness) = (Arc::clone(&metrics), readiness.clone());
        connections.spawn(async move {
            tokio::select! {
                () = place.evicted() => tracing::debug!(%peer, "metrics: closed for a newer connection"),
                () = converse(stream, peer, &*metrics, &readiness) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::debug!("metrics: accept: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    metrics: &impl Exposition,
    readiness: &Readiness,
) {
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .keep_alive(false)
        .max_buf_size(16 << 10)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(async |request: Request<Incoming>| {
                Ok::<_, Infallible>(answer(
                    request.method(),
                    request.uri().path(),
                    metrics,
                    readiness,
                ))
            }),
        );
    match timeout(TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log(peer, &error),
        Err(elapsed) => log(peer, &elapsed),
    }
}

fn log(peer: SocketAddr, error: &dyn std::error::Error) {
    tracing::debug!(%peer, "metrics: {error}");
}

fn answer(
    method: &Method,
    path: &str,
    metrics: &impl Exposition,
    readiness: &Readiness,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "method not allowed\n".into());
    }
    match path {
        "/metrics" => match metrics.exposition() {
            Ok(text) => response(StatusCode::OK, OPEN_METRICS, text),
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, String::new()),
        },
        "/healthz" => response(StatusCode::OK, PLAIN, "ok\n".into()),
        "/readyz" if readiness.is_set() => response(StatusCode::OK, PLAIN, "ready\n".into()),
        "/readyz" => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "not ready\n".into()),
        _ => response(StatusCode::NOT_FOUND, PLAIN, "not found\n".into()),
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use session::monitor::Progress;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    struct Server {
        address: SocketAddr,
        metrics: Arc<Metrics>,
        readiness: Readiness,
    }

    async fn start() -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, readiness) = (Arc::new(Metrics::new()), Readiness::default());
        tokio::spawn(serve(listener, Arc::clone(&metrics), readiness.clone()));
        Server { address, metrics, readiness }
    }

    impl Server {
        /// Sends bytes and reads until the server closes.
        async fn exchange(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // A server that closes on an unread request may reset the connection.
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        }

        async fn get(&self, path: &str) -> (String, String) {
            let answer = self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.to_owned(), body.to_owned())
        }
    }

    #[tokio::test]
    async fn scrape_is_open_metrics_text() {
        let server = start().await;
        let progress = Arc::new(Progress::default());
        progress.wire_sent.store(12, Ordering::Relaxed);
        let _session = server.metrics.session("data", progress, false);

        let (head, body) = server.get("/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(body.ends_with("# EOF\n"), "{body}");
        assert!(body.contains("# TYPE pvferry_wire_bytes counter\n"), "{body}");
        assert!(body.contains("# UNIT pvferry_wire_bytes bytes\n"), "{body}");
        let line = "pvferry_wire_bytes_total{volume=\"data\",direction=\"sent\"} 12\n";
        assert!(body.contains(line), "{body}");
    }

    #[tokio::test]
    async fn readiness_and_health_and_nothing_else() {
        let server = start().await;
        for (ready, status) in [(false, "503"), (true, "200"), (false, "503")] {
            server.readiness.set(ready);
            assert_eq!(server.get("/readyz").await.0[9..12], *status);
            assert_eq!(server.get("/healthz").await.0[9..12], *"200");
        }
        assert_eq!(server.get("/").await.0[9..12], *"404");
        assert_eq!(server.get("/metrics/../healthz").await.0[9..12], *"404");
        let posted = server.exchange("POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n").await;
        assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    }

    #[tokio::test]
    async fn nonsense_and_floods_are_cut_off() {
        let server = start().await;
        assert!(server.exchange("\x16\x03\x01 hello\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        let endless = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
        let answer = server.exchange(&endless).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        assert_eq!(server.get("/healthz").await.0[9..12], *"200");
    }

    /// The clock is paused: it runs ahead to the next deadline whenever all tasks wait.
    #[tokio::test(start_paused = true)]
    async fn clients_that_say_nothing_do_not_keep_others_out() {
        let server = start().await;
        let begin = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..=CONNECTIONS {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
            silent.push(stream);
        }
        assert_eq!(server.get("/healthz").await.0[9..12], *"200");
        for mut stream in silent {
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"));
        }
        assert!(begin.elapsed() < TIMEOUT * 2, "on the paused clock");
    }
}
