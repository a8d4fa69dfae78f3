//! What people and machines see of a run: progress, logs and metrics.
//!
//! * [`Console`]: the two standard streams, with at most one progress bar on them. Everything that
//!   is printed goes through it, so that nothing tears the bar.
//! * [`progress`]: a bar on a terminal, or one JSON object a second.
//! * [`logging`]: `tracing` to the console.
//! * [`metrics`]: Prometheus text and health over HTTP.
//! * [`connections`]: a table of connections that sheds the oldest, for ports that anybody can reach.
//! * [`log_limit`]: a limit on log lines that anybody can cause.
//! * [`human`]: bytes, rates, counts and durations for people.
//!
//! The crate watches sessions through [`session::monitor`] and never takes part in one. It reads
//! no environment and decides no exit code. Names that it is told are escaped already.
#![forbid(unsafe_code)]

pub mod connections;
pub mod console;
pub mod human;
pub mod log_limit;
pub mod logging;
pub mod metrics;
pub mod progress;

mod error;
mod fanout;

pub use console::{Console, Format};
pub use error::Error;
pub use fanout::Fanout;
pub use progress::{Changes, Mode, Reporter};
