//! Identities by an authority that lives as long as it takes to sign two certificates.

use std::time::Duration;

use controller::identity::{self, Identities, Issuer};
use tunnel::{Role, pki};

/// How long identities are valid: a transfer of more than a day is tried again, and then gets new ones.
const LIFETIME: Duration = Duration::from_secs(26 * 3600);

/// Makes an authority for each transfer, and forgets its key.
pub(crate) struct ThrowAway;

impl Issuer for ThrowAway {
    fn issue(&self, migration_uid: &str) -> Result<Identities, String> {
        let issue = || -> Result<Identities, pki::PkiError> {
            let authority = pki::Authority::new(migration_uid, LIFETIME)?;
            let of = |role| {
                authority.issue(&pki::LeafRequest::new(role).lifetime(LIFETIME)).map(|made| {
                    identity::Credentials {
                        authority: made.ca_pem().to_owned(),
                        certificate: made.certificate_pem().to_owned(),
                        key: made.key_pem().to_owned(),
                    }
                })
            };
            Ok(Identities { source: of(Role::Source)?, destination: of(Role::Destination)? })
        };
        issue().map_err(|error| error.to_string())
    }
}
