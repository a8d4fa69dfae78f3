//! The server that a client is to reach: a host name or an address, and a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// `HOST:PORT`; an IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host: String,
    port: u16,
}

/// The name that a server is asked for in a handshake: a host name or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerName(String);

/// The text is neither a host name nor an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a host name or an address")]
pub struct ServerNameError;

impl ServerName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<ServerName> for String {
    fn from(name: ServerName) -> Self {
        name.0
    }
}

impl FromStr for ServerName {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, ServerNameError> {
        match rustls_pki_types::ServerName::try_from(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(ServerNameError),
        }
    }
}

/// The text is not `HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST:PORT")]
pub struct TargetError;

impl Target {
    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<std::net::SocketAddr> for Target {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = text.rsplit_once(':').ok_or(TargetError)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(TargetError)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(TargetError),
            None => host,
        };
        // It is also the name to ask the server for.
        let ServerName(host) = host.parse().map_err(|_| TargetError)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["host:1", "a.b-c.svc:65535", "127.0.0.1:80", "[::1]:443"] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        assert_eq!("[::1]:443".parse::<Target>().unwrap().host(), "::1");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "a b:1",
            "[x]:1",
            "a:b:1",
            "u@h:1",
            "a..b:1",
            "a!:1",
        ] {
            assert_eq!(text.parse::<Target>(), Err(TargetError), "{text}");
        }
    }

    #[test]
    fn a_server_name_is_a_host_name_or_an_address() {
        for text in ["a", "a.b-c.svc", "a_b.c", "127.0.0.1", "::1", "xn--bcher-kva.example"] {
            assert_eq!(text.parse::<ServerName>().unwrap().as_str(), text);
        }
        for text in ["", "foo bar", "a..b", ".a", "-a", "a/b", "a:1", "bücher.example"] {
            assert_eq!(text.parse::<ServerName>(), Err(ServerNameError), "{text}");
        }
    }
}
