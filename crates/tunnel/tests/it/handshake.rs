//! Who gets in, who does not, and what both ends are told.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tunnel::pki::{Authority, Credentials, DEFAULT_LIFETIME, LeafRequest};
use tunnel::{Acceptor, Connector, Error, IdentitySource, Kind, PeerError, Role, Target, pki};

use crate::support::*;

#[tokio::test]
async fn both_ends_of_one_migration_meet() {
    let authority = authority();
    let (address, accepted) = accept_one(acceptor(&authority)).await;
    let mut client = connector(&authority).connect(&Target::from(address), None).await.unwrap();
    let (mut server, peer) = accepted.await.unwrap().unwrap();
    assert_eq!(peer.to_string(), format!("spiffe://pvferry/migration/{MIGRATION}/source"));

    client.write_all(b"there").await.unwrap();
    let finished = tokio::spawn(async move { client.finish().await });
    let mut heard = String::new();
    server.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "there");
    server.shutdown().await.unwrap();
    finished.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pair_made_in_memory_meets() {
    let pair = pki::ephemeral("run-1").unwrap();
    let (address, accepted) =
        accept_one(Acceptor::new(IdentitySource::fixed(pair.destination))).await;
    let connector = Connector::new(IdentitySource::fixed(pair.source));
    connector.connect(&Target::from(address), None).await.unwrap();
    assert_eq!(accepted.await.unwrap().unwrap().1.migration(), "run-1");
}

#[tokio::test]
async fn a_source_confined_to_a_volume_says_so() {
    let authority = authority();
    let (address, accepted) = accept_one(acceptor(&authority)).await;
    let leaf = issue(&authority, LeafRequest::new(Role::Source).volume("data"));
    Connector::new(fixed(&leaf)).connect(&Target::from(address), None).await.unwrap();
    let (_, peer) = accepted.await.unwrap().unwrap();
    assert!(peer.may_access("data") && !peer.may_access("logs"));
}

/// What our server says of a client with `credentials`, and what that client gets to read.
async fn server_refuses(
    authority: &Authority,
    credentials: Option<&Credentials>,
) -> (Error, String) {
    let (address, accepted) = accept_one(acceptor(authority)).await;
    let client = async {
        let mut stream = foreign_client(address, credentials).await?;
        stream.write_all(b"let me in").await?;
        stream.read_u8().await
    };
    let heard = timeout(Duration::from_secs(10), client).await.expect("the client was let in");
    let heard = heard.expect_err("the server spoke");
    (accepted.await.unwrap().expect_err("the server let it in"), heard.to_string())
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let (error, heard) = server_refuses(&authority(), None).await;
    assert!(matches!(error, Error::Peer { error: PeerError::NoCertificate, .. }), "{error}");
    assert!(heard.contains("CertificateRequired"), "{heard}");
}

/// With a ticket, a client could come back without showing a certificate again, or send data before the handshake.
#[tokio::test]
async fn a_client_gets_no_ticket() {
    let authority = authority();
    let leaf = issue(&authority, LeafRequest::new(Role::Source));
    let (address, accepted) = accept_one(acceptor(&authority)).await;
    let mut client = foreign_client(address, Some(&leaf)).await.unwrap();
    let (mut server, _) = accepted.await.unwrap().unwrap();
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    client.read_u8().await.unwrap(); // tickets precede what the server writes
    assert_eq!(client.get_ref().1.tls13_tickets_received(), 0);
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let other = Authority::new(MIGRATION, DEFAULT_LIFETIME).unwrap();
    let leaf = issue(&other, LeafRequest::new(Role::Source));
    let (error, heard) = server_refuses(&authority(), Some(&leaf)).await;
    assert!(matches!(error, Error::Peer { error: PeerError::WrongAuthority, .. }), "{error}");
    assert!(heard.contains("UnknownCA"), "{heard}");
}

#[tokio::test]
async fn an_expired_client_is_refused() {
    let authority = authority();
    let request = LeafRequest::new(Role::Source).window(hours_ago(3), hours_ago(1));
    let (error, heard) = server_refuses(&authority, Some(&issue(&authority, request))).await;
    assert!(matches!(error, Error::Peer { error: PeerError::Expired { .. }, .. }), "{error}");
    assert!(error.to_string().contains("expired 360"), "{error}");
    assert!(heard.contains("CertificateExpired"), "{heard}");
}

#[tokio::test]
async fn a_client_from_the_future_is_refused() {
    let authority = authority();
    let request = LeafRequest::new(Role::Source).window(hours_ahead(1), hours_ahead(2));
    let (error, _) = server_refuses(&authority, Some(&issue(&authority, request))).await;
    assert!(matches!(error, Error::Peer { error: PeerError::NotYetValid { .. }, .. }), "{error}");
}

