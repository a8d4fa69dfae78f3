//! The options of every TCP socket here: no delay for small writes, and a dead peer is noticed.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// Silence after which the system asks the peer whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Unanswered questions after which the connection counts as dead.
const KEEPALIVE_PROBES: u32 = 4;
/// How long data that was sent may stay unacknowledged, in milliseconds.
const USER_TIMEOUT_MS: u32 = 120_000;

/// Sets them. A network stack that does not know one of the keepalive options is no reason to fail.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES);
    let _ = sockopt::set_tcp_user_timeout(stream, USER_TIMEOUT_MS);
    Ok(())
}
