//! Migrations on a real cluster: real API server, real kubelet, real containers, real volumes.
//!
//! `tests/run --cluster` brings the cluster up and says by the environment where it is:
//!
//! * `PVFERRY_TEST_KUBECONFIG`: an administrator's credentials; without it nothing here runs.
//! * `PVFERRY_TEST_KUBECONFIG_OTHER`: those of a second cluster, whose node ports are reached from the first.
//! * `PVFERRY_TEST_CONTROLLER`: the controller's program; `PVFERRY_TEST_IMAGE`: the image of transfer pods.
//! * `PVFERRY_TEST_HOSTILE_IMAGE`: an image of `tests/cluster/hostile-source`, in place of a source pod's.
//!
//! Volumes are directories of this machine, which is the node. Each test has namespaces and a controller of its own, which acts with
//! the rights of the role in `deploy/` and no more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod alone;
mod changing;
mod cluster;
mod failures;
mod hostile;
mod many;
mod modes;
mod moves;
mod printed;
mod stubborn;
mod support;
