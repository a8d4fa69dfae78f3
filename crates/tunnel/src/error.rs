//! What can go wrong, in sentences that say which phase failed and whose identity was at fault.
//!
//! * [`Error`]: the error of this crate. [`Error::kind`] is its phase, a stable word for status files and metrics.
//! * [`IdentityError`]: our own files are missing, broken or expired.
//! * [`PeerError`]: we refuse the peer. [`Refusal`]: the peer refuses us.
//!
//! Errors met on an established connection travel as [`std::io::Error`]; [`Error::from_io`] takes them out again.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::UnixTime;

use crate::endpoint::Endpoint;
use crate::spiffe::Role;
use crate::target::Target;

/// A failure of the tunnel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Our own identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The server's host name has no address.
    #[error("cannot resolve {target}: {source}")]
    Resolve {
        /// Who was to be reached.
        target: Target,
        /// The resolver's answer.
        source: io::Error,
    },
    /// No address of the server took the connection.
    #[error("cannot connect to {target}: {source}")]
    Connect {
        /// Who was to be reached.
        target: Target,
        /// The answer of the last address.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("no answer from {target} within {} s", after.as_secs_f64())]
    ConnectTimeout {
        /// Who was to be reached.
        target: Target,
        /// How long it was waited for.
        after: Duration,
    },
    /// The peer took the connection and did not finish the TLS handshake in time.
    #[error("the peer did not complete the TLS handshake in time")]
    HandshakeTimeout,
    /// The peer closed the connection in the middle of the TLS handshake.
    #[error("the peer closed the connection during the TLS handshake")]
    HandshakeClosed,
    /// The peer sends more than a TLS handshake takes.
    #[error("the peer sent more than {} KiB during the TLS handshake", crate::policy::HANDSHAKE_BYTES >> 10)]
    HandshakeTooLarge,
    /// The peer does not speak TLS as we do: no TLS at all, an older version, a broken record.
    #[error("TLS failed: {0}")]
    Tls(#[source] rustls::Error),
    /// What arrived is not what was sent: something on the way has changed it, or adds to it.
    #[error("TLS record corrupted: {0}")]
    Damaged(#[source] rustls::Error),
    /// The peer does not use TLS.
    #[error(
        "{peer} does not speak TLS: --connect takes the address of serve, and --via that of a tunnel"
    )]
    NotTls {
        /// Who that is: `the server host:8443`, `the client`.
        peer: String,
    },
    /// We refuse the peer's certificate.
    #[error("{}", error.of(whose))]
    Peer {
        /// Whose certificate, and which authorities it was checked against.
        whose: Whose,
        /// Why.
        error: PeerError,
    },
    /// The peer refuses our certificate.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection ended without the peer's close_notify: what arrived may be cut short.
    #[error("the peer closed the connection in the middle of the transfer")]
    Truncated,
    /// The established connection broke.
    #[error("connection to the peer lost: {0}")]
    Io(#[source] io::Error),
    /// The plaintext side of the tunnel failed.
    #[error("{endpoint}: {source}")]
    Local {
        /// The plaintext address.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// Plaintext would leave this machine.
    #[error("{0} is not a loopback address: plaintext would leave this machine")]
    NotLocal(Endpoint),
    /// The address for TLS connections cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// More connections than allowed; the new one was closed.
    #[error("too many connections: the limit is {limit}")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
}

/// The phase in which an [`Error`] arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Looking up the server's address.
    Dns,
    /// The server's address is there, and nothing listens.
    Refused,
    /// No answer within the time allowed.
    ConnectTimeout,
    /// The network, before or after the connection stood.
    Network,
    /// The TLS handshake or record layer.
    Tls,
    /// A certificate: ours, the peer's, or ours in the peer's eyes.
    Identity,
    /// The plaintext side.
    Local,
    /// How the tunnel was set up.
    Setup,
}

impl Kind {
    /// A stable word for status files and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect-timeout",
            Self::Network => "network",
            Self::Tls => "tls",
            Self::Identity => "identity",
            Self::Local => "local",
            Self::Setup => "setup",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error {
    /// The phase that failed.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Identity(_) | Self::Peer { .. } | Self::Refused(_) => Kind::Identity,
            Self::Resolve { .. } => Kind::Dns,
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                Kind::Refused
            }
            Self::ConnectTimeout { .. } => Kind::ConnectTimeout,
            Self::Connect { .. }
            | Self::Truncated
            | Self::Damaged(_)
            | Self::Io(_)
            | Self::TooMany { .. } => Kind::Network,
            Self::HandshakeTimeout
            | Self::HandshakeClosed
            | Self::HandshakeTooLarge
            | Self::NotTls { .. }
            | Self::Tls(_) => Kind::Tls,
            Self::Local { .. } => Kind::Local,
            Self::NotLocal(_) | Self::Listen { .. } | Self::Pki(_) => Kind::Setup,
        }
    }

    /// Whether the same attempt may succeed a little later without anyone changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::HandshakeTimeout
            | Self::HandshakeClosed
            | Self::Truncated
            | Self::Damaged(_)
            | Self::Io(_)
            | Self::TooMany { .. } => true,
            Self::Local { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::AddrInUse
                    | io::ErrorKind::AlreadyExists
                    | io::ErrorKind::InvalidInput
            ),
            Self::Identity(_)
            | Self::Peer { .. }
            | Self::Refused(_)
            | Self::HandshakeTooLarge
            | Self::NotTls { .. }
            | Self::Tls(_)
            | Self::NotLocal(_)
            | Self::Listen { .. }
            | Self::Pki(_) => false,
        }
    }

    /// The error of this crate that an I/O error of a [`TlsStream`](crate::TlsStream) carries.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// What the handshake or the record layer says by `error`; `peer` is the role of the other end.
    pub(crate) fn from_tls(error: io::Error, peer: Role) -> Self {
        let tls = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => tls.clone(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => return Self::Truncated,
            None => return Self::Io(error),
        };
        match tls {
            rustls::Error::NoCertificatesPresented => PeerError::NoCertificate.by(peer),
            rustls::Error::InvalidCertificate(reason) => {
                PeerError::from_tls(&reason, peer).by(peer)
            }
            // Only who made the handshake with us can seal a record.
            rustls::Error::DecryptError
            | rustls::Error::AlertReceived(AlertDescription::BadRecordMac) => Self::Damaged(tls),
            rustls::Error::AlertReceived(alert) => match Refusal::new(alert, peer) {
                Some(refusal) => Self::Refused(refusal),
                None => Self::Tls(rustls::Error::AlertReceived(alert)),
            },
            other => Self::Tls(other),
        }
    }

    /// Adds to an error of a handshake who the peer is, and which CA file its certificate was checked against.
    pub(crate) fn of_handshake_with(self, whose: &Whose) -> Self {
        use rustls::InvalidMessage as M;
        match self {
            Self::Peer { error, .. } => Self::Peer { whose: whose.clone(), error },
            Self::Tls(rustls::Error::InvalidMessage(M::InvalidContentType)) => {
                Self::NotTls { peer: whose.peer.clone() }
            }
            other => other,
        }
    }

    /// The same of a connection that stands: both ends have spoken TLS to each other, so what is not TLS came in between.
    pub(crate) fn after_handshake(self) -> Self {
        use AlertDescription as A;
        match self {
            Self::Tls(rustls::Error::AlertReceived(alert))
                if !matches!(
                    alert,
                    A::UnexpectedMessage | A::RecordOverflow | A::DecodeError | A::IllegalParameter
                ) =>
            {
                Self::Tls(rustls::Error::AlertReceived(alert))
            }
            Self::Tls(error) => Self::Damaged(error),
            other => other,
        }
    }

    /// As an I/O error that [`Error::from_io`] opens again.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Truncated => io::ErrorKind::UnexpectedEof,
            Self::Refused(_) | Self::Peer { .. } => io::ErrorKind::PermissionDenied,
            Self::Io(source) => source.kind(),
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }
}

