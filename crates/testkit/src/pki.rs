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

/// The forms in which a program could show the private key in `pem`, a part of each: base64 as in PEM, that of the PEM
/// text, as in a Secret, and the bytes as hexadecimal digits and as a list of numbers.
#[must_use]
pub fn forms_of_key(pem: &str) -> Vec<String> {
    let body: String = pem.lines().filter(|line| !line.contains("PRIVATE KEY")).collect();
    let der = from_base64(&body);
    // What tells keys of one kind apart lies in the middle.
    let middle = &der[der.len() / 2 - 6..der.len() / 2 + 6];
    let list = |form: fn(&u8) -> String, between: &str| {
        middle.iter().map(form).collect::<Vec<_>>().join(between)
    };
    let secret = to_base64(pem.as_bytes());
    let cut = |text: &str| text[text.len() / 8 * 4..][..20].to_owned();
    vec![
        cut(&body),
        cut(&secret),
        list(|byte| format!("{byte:02x}"), ""),
        list(|byte| format!("{byte:02X}"), ""),
        list(u8::to_string, ", "),
        list(u8::to_string, ","),
    ]
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().enumerate().fold(0, |bits, (i, b)| bits | u32::from(*b) << (16 - 8 * i));
        let digits =
            (0..=group.len()).map(|i| BASE64[(bits >> (18 - 6 * i)) as usize & 63] as char);
        text.extend(digits);
        text.extend(std::iter::repeat_n('=', 3 - group.len()));
    }
    text
}

fn from_base64(text: &str) -> Vec<u8> {
    let digits = text.bytes().filter_map(|c| BASE64.iter().position(|digit| *digit == c));
    let digits: Vec<_> = digits.map(|digit| digit as u32).collect();
    let bytes = |group: &[u32]| {
        let bits = group.iter().enumerate().fold(0, |bits, (i, d)| bits | d << (18 - 6 * i));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    digits.chunks(4).flat_map(bytes).collect()
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

    #[test]
    fn a_key_is_found_in_each_form() {
        for text in ["", "f", "fo", "foo", "foob", "fooba", "foobar"] {
            assert_eq!(from_base64(&to_base64(text.as_bytes())), text.as_bytes());
        }
        assert_eq!(to_base64(b"fooba"), "Zm9vYmE=");
        let pki = Pki::new("forms");
        let pem = fs::read_to_string(pki.source().join("tls.key")).unwrap();
        let body: String = pem.lines().filter(|line| !line.contains("PRIVATE KEY")).collect();
        let der = from_base64(&body);
        let shown = [
            body,
            to_base64(pem.as_bytes()),
            der.iter().map(|byte| format!("{byte:02x}")).collect(),
            der.iter().map(|byte| format!("{byte:02X}")).collect(),
            format!("{der:?}"),
            format!("{der:?}").replace(' ', ""),
        ];
        for (form, shown) in forms_of_key(&pem).iter().zip(&shown) {
            assert!(shown.contains(form), "{form} in {shown}");
        }
    }
}
