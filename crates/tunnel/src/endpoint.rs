//! The plaintext side of a tunnel: a TCP address or a Unix socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::str::FromStr;

/// Where plaintext is taken or delivered: `ADDRESS:PORT`, `localhost:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

/// The text is not an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is neither `ADDRESS:PORT` nor `unix:PATH`.
    #[error("expected ADDRESS:PORT or unix:PATH")]
    Form,
    /// No Unix socket can have a path as long as that.
    #[error("path too long: a Unix socket path has at most {MAX_PATH} bytes")]
    LongPath,
}

/// The longest path of a Unix socket, in bytes: `sun_path` without the NUL at its end; see `unix(7)`.
const MAX_PATH: usize = 107;

impl Endpoint {
    /// The Unix socket at `path`.
    ///
    /// # Errors
    /// [`EndpointError`] where no socket can have that path.
    pub fn unix(path: impl Into<PathBuf>) -> Result<Self, EndpointError> {
        let path = path.into();
        match path.as_os_str().as_bytes() {
            [] => Err(EndpointError::Form),
            bytes if bytes.contains(&0) => Err(EndpointError::Form),
            bytes if bytes.len() > MAX_PATH => Err(EndpointError::LongPath),
            _ => Ok(Self::Unix(path)),
        }
    }

    /// Whether plaintext sent there stays on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(path);
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = port.parse().map_err(|_| EndpointError::Form)?;
            return Ok(Self::Tcp((IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| EndpointError::Form)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["127.0.0.1:2222", "[::1]:0", "0.0.0.0:1", "unix:/run/pvferry.sock", "unix:a"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("localhost:7".parse::<Endpoint>().unwrap().to_string(), "127.0.0.1:7");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "unix:", "unix:a\0b", "2222", ":2222", "localhost:", "host:1", "::1:1"] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Form), "{text}");
        }
        let path = |len| format!("unix:{}", "p".repeat(len));
        assert_eq!(path(MAX_PATH + 1).parse::<Endpoint>(), Err(EndpointError::LongPath));
        path(MAX_PATH).parse::<Endpoint>().unwrap();
    }

    #[test]
    fn plaintext_stays_on_the_machine() {
        let is_local = |text: &str| text.parse::<Endpoint>().unwrap().is_local();
        for text in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:a"] {
            assert!(is_local(text), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[fe80::1]:1"] {
            assert!(!is_local(text), "{text}");
        }
    }
}
