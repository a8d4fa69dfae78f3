//! What goes through a tunnel arrives whole, or its end does not look like one.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tunnel::pki::LeafRequest;
use tunnel::{Endpoint, Error, Event, LocalStream, Role, Target, TlsStream, Tunnel};

use crate::support::*;

const TEN_MIB: usize = 10 << 20;

/// Bytes that differ at every offset and from one `seed` to the next.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let step = |state: &mut u64| {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 56) as u8
    };
    (0..len).map(|_| step(&mut state)).collect()
}

/// Plaintext, tunnel, TLS, terminator, plaintext: the two ends of a whole chain, and what keeps it alive.
struct Chain {
    near: LocalStream,
    far: LocalStream,
    tunnel: Running,
    terminator: Running,
}

impl Chain {
    async fn new(near: Endpoint, far: Endpoint) -> Self {
        let authority = authority();
        let behind = far.bind(false).await.unwrap();
        let terminator = terminator_to(&authority, behind.endpoint().clone()).await;
        let identity = fixed(&issue(&authority, LeafRequest::new(Role::Source)));
        let tunnel =
            Running::tunnel(Tunnel::new(near, terminator.address.parse().unwrap(), identity)).await;
        let near = tunnel.address.parse::<Endpoint>().unwrap().connect().await.unwrap();
        let far = behind.accept().await.unwrap();
        Self { near, far, tunnel, terminator }
    }
}

async fn send_all(stream: &mut (impl tokio::io::AsyncWrite + Unpin), data: &[u8]) {
    stream.write_all(data).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn receive_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut data = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut data)).await.expect("no end of file").unwrap();
    data
}

/// Each side in turn sends everything and closes its half; the other side answers only after it has seen the end.
#[tokio::test]
async fn either_side_may_close_its_half_first() {
    let temp = tempfile::tempdir().unwrap();
    let socket = |name: &str| Endpoint::Unix(temp.path().join(name));
    let endpoints =
        [(any_port(), any_port()), (socket("near"), any_port()), (any_port(), socket("far"))];
    for (near, far) in endpoints {
        for near_first in [true, false] {
            let mut chain = Chain::new(near.clone(), far.clone()).await;
            let (first, second) = match near_first {
                true => (&mut chain.near, &mut chain.far),
                false => (&mut chain.far, &mut chain.near),
            };
            let (question, answer) = (bytes(TEN_MIB, 1), bytes(TEN_MIB + 1, 2));
            let ask = async {
                send_all(first, &question).await;
                receive_all(first).await
            };
            let reply = async {
                let heard = receive_all(second).await;
                send_all(second, &answer).await;
                heard
            };
            let (got_answer, got_question) = tokio::join!(ask, reply);
            assert!(got_question == question && got_answer == answer);

            let sizes = |event| match event {
                Event::Closed { sent, received, error: None, .. } => (sent, received),
                other => panic!("{other:?}"),
            };
            let (up, down) = if near_first { (0, 1) } else { (1, 0) };
            let (up, down) = ((TEN_MIB + up) as u64, (TEN_MIB + down) as u64);
            assert_eq!(sizes(chain.tunnel.end().await), (up, down));
            assert_eq!(sizes(chain.terminator.end().await), (down, up));
        }
    }
}

#[tokio::test]
async fn both_sides_may_talk_at_once() {
    let Chain { near, far, tunnel: _tunnel, terminator: _terminator } =
        Chain::new(any_port(), any_port()).await;
    let talk = async |stream: LocalStream, seed| {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let data = bytes(TEN_MIB, seed);
        tokio::join!(receive_all(&mut reader), send_all(&mut writer, &data)).0
    };
    let (near_heard, far_heard) = tokio::join!(talk(near, 1), talk(far, 2));
    assert!(near_heard == bytes(TEN_MIB, 2) && far_heard == bytes(TEN_MIB, 1));
}

