//! Who a certificate speaks for.
//!
//! The name is one URI in the subject alternative name, in the manner of SPIFFE:
//!
//! ```text
//! spiffe://pvferry/migration/<uid>/source            any volume of the migration
//! spiffe://pvferry/migration/<uid>/source/<volume>   that volume only
//! spiffe://pvferry/migration/<uid>/destination
//! ```
//!
//! The match is exact: no other scheme, no upper case, no empty part, no trailing slash, no escapes. `uid` and `volume`
//! are 1 to 253 characters out of `A-Z a-z 0-9 . _ -`, which holds every Kubernetes name and UID.
//! This module knows nothing of certificates: it turns a URI into a [`Spiffe`] and back.

use std::fmt;
use std::str::FromStr;

/// What stands before the migration's uid.
const PREFIX: &str = "spiffe://pvferry/migration/";

/// The longest uid or volume name: that of a Kubernetes object name.
const MAX_PART: usize = 253;

/// Which end of a migration an identity stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads a volume and sends it: the TLS client.
    Source,
    /// Receives volumes: the TLS server.
    Destination,
}

impl Role {
    /// The role as the URI spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name in a certificate: a migration, a role in it, and for a source perhaps the only volume that it may reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spiffe {
    migration: String,
    role: Role,
    volume: Option<String>,
}

/// The text is not a name of the form that this module describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not of the form spiffe://pvferry/migration/<uid>/<role>, with 1 to 253 characters of A-Z a-z 0-9 . _ - in each part"
)]
pub struct SpiffeError;

impl Spiffe {
    /// A name for `role` in `migration`; `volume` confines a source to that one volume.
    ///
    /// # Errors
    /// [`SpiffeError`] where a part has a character or a length that is not allowed, or where a destination is given a volume.
    pub fn new(migration: &str, role: Role, volume: Option<&str>) -> Result<Self, SpiffeError> {
        let confined_destination = role == Role::Destination && volume.is_some();
        if confined_destination || !is_part(migration) || !volume.is_none_or(is_part) {
            return Err(SpiffeError);
        }
        Ok(Self { migration: migration.to_owned(), role, volume: volume.map(str::to_owned) })
    }

    /// The migration's uid.
    #[must_use]
    pub fn migration(&self) -> &str {
        &self.migration
    }

    /// The end of the migration that this name stands for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The only volume that this source may reach, where it is confined to one.
    #[must_use]
    pub fn volume(&self) -> Option<&str> {
        self.volume.as_deref()
    }

    /// Whether this name may send into `volume`. A destination may reach none: it is never a client.
    #[must_use]
    pub fn may_access(&self, volume: &str) -> bool {
        self.role == Role::Source && self.volume.as_deref().is_none_or(|only| only == volume)
    }
}

impl fmt::Display for Spiffe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}", self.migration, self.role)?;
        self.volume.as_ref().map_or(Ok(()), |volume| write!(f, "/{volume}"))
    }
}

impl FromStr for Spiffe {
    type Err = SpiffeError;

    fn from_str(uri: &str) -> Result<Self, SpiffeError> {
        let mut parts = uri.strip_prefix(PREFIX).ok_or(SpiffeError)?.split('/');
        let migration = parts.next().ok_or(SpiffeError)?;
        let role = match parts.next() {
            Some("source") => Role::Source,
            Some("destination") => Role::Destination,
            _ => return Err(SpiffeError),
        };
        let volume = parts.next();
        if parts.next().is_some() {
            return Err(SpiffeError);
        }
        Self::new(migration, role, volume)
    }
}

/// Whether `text` may stand as one part of the URI.
pub(crate) fn is_part(text: &str) -> bool {
    (1..=MAX_PART).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            uid in "[A-Za-z0-9._-]{1,253}",
            volume in proptest::option::of("[A-Za-z0-9._-]{1,253}"),
        ) {
            let name = Spiffe::new(&uid, Role::Source, volume.as_deref()).unwrap();
            prop_assert_eq!(name.to_string().parse::<Spiffe>(), Ok(name));
        }

        #[test]
        fn only_one_spelling_is_accepted(uri in "(spiffe://pvferry/migration/)?[a-zA-Z0-9/._%:@ ?#-]{0,40}") {
            if let Ok(name) = uri.parse::<Spiffe>() {
                prop_assert_eq!(name.to_string(), uri);
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = "u".repeat(254);
        for uri in [
            "",
            "spiffe://pvferry/migration/u",
            "spiffe://pvferry/migration/u/",
            "spiffe://pvferry/migration//source",
            "spiffe://pvferry/migration/u/source/",
            "spiffe://pvferry/migration/u/source/v/",
            "spiffe://pvferry/migration/u/source/v/w",
            "spiffe://pvferry/migration/u/destination/v",
            "spiffe://pvferry/migration/u/Source",
            "spiffe://pvferry/migration/u/sourc",
            "SPIFFE://pvferry/migration/u/source",
            "spiffe://other/migration/u/source",
            "https://pvferry/migration/u/source",
            " spiffe://pvferry/migration/u/source",
            "spiffe://pvferry/migration/u/source\n",
            "spiffe://pvferry/migration/u/source\0",
            "spiffe://pvferry/migration/u%2f/source",
            "spiffe://pvferry/migration/ü/source",
            &format!("spiffe://pvferry/migration/{long}/source"),
            &format!("spiffe://pvferry/migration/u/source/{long}"),
        ] {
            assert_eq!(uri.parse::<Spiffe>(), Err(SpiffeError), "{uri}");
        }
    }

    #[test]
    fn a_confined_source_reaches_only_its_volume() {
        let any: Spiffe = "spiffe://pvferry/migration/u/source".parse().unwrap();
        let one: Spiffe = "spiffe://pvferry/migration/u/source/data".parse().unwrap();
        let server: Spiffe = "spiffe://pvferry/migration/u/destination".parse().unwrap();
        assert!(any.may_access("data") && any.may_access("logs"));
        assert!(one.may_access("data") && !one.may_access("logs") && !one.may_access("data2"));
        assert!(!server.may_access("data"));
    }
}
