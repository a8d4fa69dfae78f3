//! Our own identity: a certificate, its key, and the authorities that we trust.
//!
//! * [`Identity`]: one loaded set, checked as a peer would check it, with its TLS configuration ready.
//! * [`IdentitySource`]: where identities come from. A directory with `ca.crt`, `tls.crt` and `tls.key` (a mounted
//!   Kubernetes TLS Secret) is looked at before each handshake and read again when it changed; or a set held in memory.
//!
//! A Secret volume rotates by swapping the symlink `..data`, so the three files change at one moment, but three reads are
//! three moments. A set is therefore used only when the files' stamps before and after reading agree and the set fits
//! together. While it does not, the last good set stays in use, for as long as it is valid.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::error::{Error, IdentityError, IdentityFault, Whose};
use crate::policy;
use crate::spiffe::{Role, Spiffe};
use crate::verify::{self, Authority, PeerVerifier, Validity};

/// The file with the certificates of the authorities.
pub const CA_FILE: &str = "ca.crt";
/// The file with our certificate.
pub const CERTIFICATE_FILE: &str = "tls.crt";
/// The file with our key.
pub const KEY_FILE: &str = "tls.key";

/// No file of an identity comes near this many bytes.
const MAX_FILE: u64 = 1 << 20;

/// How often a set that changes is read again before that counts as a failure.
const READ_ATTEMPTS: usize = 3;

/// One usable set of authorities, certificate and key. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    name: Spiffe,
    validity: Validity,
    authorities: Vec<Authority>,
    side: Side,
}

#[derive(Clone)]
enum Side {
    Client(Arc<ClientConfig>),
    Server(Arc<ServerConfig>),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Identity {
    /// From the content of the three files, each in PEM form.
    ///
    /// # Errors
    /// [`IdentityError`], which names the file that a peer would refuse, or that cannot be used.
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let at = |file: &str| PathBuf::from(file);
        let ca_error = |fault| IdentityError { file: at(CA_FILE), fault };
        let certificate_error = |fault| IdentityError { file: at(CERTIFICATE_FILE), fault };
        let key_error = |fault| IdentityError { file: at(KEY_FILE), fault };

        let authorities = authorities(ca).map_err(ca_error)?;
        let (leaf, name) = leaf(certificate, &authorities).map_err(certificate_error)?;
        let validity = Validity::of(&leaf)
            .map_err(|error| certificate_error(IdentityFault::Certificate(error)))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| key_error(IdentityFault::NotPem("private key")))?;
        let certified = CertifiedKey::from_der(vec![leaf], key, policy::provider())
            .map_err(|_| key_error(IdentityFault::Key))?;

        let side = Side::new(&name, &authorities, certified).map_err(key_error)?;
        Ok(Self { name, validity, authorities, side })
    }

    /// Who we are.
    #[must_use]
    pub fn name(&self) -> &Spiffe {
        &self.name
    }

    pub(crate) fn client(&self) -> Result<&Arc<ClientConfig>, IdentityError> {
        match &self.side {
            Side::Client(config) => Ok(config),
            Side::Server(_) => Err(self.wrong_role(Role::Source)),
        }
    }

    pub(crate) fn server(&self) -> Result<&Arc<ServerConfig>, IdentityError> {
        match &self.side {
            Side::Server(config) => Ok(config),
            Side::Client(_) => Err(self.wrong_role(Role::Destination)),
        }
    }

    fn wrong_role(&self, need: Role) -> IdentityError {
        let fault = IdentityFault::Role { have: self.name.role(), need };
        IdentityError { file: CERTIFICATE_FILE.into(), fault }
    }

    /// A set that was good when it was loaded grows old while the process runs.
    fn check_in_force(&self, now: UnixTime) -> Result<(), IdentityError> {
        let expired =
            |file: &str| Err(IdentityError { file: file.into(), fault: IdentityFault::NotInForce });
        if !self.validity.holds(now) {
            return expired(CERTIFICATE_FILE);
        }
        if !self.authorities.iter().any(|ca| ca.validity().holds(now)) {
            return expired(CA_FILE);
        }
        Ok(())
    }
}

impl Side {
    fn new(
        name: &Spiffe,
        authorities: &[Authority],
        certified: CertifiedKey,
    ) -> Result<Self, IdentityFault> {
        let verifier = |peer| PeerVerifier::new(authorities.to_vec(), name.migration(), peer);
        let certified = Arc::new(SingleCertAndKey::from(certified));
        let side = match name.role() {
            Role::Source => policy::client(verifier(Role::Destination), certified)
                .map(|config| Self::Client(Arc::new(config))),
            Role::Destination => policy::server(verifier(Role::Source), certified)
                .map(|config| Self::Server(Arc::new(config))),
        };
        side.map_err(|_| IdentityFault::Key)
    }
}

