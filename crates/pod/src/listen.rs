//! Where a container of a pod listens: a cluster has IPv4, IPv6 or both, and who builds the pod does not know which.

use std::{fmt, io, str::FromStr};

use tokio::net::TcpListener;

/// Connections that the kernel keeps until they are accepted. One that finds no room is repeated by its sender after a
/// second, which is all that a kubelet waits for a probe; one behind a long queue waits as well.
const BACKLOG: i32 = 1024;

/// `ADDR:PORT`, or `:PORT` for every address there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// This address, or this name's.
    At(String),
    /// This port of every address, of IPv6 as well as of IPv4.
    Everywhere(u16),
}

impl Listen {
    /// The port; 0 for any.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::At(address) => port(address).map_or(0, |(_, port)| port),
            Self::Everywhere(port) => *port,
        }
    }

    /// Whether it has to be looked up.
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(self, Self::At(address) if address.parse::<std::net::SocketAddr>().is_err())
    }

    /// Listens there.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn bind(&self) -> io::Result<TcpListener> {
        let listener = self.bind_any().await?;
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(listener)
    }

    async fn bind_any(&self) -> io::Result<TcpListener> {
        let port = match self {
            Self::At(address) => return TcpListener::bind(address).await,
            Self::Everywhere(port) => *port,
        };
        // On Linux a socket of `::` takes both families, unless the machine has been told otherwise.
        match TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).await {
            // Of a kernel without IPv6, or a pod that may not have it.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await
            }
            other => other,
        }
    }

    /// Listens there, before there is a runtime. The listener does not block.
    ///
    /// # Errors
    /// Those of the system.
    pub fn bind_blocking(&self) -> io::Result<std::net::TcpListener> {
        use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
        let listener = match self {
            Self::At(address) => TcpListener::bind(address),
            Self::Everywhere(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)) {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port))
                }
                other => other,
            },
        }?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bracketed = |host: &str| host.starts_with('[') && host.ends_with(']');
        match port(text) {
            Some(("", port)) => Ok(Self::Everywhere(port)),
            Some((host, _)) if bracketed(host) || !host.contains(':') => Ok(Self::At(text.into())),
            _ => Err("expected ADDR:PORT, [ADDR]:PORT or :PORT, such as :9090".into()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => write!(f, "{address}"),
            Self::Everywhere(port) => write!(f, ":{port}"),
        }
    }
}

/// The host and the port.
fn port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[test]
    fn is_read_and_printed_alike() {
        for text in ["127.0.0.1:80", "[::1]:0", "localhost:8443", ":8443", ":0"] {
            let listen = text.parse::<Listen>().unwrap();
            assert_eq!(listen.to_string(), text);
            assert!(text.ends_with(&format!(":{}", listen.port())));
            assert_eq!(listen.is_name(), text.starts_with("localhost"));
        }
        for text in ["", ":", ":x", ":65536", "8443", "localhost", "::1", "a:b"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn every_address_is_one_of_either_family() {
        let listener = Listen::Everywhere(0).bind().await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        if TcpListener::bind("[::1]:0").await.is_ok() {
            TcpStream::connect(("::1", port)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_listener_from_before_the_runtime_serves_in_it() {
        for listen in [Listen::At("localhost:0".into()), Listen::Everywhere(0)] {
            let listener = TcpListener::from_std(listen.bind_blocking().unwrap()).unwrap();
            let port = listener.local_addr().unwrap().port();
            let _stream = TcpStream::connect(("localhost", port)).await.unwrap();
            listener.accept().await.unwrap();
        }
    }
}
