//! The certificates of one migration: an authority that signs for nothing else, and one leaf for each end.
//!
//! * [`Authority`]: ECDSA P-256, path length 0, may only sign certificates. It lives as long as its migration is meant to.
//! * [`LeafRequest`]: what a leaf shall say. By default exactly what `verify` demands: one URI, one extended key usage.
//! * [`Credentials`]: the three files of an identity, in PEM form; keys are PKCS#8.
//!
//! Layout of a directory made by [`init`]; keys are readable by their owner only:
//!
//! ```text
//! DIR/ca.crt  DIR/ca.key
//! DIR/source/{ca.crt,tls.crt,tls.key}
//! DIR/destination/{ca.crt,tls.crt,tls.key}
//! ```

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::error::{IdentityError, PeerError};
use crate::identity::{CA_FILE, CERTIFICATE_FILE, Identity, KEY_FILE};
use crate::spiffe::{Role, Spiffe, SpiffeError, is_part};
use crate::verify::Validity;

/// The file with the authority's key.
pub const CA_KEY_FILE: &str = "ca.key";

/// How long certificates are valid where nobody says otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The longest validity that is granted. Transfers take hours; a year is for who runs a lab.
pub const MAX_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3600);

/// Validity begins this much before the present, for machines whose clocks are behind.
const BACKDATING: Duration = Duration::from_secs(300);

/// What the authority's own URI begins with; the migration's uid follows, so that the certificate alone tells it.
const AUTHORITY_PREFIX: &str = "spiffe://pvferry/migration/";

