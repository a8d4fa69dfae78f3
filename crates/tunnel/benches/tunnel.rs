//! Bytes through a whole tunnel over the loopback interface, plaintext in and plaintext out, against a pair of
//! stock stunnels with the same certificates. `cargo bench -p pvferry-tunnel`; without stunnel its side is skipped.
//!
//! ```text
//! writer ──plaintext──► Tunnel ──TLS 1.3──► Terminator ──plaintext──► sink
//! writer ──plaintext──► stunnel ──TLS 1.3──► stunnel ──plaintext──► sink
//! ```
//!
//! Writer, sink and both proxies share the machine, and each side has it to itself in turn. The connection stands
//! before the clock starts.

#![allow(missing_docs, reason = "criterion_group makes a public function")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use testkit::net::{free_address, wait_for};
use tokio::runtime::Runtime;
use tunnel::{Endpoint, Event, IdentitySource, Terminator, Tunnel, pki};

/// Bytes of one measured burst, and of one write of the program that the tunnel serves.
const BURST: usize = 128 << 20;
const WRITE: usize = 256 << 10;

/// The end behind the tunnel: takes one connection after the other and tells of each burst that has arrived whole.
fn sink() -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (arrived, bursts) = channel();
    thread::spawn(move || {
        let mut buffer = vec![0; WRITE];
        for connection in listener.incoming() {
            let (mut connection, mut left) = (connection.unwrap(), BURST);
            // A cut is how the proxies end; a burst that is not whole is never told of.
            while let Ok(len @ 1..) = connection.read(&mut buffer[..WRITE.min(left)]) {
                left -= len;
                if left == 0 {
                    left = BURST;
                    let _ = arrived.send(());
                }
            }
        }
    });
    (address, bursts)
}

/// Our tunnel and terminator on a runtime that lives as long as the result, and the address to write to.
fn ours(identities: &Path, sink: SocketAddr) -> (Runtime, SocketAddr) {
    let runtime = Runtime::new().unwrap();
    let identity = |role| IdentitySource::new(identities.join(role)).unwrap();
    let (told, addresses) = channel();
    let events = move |event| match event {
        Event::Listening { address } => told.send(address).unwrap(),
        Event::Failed { error, .. } => eprintln!("tunnel: {error}"),
        _ => {}
    };
    let terminator = Terminator::new("127.0.0.1:0", Endpoint::Tcp(sink), identity("destination"));
    runtime.spawn(terminator.run(std::future::pending(), events.clone()));
    let server: SocketAddr = addresses.recv().unwrap().parse().unwrap();

    let listen = Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let tunnel = Tunnel::new(listen, server.into(), identity("source"));
    runtime.spawn(tunnel.run(std::future::pending(), events));
    let local = addresses.recv().unwrap().parse().unwrap();
    (runtime, local)
}

/// A stunnel that does not outlive the bench.
struct Stunnel(Child);

impl Drop for Stunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two stunnels that check each other's certificate, and the address to write to; `None` where it is not installed.
fn stock(identities: &Path, sink: SocketAddr) -> Option<([Stunnel; 2], SocketAddr)> {
    let (server, local) = (free_address(), free_address());
    let start = |role: &str, accept: SocketAddr, connect: SocketAddr| {
        let identity = identities.join(role);
        let file = |name: &str| identity.join(name).display().to_string();
        let client = if role == "source" { "yes" } else { "no" };
        let (ca, certificate, key) = (file("ca.crt"), file("tls.crt"), file("tls.key"));
        let text = format!(
            "foreground = yes\npid =\nsyslog = no\ndebug = crit\nsocket = l:TCP_NODELAY=1\n\
             socket = r:TCP_NODELAY=1\n[bench]\nclient = {client}\naccept = {accept}\n\
             connect = {connect}\ncert = {certificate}\nkey = {key}\nCAfile = {ca}\n\
             verifyChain = yes\nsslVersionMin = TLSv1.3\n"
        );
        let config = identities.join(format!("{role}.conf"));
        fs::write(&config, text).unwrap();
        match Command::new("stunnel").arg(config).stdin(Stdio::null()).spawn() {
            Ok(child) => Some(Stunnel(child)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => panic!("stunnel: {error}"),
        }
    };
    let far = start("destination", server, sink)?;
    wait_for(server);
    let near = start("source", local, server)?;
    wait_for(local);
    Some(([near, far], local))
}

fn compare(c: &mut Criterion) {
    let identities = tempfile::tempdir().unwrap();
    pki::init(identities.path(), "bench", pki::DEFAULT_LIFETIME).unwrap();
    let data = vec![0x5a; WRITE];
    let mut group = c.benchmark_group("tunnel");
    group.throughput(Throughput::Bytes(BURST as u64));
    let mut measure = |name: &str, local: SocketAddr, bursts: &Receiver<()>| {
        let mut connection = TcpStream::connect(local).unwrap();
        let mut burst = || {
            for _ in 0..BURST / WRITE {
                connection.write_all(&data).unwrap();
            }
            bursts.recv().unwrap();
        };
        burst();
        group.bench_function(name, |b| b.iter(&mut burst));
    };

    let (behind, bursts) = sink();
    let (runtime, local) = ours(identities.path(), behind);
    measure("ours", local, &bursts);
    runtime.shutdown_background();

    let (behind, bursts) = sink();
    match stock(identities.path(), behind) {
        Some((_stunnels, local)) => measure("stunnel", local, &bursts),
        None => eprintln!("SKIPPED: tunnel/stunnel: stunnel is not installed"),
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(5))
        .warm_up_time(Duration::from_secs(1));
    targets = compare
}
criterion_main!(benches);
