//! Ten thousand hostile connections on both ports of `serve` for as long as a transfer repeats and probes ask: what
//! they cost in memory, in speed and in the latency of a probe.
//!
//! `PVFERRY_FLOOD_SECONDS=60` holds them for a minute. The attackers come from eight addresses that are not those of the
//! probe and the source, as pods of a cluster would. They share the processors of one machine with `serve` and `sync`, so
//! speed and latency hold what the attackers themselves take.

use std::{
    env,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use testkit::{Content, Process, TempTree, assert_same, net};

use crate::{
    counts,
    pod::Pod,
    support::{allow_many_files, partial_client_hello, probe},
};

const CONNECTIONS: usize = 10_000;
const ATTACKERS: usize = 8;
/// What the source holds, in bytes.
const SOURCE: usize = 128 << 20;
/// The memory limit of a transfer pod is 512 MiB.
const MEMORY: u64 = 256 << 20;
/// What a probe may take. The kubelet waits 1 s; here attackers and server share the processors.
const PROBE: Duration = Duration::from_secs(5);

/// Connects to `server` from `own`, an address of the loopback interface.
fn connect(own: Ipv4Addr, server: SocketAddr) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let stream = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&stream, &SocketAddr::from((own, 0)))?;
    rustix::net::sockopt::set_socket_timeout(
        &stream,
        rustix::net::sockopt::Timeout::Send,
        Some(Duration::from_secs(5)),
    )?;
    connect(&stream, &server)?;
    Ok(TcpStream::from(stream))
}

/// Holds `count` connections to `server`, each of which sends `hello` and then nothing, until `stop`; one that was closed
/// is opened again.
fn attack(
    own: Ipv4Addr,
    server: SocketAddr,
    count: usize,
    hello: &[u8],
    stop: &AtomicBool,
    opened: &AtomicU64,
) {
    // Attackers have processors of their own, but for what this machine cannot give them.
    let _ = rustix::process::nice(19);
    let mut held: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    while !stop.load(Ordering::Relaxed) {
        for slot in &mut held {
            let closed = slot.as_mut().is_none_or(|stream| {
                let read = stream.read(&mut [0; 512]);
                !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            });
            if !closed {
                continue;
            }
            *slot = connect(own, server).ok();
            if let Some(stream) = slot {
                opened.fetch_add(1, Ordering::Relaxed);
                let _ = stream.set_nonblocking(true);
                let _ = stream.write(hello);
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Ends the attack, also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Transfers to an empty destination until `until`, one at least: how many bytes a second.
fn transfer(pod: &Pod, source: &TempTree, destination: &TempTree, until: Instant) -> f64 {
    let (mut took, mut runs) = (Duration::ZERO, 0);
    loop {
        destination.clear();
        let identity = pod.pki.source();
        let sync = pod.direct(pod.server, &identity, source.path(), &["--wait", "60"]);
        let begun = Instant::now();
        Process::run(sync).expect(0);
        took += begun.elapsed();
        assert_same(source.path(), destination.path());
        runs += 1;
        if Instant::now() >= until {
            return (runs * SOURCE) as f64 / took.as_secs_f64();
        }
    }
}

/// Asks every 100 ms until `stop`: how long each answer took.
fn probes(metrics: SocketAddr, stop: &AtomicBool, latencies: &Mutex<Vec<Duration>>) {
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        assert!(probe(metrics, PROBE), "a probe got no answer within {PROBE:?}");
        latencies.lock().unwrap().push(begun.elapsed());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn ten_thousand_hostile_connections_on_both_ports_hold_up_neither_probes_nor_a_transfer() {
    allow_many_files();
    let seconds = env::var("PVFERRY_FLOOD_SECONDS").map_or(10, |text| text.parse().unwrap());
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.populate(8, 60).file("large", Content::random(1, SOURCE));
    let metrics = net::free_address();
    let serve = pod.serve(&[("a", destination.path())], &["--metrics", &metrics.to_string()]);
    let quiet = transfer(&pod, &source, &destination, Instant::now());
    let quiet_memory = serve.peak_memory();

    let (stop, opened, latencies) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::default());
    let idle = b"GET /readyz HTTP/1.1\r\n".to_vec();
    let hellos = [partial_client_hello(12 << 10), partial_client_hello(64 << 10), Vec::new()];
    let loud = thread::scope(|scope| {
        for attacker in 0..ATTACKERS {
            let (server, hello) = match attacker % 2 {
                0 => (metrics, &idle),
                _ => (pod.server, &hellos[attacker / 2 % hellos.len()]),
            };
            let (stop, opened) = (&stop, &opened);
            let own = Ipv4Addr::new(127, 0, 0, 10 + attacker as u8);
            let count = CONNECTIONS / ATTACKERS;
            scope.spawn(move || attack(own, server, count, hello, stop, opened));
        }
        scope.spawn(|| probes(metrics, &stop, &latencies));
        let until = Instant::now() + Duration::from_secs(seconds);
        let _stop = Stop(&stop);
        transfer(&pod, &source, &destination, until)
    });
    let peak = serve.peak_memory();
    let mut latencies = latencies.into_inner().unwrap();
    latencies.sort();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    serve.terminate();
    let lines = serve.wait().stderr.lines().count();
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let text = format!(
        "{CONNECTIONS} held for {seconds} s, {} opened; serve {:.0} MiB at most ({:.0} before); \
         transfer {:.0} MiB/s ({:.0} before); {} probes: median {:?}, 99 % {:?}, longest {:?}; {lines} log lines",
        opened.load(Ordering::Relaxed),
        mib(peak as f64),
        mib(quiet_memory as f64),
        mib(loud),
        mib(quiet),
        latencies.len(),
        at(50),
        at(99),
        at(100),
    );
    counts::tell("hostile connections on both ports", text);
    assert!(peak < MEMORY, "{peak} bytes");
}
