//! The controller: what a [`DirectVolumeMigration`](api::DirectVolumeMigration) asks for, as pods.
//!
//! * [`api`]: the two custom resources.
//! * [`plan`]: from a specification to volumes with every default filled in, and which of them share a pod.
//! * [`topology`]: which nodes can reach a volume.
//! * [`build`]: the objects of a transfer. [`render`] prints them without a cluster.
//! * [`observe`]: what the state of a pod says about a volume. A success has one form only.
//! * `reconcile`: one step from what is there to what should be there, repeated until nothing is left to do; [`Reconciler`] runs it.
//! * [`run()`]: the process around it: watches, leader election, metrics.
//!
//! The crate does not know how identities are made: whoever runs it brings an [`Issuer`](identity::Issuer).
#![forbid(unsafe_code)]

pub mod api;
pub mod build;
pub mod cluster;
pub mod identity;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod render;
pub mod storage;
pub mod topology;

mod error;
mod events;
mod guard;
mod home;
mod informers;
mod leader;
mod reconcile;
mod reconciler;
mod removal;
mod run;

pub use error::Error;
pub use home::Home;
pub use reconciler::{Clock, Parts, Reconciler};
pub use run::{Settings, run, serve, work};
