//! Throw-away certificates.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use tempfile::TempDir;
use tunnel::pki::{self, Authority, DEFAULT_LIFETIME, LeafRequest};

/// The files of an identity.
const FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

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

/// An identity as a Kubernetes Secret that is mounted: all its files change in one moment.
#[derive(Debug)]
pub struct Secret {
    dir: TempDir,
    generation: AtomicU32,
}

impl Secret {
    /// With the files of the directory `identity`.
    #[must_use]
    pub fn new(identity: &Path) -> Self {
        let secret = Self { dir: tempfile::tempdir().unwrap(), generation: AtomicU32::new(0) };
        secret.rotate(identity);
        for file in FILES {
            symlink(Path::new("..data").join(file), secret.path().join(file)).unwrap();
        }
        secret
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Puts the files of `identity` in the place of those that are there.
    pub fn rotate(&self, identity: &Path) {
        let generation = format!("..{}", self.generation.fetch_add(1, Relaxed));
        let data = self.path().join(&generation);
        fs::create_dir(&data).unwrap();
        for file in FILES {
            fs::copy(identity.join(file), data.join(file)).unwrap();
        }
        symlink(generation, self.path().join("..data_tmp")).unwrap();
        fs::rename(self.path().join("..data_tmp"), self.path().join("..data")).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel::{Identity, Role};

    #[test]
    fn secrets_rotate() {
        let pki = Pki::new("uid-1");
        let read = |path: &Path| fs::read(path.join("tls.crt")).unwrap();
        let secret = Secret::new(&pki.source());
        assert_eq!(read(secret.path()), read(&pki.source()));
        secret.rotate(&pki.destination());
        assert_eq!(read(secret.path()), read(&pki.destination()));
    }

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
