//! Identities of a transfer, from whoever can make them.

use std::collections::BTreeMap;

/// The identities of both ends, by one authority that nobody keeps.
#[derive(Clone)]
pub struct Identities {
    /// `ca.crt` of all of them.
    pub authority: String,
    /// Of the source pod: one for each volume, which permits access to that volume only.
    pub volumes: BTreeMap<String, Credentials>,
    /// Of the destination pod.
    pub destination: Credentials,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Credentials {
    /// `tls.crt`
    pub certificate: String,
    /// `tls.key`
    pub key: String,
}

/// Makes identities.
pub trait Issuer: Send + Sync {
    /// Both ends of a transfer of `volumes` by the migration with this uid.
    ///
    /// # Errors
    /// A sentence.
    fn issue(&self, migration_uid: &str, volumes: &[&str]) -> Result<Identities, String>;
}