/// Our own identity cannot be used; the sentence names the file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", file.display())]
pub struct IdentityError {
    /// The file at fault.
    pub file: PathBuf,
    /// What is wrong with it.
    pub fault: IdentityFault,
}

/// What is wrong with a file of an identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityFault {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It holds no PEM block of the kind that belongs there.
    #[error("contains no {0} in PEM format")]
    NotPem(&'static str),
    /// It is too large for a certificate or key.
    #[error("is too large for a certificate or key")]
    TooLarge,
    /// The certificate in it was refused.
    #[error(transparent)]
    Certificate(PeerError),
    /// A certificate in `ca.crt` is not one of an authority.
    #[error("is not a CA certificate")]
    NotAuthority,
    /// Its validity is over, or has not begun.
    #[error("is expired or not yet valid: compare the clocks")]
    NotInForce,
    /// The key is of a kind that is not supported, or does not belong to the certificate.
    #[error("does not match tls.crt")]
    Key,
    /// The identity is for the other end.
    #[error("certificate is for role {have}, expected {need}")]
    Role {
        /// The role in the certificate.
        have: Role,
        /// The role that is needed here.
        need: Role,
    },
    /// The identity is confined to another volume.
    #[error("certificate is for volume {have}, expected volume {need}")]
    Volume {
        /// The volume in the certificate.
        have: String,
        /// The volume that is needed here.
        need: String,
    },
    /// The identity is for every volume of its migration where one for a single volume is needed.
    #[error("certificate is for all volumes, expected one for volume {need} only")]
    EveryVolume {
        /// The volume that is needed here.
        need: String,
    },
}

