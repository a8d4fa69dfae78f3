//! A long line between two programs on one machine: passes TCP connections on, and what comes in goes out
//! half a round trip later, in both directions.
//!
//! ```text
//! cargo run --release --example delay -- LISTEN TARGET ROUND_TRIP_MS [IN_FLIGHT_MIB]
//! ```
//!
//! Bytes are late, not throttled: each piece has the time at which it came, and goes out at that time plus the delay,
//! as fast as it can. Per connection and direction, no more than a window is on its way; a sender that is
//! ahead of that waits, as it would with TCP. A new connection is quiet for one round trip, the handshake of TCP.

use std::{
    collections::VecDeque,
    error::Error,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

const USAGE: &str = "usage: delay LISTEN TARGET ROUND_TRIP_MS [IN_FLIGHT_MIB]";
const PIECE: usize = 256 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, target, round_trip, in_flight) = match arguments.as_slice() {
        [listen, target, round_trip] => (listen, target, round_trip, "64"),
        [listen, target, round_trip, in_flight] => (listen, target, round_trip, in_flight.as_str()),
        _ => return Err(USAGE.into()),
    };
    let round_trip = Duration::from_millis(round_trip.parse()?);
    let window = in_flight.parse::<usize>()? << 20;
    serve(&TcpListener::bind(listen)?, target, round_trip, window)?;
    Ok(())
}

fn serve(
    listener: &TcpListener,
    target: &str,
    round_trip: Duration,
    window: usize,
) -> io::Result<()> {
    loop {
        let near = listener.accept()?.0;
        let target = target.to_owned();
        thread::spawn(move || {
            // Refused: both ends are dropped, which is what the near one sees of it.
            if let Err(error) = connect(near, &target, round_trip, window) {
                eprintln!("delay: {target}: {error}");
            }
        });
    }
}

fn connect(near: TcpStream, target: &str, round_trip: Duration, window: usize) -> io::Result<()> {
    thread::sleep(round_trip);
    let far = TcpStream::connect(target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    pass(near.try_clone()?, far.try_clone()?, round_trip / 2, window);
    pass(far, near, round_trip / 2, window);
    Ok(())
}

/// Starts one direction; it ends by itself.
fn pass(from: TcpStream, to: TcpStream, delay: Duration, window: usize) {
    let line = Arc::new(Line { delay, window, state: Mutex::default(), changed: Condvar::new() });
    let entrance = Arc::clone(&line);
    let source = from.try_clone();
    thread::spawn(move || entrance.fill(from));
    thread::spawn(move || {
        // Nobody takes the bytes any more, so no more are read. The other direction goes on: what came before may still
        // be on its way there.
        if line.drain(to).is_err()
            && let Ok(source) = source
        {
            let _ = source.shutdown(Shutdown::Read); // it may be closed already
        }
        line.close();
    });
}

/// What is on its way in one direction.
struct Line {
    delay: Duration,
    window: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// With the time at which each goes out; an empty one is the end of the stream.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    closed: bool,
}

impl Line {
    fn fill(&self, mut from: TcpStream) {
        let mut buffer = vec![0; PIECE];
        loop {
            // A connection that fails ends here, as one that is closed does.
            let length = from.read(&mut buffer).unwrap_or(0);
            let due = Instant::now() + self.delay;
            let mut state = self.state.lock();
            state.pieces.push_back((due, buffer[..length].to_vec()));
            state.bytes += length;
            self.changed.notify_all();
            while state.bytes >= self.window && !state.closed {
                self.changed.wait(&mut state);
            }
            if length == 0 || state.closed {
                return;
            }
        }
    }

    fn drain(&self, mut to: TcpStream) -> io::Result<()> {
        loop {
            let (due, piece) = self.next();
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if piece.is_empty() {
                return to.shutdown(Shutdown::Write);
            }
            to.write_all(&piece)?;
            self.state.lock().bytes -= piece.len();
            self.changed.notify_all();
        }
    }

    fn next(&self) -> (Instant, Vec<u8>) {
        let mut state = self.state.lock();
        loop {
            if let Some(piece) = state.pieces.pop_front() {
                return piece;
            }
            self.changed.wait(&mut state);
        }
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(40);

    /// A connection through a line with this window: its near end, and its far one.
    fn connection(window: usize) -> (TcpStream, TcpStream) {
        let relay = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap().to_string();
        let near = TcpStream::connect(relay.local_addr().unwrap()).unwrap();
        thread::spawn(move || serve(&relay, &target, ROUND_TRIP, window));
        (near, server.accept().unwrap().0)
    }

    #[test]
    fn all_bytes_and_the_end_arrive_both_ways() {
        // A window below a piece: one piece at a time is on its way.
        for (window, length) in [(1, 1u32 << 20), (64 << 20, 8 << 20)] {
            let content: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let (mut near, mut far) = connection(window);
            let sent = content.clone();
            let client = thread::spawn(move || {
                near.write_all(&sent).unwrap();
                near.shutdown(Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                near.read_to_end(&mut answer).unwrap();
                answer
            });
            let mut received = Vec::new();
            far.read_to_end(&mut received).unwrap();
            assert!(received == content);
            far.write_all(b"thanks").unwrap();
            drop(far);
            assert_eq!(client.join().unwrap(), b"thanks");
        }
    }

    #[test]
    fn nothing_comes_back_before_a_round_trip() {
        let (mut near, mut far) = connection(1 << 20);
        let start = Instant::now();
        near.write_all(b"?").unwrap();
        far.read_exact(&mut [0]).unwrap();
        far.write_all(b"!").unwrap();
        near.read_exact(&mut [0]).unwrap();
        assert!(start.elapsed() >= ROUND_TRIP);
    }

    #[test]
    fn a_sender_sees_that_the_far_end_is_gone() {
        let (mut near, far) = connection(1 << 20);
        drop(far);
        // Both ways are over in the end: the far one closed, what still goes there is refused.
        near.read_to_end(&mut Vec::new()).unwrap();
        let piece = vec![0; PIECE];
        while near.write_all(&piece).is_ok() {}
    }
}