fn authorities(pem: &[u8]) -> Result<Vec<Authority>, IdentityFault> {
    let not_pem = IdentityFault::NotPem("certificate");
    let mut found = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem) {
        let Ok(der) = der else { return Err(not_pem) };
        let authority = Authority::new(&der).map_err(IdentityFault::Certificate)?;
        found.push(authority.ok_or(IdentityFault::NotAuthority)?);
    }
    let now = UnixTime::now();
    if found.is_empty() {
        return Err(not_pem);
    }
    if !found.iter().any(|ca| ca.validity().holds(now)) {
        return Err(IdentityFault::NotInForce);
    }
    Ok(found)
}

/// Our certificate and the name in it, checked as the peer will check it: a fault is better found here than by an alert.
fn leaf(
    pem: &[u8],
    authorities: &[Authority],
) -> Result<(CertificateDer<'static>, Spiffe), IdentityFault> {
    let der =
        CertificateDer::from_pem_slice(pem).map_err(|_| IdentityFault::NotPem("certificate"))?;
    let name = verify::name(&der).map_err(IdentityFault::Certificate)?;
    verify::certificate(&der, authorities, name.role(), UnixTime::now())
        .map_err(IdentityFault::Certificate)?;
    Ok((der, name))
}

/// Where identities come from. Cheap to clone; clones share what is loaded.
#[derive(Clone, Debug)]
pub struct IdentitySource(Arc<Origin>);

#[derive(Debug)]
enum Origin {
    Memory(Identity),
    Directory(Box<Directory>),
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// The only volume that an identity of this directory may be for.
    only: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    good: Identity,
    /// The stamp of the files that were last tried, good or bad, so that each set is read and complained of once; `None`
    /// where they were missing.
    tried: Option<Stamp>,
}

impl IdentitySource {
    /// Reads the identity in `directory`, and again whenever its files have changed.
    ///
    /// # Errors
    /// [`Error::Identity`] where there is no usable set to begin with.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::directory(directory.into(), None)
    }

    /// The same for identities that are confined to `volume`. Another one is not used, even if the files change to it.
    ///
    /// # Errors
    /// [`Error::Identity`], also where the identity is for another volume or for every volume.
    pub fn of_volume(directory: impl Into<PathBuf>, volume: &str) -> Result<Self, Error> {
        Self::directory(directory.into(), Some(volume.to_owned()))
    }

    fn directory(path: PathBuf, only: Option<String>) -> Result<Self, Error> {
        let (stamp, loaded) = load(&path, only.as_deref());
        let state = Mutex::new(State { good: loaded?, tried: stamp });
        Ok(Self(Arc::new(Origin::Directory(Box::new(Directory { path, only, state })))))
    }

    /// An identity that was made in memory and lives no longer than the process.
    #[must_use]
    pub fn fixed(identity: Identity) -> Self {
        Self(Arc::new(Origin::Memory(identity)))
    }

    /// Checks that the identity is for `role`, expired or not.
    ///
    /// # Errors
    /// [`Error::Identity`] where it is for the other one.
    pub fn require(&self, role: Role) -> Result<(), Error> {
        self.check(|identity| {
            let have = identity.name.role();
            if have == role { Ok(()) } else { Err(IdentityFault::Role { have, need: role }) }
        })
    }

    /// Checks that the identity may be used for `volume`.
    ///
    /// # Errors
    /// [`Error::Identity`] where it is confined to another volume.
    pub fn require_volume(&self, volume: &str) -> Result<(), Error> {
        self.check(|identity| match identity.name.volume() {
            Some(have) if have != volume => {
                Err(IdentityFault::Volume { have: have.to_owned(), need: volume.to_owned() })
            }
            _ => Ok(()),
        })
    }

    fn check(&self, fits: impl Fn(&Identity) -> Result<(), IdentityFault>) -> Result<(), Error> {
        let (file, fit) = match &*self.0 {
            Origin::Memory(identity) => (CERTIFICATE_FILE.into(), fits(identity)),
            Origin::Directory(directory) => {
                let good = &directory.state.lock().good;
                (directory.path.join(CERTIFICATE_FILE), fits(good))
            }
        };
        fit.map_err(|fault| IdentityError { file, fault }.into())
    }

    /// `peer`, as somebody whose certificate is checked against the authorities of this identity.
    pub(crate) fn whose(&self, peer: impl Into<String>) -> Whose {
        let authorities = match &*self.0 {
            Origin::Memory(_) => CA_FILE.into(),
            Origin::Directory(directory) => directory.path.join(CA_FILE),
        };
        Whose { peer: peer.into(), authorities }
    }

    /// The identity to use for a handshake now.
    ///
    /// # Errors
    /// [`Error::Identity`] where the newest good set has expired.
    pub fn current(&self) -> Result<Identity, Error> {
        let identity = match &*self.0 {
            Origin::Memory(identity) => identity.clone(),
            Origin::Directory(directory) => directory.refresh(),
        };
        identity.check_in_force(UnixTime::now()).map_err(|mut error| {
            if let Origin::Directory(directory) = &*self.0 {
                error.file = directory.path.join(error.file);
            }
            error
        })?;
        Ok(identity)
    }
}

