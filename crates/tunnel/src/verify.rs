//! The check of the peer's certificate, the same in both directions.
//!
//! A certificate passes when all of these hold:
//! 1. an authority in `ca.crt`, itself within its validity, signed it directly (a migration has no intermediates);
//! 2. it is within its validity;
//! 3. its extended key usage is exactly the one of its role: `clientAuth` for a source, `serverAuth` for a destination;
//! 4. it holds exactly one URI name, of the form of [`Spiffe`], with the role of the other end and our own migration.
//!
//! Host names play no part: the name that a client asks for serves routing only.

use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};

use crate::error::PeerError;
use crate::policy;
use crate::spiffe::{Role, Spiffe};

/// A certificate of an authority that may sign for the migration.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    anchor: TrustAnchor<'static>,
    validity: Validity,
}

/// The seconds since 1970 between which a certificate is valid, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Validity {
    /// Read from a certificate. There is no accessor for it: it is asked for by checking at the two ends of time.
    pub(crate) fn of(der: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let end_of_time = u64::from(u32::MAX) << 16; // later than any date that X.509 can write
        let check = |at: u64| check_alone(der, UnixTime::since_unix_epoch(Duration::from_secs(at)));
        let not_before = match check(0) {
            Err(webpki::Error::CertNotValidYet { not_before, .. }) => not_before.as_secs(),
            Err(error @ (webpki::Error::BadDer | webpki::Error::InvalidCertValidity)) => {
                return Err(unusable(&error));
            }
            _ => 0,
        };
        match check(end_of_time) {
            Err(webpki::Error::CertExpired { not_after, .. }) => {
                Ok(Self { not_before, not_after: not_after.as_secs() })
            }
            Err(error) => Err(unusable(&error)),
            Ok(()) => Err(PeerError::Unusable("it has no expiry date".to_owned())),
        }
    }

    pub(crate) fn holds(self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now.as_secs())
    }
}

impl Authority {
    /// From one certificate of `ca.crt`; `None` where it is not that of an authority.
    pub(crate) fn new(der: &CertificateDer<'_>) -> Result<Option<Self>, PeerError> {
        let validity = Validity::of(der)?;
        let within = UnixTime::since_unix_epoch(Duration::from_secs(validity.not_before));
        if !matches!(check_alone(der, within), Err(webpki::Error::CaUsedAsEndEntity)) {
            return Ok(None);
        }
        let anchor = webpki::anchor_from_trusted_cert(der).map_err(|error| unusable(&error))?;
        Ok(Some(Self { anchor: anchor.to_owned(), validity }))
    }

    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }
}

/// What webpki says of a certificate that nobody signed: its own validity and constraints come before the search for an issuer.
fn check_alone(der: &CertificateDer<'_>, at: UnixTime) -> Result<(), webpki::Error> {
    let certificate = EndEntityCert::try_from(der)?;
    let usage = KeyUsage::server_auth();
    certificate.verify_for_usage(&[], &[], &[], at, usage, None, None).map(|_| ())
}

/// Checks that `der` is a certificate by which `role` may act at time `now`, signed by one of `authorities`.
pub(crate) fn certificate(
    der: &CertificateDer<'_>,
    authorities: &[Authority],
    role: Role,
    now: UnixTime,
) -> Result<(), PeerError> {
    let certificate = EndEntityCert::try_from(der).map_err(|error| unusable(&error))?;
    let anchors: Vec<TrustAnchor<'_>> = authorities
        .iter()
        .filter(|ca| ca.validity.holds(now))
        .map(|ca| ca.anchor.clone())
        .collect();
    certificate
        .verify_for_usage(signatures(), &anchors, &[], now, OnlyUsage(role), None, None)
        .map(|_| ())
        .map_err(|error| refused(&error, role))
}

fn signatures() -> &'static [&'static dyn rustls_pki_types::SignatureVerificationAlgorithm] {
    policy::signatures().all
}

/// The one URI name in a certificate, parsed.
pub(crate) fn name(der: &CertificateDer<'_>) -> Result<Spiffe, PeerError> {
    let certificate = EndEntityCert::try_from(der).map_err(|error| unusable(&error))?;
    let mut uris = certificate.valid_uri_names();
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().map_err(|_| PeerError::NoName),
        _ => Err(PeerError::NoName),
    }
}

fn refused(error: &webpki::Error, role: Role) -> PeerError {
    use webpki::Error as E;
    match error {
        // The same subject with another key is another authority.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => PeerError::WrongAuthority,
        E::CertExpired { time, not_after } => {
            PeerError::Expired { now: time.as_secs(), not_after: not_after.as_secs() }
        }
        E::CertNotValidYet { time, not_before } => {
            PeerError::NotYetValid { now: time.as_secs(), not_before: not_before.as_secs() }
        }
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => PeerError::WrongUsage(role),
        other => unusable(other),
    }
}

fn unusable(error: &webpki::Error) -> PeerError {
    PeerError::Unusable(error.to_string())
}

/// Demands that a certificate may be used for its role and for nothing else.
struct OnlyUsage(Role);

impl ExtendedKeyUsageValidator for OnlyUsage {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let (wanted, required) = match self.0 {
            Role::Source => (KeyUsage::CLIENT_AUTH_REPR, KeyUsage::client_auth()),
            Role::Destination => (KeyUsage::SERVER_AUTH_REPR, KeyUsage::server_auth()),
        };
        let mut present = Vec::new();
        for usage in usages {
            present.push(usage?.to_decoded_oid());
        }
        match present.as_slice() {
            [only] if only == wanted => Ok(()),
            _ => {
                Err(webpki::Error::RequiredEkuNotFoundContext(webpki::RequiredEkuNotFoundContext {
                    required,
                    present,
                }))
            }
        }
    }
}

/// Checks the other end during the handshake.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    authorities: Vec<Authority>,
    migration: String,
    role: Role,
}

impl PeerVerifier {
    /// Lets pass only who has `role` in `migration`, by the word of one of `authorities`.
    pub(crate) fn new(authorities: Vec<Authority>, migration: &str, role: Role) -> Self {
        Self { authorities, migration: migration.to_owned(), role }
    }

    fn check(&self, der: &CertificateDer<'_>, now: UnixTime) -> Result<(), PeerError> {
        // The name first where the usage is wrong: "speaks for the other end" says more than its key usage.
        let signed = certificate(der, &self.authorities, self.role, now);
        if !matches!(signed, Ok(()) | Err(PeerError::WrongUsage(_))) {
            return signed;
        }
        let name = name(der)?;
        if name.migration() != self.migration {
            return Err(PeerError::OtherMigration {
                found: name.migration().to_owned(),
                expected: self.migration.clone(),
            });
        }
        if name.role() != self.role {
            return Err(PeerError::WrongRole { found: name.role(), expected: self.role });
        }
        signed
    }

    fn check_for_tls(&self, der: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
        self.check(der, now).map_err(|error| rustls::Error::InvalidCertificate(error.into_tls()))
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check_for_tls(end_entity, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &policy::signatures())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        policy::signatures().supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// No hints: they would tell who asks which authority is trusted, and a client here has one certificate only.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check_for_tls(end_entity, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &policy::signatures())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        policy::signatures().supported_schemes()
    }
}
