//! The custom resources, group `pvferry.io`, version `v1alpha1`.

// The derived schema wraps the types in a module of its own, where `pub` reaches nobody.
#[allow(unreachable_pub, clippy::duplicated_attributes, reason = "by the derive")]
pub mod migration;
#[allow(clippy::duplicated_attributes, reason = "columns have types in common")]
pub mod progress;
mod status;

pub use migration::*;
pub use progress::*;
pub use status::*;

use kube::CustomResourceExt as _;

/// The definitions of both resources, for `kubectl apply`.
#[must_use]
pub fn definitions()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    vec![DirectVolumeMigration::crd(), DirectVolumeMigrationProgress::crd()]
}
