//! The contract with Kubernetes: what a transfer container promises to the pod around it.
//!
//! * [`ExitCode`], [`Report`]: how a container ended, as a number and as JSON.
//! * [`termination`]: the report where the kubelet looks for it.
//! * [`marker`]: the report where the tunnel of the same pod looks for it.
//! * [`status`]: what the tunnel tells the sync containers of its pod while it runs.
//! * [`gate`], [`backoff`]: waiting for the other end, with a reason when it does not come.
//! * [`signals`]: a request to stop, as a token that every task can hold.
//! * [`listen`]: an address, or every address of whatever family the cluster has.
//! * [`idle`]: when a tunnel that nobody uses any more gives up.
//!
//! The crate knows no volume, no TLS and no Kubernetes API. It reads no environment: the names in
//! [`mod@env`] are for the binaries and for whoever builds the pods.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod exit;
pub mod gate;
pub mod idle;
pub mod listen;
pub mod marker;
pub mod report;
pub mod signals;
pub mod status;
pub mod termination;

mod error;
mod file;

pub use error::Error;
pub use exit::ExitCode;
pub use gate::{GaveUp, NotReady, Reason};
pub use listen::Listen;
pub use marker::VolumeName;
pub use report::{EntryError, Outcome, Report, VolumeReport};
pub use signals::Shutdown;
pub use text::Text;

/// The socket of a tunnel for one volume, in the directory that the tunnel shares with the sync container of that volume.
pub const TUNNEL_SOCKET: &str = "tunnel.sock";

/// Environment variables of the containers, each named once.
pub mod env {
    /// Filter of the log, in the syntax of `tracing`'s `EnvFilter`.
    pub const LOG: &str = "RUST_LOG";
    /// How many containers the pod has, init containers included; see
    /// [`termination::message_limit`](crate::termination::message_limit).
    pub const CONTAINERS: &str = "PVFERRY_CONTAINERS";
    /// Kubernetes sets it in every container: the address of the API server.
    pub const KUBERNETES: &str = "KUBERNETES_SERVICE_HOST";
}
