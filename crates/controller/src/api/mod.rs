//! The custom resources, group `pvferry.io`, version `v1alpha1`.

mod bounds;
// The derived schema wraps the types in a module of its own, where `pub` reaches nobody.
#[allow(unreachable_pub, clippy::duplicated_attributes, reason = "by the derive")]
pub mod migration;
pub mod pods;
mod privileged;
#[allow(clippy::duplicated_attributes, reason = "columns have types in common")]
pub mod progress;
mod run_spec;
mod schema;
mod status;

pub use bounds::violation;
pub use migration::*;
pub use pods::*;
pub use privileged::{ENDPOINT_FIELDS, EndpointField, POD_FIELDS, PodField, privileged_table};
pub use progress::*;
pub use run_spec::RunSpec;
pub use schema::{definitions, unknown_fields};
pub use status::*;