/// The sender has closed everything and gone while its last megabytes are under way, and then the other side talks to it.
#[tokio::test]
async fn the_tail_arrives_though_the_sender_is_gone() {
    let Chain { mut near, mut far, tunnel: _tunnel, terminator: _terminator } =
        Chain::new(any_port(), any_port()).await;
    let data = bytes(TEN_MIB, 3);
    let sent = data.clone();
    let leaves = tokio::spawn(async move { send_all(&mut near, &sent).await });
    let mut heard = Vec::new();
    while !leaves.is_finished() {
        far.read_buf(&mut heard).await.unwrap();
    }
    assert!(heard.len() < TEN_MIB, "nothing was under way");
    let (mut reader, mut writer) = tokio::io::split(far);
    let talks = tokio::spawn(async move {
        // Nobody takes it any more, and that is no reason to lose what comes the other way.
        while writer.write_all(&[4; 1000]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    heard.extend(receive_all(&mut reader).await);
    talks.abort();
    assert!(heard == data, "{} of {} bytes arrived", heard.len(), data.len());
}

/// A TLS server, and a plaintext connection to it through a tunnel.
async fn through_tunnel() -> (TcpStream, TlsStream, Running) {
    let authority = authority();
    let (address, accepted) = accept_one(acceptor(&authority)).await;
    let tunnel = tunnel_to(&authority, &address.to_string()).await;
    let near = TcpStream::connect(&tunnel.address).await.unwrap();
    (near, accepted.await.unwrap().unwrap().0, tunnel)
}

#[tokio::test]
async fn a_cut_without_close_notify_is_no_end_of_file() {
    let (mut near, mut server, mut tunnel) = through_tunnel().await;
    server.write_all(b"the first half").await.unwrap();
    server.flush().await.unwrap();
    near.read_exact(&mut [0; 14]).await.unwrap();
    drop(server);

    let error = timeout(PATIENCE, near.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let Event::Closed { received: 14, error: Some(error), .. } = tunnel.end().await else {
        panic!("not closed by an error")
    };
    assert!(matches!(error, Error::Truncated), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_cut_reaches_our_own_reader_as_an_error() {
    let (client, mut server) = pair().await;
    drop(client);
    let error = server.read_u8().await.unwrap_err();
    assert!(matches!(Error::from_io(&error), Some(Error::Truncated)), "{error}");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_local_process_that_dies_does_not_look_finished() {
    let (mut near, mut server, mut tunnel) = through_tunnel().await;
    near.write_all(b"the first half").await.unwrap();
    server.read_exact(&mut [0; 14]).await.unwrap();
    near.set_zero_linger().unwrap();
    drop(near);
    let error = timeout(PATIENCE, server.read_u8()).await.unwrap().unwrap_err();
    assert!(matches!(Error::from_io(&error), Some(Error::Truncated | Error::Io(_))), "{error}");
    assert!(matches!(
        tunnel.end().await,
        Event::Closed { sent: 14, error: Some(Error::Local { .. }), .. }
    ));
}

#[tokio::test]
async fn a_tunnel_that_cannot_connect_resets_and_says_why() {
    let (listener, address) = listen().await;
    drop(listener);
    let mut tunnel = tunnel_to(&authority(), &address.to_string()).await;
    let mut near = TcpStream::connect(&tunnel.address).await.unwrap();
    assert!(timeout(PATIENCE, near.read_u8()).await.unwrap().is_err());
    let Event::Failed { error, .. } = tunnel.end().await else { panic!("connected to nothing") };
    assert_eq!(error.kind().as_str(), "refused", "{error}");
}

#[tokio::test]
async fn a_refusal_after_the_handshake_is_a_failure_to_connect() {
    let authority = authority();
    let (listener, address) = listen().await;
    // A server that trusts another authority only, though its own certificate is the one that the tunnel expects.
    let other = crate::support::authority();
    let leaf = issue(&authority, LeafRequest::new(Role::Destination));
    let server = foreign_server_trusting(&leaf, &other);
    let refuses = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (_, mut stream) = server.accept(stream).into_fallible().await.unwrap_err();
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let mut tunnel = tunnel_to(&authority, &address.to_string()).await;
    let mut near = TcpStream::connect(&tunnel.address).await.unwrap();
    assert!(timeout(PATIENCE, near.read_u8()).await.unwrap().is_err(), "a clean end of file");
    let Event::Failed { error, .. } = tunnel.end().await else { panic!("it was let in") };
    assert!(error.to_string().starts_with("the server refused our certificate"), "{error}");
    drop(near);
    refuses.await.unwrap();
}

#[tokio::test]
async fn a_refused_client_does_not_reach_the_plaintext_side() {
    let authority = authority();
    let behind = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forward = Endpoint::Tcp(behind.local_addr().unwrap());
    let mut terminator = terminator_to(&authority, forward).await;
    let leaf = issue(&crate::support::authority(), LeafRequest::new(Role::Source));
    let address = terminator.address.parse().unwrap();
    let mut client = foreign_client(address, Some(&leaf)).await.unwrap();
    let _ = client.write_all(b"hello").await;
    assert!(client.read_u8().await.is_err());
    assert!(matches!(terminator.end().await, Event::Failed { error: Error::Peer { .. }, .. }));
    let reached = timeout(std::time::Duration::from_millis(50), behind.accept()).await;
    assert!(reached.is_err(), "plaintext side was connected to");
}

#[tokio::test]
async fn nothing_behind_the_terminator_is_no_end_of_file() {
    let authority = authority();
    let (listener, address) = listen().await;
    drop(listener);
    let mut terminator = terminator_to(&authority, Endpoint::Tcp(address)).await;
    let target: Target = terminator.address.parse().unwrap();
    let mut client = connector(&authority).connect(&target, None).await.unwrap();
    assert!(timeout(PATIENCE, client.read_u8()).await.unwrap().is_err());
    assert!(matches!(terminator.end().await, Event::Failed { error: Error::Local { .. }, .. }));
}

#[tokio::test]
async fn plaintext_is_not_taken_from_beyond_this_machine() {
    let authority = authority();
    let identity = || fixed(&issue(&authority, LeafRequest::new(Role::Source)));
    let everywhere: Endpoint = "0.0.0.0:0".parse().unwrap();
    let tunnel = |allow| {
        Tunnel::new(everywhere.clone(), "127.0.0.1:1".parse().unwrap(), identity())
            .allow_remote(allow)
            .run(std::future::ready(()), |_| {})
    };
    assert!(matches!(tunnel(false).await, Err(Error::NotLocal(_))));
    tunnel(true).await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_private_and_a_stale_one_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("s");
    let endpoint = Endpoint::Unix(path.clone());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket(), "no stale socket");

    let listener = endpoint.bind(false).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let taken = endpoint.bind(false).await.unwrap_err();
    assert!(taken.to_string().contains("another process is listening on it"), "{taken}");
    drop(listener);
    assert!(fs::symlink_metadata(&path).is_err(), "the socket's file stayed behind");

    fs::write(&path, "precious").unwrap();
    assert!(endpoint.bind(false).await.is_err());
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn open_connections_end_soon_after_the_shutdown() {
    let authority = authority();
    let (address, accepted) = accept_one(acceptor(&authority)).await;
    let tunnel = tunnel_to(&authority, &address.to_string()).await;
    let mut near = TcpStream::connect(&tunnel.address).await.unwrap();
    let mut server = accepted.await.unwrap().unwrap().0;
    drop(tunnel);
    assert!(timeout(PATIENCE, near.read_u8()).await.unwrap().is_err(), "a clean end of file");
    assert!(timeout(PATIENCE, server.read_u8()).await.unwrap().is_err(), "a clean end of file");
}

#[tokio::test]
async fn finish_waits_for_the_peer() {
    let (mut client, mut server) = pair().await;
    let data = bytes(TEN_MIB, 5);
    let sent = data.clone();
    let sends = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.finish().await.unwrap();
    });
    server.write_all(&bytes(1 << 16, 6)).await.unwrap();
    assert!(receive_all(&mut server).await == data);
    server.shutdown().await.unwrap();
    sends.await.unwrap();
}

/// A thousand connections that never finish a handshake, and one that sends a byte now and then, do not keep another out.
#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    allow_many_files();
    let authority = authority();
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let terminator = terminator_to(&authority, Endpoint::Tcp(echo.local_addr().unwrap())).await;
    tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        stream.write_all(&byte).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_u8().await;
    });

    let mut crowd = Vec::new();
    for _ in 0..1000 {
        crowd.push(TcpStream::connect(&terminator.address).await.unwrap());
    }
    let mut slow = TcpStream::connect(&terminator.address).await.unwrap();
    tokio::spawn(async move {
        for byte in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc] {
            slow.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    });

    let target: Target = terminator.address.parse().unwrap();
    let mut client = connector(&authority).connect(&target, None).await.unwrap();
    client.write_all(b"!").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');
    client.finish().await.unwrap();
}

#[tokio::test]
async fn a_thousand_idle_connections_pass_a_byte_each() {
    allow_many_files();
    let authority = authority();
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let terminator = terminator_to(&authority, Endpoint::Tcp(echo.local_addr().unwrap())).await;
    let tunnel = tunnel_to(&authority, &terminator.address).await;
    let mut near = Vec::new();
    let mut far = Vec::new();
    for _ in 0..1000 {
        near.push(TcpStream::connect(&tunnel.address).await.unwrap());
        far.push(echo.accept().await.unwrap().0);
    }
    for stream in &mut near {
        stream.write_all(b"x").await.unwrap();
    }
    for stream in &mut far {
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    }
}

#[tokio::test]
async fn acceptor_and_connector_follow_the_deadline_they_are_given() {
    let authority = authority();
    let (listener, address) = listen().await;
    let connector = connector(&authority).timeout(std::time::Duration::from_millis(50));
    let error = connector.connect(&Target::from(address), None).await.unwrap_err();
    assert!(matches!(error, Error::HandshakeTimeout), "{error}");
    let (stream, _) = listener.accept().await.unwrap();
    let accepted = acceptor(&authority).accept(stream, Instant::now() + PATIENCE).await;
    assert!(matches!(accepted, Err(Error::HandshakeClosed)));
}
