//! The TLS policy: which algorithms, which version, and what is switched off. One place, so that it can be read in one look.
//!
//! * TLS 1.3 only.
//! * Both ends always show a certificate (`verify` says what must be in it).
//! * No session tickets, no resumption, no 0-RTT: each connection proves both identities anew.
//! * Key exchange prefers the post-quantum hybrid X25519MLKEM768, so that what is recorded today stays closed.
//! * AES-128-GCM before AES-256-GCM: it costs a third less CPU per byte, and the data needs no more.
//!
//! The provider is handed to each configuration; nothing is installed for the process.

use std::sync::{Arc, LazyLock};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::{ClientConfig, ServerConfig};

use crate::verify::PeerVerifier;

/// Plaintext and records that one connection may hold before its writer must wait. Large, so that a system call carries
/// many records.
pub(crate) const WRITE_BUFFER: usize = 1 << 20;

/// What a peer may send until the handshake is over, in bytes. A ClientHello with a post-quantum key share takes 2 KiB,
/// a chain of three RSA-4096 certificates 6 KiB.
pub(crate) const HANDSHAKE_BYTES: usize = 16 << 10;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    })
});

/// The one provider of algorithms.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// The algorithms by which certificates and handshakes may be signed.
pub(crate) fn signatures() -> WebPkiSupportedAlgorithms {
    PROVIDER.signature_verification_algorithms
}

/// The configuration of the TLS client: the source.
pub(crate) fn client(
    verifier: PeerVerifier,
    certificate: Arc<dyn ResolvesClientCert>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // the check of a host name is replaced by the stricter one of the URI
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(certificate);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// The configuration of the TLS server: the destination.
pub(crate) fn server(
    verifier: PeerVerifier,
    certificate: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(certificate);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}