/// Whose certificate was checked, and against what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// `the server host:8443`, `the client`.
    pub peer: String,
    /// The file with the authorities that we trust.
    pub authorities: PathBuf,
}

impl Whose {
    /// The peer of `role`, of whom nothing else is known.
    fn role(role: Role) -> Self {
        let peer = match role {
            Role::Destination => "the server",
            Role::Source => "the client",
        };
        Self { peer: peer.into(), authorities: crate::identity::CA_FILE.into() }
    }
}

/// Where two identities of one migration come from.
const SAME_CA: &str = ": both identities must come from the same CA (one `pvferry pki init`)";

/// Why we refuse the peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerError {
    /// None was shown.
    NoCertificate,
    /// No authority that we trust has signed it, or none that is still valid.
    WrongAuthority,
    /// Its validity is over.
    Expired {
        /// The time of the check, in seconds since 1970.
        now: u64,
        /// The end of its validity, in seconds since 1970.
        not_after: u64,
    },
    /// Its validity has not begun.
    NotYetValid {
        /// The time of the check, in seconds since 1970.
        now: u64,
        /// The begin of its validity, in seconds since 1970.
        not_before: u64,
    },
    /// Its extended key usage is not exactly the one for its role.
    WrongUsage(Role),
    /// It cannot be parsed, or is an authority's, or holds what we do not support.
    Unusable(String),
    /// It does not hold exactly one URI, or not one of our form.
    NoName,
    /// It belongs to another migration.
    OtherMigration {
        /// The migration in the certificate.
        found: String,
        /// The migration of our own certificate.
        expected: String,
    },
    /// It speaks for the wrong end.
    WrongRole {
        /// The role in the certificate.
        found: Role,
        /// The role that the other end must have.
        expected: Role,
    },
}

impl std::error::Error for PeerError {}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "the peer", "the certificate", Path::new(crate::identity::CA_FILE))
    }
}

