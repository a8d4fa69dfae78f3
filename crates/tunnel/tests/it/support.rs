//! Certificates, sockets and peers that the tests share.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tunnel::pki::{Authority, Credentials, DEFAULT_LIFETIME, LeafRequest};
use tunnel::{
    Acceptor, Connector, Endpoint, Error, Event, IdentitySource, Role, Spiffe, Target, Terminator,
    TlsStream, Tunnel,
};

/// The migration that the tests are about.
pub(crate) const MIGRATION: &str = "11111111-2222-3333-4444-555555555555";

/// Longer than anything takes; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn authority() -> Authority {
    Authority::new(MIGRATION, DEFAULT_LIFETIME).unwrap()
}

pub(crate) fn issue(authority: &Authority, request: LeafRequest) -> Credentials {
    authority.issue(&request).unwrap()
}

pub(crate) fn fixed(credentials: &Credentials) -> IdentitySource {
    IdentitySource::fixed(credentials.identity().unwrap())
}

pub(crate) fn connector(authority: &Authority) -> Connector {
    Connector::new(fixed(&issue(authority, LeafRequest::new(Role::Source))))
}

pub(crate) fn acceptor(authority: &Authority) -> Acceptor {
    Acceptor::new(fixed(&issue(authority, LeafRequest::new(Role::Destination))))
}

pub(crate) fn hours_ago(hours: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(hours * 3600)
}

pub(crate) fn hours_ahead(hours: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(hours * 3600)
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Accepts one connection, in the background.
pub(crate) async fn accept_one(
    acceptor: Acceptor,
) -> (SocketAddr, tokio::task::JoinHandle<Result<(TlsStream, Spiffe), Error>>) {
    let (listener, address) = listen().await;
    let accepted = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream, Instant::now() + PATIENCE).await
    });
    (address, accepted)
}

/// A connected pair of TLS streams: client, server.
pub(crate) async fn pair() -> (TlsStream, TlsStream) {
    let authority = authority();
    let (address, accepted) = accept_one(acceptor(&authority)).await;
    let client = connector(&authority).connect(&Target::from(address), None).await.unwrap();
    (client, accepted.await.unwrap().unwrap().0)
}

/// A TLS client that is not ours: it trusts everyone, and shows `credentials` or nothing.
pub(crate) async fn foreign_client(
    address: SocketAddr,
    credentials: Option<&Credentials>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAnyone));
    let config = match credentials.map(key_and_chain) {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A TLS server that is not ours: it asks for no certificate and shows `credentials`.
pub(crate) fn foreign_server(credentials: &Credentials) -> tokio_rustls::TlsAcceptor {
    let (chain, key) = key_and_chain(credentials);
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// A TLS server that is not ours: it shows `credentials` and lets in whom `trusted` has signed.
pub(crate) fn foreign_server_trusting(
    credentials: &Credentials,
    trusted: &Authority,
) -> tokio_rustls::TlsAcceptor {
    let (chain, key) = key_and_chain(credentials);
    let mut roots = rustls::RootCertStore::empty();
    let anchor = CertificateDer::from_pem_slice(trusted.certificate_pem().as_bytes()).unwrap();
    roots.add(anchor).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// Lets this process open as many files as the system allows it.
pub(crate) fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn key_and_chain(
    credentials: &Credentials,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let leaf = CertificateDer::from_pem_slice(credentials.certificate_pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(credentials.key_pem().as_bytes()).unwrap();
    (vec![leaf], key)
}

#[derive(Debug)]
struct TrustsAnyone;

impl ServerCertVerifier for TrustsAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A tunnel or a terminator that runs in the background until it is dropped.
pub(crate) struct Running {
    pub(crate) address: String,
    pub(crate) events: tokio::sync::mpsc::UnboundedReceiver<Event>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Running {
    pub(crate) async fn tunnel(tunnel: Tunnel) -> Self {
        Self::start(|stop, events| tunnel.run(stop, events)).await
    }

    pub(crate) async fn terminator(terminator: Terminator) -> Self {
        Self::start(|stop, events| terminator.run(stop, events)).await
    }

    async fn start<F>(run: impl FnOnce(Shutdown, Report) -> F) -> Self
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (report, mut events) = tokio::sync::mpsc::unbounded_channel();
        let report: Report = Box::new(move |event| drop(report.send(event)));
        tokio::spawn(run(Box::pin(async move { drop(stopped.await) }), report));
        match events.recv().await {
            Some(Event::Listening { address }) => Self { address, events, _stop: stop },
            other => panic!("{other:?}"),
        }
    }

    /// The next event of a connection's end.
    pub(crate) async fn end(&mut self) -> Event {
        loop {
            match timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap() {
                Event::Connected { .. } => {}
                event => return event,
            }
        }
    }
}

type Shutdown = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
type Report = Box<dyn Fn(Event) + Send + Sync>;

/// Any port on loopback.
pub(crate) fn any_port() -> Endpoint {
    "127.0.0.1:0".parse().unwrap()
}

/// A tunnel that leads to `target` as a source of `authority`.
pub(crate) async fn tunnel_to(authority: &Authority, target: &str) -> Running {
    let identity = fixed(&issue(authority, LeafRequest::new(Role::Source)));
    Running::tunnel(Tunnel::new(any_port(), target.parse().unwrap(), identity)).await
}

/// A terminator that forwards to `forward` as the destination of `authority`.
pub(crate) async fn terminator_to(authority: &Authority, forward: Endpoint) -> Running {
    let identity = fixed(&issue(authority, LeafRequest::new(Role::Destination)));
    Running::terminator(Terminator::new("127.0.0.1:0", forward, identity)).await
}
