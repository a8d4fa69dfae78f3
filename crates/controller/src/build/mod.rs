//! The objects of a transfer, from nothing but the specification: the same input makes the same objects.

mod claims;
mod endpoint;
mod files;
mod names;
mod pods;
mod support;

pub use claims::{bytes, capacity, target_claim};
pub use endpoint::{
    Address, EndpointObjects, endpoint_objects, host_of, reached, route_resource, shares_host,
};
pub use names::{
    CREATED_BY, MIGRATION, MIGRATION_UID, Names, PROVISIONED_BY, RESERVED_BY, Role, TARGETS, is_of,
    labels, reservation, selector, token,
};
pub use pods::{
    Defaults, bind, destination_pod, keeps_extraneous, permits_deletion, source_pod, sync_container,
};
pub use support::{Peer, destination_secret, network_policy, source_secret};

/// What everything is applied by.
pub const MANAGER: &str = "pvferry-controller";
/// Where the server listens.
pub const PORT: i32 = 8443;
/// Where the server answers the kubelet.
pub const HEALTH_PORT: i32 = 9090;
/// The container that holds the TLS connection of a source pod.
pub const TUNNEL: &str = "tunnel";
/// The container of a destination pod.
pub const SERVE: &str = "serve";
/// What the names of the containers that send start with.
pub const SYNC_PREFIX: &str = "sync-";
