//! A byte stream of whatever kind.

use tokio::io::{AsyncRead, AsyncWrite};

/// What sessions run over: TLS, a socket of this pod, or anything else.
pub(crate) trait Link: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Link for T {}

/// A link that does not say which.
pub(crate) type BoxedLink = Box<dyn Link>;
