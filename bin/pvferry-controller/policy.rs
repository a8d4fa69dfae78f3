//! What the controller keeps, by [`Sandbox`]: an API server or a kubeconfig that found a hole in this program would have that.
//!
//! * **Files.** The token and the authority of its service account, or the files that its kubeconfig names; name resolution;
//!   the certificate authorities of the system, for a kubeconfig that has none. Nothing is written.
//! * **Network.** No new port to listen on: the one for metrics is open by then. Connections go to any port, because the API
//!   server of a kubeconfig in a Secret, which is read later, may be on any.
//! * **Capabilities.** None.

use std::{env, path::PathBuf};

use controller::Home;
use sandbox::{Access, CapabilitySet, Sandbox};

/// Where systems keep certificate authorities. Links lead from the first ones to the last two.
const AUTHORITIES: [&str; 7] = [
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];
/// Variables that name other places.
const AUTHORITIES_BY: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// What `run` works with.
pub(crate) fn run(home: &Home) -> Sandbox {
    let mut sandbox = Sandbox::keeping(CapabilitySet::empty());
    for path in home.rotating() {
        // As a volume has it: the file is a link by way of another one, which is replaced beside it.
        sandbox.allow_beside(path, Access::READ_FILES);
        sandbox.allow(path, Access::READ_FILES);
    }
    for path in home.read_once() {
        sandbox.allow(path, Access::READ_FILES);
    }
    let named = AUTHORITIES_BY.iter().filter_map(env::var_os).map(PathBuf::from);
    for path in AUTHORITIES.iter().map(PathBuf::from).chain(named) {
        sandbox.allow(path, Access::READ_VOLUME);
    }
    sandbox.allow_resolver();
    sandbox.limit_listening();
    if home.runs_program() {
        sandbox.without_landlock("the kubeconfig names a program that issues credentials");
    }
    sandbox
}