#[tokio::test]
async fn a_destination_is_refused_as_client() {
    let authority = authority();
    let leaf = issue(&authority, LeafRequest::new(Role::Destination));
    let (error, _) = server_refuses(&authority, Some(&leaf)).await;
    let expected = PeerError::WrongRole { found: Role::Destination, expected: Role::Source };
    assert!(matches!(&error, Error::Peer { error: found, .. } if *found == expected), "{error}");
}

#[tokio::test]
async fn the_role_in_the_name_counts_not_only_the_usage() {
    let authority = authority();
    let request = LeafRequest::new(Role::Destination).usages(&[Role::Source]);
    let (error, _) = server_refuses(&authority, Some(&issue(&authority, request))).await;
    assert!(matches!(error, Error::Peer { error: PeerError::WrongRole { .. }, .. }), "{error}");
}

#[tokio::test]
async fn exactly_the_one_usage_is_demanded() {
    let authority = authority();
    for usages in [&[][..], &[Role::Destination], &[Role::Source, Role::Destination]] {
        let leaf = issue(&authority, LeafRequest::new(Role::Source).usages(usages));
        let (error, heard) = server_refuses(&authority, Some(&leaf)).await;
        assert!(
            matches!(error, Error::Peer { error: PeerError::WrongUsage(Role::Source), .. }),
            "{error}"
        );
        assert!(heard.contains("UnsupportedCertificate"), "{heard}");
    }
}

#[tokio::test]
async fn a_client_of_another_migration_is_refused() {
    let authority = authority();
    let request = LeafRequest::new(Role::Source).uris(&["spiffe://pvferry/migration/other/source"]);
    let (error, _) = server_refuses(&authority, Some(&issue(&authority, request))).await;
    let Error::Peer { error: PeerError::OtherMigration { found, expected }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((found.as_str(), expected.as_str()), ("other", MIGRATION));
}

#[tokio::test]
async fn exactly_one_name_is_demanded() {
    let authority = authority();
    let own = format!("spiffe://pvferry/migration/{MIGRATION}/source");
    let other = format!("spiffe://pvferry/migration/{MIGRATION}/destination");
    for uris in
        [&[][..], &[own.as_str(), other.as_str()], &[&own, &own], &["https://pvferry/source"]]
    {
        let leaf = issue(&authority, LeafRequest::new(Role::Source).uris(uris));
        let (error, heard) = server_refuses(&authority, Some(&leaf)).await;
        assert!(matches!(error, Error::Peer { error: PeerError::NoName, .. }), "{error}");
        assert!(heard.contains("CertificateUnknown"), "{heard}");
    }
}

/// What our client says of a server with `credentials`.
async fn client_refuses(authority: &Authority, credentials: &Credentials) -> Error {
    let (listener, address) = listen().await;
    let server = foreign_server(credentials);
    let accepted = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        server.accept(stream).await.map(|_| ())
    });
    let connected = connector(authority).connect(&Target::from(address), None).await;
    assert!(accepted.await.unwrap().is_err(), "the server was not told");
    connected.expect_err("the client was content")
}

