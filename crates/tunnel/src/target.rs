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

/// The text is not `HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form HOST:PORT")]
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
        let printable = host.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'@');
        let is_v6 = host.parse::<Ipv6Addr>().is_ok();
        if host.is_empty() || !printable || (host.contains(':') && !is_v6) {
            return Err(TargetError);
        }
        Ok(Self { host: host.to_owned(), port })
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
        for text in
            ["", "host", ":1", "host:", "host:0", "host:65536", "a b:1", "[x]:1", "a:b:1", "u@h:1"]
        {
            assert_eq!(text.parse::<Target>(), Err(TargetError), "{text}");
        }
    }
}
