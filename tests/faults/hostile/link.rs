//! A connection of somebody who has the right keys and bad manners: frames as bytes, in and out.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::timeout,
};
use tunnel::{Acceptor, Connector, IdentitySource, Target, TlsStream};

/// How long an answer that must come may take. Nothing here takes a tenth of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const ABORT: u8 = 7;
pub(super) const REFUSED: u8 = 4;

/// What the other end said next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// Number and body.
    Frame(u8, Vec<u8>),
    /// It has closed.
    End,
    /// Nothing for as long as was waited.
    Silence,
}

/// A connection, and the runtime that moves it.
pub(super) struct Link {
    runtime: Runtime,
    stream: TlsStream,
}

impl Link {
    /// Connects to a server with the keys in `identity`.
    pub(super) fn connect(server: std::net::SocketAddr, identity: &Path) -> Self {
        let runtime = runtime();
        let connector = Connector::new(IdentitySource::new(identity).unwrap());
        let stream = runtime.block_on(connector.connect(&Target::from(server), None)).unwrap();
        Self { runtime, stream }
    }

    /// Accepts a client that `listener` has, with the keys in `identity`.
    pub(super) fn accept(listener: &std::net::TcpListener, identity: &Path) -> Self {
        let (runtime, listener) = (runtime(), listener.try_clone().unwrap());
        let acceptor = Acceptor::new(IdentitySource::new(identity).unwrap());
        let stream = runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let accepted = timeout(PATIENCE, listener.accept()).await.expect("nobody connects");
            let (stream, _): (TcpStream, _) = accepted.unwrap();
            let deadline = tokio::time::Instant::now() + PATIENCE;
            acceptor.accept(stream, deadline).await.unwrap().0
        });
        Self { runtime, stream }
    }

    /// Sends bytes as they are; false where the other end takes no more.
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        self.runtime
            .block_on(async { timeout(PATIENCE, write).await.is_ok_and(|sent| sent.is_ok()) })
    }

    /// Sends a frame; false where the other end takes no more.
    pub(super) fn say(&mut self, kind: u8, body: &[u8]) -> bool {
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        self.write(&[&length[..], &[kind], body].concat())
    }

    /// The next frame. An end without a word and a connection that broke are the same to whoever listens.
    pub(super) fn hear(&mut self, within: Duration) -> Heard {
        let read = async {
            let mut header = [0; 5];
            self.stream.read_exact(&mut header).await?;
            let [a, b, c, d, kind] = header;
            let mut body = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
            self.stream.read_exact(&mut body).await?;
            Ok::<_, std::io::Error>(Heard::Frame(kind, body))
        };
        let heard = self.runtime.block_on(async { timeout(within, read).await });
        heard.map_or(Heard::Silence, |heard| heard.unwrap_or(Heard::End))
    }

    /// Listens until a frame of one of these kinds comes, or an end, or as long as is waited in all.
    pub(super) fn hear_one_of(&mut self, kinds: &[u8], within: Duration) -> Heard {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.hear(left) {
                Heard::Frame(kind, _) if !kinds.contains(&kind) => {}
                heard => return heard,
            }
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