#[tokio::test]
async fn a_server_must_prove_itself_in_the_same_way() {
    let ours = authority();
    let other = authority();
    let destination = || LeafRequest::new(Role::Destination);
    let elsewhere = "spiffe://pvferry/migration/other/destination";
    let cases = [
        (&other, destination(), "not signed by a CA in ca.crt: both identities must come from"),
        (&ours, destination().window(hours_ago(2), hours_ago(1)), "expired"),
        (&ours, destination().uris(&[elsewhere]), "for migration other, expected"),
        (&ours, destination().uris(&[]), "exactly one URI"),
        (&ours, destination().usages(&[]), "not issued for role destination"),
        (&ours, LeafRequest::new(Role::Source), "for role source, expected destination"),
    ];
    for (signer, request, words) in cases {
        let error = client_refuses(&ours, &issue(signer, request)).await;
        assert!(matches!(error, Error::Peer { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(words), "{text}");
        assert!(text.starts_with("the certificate of the server 127.0.0.1:"), "{text}");
        assert_eq!((error.kind(), error.is_retryable()), (Kind::Identity, false));
    }
}

#[tokio::test]
async fn the_servers_refusal_reaches_our_client_as_a_sentence() {
    let ours = authority();
    let theirs = authority();
    // A client that trusts the server's authority but was signed by another one.
    let leaf = issue(&ours, LeafRequest::new(Role::Source));
    let both = [ours.certificate_pem(), theirs.certificate_pem()].concat();
    let identity = tunnel::Identity::from_pem(
        both.as_bytes(),
        leaf.certificate_pem().as_bytes(),
        leaf.key_pem().as_bytes(),
    );
    let (address, accepted) = accept_one(acceptor(&theirs)).await;
    let connector = Connector::new(IdentitySource::fixed(identity.unwrap()));
    let mut client = connector.connect(&Target::from(address), None).await.unwrap();
    let error = client.read_u8().await.unwrap_err();
    let error = Error::from_io(&error).unwrap();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert!(error.to_string().starts_with("the server refused our certificate: it is not signed"));
    assert!(accepted.await.unwrap().is_err());
}

#[tokio::test]
async fn a_refused_client_that_talks_first_still_hears_why() {
    let authority = authority();
    let leaf = issue(&authority, LeafRequest::new(Role::Destination));
    let (address, accepted) = accept_one(acceptor(&authority)).await;
    let mut client = foreign_client(address, Some(&leaf)).await.unwrap();
    for _ in 0..8 {
        client.write_all(&[0; 1 << 16]).await.unwrap();
        client.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let heard = client.read_u8().await.unwrap_err().to_string();
    assert!(heard.contains("CertificateUnknown"), "{heard}");
    drop(client);
    assert!(accepted.await.unwrap().is_err());
}

#[tokio::test]
async fn each_end_demands_the_identity_of_its_own_role() {
    let pair = pki::ephemeral("m").unwrap();
    let (address, accepted) = accept_one(Acceptor::new(IdentitySource::fixed(pair.source))).await;
    let connector = Connector::new(IdentitySource::fixed(pair.destination));
    let error = connector.connect(&Target::from(address), None).await.unwrap_err();
    assert!(error.to_string().contains("role destination, expected source"), "{error}");
    TcpStream::connect(address).await.unwrap();
    let error = accepted.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("role source, expected destination"), "{error}");
}

#[tokio::test]
async fn what_is_not_tls_is_closed_at_once() {
    for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"@RSYNCD: 32.0\n", &[0; 64], &[0xff; 64]] {
        let (address, accepted) = accept_one(acceptor(&authority())).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        // Closed or reset: either is an end. The server's own deadline is far longer than this one.
        let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "still open after {garbage:?}");
        assert!(answer.len() < 16, "{answer:?}");
        assert!(matches!(accepted.await.unwrap(), Err(Error::NotTls { .. })));
    }
}

#[tokio::test]
async fn who_dawdles_is_closed_at_the_deadline() {
    let (listener, address) = listen().await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(50);
    let acceptor = acceptor(&authority());
    let accepted = timeout(Duration::from_secs(20), acceptor.accept(stream, deadline)).await;
    assert!(matches!(accepted, Ok(Err(Error::HandshakeTimeout))), "the deadline does not hold");
}

#[tokio::test]
async fn each_phase_of_connecting_fails_by_its_own_name() {
    let connector = connector(&authority()).timeout(Duration::from_secs(10));
    let fail =
        async |target: &str| connector.connect(&target.parse().unwrap(), None).await.unwrap_err();
    let error = fail("no-such-host.invalid:1").await;
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Dns, true), "{error}");

    let (listener, address) = listen().await;
    drop(listener);
    let error = fail(&address.to_string()).await;
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Refused, true), "{error}");

    let (listener, address) = listen().await;
    let closes = tokio::spawn(async move { drop(listener.accept().await) });
    let error = fail(&address.to_string()).await;
    closes.await.unwrap();
    assert!(matches!(error, Error::HandshakeClosed), "{error}");
    assert!(error.is_retryable());

    let (listener, address) = listen().await;
    let chats = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = fail(&address.to_string()).await;
    chats.await.unwrap();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Tls, false), "{error}");
}

#[tokio::test]
async fn the_name_asked_for_is_the_host_unless_told_otherwise() {
    for (server_name, expected) in [(None, "localhost"), (Some("route.example"), "route.example")] {
        let (listener, address) = listen().await;
        let asked = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let start = tokio_rustls::LazyConfigAcceptor::new(Default::default(), stream);
            start.await.unwrap().client_hello().server_name().map(str::to_owned)
        });
        let target = format!("localhost:{}", address.port()).parse().unwrap();
        let _ = connector(&authority()).connect(&target, server_name).await;
        assert_eq!(asked.await.unwrap().as_deref(), Some(expected));
    }
}
