//! The receiving end of many sessions: first messages read, sessions found and begun.
//!
//! A [`Server`] is given every stream that a listener accepts, whatever it is made of. It knows which
//! sessions run, so that a further stream finds the one it belongs to; it does not know paths or
//! certificates, which its caller answers for.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};
use wire::{Hello, Opening, Refusal, Reply, Text, Welcome, limits::MAX_STREAMS};

use crate::{
    Error, Policy, Result, Target,
    handshake::{self, Agreed},
};

/// Where a volume lies.
#[derive(Debug, Clone)]
pub struct Located {
    /// Its path.
    pub path: PathBuf,
    /// The `(device, inode)` that it has to have, where that is known.
    pub identity: Option<(u64, u64)>,
    /// What its sender may do.
    pub policy: Policy,
}

impl From<PathBuf> for Located {
    fn from(path: PathBuf) -> Self {
        Self { path, identity: None, policy: Policy::UNRESTRICTED }
    }
}

/// Streams that may wait to be taken up by their session.
const JOINING: usize = MAX_STREAMS;

/// The sessions of one process.
pub struct Server<S> {
    sessions: Mutex<HashMap<[u8; 16], Running<S>>>,
    window: u64,
}

/// A session, for streams that join it.
struct Running<S> {
    volume: String,
    streams: mpsc::Sender<S>,
}

impl<S> Clone for Running<S> {
    fn clone(&self) -> Self {
        Self { volume: self.volume.clone(), streams: self.streams.clone() }
    }
}

/// A session that was agreed on and waits to be run by [`crate::receive`].
pub struct Incoming<S> {
    /// The first stream.
    pub stream: S,
    /// Further streams as they come.
    pub joining: mpsc::Receiver<S>,
    /// What was agreed on.
    pub agreed: Agreed,
    /// The volume, locked.
    pub target: Target,
    registered: Registered<S>,
}

impl<S> Incoming<S> {
    /// The name of the volume.
    #[must_use]
    pub fn volume(&self) -> &str {
        &self.agreed.hello.volume
    }

    /// Takes it apart; the session is known by its id as long as the last part lives.
    #[must_use]
    pub fn into_parts(self) -> (S, mpsc::Receiver<S>, Agreed, Target, impl Send)
    where
        S: Send,
    {
        (self.stream, self.joining, self.agreed, self.target, self.registered)
    }
}

/// Forgets the session when it is over.
struct Registered<S> {
    server: Arc<Server<S>>,
    id: [u8; 16],
}

impl<S> Drop for Registered<S> {
    fn drop(&mut self) {
        self.server.sessions.lock().remove(&self.id);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Server<S> {
    /// No sessions yet; each will let its sender send `window` bytes ahead.
    #[must_use]
    pub fn new(window: u64) -> Arc<Self> {
        Arc::new(Self { sessions: Mutex::default(), window })
    }

    /// Reads the first message of `stream` and answers it. `locate` says where the volume of a hello, or of the
    /// session to join, lies, or why this peer may not have it. `None` where the stream joined a session, or only
    /// asked whether one could be had.
    ///
    /// # Errors
    /// [`Error::Refused`] with what the peer was told; [`Error::Decode`], [`Error::Stream`] and
    /// [`Error::Eof`] where no opening came.
    pub async fn admit(
        self: &Arc<Self>,
        mut stream: S,
        locate: impl FnOnce(&str) -> Result<Located, (Refusal, String)> + Send,
    ) -> Result<Option<Incoming<S>>> {
        let opening = match handshake::read_opening(&mut stream).await {
            Err(Error::Decode(error)) => {
                let why = format!("expected the hello message of pvferry sync: {error}");
                return Err(refuse(stream, Refusal::Protocol, why).await);
            }
            opening => opening?,
        };
        let hello = match opening {
            Opening::Hello(hello) => hello,
            Opening::Join(join) => {
                let running = self.sessions.lock().get(&join.session).cloned();
                // The id alone gives access to no volume: it may have leaked.
                let running = running.filter(|running| locate(&running.volume).is_ok());
                let stream = match running {
                    Some(running) => match running.streams.try_send(stream) {
                        Ok(()) => return Ok(None),
                        Err(full) => full.into_inner(),
                    },
                    None => stream,
                };
                let why = "unknown session".to_owned();
                return Err(refuse(stream, Refusal::UnknownSession, why).await);
            }
        };
        let Some(version) = handshake::common_version(&hello) else {
            let why = format!("this server supports protocol version {} only", wire::VERSION);
            return Err(refuse(stream, Refusal::Version, why).await);
        };
        let permitted = locate(&hello.volume)
            .and_then(|located| located.policy.check(&hello).map(|()| located));
        let (policy, opened) = match permitted {
            Ok(located) => (located.policy, open(located, (*hello).clone()).await?),
            Err((refusal, why)) => return Err(refuse(stream, refusal, why).await),
        };
        let target = match opened {
            Ok(target) => target,
            Err((refusal, why)) => return Err(refuse(stream, refusal, why).await),
        };
        let id = handshake::random()?;
        let welcome = Welcome {
            version,
            nonce: handshake::random()?,
            session: id,
            fresh: target.is_fresh(),
            window: self.window,
            streams: hello.streams.clamp(1, MAX_STREAMS as u32),
            losses: target.losses().to_vec(),
        };
        if hello.probe {
            // Whoever only asks is answered, and holds no lock.
            drop(target);
            handshake::reply(&mut stream, &Reply::Welcome(Box::new(welcome))).await?;
            return Ok(None);
        }
        let (streams, joining) = mpsc::channel(JOINING);
        self.sessions.lock().insert(id, Running { volume: hello.volume.clone(), streams });
        let registered = Registered { server: Arc::clone(self), id };
        handshake::reply(&mut stream, &Reply::Welcome(Box::new(welcome.clone()))).await?;
        let agreed = Agreed::new(*hello, welcome).under(policy);
        Ok(Some(Incoming { stream, joining, agreed, target, registered }))
    }
}

/// Opening a volume may take as long as its disk does; that is no work for a task.
async fn open(located: Located, hello: Hello) -> Result<Result<Target, (Refusal, String)>> {
    let (done, opened) = oneshot::channel();
    std::thread::Builder::new()
        .name("open volume".into())
        .spawn(move || {
            let target =
                is_the_same(&located, &hello).and_then(|()| Target::open(&located.path, &hello));
            drop(done.send(target));
        })
        .map_err(Error::Thread)?;
    opened.await.map_err(|_| Error::Protocol("internal error while opening a volume"))
}

/// Whether the path still leads where it did when the server was started. A sandbox has let that in, and
/// nothing that took its place: to try again is of no use.
fn is_the_same(located: &Located, hello: &Hello) -> Result<(), (Refusal, String)> {
    let Some(identity) = located.identity else { return Ok(()) };
    match volume::device::identity(&located.path) {
        Ok(now) if now != identity => {
            let name = wire::name::escape(hello.volume.as_bytes());
            let why = format!("volume {name} was replaced since the start of serve: restart serve");
            Err((Refusal::Unfit, why))
        }
        // What else is wrong with it is found when it is opened.
        _ => Ok(()),
    }
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    refusal: Refusal,
    why: String,
) -> Error {
    let why = Text::from(why);
    handshake::part(stream, Reply::Refused(refusal, why.clone()).encode()).await;
    Error::Refused(refusal, why)
}