impl Directory {
    /// Loads a changed set; keeps the good one where the new one cannot be used.
    fn refresh(&self) -> Identity {
        let mut state = self.state.lock();
        let unchanged = Stamp::of(&self.path).is_ok_and(|stamp| Some(stamp) == state.tried);
        if !unchanged {
            let (stamp, loaded) = load(&self.path, self.only.as_deref());
            match loaded {
                Ok(identity) => {
                    tracing::info!(name = %identity.name, "identity reloaded");
                    state.good = identity;
                }
                Err(error) if stamp != state.tried => {
                    tracing::warn!(%error, "cannot reload the identity: the previous one stays in use");
                }
                Err(_) => {}
            }
            state.tried = stamp;
        }
        state.good.clone()
    }
}

/// Reads and checks a set, and says which state of the files that was; `None` where they could not be held still.
fn load(path: &Path, only: Option<&str>) -> (Option<Stamp>, Result<Identity, IdentityError>) {
    let mut before = match Stamp::of(path) {
        Ok(stamp) => stamp,
        Err(error) => return (None, Err(error)),
    };
    for _ in 0..READ_ATTEMPTS {
        let loaded = read_set(path, only);
        match Stamp::of(path) {
            Ok(after) if after == before => return (Some(after), loaded),
            Ok(after) => before = after,
            Err(error) => return (None, Err(error)),
        }
    }
    let busy = io::Error::new(io::ErrorKind::ResourceBusy, "changed while it was read");
    (None, Err(IdentityError { file: path.to_owned(), fault: IdentityFault::Read(busy) }))
}

fn read_set(path: &Path, only: Option<&str>) -> Result<Identity, IdentityError> {
    let ca = read(&path.join(CA_FILE))?;
    let certificate = read(&path.join(CERTIFICATE_FILE))?;
    let key = read(&path.join(KEY_FILE))?;
    let identity = Identity::from_pem(&ca, &certificate, &key).map_err(|mut error| {
        error.file = path.join(error.file);
        error
    })?;
    let fault = match (only, identity.name.volume()) {
        (None, _) => return Ok(identity),
        (Some(need), Some(have)) if have == need => return Ok(identity),
        (Some(need), Some(have)) => IdentityFault::Volume { have: have.into(), need: need.into() },
        (Some(need), None) => IdentityFault::EveryVolume { need: need.into() },
    };
    Err(IdentityError { file: path.join(CERTIFICATE_FILE), fault })
}

fn read(file: &Path) -> Result<Vec<u8>, IdentityError> {
    let fail = |fault| IdentityError { file: file.to_owned(), fault };
    let mut content = Vec::new();
    open(file)
        .and_then(|open| open.take(MAX_FILE + 1).read_to_end(&mut content))
        .map_err(|error| fail(IdentityFault::Read(error)))?;
    if content.len() as u64 > MAX_FILE {
        return Err(fail(IdentityFault::TooLarge));
    }
    Ok(content)
}

/// Opens a regular file. Never waits, as a FIFO would for a writer.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
}

/// What tells one state of the three files from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp([FileStamp; 3]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Follows symlinks: the swap of `..data` leads to other inodes.
    fn of(path: &Path) -> Result<Self, IdentityError> {
        let stamp = |name: &str| {
            let file = path.join(name);
            match fs::metadata(&file) {
                Ok(m) => Ok(FileStamp {
                    device: m.dev(),
                    inode: m.ino(),
                    size: m.size(),
                    modified: (m.mtime(), m.mtime_nsec()),
                    changed: (m.ctime(), m.ctime_nsec()),
                }),
                Err(error) => Err(IdentityError { file, fault: IdentityFault::Read(error) }),
            }
        };
        Ok(Self([stamp(CA_FILE)?, stamp(CERTIFICATE_FILE)?, stamp(KEY_FILE)?]))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pki;

    #[test]
    fn a_set_that_grew_old_in_use_is_named() {
        let identity = pki::ephemeral("m").unwrap().source;
        let after = |lifetime: Duration| {
            let now = UnixTime::now().as_secs() + lifetime.as_secs();
            identity.check_in_force(UnixTime::since_unix_epoch(Duration::from_secs(now)))
        };
        after(Duration::ZERO).unwrap();
        let error = after(pki::DEFAULT_LIFETIME + Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.to_string(), "tls.crt: is expired or not yet valid: compare the clocks");
    }
}
