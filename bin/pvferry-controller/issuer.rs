//! Identities by an authority that lives as long as it takes to sign the certificates of a transfer.

use std::time::Duration;

use controller::identity::{self, Identities, Issuer};
use tunnel::{Role, pki};

/// How long identities are valid: a transfer of more than a day is tried again, and then gets new ones.
const LIFETIME: Duration = Duration::from_secs(26 * 3600);

/// Makes an authority for each transfer, and forgets its key.
pub(crate) struct ThrowAway;

impl Issuer for ThrowAway {
    fn issue(&self, migration_uid: &str, volumes: &[&str]) -> Result<Identities, String> {
        let issue = || -> Result<Identities, pki::PkiError> {
            let authority = pki::Authority::new(migration_uid, LIFETIME)?;
            let of = |request: pki::LeafRequest| {
                authority.issue(&request.lifetime(LIFETIME)).map(|made| identity::Credentials {
                    certificate: made.certificate_pem().to_owned(),
                    key: made.key_pem().to_owned(),
                })
            };
            let of_volume = |volume: &&str| {
                let request = pki::LeafRequest::new(Role::Source).volume(volume);
                of(request).map(|credentials| ((*volume).to_owned(), credentials))
            };
            Ok(Identities {
                authority: authority.certificate_pem().to_owned(),
                volumes: volumes.iter().map(of_volume).collect::<Result<_, _>>()?,
                destination: of(pki::LeafRequest::new(Role::Destination))?,
            })
        };
        issue().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use tunnel::Identity;

    use super::*;

    #[test]
    fn each_volume_gets_a_certificate_for_itself_alone() {
        let made = ThrowAway.issue("uid-1", &["data-0", "media-1"]).unwrap();
        let identity = |credentials: &identity::Credentials| {
            let identity::Credentials { certificate, key } = credentials;
            Identity::from_pem(made.authority.as_bytes(), certificate.as_bytes(), key.as_bytes())
        };
        assert_eq!(made.volumes.len(), 2);
        for (volume, credentials) in &made.volumes {
            let name = identity(credentials).unwrap().name().to_string();
            assert_eq!(name, format!("spiffe://pvferry/migration/uid-1/source/{volume}"));
        }
        let name = identity(&made.destination).unwrap().name().to_string();
        assert_eq!(name, "spiffe://pvferry/migration/uid-1/destination");
    }
}
