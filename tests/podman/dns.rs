//! A name server for one test: what the DNS of a cluster is for a pod.
//!
//! It answers for the names that it is given, and calls every other one non-existent, so that a resolver has to go through
//! its search list. Questions come by UDP; answers that are marked as too large for that are repeated over TCP.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const HEADER: usize = 12;
const A: u16 = 1;
const AAAA: u16 = 28;

/// The server; it ends when dropped.
pub(crate) struct Dns {
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What the server knows: names and their addresses.
type Hosts = Vec<(String, Vec<IpAddr>)>;

impl Dns {
    /// Listens on the port for it, 53, at `address`. A name with more than 20 addresses is told over TCP only.
    pub(crate) fn start(address: IpAddr, hosts: &[(&str, &[IpAddr])]) -> Self {
        let hosts: Arc<Hosts> =
            Arc::new(hosts.iter().map(|(name, found)| ((*name).into(), found.to_vec())).collect());
        let address = SocketAddr::from((address, 53));
        let udp = UdpSocket::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (asked, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let threads = vec![
            thread::spawn({
                let (hosts, asked, stop) = (hosts.clone(), Arc::clone(&asked), stop.clone());
                move || over_udp(&udp, &hosts, &asked, &stop)
            }),
            thread::spawn({
                let stop = stop.clone();
                move || over_tcp(&tcp, &hosts, &stop)
            }),
        ];
        Self { asked, stop, threads }
    }

    /// The names that were asked for since the last call, each once, in their order.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut names = std::mem::take(&mut *self.asked.lock().unwrap());
        // Both families are asked for at once.
        names.dedup();
        names
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn over_udp(socket: &UdpSocket, hosts: &Hosts, asked: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let mut query = [0; 512];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut query) else { continue };
        let Some((name, answer)) = answer(&query[..length], hosts, 20) else { continue };
        asked.lock().unwrap().push(name);
        // A client that has gone does not matter.
        let _ = socket.send_to(&answer, peer);
    }
}

fn over_tcp(listener: &TcpListener, hosts: &Hosts, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => drop(one_over_tcp(stream, hosts)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn one_over_tcp(mut stream: TcpStream, hosts: &Hosts) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query)?;
    if let Some((_, answer)) = answer(&query, hosts, usize::MAX) {
        stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes())?;
        stream.write_all(&answer)?;
    }
    Ok(())
}

/// The name in a question, and the answer with as many as `most` addresses; with more of them, an answer that is cut off.
fn answer(query: &[u8], hosts: &Hosts, most: usize) -> Option<(String, Vec<u8>)> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let name = labels.join(".");
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(HEADER..at + 4)?;

    let known = hosts.iter().find(|(known, _)| *known == name).map(|(_, addresses)| addresses);
    let records: Vec<Vec<u8>> =
        known.into_iter().flatten().filter_map(|address| record(kind, *address)).collect();
    let (cut, told) = if records.len() > most { (2, &[][..]) } else { (0, &records[..]) };
    let code = if known.is_some() { 0 } else { 3 };
    // A response to a query that wanted recursion, and gets it.
    let mut answer = vec![query[0], query[1], 0x81 | cut, 0x80 | code, 0, 1];
    answer.extend(u16::try_from(told.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    answer.extend(told.concat());
    Some((name, answer))
}

/// The resource record of an address, if it is of the kind that was asked for.
fn record(kind: u16, address: IpAddr) -> Option<Vec<u8>> {
    let data = match (kind, address) {
        (A, IpAddr::V4(address)) => address.octets().to_vec(),
        (AAAA, IpAddr::V6(address)) => address.octets().to_vec(),
        _ => return None,
    };
    // The name is that of the question; class IN, valid for five seconds.
    let mut record = vec![0xC0, 12];
    record.extend(kind.to_be_bytes());
    record.extend([0, 1, 0, 0, 0, 5, 0]);
    record.push(u8::try_from(data.len()).ok()?);
    record.extend(data);
    Some(record)
}