impl PeerError {
    /// The message, with the owner of the certificate and the CA file.
    fn of(&self, whose: &Whose) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            let certificate = format!("the certificate of {}", whose.peer);
            self.write(f, &whose.peer, &certificate, &whose.authorities)?;
            match self {
                Self::WrongAuthority | Self::OtherMigration { .. } => f.write_str(SAME_CA),
                _ => Ok(()),
            }
        })
    }

    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        peer: &str,
        certificate: &str,
        authorities: &Path,
    ) -> fmt::Result {
        match self {
            Self::NoCertificate => write!(f, "{peer} sent no certificate"),
            Self::WrongAuthority => {
                write!(f, "{certificate} is not signed by a CA in {}", authorities.display())
            }
            Self::Expired { now, not_after } => {
                write!(f, "{certificate} expired {} s ago", now.saturating_sub(*not_after))
            }
            Self::NotYetValid { now, not_before } => {
                let seconds = not_before.saturating_sub(*now);
                write!(f, "{certificate} becomes valid in {seconds} s: compare the clocks")
            }
            Self::WrongUsage(role) => {
                write!(f, "{certificate} is not issued for role {role} (extended key usage)")
            }
            Self::Unusable(why) => write!(f, "{certificate} is invalid: {why}"),
            Self::NoName => {
                write!(f, "{certificate} does not contain exactly one URI with migration and role")
            }
            Self::OtherMigration { found, expected } => {
                write!(f, "{certificate} is for migration {found}, expected {expected}")
            }
            Self::WrongRole { found, expected } => {
                write!(f, "{certificate} is for role {found}, expected {expected}")
            }
        }
    }

    /// The error of a peer of which only the role is known.
    pub(crate) fn by(self, peer: Role) -> Error {
        Error::Peer { whose: Whose::role(peer), error: self }
    }

    /// As rustls wants it. Where rustls has a reason of its own it is used, since it decides the alert that the peer reads.
    pub(crate) fn into_tls(self) -> CertificateError {
        match self {
            Self::WrongAuthority => CertificateError::UnknownIssuer,
            Self::WrongUsage(_) => CertificateError::InvalidPurpose,
            Self::Expired { now, not_after } => {
                CertificateError::ExpiredContext { time: unix(now), not_after: unix(not_after) }
            }
            Self::NotYetValid { now, not_before } => CertificateError::NotValidYetContext {
                time: unix(now),
                not_before: unix(not_before),
            },
            other => CertificateError::Other(rustls::OtherError(std::sync::Arc::new(other))),
        }
    }

    fn from_tls(reason: &CertificateError, peer: Role) -> Self {
        match reason {
            CertificateError::InvalidPurpose => Self::WrongUsage(peer),
            CertificateError::UnknownIssuer => Self::WrongAuthority,
            CertificateError::ExpiredContext { time, not_after } => {
                Self::Expired { now: time.as_secs(), not_after: not_after.as_secs() }
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { now: time.as_secs(), not_before: not_before.as_secs() }
            }
            CertificateError::Other(other) => match other.0.downcast_ref::<Self>() {
                Some(own) => own.clone(),
                None => Self::Unusable(reason.to_string()),
            },
            _ => Self::Unusable(reason.to_string()),
        }
    }
}

fn unix(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// The peer refuses our certificate, by the TLS alert that it sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {peer} refused our certificate: {reason} ({alert:?})")]
pub struct Refusal {
    peer: &'static str,
    reason: &'static str,
    alert: AlertDescription,
}

impl Refusal {
    /// The refusal that `alert` stands for, where it is about our certificate.
    fn new(alert: AlertDescription, peer: Role) -> Option<Self> {
        use AlertDescription as A;
        let reason = match alert {
            A::UnknownCA => {
                "it is not signed by a CA that the peer trusts: both identities must come from the same CA (one `pvferry pki init`)"
            }
            A::CertificateExpired => "it is expired or not yet valid: compare the clocks",
            A::CertificateRevoked => "it is revoked",
            A::UnsupportedCertificate => "its extended key usage is not for this role",
            A::CertificateUnknown | A::AccessDenied => {
                "its migration or role is not the one that the peer expects"
            }
            A::CertificateRequired => "none was sent",
            A::BadCertificate | A::DecryptError => "it cannot be parsed, or its key does not match",
            _ => return None,
        };
        let peer = match peer {
            Role::Destination => "server",
            Role::Source => "client",
        };
        Some(Self { peer, reason, alert })
    }
}
