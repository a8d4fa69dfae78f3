//! Identities of a transfer, from whoever can make them.

/// The identities of both ends, by one authority that nobody keeps.
#[derive(Clone)]
pub struct Identities {
    /// Of the source pod.
    pub source: Credentials,
    /// Of the destination pod.
    pub destination: Credentials,
}

/// The content of the three files of an identity.
#[derive(Clone)]
pub struct Credentials {
    /// `ca.crt`
    pub authority: String,
    /// `tls.crt`
    pub certificate: String,
    /// `tls.key`
    pub key: String,
}

/// Makes identities.
pub trait Issuer: Send + Sync {
    /// Both ends of a transfer of the migration with this uid.
    ///
    /// # Errors
    /// A sentence.
    fn issue(&self, migration_uid: &str) -> Result<Identities, String>;
}
