//! Connections that prove no identity: what they cost `serve`, and what they take from probes and transfers.
//!
//! `faults::crowd` holds ten thousand of them for a minute; here are the few hundred that a test of each change can afford.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use testkit::{Content, Process, TempTree, assert_same, net};

use crate::{
    pod::Pod,
    support::{allow_many_files, partial_client_hello, probe},
};

/// More than the table of the metrics port has places.
const IDLE: usize = 300;
/// More than the table of handshakes has places.
const HANDSHAKES: usize = 1200;

fn serve_with_metrics(pod: &Pod, destination: &TempTree) -> (Process, SocketAddr) {
    let metrics = net::free_address();
    let address = metrics.to_string();
    let serve = pod.serve(&[("a", destination.path())], &["--metrics", &address]);
    (serve, metrics)
}

/// True where the server closes `stream` within `limit`.
fn is_closed(mut stream: &TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).unwrap();
    let read = stream.read(&mut [0; 4096]);
    !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn probes_are_answered_beside_idle_connections_to_the_metrics_port() {
    let (pod, destination) = (Pod::new(), TempTree::new());
    let (_serve, metrics) = serve_with_metrics(&pod, &destination);
    let idle: Vec<_> = (0..IDLE).map(|_| TcpStream::connect(metrics).unwrap()).collect();
    for _ in 0..20 {
        // The kubelet waits one second. A busy machine may take longer, the 10 s of an idle connection never.
        assert!(probe(metrics, Duration::from_secs(5)), "a probe failed");
    }
    assert!(is_closed(&idle[0], Duration::from_secs(5)), "the oldest connection is still open");
}

#[test]
fn a_client_hello_of_64_kib_ends_its_connection_before_it_is_complete() {
    let (pod, destination) = (Pod::new(), TempTree::new());
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let mut stream = TcpStream::connect(pod.server).unwrap();
    // What is refused is closed while it is still being written.
    let _ = stream.write_all(&partial_client_hello(60 << 10));
    assert!(is_closed(&stream, Duration::from_secs(8)), "60 KiB of a handshake are kept");
}

#[test]
fn the_oldest_of_too_many_handshakes_is_closed_and_a_transfer_goes_on() {
    allow_many_files();
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.populate(8, 60).file("large", Content::random(1, 8 << 20));
    let serve = pod.serve(&[("a", destination.path())], &[]);
    let hello = partial_client_hello(8 << 10);
    let begun = Instant::now();
    let crowd: Vec<_> = (0..HANDSHAKES)
        .map(|_| {
            let mut stream = TcpStream::connect(pod.server).unwrap();
            stream.write_all(&hello).unwrap();
            stream
        })
        .collect();
    let identity = pod.pki.source();
    let sync = pod.direct(pod.server, &identity, source.path(), &["--wait", "10"]);
    Process::run(sync).expect(0);
    assert_same(source.path(), destination.path());
    // Before the deadline for a handshake, so that it is the table which closed it.
    assert!(is_closed(&crowd[0], Duration::from_millis(1)) || begun.elapsed().as_secs() > 14);
    let peak = serve.peak_memory();
    assert!(peak < 150 << 20, "{peak} bytes");
}

#[test]
fn failed_connections_write_a_few_lines_and_a_count() {
    let (pod, destination) = (Pod::new(), TempTree::new());
    let serve = pod.serve(&[("a", destination.path())], &[]);
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(pod.server).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        assert!(is_closed(&stream, Duration::from_secs(10)));
    }
    serve.terminate();
    let log = serve.wait().stderr;
    let lines = log.lines().filter(|line| line.contains("WARN")).count();
    assert!(lines <= 20, "{lines} lines:\n{log}");
    assert!(log.contains(" more connections failed in this way in the last "), "{log}");
}
