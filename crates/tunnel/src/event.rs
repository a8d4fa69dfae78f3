//! What a [`Tunnel`](crate::Tunnel) or a [`Terminator`](crate::Terminator) reports while it runs.

use crate::error::Error;
use crate::spiffe::Spiffe;

/// A number that tells the connections of one run apart, in the order in which they came.
pub type ConnectionId = u64;

/// A step in the life of a tunnel. Each connection ends with exactly one [`Event::Failed`] or [`Event::Closed`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Connections are taken from now on.
    Listening {
        /// Where: the address with the port that was chosen, or `unix:PATH`.
        address: String,
    },
    /// Both sides of a connection stand.
    Connected {
        /// Which.
        id: ConnectionId,
        /// Who is at the other end of TLS, where that end is the client; a server's name says nothing new.
        peer: Option<Spiffe>,
    },
    /// A connection was taken and came to nothing: no byte went through it.
    Failed {
        /// Which.
        id: ConnectionId,
        /// Why.
        error: Error,
    },
    /// A connection ended.
    Closed {
        /// Which.
        id: ConnectionId,
        /// Plaintext bytes written to TLS.
        sent: u64,
        /// Plaintext bytes delivered from TLS.
        received: u64,
        /// What broke it; `None` where both sides ended of their own will.
        error: Option<Error>,
    },
}
