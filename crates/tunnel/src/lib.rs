//! TLS policy, identities, the byte tunnel and the TLS acceptor.
//!
//! This crate is the only place that decides how connections are protected. The nouns:
//!
//! * [`Spiffe`]: who a certificate speaks for: a migration, and a [`Role`] in it.
//! * [`Identity`], [`IdentitySource`]: our own certificate and key, and the authorities that we trust; followed as they rotate.
//! * [`Connector`], [`Acceptor`]: the two sides of a handshake. Both yield a [`TlsStream`].
//! * [`Endpoint`], [`Target`]: a plaintext address on this machine, and a TLS server anywhere.
//! * [`Tunnel`], [`Terminator`]: carry the bytes of plaintext connections over TLS, out and in; they report [`Event`]s.
//! * [`pki`]: makes the certificates of a migration.
//!
//! It knows nothing of what the bytes mean, of pods, or of command lines.
#![forbid(unsafe_code)]

mod accept;
mod connect;
mod endpoint;
mod error;
mod event;
mod identity;
mod local;
pub mod pki;
mod policy;
mod pool;
mod read_ahead;
mod relay;
mod serve;
mod socket;
mod spiffe;
mod stream;
mod target;
mod tunnel;
mod verify;

pub use accept::Acceptor;
pub use connect::Connector;
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Error, IdentityError, IdentityFault, Kind, PeerError, Refusal, Whose};
pub use event::{ConnectionId, Event};
pub use identity::{CA_FILE, CERTIFICATE_FILE, Identity, IdentitySource, KEY_FILE};
pub use local::{LocalListener, LocalStream};
pub use relay::Traffic;
pub use spiffe::{Role, Spiffe, SpiffeError};
pub use stream::TlsStream;
pub use target::{ServerName, ServerNameError, Target, TargetError};
pub use tunnel::{Terminator, Tunnel};