/// A certificate could not be made or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// There is an authority already; a second one would leave the first one's certificates without a use.
    #[error("{} already exists: to issue another identity use `pvferry pki issue`; for a new CA use an empty directory", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The files are not those of an authority made here.
    #[error("{}: not a CA created by `pvferry pki init`", .0.display())]
    NotAuthority(PathBuf),
    /// The uid or the volume name cannot stand in a certificate.
    #[error("invalid name for a certificate: {0}")]
    Name(#[from] SpiffeError),
    /// Nothing, or more than [`MAX_LIFETIME`].
    #[error("the validity must be between 1 s and {} days", MAX_LIFETIME.as_secs() / 86_400)]
    Lifetime,
    /// The certificate could not be made.
    #[error("cannot create a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// What was made would not be accepted.
    #[error("cannot create a usable certificate: {0}")]
    Unusable(#[from] IdentityError),
    /// A certificate cannot be read back.
    #[error(transparent)]
    Certificate(#[from] PeerError),
}

/// Makes a new authority for `migration` in `directory`, and an identity for each end in `source` and `destination` below it.
///
/// # Errors
/// [`PkiError::Exists`] where there is an authority, and whatever else keeps the files from being made.
pub fn init(directory: &Path, migration: &str, lifetime: Duration) -> Result<(), PkiError> {
    for file in [CA_FILE, CA_KEY_FILE] {
        let path = directory.join(file);
        if path.symlink_metadata().is_ok() {
            return Err(PkiError::Exists(path));
        }
    }
    let authority = Authority::new(migration, lifetime)?;
    authority.save(directory)?;
    for role in [Role::Source, Role::Destination] {
        let leaf = authority.issue(&LeafRequest::new(role).lifetime(lifetime))?;
        leaf.write(&directory.join(role.as_str()))?;
    }
    Ok(())
}

/// Issues an identity by the authority in `directory` and writes it to `out`, also over an older one.
///
/// # Errors
/// Where there is no authority, where the name is not allowed, or where a file cannot be written.
pub fn issue(
    directory: &Path,
    role: Role,
    volume: Option<&str>,
    out: &Path,
    lifetime: Duration,
) -> Result<(), PkiError> {
    let authority = Authority::open(directory)?;
    let request = LeafRequest { volume: volume.map(str::to_owned), ..LeafRequest::new(role) };
    authority.issue(&request.lifetime(lifetime))?.write(out)
}

/// Both ends' identities for one run within one process. Nothing is written: the keys end with the process.
///
/// # Errors
/// Where `migration` is not allowed in a certificate.
pub fn ephemeral(migration: &str) -> Result<Pair, PkiError> {
    let authority = Authority::new(migration, DEFAULT_LIFETIME)?;
    let identity = |role| -> Result<Identity, PkiError> {
        Ok(authority.issue(&LeafRequest::new(role))?.identity()?)
    };
    Ok(Pair { source: identity(Role::Source)?, destination: identity(Role::Destination)? })
}

/// The two identities of a migration.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The end that sends: the TLS client.
    pub source: Identity,
    /// The end that receives: the TLS server.
    pub destination: Identity,
}

/// The authority of one migration, with its key.
pub struct Authority {
    migration: String,
    certificate: String,
    key: KeyPair,
    validity: Validity,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("migration", &self.migration).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes an authority in memory.
    ///
    /// # Errors
    /// Where `migration` or `lifetime` is out of bounds.
    pub fn new(migration: &str, lifetime: Duration) -> Result<Self, PkiError> {
        if !is_part(migration) {
            return Err(SpiffeError.into());
        }
        let validity = from_now(lifetime)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = authority_params(migration, validity)?.self_signed(&key)?.pem();
        Ok(Self { migration: migration.to_owned(), certificate, key, validity })
    }

    /// Reads `ca.crt` and `ca.key` from `directory`.
    ///
    /// # Errors
    /// [`PkiError::Io`], or [`PkiError::NotAuthority`] where they are not what [`Authority::save`] wrote.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        let read = |file: &str| {
            let path = directory.join(file);
            fs::read_to_string(&path).map_err(|source| PkiError::Io { path, source })
        };
        let (certificate, key) = (read(CA_FILE)?, read(CA_KEY_FILE)?);
        let wrong = |file: &str| PkiError::NotAuthority(directory.join(file));

        let der =
            CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| wrong(CA_FILE))?;
        let migration = authority_migration(&der).ok_or_else(|| wrong(CA_FILE))?;
        let key = KeyPair::from_pem(&key).map_err(|_| wrong(CA_KEY_FILE))?;
        let validity = Validity::of(&der)?;
        Ok(Self { migration, certificate, key, validity })
    }

    /// Writes `ca.crt` and `ca.key` (mode 0600) to `directory`, which is made where it is missing.
    ///
    /// # Errors
    /// [`PkiError::Exists`] where one of them is there, [`PkiError::Io`].
    pub fn save(&self, directory: &Path) -> Result<(), PkiError> {
        make_directory(directory)?;
        create(&directory.join(CA_KEY_FILE), 0o600, &self.key.serialize_pem())?;
        create(&directory.join(CA_FILE), 0o644, &self.certificate)
    }

    /// The uid of the migration that it signs for.
    #[must_use]
    pub fn migration(&self) -> &str {
        &self.migration
    }

    /// The authority's certificate in PEM form.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// Makes a key and signs a certificate for it. The certificate does not outlive the authority.
    ///
    /// # Errors
    /// Where the names or times asked for are not allowed.
    pub fn issue(&self, request: &LeafRequest) -> Result<Credentials, PkiError> {
        let params = request.params(&self.migration, self.validity)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let own_params = authority_params(&self.migration, self.validity)?;
        let issuer = Issuer::from_params(&own_params, &self.key);
        Ok(Credentials {
            ca: self.certificate.clone(),
            certificate: params.signed_by(&key, &issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// What a leaf certificate shall say.
///
/// [`LeafRequest::new`] asks for one that is accepted. The methods marked *for tests of refusal* ask for one that must not be.
#[derive(Clone, Debug)]
pub struct LeafRequest {
    role: Role,
    volume: Option<String>,
    lifetime: Duration,
    uris: Option<Vec<String>>,
    usages: Option<Vec<Role>>,
    window: Option<(SystemTime, SystemTime)>,
}

impl LeafRequest {
    /// A leaf for `role`, valid for [`DEFAULT_LIFETIME`].
    #[must_use]
    pub fn new(role: Role) -> Self {
        let lifetime = DEFAULT_LIFETIME;
        Self { role, volume: None, lifetime, uris: None, usages: None, window: None }
    }

    /// Confines a source to one volume.
    #[must_use]
    pub fn volume(mut self, volume: &str) -> Self {
        self.volume = Some(volume.to_owned());
        self
    }

    /// Ends the validity this long from now.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// *For tests of refusal.* These URIs, be they none, several or of another form, in place of the one that is due.
    #[must_use]
    pub fn uris(mut self, uris: &[&str]) -> Self {
        self.uris = Some(uris.iter().map(|uri| (*uri).to_owned()).collect());
        self
    }

    /// *For tests of refusal.* The extended key usages of these roles in place of the one that is due.
    #[must_use]
    pub fn usages(mut self, roles: &[Role]) -> Self {
        self.usages = Some(roles.to_vec());
        self
    }

    /// *For tests of refusal.* Valid from `not_before` to `not_after`, be that past or future or beyond the authority.
    #[must_use]
    pub fn window(mut self, not_before: SystemTime, not_after: SystemTime) -> Self {
        self.window = Some((not_before, not_after));
        self
    }

    fn params(&self, migration: &str, authority: Validity) -> Result<CertificateParams, PkiError> {
        let name = Spiffe::new(migration, self.role, self.volume.as_deref())?;
        let uris = self.uris.clone().unwrap_or_else(|| vec![name.to_string()]);
        let usages = self.usages.clone().unwrap_or_else(|| vec![self.role]);
        let validity = match self.window {
            Some((from, to)) => Validity { not_before: seconds(from), not_after: seconds(to) },
            None => {
                let own = from_now(self.lifetime)?;
                Validity { not_after: own.not_after.min(authority.not_after), ..own }
            }
        };

        let mut params = params(&format!("pvferry {}", self.role), &uris, validity)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.into_iter().map(usage).collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// The content of the three files of an identity.
#[derive(Clone)]
pub struct Credentials {
    ca: String,
    certificate: String,
    key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// The authority's certificate in PEM form: `ca.crt`.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// The certificate in PEM form: `tls.crt`.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The key in PEM form: `tls.key`. Keep it out of logs and of files that others can read.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// The identity, ready for use in this process.
    ///
    /// # Errors
    /// Where the certificate is one that must be refused.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        Identity::from_pem(self.ca.as_bytes(), self.certificate.as_bytes(), self.key.as_bytes())
    }

    /// Writes the three files to `directory`, each by rename, so that a reader sees the old file or the new one.
    ///
    /// # Errors
    /// [`PkiError::Io`].
    pub fn write(&self, directory: &Path) -> Result<(), PkiError> {
        make_directory(directory)?;
        let files = [
            (KEY_FILE, 0o600, &self.key),
            (CERTIFICATE_FILE, 0o644, &self.certificate),
            (CA_FILE, 0o644, &self.ca),
        ];
        for (file, mode, content) in files {
            let path = directory.join(file);
            let new = directory.join(format!(".{file}.new"));
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(&new, error));
                }
                _ => {}
            }
            create(&new, mode, content)?;
            fs::rename(&new, &path).map_err(|error| io_error(&path, error))?;
        }
        Ok(())
    }
}

fn authority_params(migration: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let uri = format!("{AUTHORITY_PREFIX}{migration}");
    let mut params = params("pvferry migration authority", &[uri], validity)?;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    Ok(params)
}

fn authority_migration(der: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(der).ok()?;
    let mut uris = certificate.valid_uri_names();
    let migration = uris.next()?.strip_prefix(AUTHORITY_PREFIX)?;
    (is_part(migration) && uris.next().is_none()).then(|| migration.to_owned())
}

/// What authorities and leaves have in common. The common name is for the human reader; nothing looks at it.
fn params(
    common_name: &str,
    uris: &[String],
    validity: Validity,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(validity.not_before);
    params.not_after = epoch + Duration::from_secs(validity.not_after);
    Ok(params)
}

fn usage(role: Role) -> ExtendedKeyUsagePurpose {
    match role {
        Role::Source => ExtendedKeyUsagePurpose::ClientAuth,
        Role::Destination => ExtendedKeyUsagePurpose::ServerAuth,
    }
}

fn from_now(lifetime: Duration) -> Result<Validity, PkiError> {
    if lifetime.as_secs() == 0 || lifetime > MAX_LIFETIME {
        return Err(PkiError::Lifetime);
    }
    let now = seconds(SystemTime::now());
    Ok(Validity {
        not_before: now.saturating_sub(BACKDATING.as_secs()),
        not_after: now + lifetime.as_secs(),
    })
}

/// Seconds since 1970, held within what a certificate can say.
fn seconds(time: SystemTime) -> u64 {
    const YEAR_9999: u64 = 253_370_764_800;
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs().min(YEAR_9999))
}

fn make_directory(path: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_error(path, error))
}

fn create(path: &Path, mode: u32, content: &str) -> Result<(), PkiError> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    match file.and_then(|mut file| file.write_all(content.as_bytes())) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(PkiError::Exists(path.to_owned()))
        }
        Err(error) => Err(io_error(path, error)),
        Ok(()) => Ok(()),
    }
}

fn io_error(path: &Path, source: io::Error) -> PkiError {
    PkiError::Io { path: path.to_owned(), source }
}
