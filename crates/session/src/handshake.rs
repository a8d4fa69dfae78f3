//! The first exchange on a stream, and what both ends agree on by it.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wire::{
    Frame, Hello, Join, Opening, OutFrame, Reply, Text, VERSION, Welcome, frame::HEADER_LEN,
    limits::MAX_HELLO,
};

use crate::{Error, Policy, Result};

/// What a handshake settles for the rest of a session.
#[derive(Clone)]
pub struct Agreed {
    pub(crate) key: [u8; 32],
    pub(crate) hello: Hello,
    pub(crate) welcome: Welcome,
    /// What this end permits the sender, as a receiver.
    pub(crate) policy: Policy,
    /// The limit on deletions is the receiver's.
    pub(crate) own_limit: bool,
}

impl Agreed {
    /// Derives the session key from all that both ends said, their nonces among it: ends that did not
    /// hear the same cannot come to the same manifest.
    #[must_use]
    pub fn new(hello: Hello, welcome: Welcome) -> Self {
        let said = [
            Opening::Hello(Box::new(hello.clone())).encode().head,
            Reply::Welcome(Box::new(welcome.clone())).encode().head,
        ];
        let key = blake3::derive_key("pvferry 2026 session", &said.concat());
        Self { key, hello, welcome, policy: Policy::UNRESTRICTED, own_limit: false }
    }

    /// The same for a receiver that permits no more than `policy`. The key stays: it is of what both ends said.
    #[must_use]
    pub fn under(mut self, policy: Policy) -> Self {
        self.own_limit = policy.limits(self.hello.options.max_delete);
        policy.restrict(&mut self.hello.options);
        self.policy = policy;
        self
    }

    /// True where nothing may be changed.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.hello.options.dry_run
    }

    /// The id that further streams present.
    #[must_use]
    pub fn session(&self) -> [u8; 16] {
        self.welcome.session
    }

    /// Streams of the session.
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.welcome.streams
    }

    /// What the receiver cannot keep, one sentence each.
    #[must_use]
    pub fn losses(&self) -> &[Text] {
        &self.welcome.losses
    }
}

/// Fresh random bytes.
///
/// # Errors
/// Where the kernel gives none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)
            .map_err(|e| Error::Stream(e.into()))?;
    }
    Ok(bytes)
}

/// Opens a session as its sender, on the first stream.
///
/// # Errors
/// [`Error::Refused`] with the receiver's reason; [`Error::Decode`] where the other side is no
/// receiver; [`Error::Stream`] and [`Error::Eof`] where the stream breaks.
pub async fn open<S>(stream: &mut S, hello: Hello) -> Result<Agreed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    write_frame(stream, Opening::Hello(Box::new(hello.clone())).encode()).await?;
    match Reply::decode(read_frame(stream).await?)? {
        Reply::Welcome(welcome)
            if (hello.versions.0..=hello.versions.1).contains(&welcome.version) =>
        {
            Ok(Agreed::new(hello, *welcome))
        }
        Reply::Welcome(_) => Err(Error::Protocol("welcome with a version that was not offered")),
        Reply::Refused(refusal, why) => Err(Error::Refused(refusal, why)),
    }
}

/// Adds a stream to the session `session`.
///
/// # Errors
/// As [`open`]. The receiver says nothing where it agrees.
pub async fn join<S>(stream: &mut S, session: [u8; 16]) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    write_frame(stream, Opening::Join(Join { session }).encode()).await
}

/// Reads the first message of a stream, as a receiver.
///
/// # Errors
/// [`Error::Decode`] where it is no opening; [`Error::Stream`] and [`Error::Eof`].
pub async fn read_opening<S>(stream: &mut S) -> Result<Opening>
where
    S: AsyncRead + Unpin,
{
    Ok(Opening::decode(read_frame(stream).await?)?)
}

/// Answers an opening.
///
/// # Errors
/// [`Error::Stream`].
pub async fn reply<S>(stream: &mut S, reply: &Reply) -> Result<()>
where
    S: AsyncWrite + Unpin,
{
    write_frame(stream, reply.encode()).await
}

/// The newest version that both `hello` and this code speak.
#[must_use]
pub fn common_version(hello: &Hello) -> Option<u32> {
    (hello.versions.0..=hello.versions.1).contains(&VERSION).then_some(VERSION)
}

/// Sends the last frame of a stream, and sees to it that it arrives.
pub(crate) async fn part<S>(mut stream: S, frame: OutFrame)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if write_frame(&mut stream, frame).await.is_ok() && stream.shutdown().await.is_ok() {
        // What the peer still sends is read and dropped for a moment: a stream that is closed with
        // something unread is reset, and the reset may overtake the frame.
        let mut scrap = [0; 4096];
        let drain = async { while matches!(stream.read(&mut scrap).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), drain).await;
    }
}

async fn write_frame<S: AsyncWrite + Unpin>(stream: &mut S, frame: OutFrame) -> Result<()> {
    stream.write_all(&frame.head).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads exactly one frame and not a byte more.
async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Frame> {
    let mut bytes = vec![0; HEADER_LEN];
    read_exact(stream, &mut bytes).await?;
    let header = bytes.first_chunk::<4>().copied().unwrap_or_default();
    let len = u32::from_le_bytes(header) as usize;
    if len > MAX_HELLO {
        return Err(wire::DecodeError::Limit("hello").into());
    }
    bytes.resize(HEADER_LEN + len, 0);
    read_exact(stream, &mut bytes[HEADER_LEN..]).await?;
    let mut buffer = bytes::BytesMut::from(&bytes[..]);
    Frame::take(&mut buffer, MAX_HELLO)?.ok_or(Error::Protocol("short frame"))
}

async fn read_exact<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut [u8]) -> Result<()> {
    match stream.read_exact(bytes).await {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(Error::Eof),
        Err(e) => Err(e.into()),
    }
}
