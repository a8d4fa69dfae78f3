//! Lock files of restic: who uses a repository, and whether alone.

use aes256ctr_poly1305aes::{
    Aes256CtrPoly1305Aes, Key,
    aead::{Aead as _, AeadInPlace as _, Nonce},
};
use rustic_core::{jiff, repofile::MasterKey};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Bytes of the nonce before what is encrypted, and of the authentication code behind it.
const NONCE: usize = 16;
/// A lock file is a few hundred bytes.
pub(crate) const MAX_LOCK: u64 = 64 << 10;
/// The first byte of a compressed file.
const COMPRESSED: u8 = 2;

/// What a lock file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockFile {
    /// Seconds since 1970 when it was written.
    pub(crate) time: i64,
    /// Nobody else may use the repository.
    pub(crate) exclusive: bool,
    pub(crate) host: String,
    pub(crate) pid: i32,
}

/// Encrypts lock files of one repository.
#[derive(Clone)]
pub(crate) struct LockCipher(Key);

impl LockCipher {
    /// `None` for a key that is not of the right length.
    pub(super) fn new(key: &MasterKey) -> Option<Self> {
        let bytes = [&key.encrypt[..], &key.mac.k, &key.mac.r].concat();
        (bytes.len() == Key::default().len()).then(|| Self(*Key::from_slice(&bytes)))
    }

    /// The name and content of the file for `lock`.
    pub(crate) fn seal(&self, lock: &LockFile) -> Option<(String, Vec<u8>)> {
        let time = jiff::Timestamp::new(lock.time, 0).ok()?.to_string();
        let LockFile { exclusive, host, pid, .. } = lock;
        let text = json!({
            "time": time, "exclusive": exclusive, "hostname": host, "username": "pvferry", "pid": pid, "uid": 0, "gid": 0,
        })
        .to_string();
        let mut sealed = vec![0; NONCE];
        getrandom(&mut sealed[..], GetRandomFlags::empty()).ok().filter(|len| *len == NONCE)?;
        let nonce = *Nonce::<Aes256CtrPoly1305Aes>::from_slice(&sealed);
        sealed.extend_from_slice(text.as_bytes());
        let cipher = Aes256CtrPoly1305Aes::new(&self.0);
        let tag = cipher.encrypt_in_place_detached(&nonce, &[], &mut sealed[NONCE..]).ok()?;
        sealed.extend_from_slice(&tag);
        let name = Sha256::digest(&sealed).iter().map(|byte| format!("{byte:02x}")).collect();
        Some((name, sealed))
    }

    /// What the file `sealed` says; `None` where it is not a lock of this repository.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<LockFile> {
        let (nonce, encrypted) = sealed.split_at_checked(NONCE)?;
        let nonce = *Nonce::<Aes256CtrPoly1305Aes>::from_slice(nonce);
        let text = Aes256CtrPoly1305Aes::new(&self.0).decrypt(&nonce, encrypted).ok()?;
        let text = match text.split_first() {
            Some((&COMPRESSED, rest)) => {
                zstd::bulk::decompress(rest, usize::try_from(MAX_LOCK).ok()?).ok()?
            }
            _ => text,
        };
        let value: Value = serde_json::from_slice(&text).ok()?;
        Some(LockFile {
            time: value["time"].as_str()?.parse::<jiff::Timestamp>().ok()?.as_second(),
            exclusive: value["exclusive"].as_bool()?,
            host: value["hostname"].as_str().unwrap_or_default().to_owned(),
            pid: i32::try_from(value["pid"].as_i64()?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_file_opens_with_its_key_and_with_no_other() {
        let lock = LockFile { time: 1_800_000_000, exclusive: true, host: "h".into(), pid: 7 };
        let cipher = LockCipher::new(&MasterKey::new()).unwrap();
        let (name, mut sealed) = cipher.seal(&lock).unwrap();
        assert_eq!(name.len(), 64);
        assert_eq!(cipher.open(&sealed), Some(lock));
        assert_eq!(LockCipher::new(&MasterKey::new()).unwrap().open(&sealed), None);
        sealed[20] ^= 1;
        assert_eq!(cipher.open(&sealed), None);
        assert_eq!(cipher.open(&sealed[..5]), None);
    }
}
