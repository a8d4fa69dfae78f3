//! Throw-away certificates.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tunnel::pki::{self, Authority, DEFAULT_LIFETIME, LeafRequest};

/// The directory that `pvferry pki init` would make: an authority and an identity for each end.
#[derive(Debug)]
pub struct Pki {
    dir: TempDir,
}

impl Pki {
    /// Certificates of the migration `uid`.
    #[must_use]
    pub fn new(uid: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        pki::init(dir.path(), uid, DEFAULT_LIFETIME).unwrap();
        Self { dir }
    }

    /// The directory itself, with `ca.crt` and `ca.key`.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The identity of the end that sends.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// The identity of the end that receives.
    #[must_use]
    pub fn destination(&self) -> PathBuf {
        self.dir.path().join("destination")
    }

    /// A further identity of the same migration, be it one that must be refused.
    #[must_use]
    pub fn issue(&self, name: &str, request: &LeafRequest) -> PathBuf {
        let path = self.dir.path().join(name);
        Authority::open(self.path()).unwrap().issue(request).unwrap().write(&path).unwrap();
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel::{Identity, Role};

    #[test]
    fn identities_load() {
        let pki = Pki::new("uid-1");
        let extra = pki.issue("extra", &LeafRequest::new(Role::Source).volume("a"));
        for path in [pki.source(), pki.destination(), extra] {
            let read = |name: &str| std::fs::read(path.join(name)).unwrap();
            Identity::from_pem(&read("ca.crt"), &read("tls.crt"), &read("tls.key")).unwrap();
        }
    }
}
