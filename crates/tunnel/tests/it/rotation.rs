//! Identities on disk: as `init` lays them out, broken in every way, and rotating while they are in use.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use tunnel::pki::{self, Authority, LeafRequest, PkiError};
use tunnel::{Connector, Error, IdentitySource, Role, Target};

use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn init_lays_out_both_ends_and_protects_the_keys() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("pki");
    pki::init(&dir, MIGRATION, HOUR).unwrap();
    for key in ["ca.key", "source/tls.key", "destination/tls.key"] {
        let mode = fs::metadata(dir.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
        assert!(fs::read_to_string(dir.join(key)).unwrap().starts_with("-----BEGIN PRIVATE KEY"));
    }
    for role in [Role::Source, Role::Destination] {
        let source = IdentitySource::new(dir.join(role.as_str())).unwrap();
        assert_eq!(source.current().unwrap().name().role(), role);
        let mut files: Vec<_> = fs::read_dir(dir.join(role.as_str()))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["ca.crt", "tls.crt", "tls.key"]);
    }
}

#[test]
fn an_authority_is_never_overwritten() {
    let temp = tempfile::tempdir().unwrap();
    pki::init(temp.path(), MIGRATION, HOUR).unwrap();
    let before = fs::read(temp.path().join("ca.crt")).unwrap();
    assert!(matches!(pki::init(temp.path(), MIGRATION, HOUR), Err(PkiError::Exists(_))));
    fs::remove_file(temp.path().join("ca.key")).unwrap();
    assert!(matches!(pki::init(temp.path(), MIGRATION, HOUR), Err(PkiError::Exists(_))));
    assert_eq!(fs::read(temp.path().join("ca.crt")).unwrap(), before);
}

#[tokio::test]
async fn a_leaf_issued_later_is_accepted() {
    let temp = tempfile::tempdir().unwrap();
    pki::init(temp.path(), MIGRATION, HOUR).unwrap();
    let out = temp.path().join("late");
    pki::issue(temp.path(), Role::Source, Some("data"), &out, HOUR).unwrap();

    let server = IdentitySource::new(temp.path().join("destination")).unwrap();
    let (address, accepted) = accept_one(tunnel::Acceptor::new(server)).await;
    let client = Connector::new(IdentitySource::new(&out).unwrap());
    client.connect(&Target::from(address), None).await.unwrap();
    assert_eq!(accepted.await.unwrap().unwrap().1.volume(), Some("data"));
}

#[test]
fn names_and_lifetimes_out_of_bounds_are_refused() {
    assert!(matches!(Authority::new("a/b", HOUR), Err(PkiError::Name(_))));
    assert!(matches!(Authority::new("", HOUR), Err(PkiError::Name(_))));
    assert!(matches!(Authority::new("m", Duration::ZERO), Err(PkiError::Lifetime)));
    assert!(matches!(Authority::new("m", Duration::MAX), Err(PkiError::Lifetime)));
    let authority = authority();
    for request in [
        LeafRequest::new(Role::Source).volume("a/b"),
        LeafRequest::new(Role::Destination).volume("data"),
    ] {
        assert!(matches!(authority.issue(&request), Err(PkiError::Name(_))));
    }
}

#[test]
fn a_broken_file_is_named() {
    let authority = authority();
    let leaf = |request| issue(&authority, request);
    let good = leaf(LeafRequest::new(Role::Source));
    let other = issue(&crate::support::authority(), LeafRequest::new(Role::Source));
    let old = leaf(LeafRequest::new(Role::Source).window(hours_ago(3), hours_ago(2)));
    let nameless = leaf(LeafRequest::new(Role::Source).uris(&[]));
    let cases: [(&str, Option<&str>, &str); 9] = [
        ("ca.crt", None, "cannot be read"),
        ("tls.crt", None, "cannot be read"),
        ("tls.key", None, "cannot be read"),
        ("ca.crt", Some("nonsense"), "contains no certificate"),
        ("ca.crt", Some(good.certificate_pem()), "not a CA certificate"),
        ("tls.crt", Some(other.certificate_pem()), "not signed by a CA in ca.crt"),
        ("tls.crt", Some(old.certificate_pem()), "expired"),
        ("tls.crt", Some(nameless.certificate_pem()), "exactly one URI with migration"),
        ("tls.key", Some(other.key_pem()), "does not match"),
    ];
    for (file, content, words) in cases {
        let temp = tempfile::tempdir().unwrap();
        good.write(temp.path()).unwrap();
        match content {
            Some(content) => fs::write(temp.path().join(file), content).unwrap(),
            None => fs::remove_file(temp.path().join(file)).unwrap(),
        }
        let error = IdentitySource::new(temp.path()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Identity(_)));
        assert!(text.starts_with(&*temp.path().join(file).to_string_lossy()), "{text}");
        assert!(text.contains(words), "{text}");
    }
}

/// Puts `credentials` into a directory laid out like a mounted Secret, by the swap of `..data`.
fn swap(mount: &Path, generation: &str, write: impl FnOnce(&Path)) {
    let data = mount.join(generation);
    fs::create_dir(&data).unwrap();
    write(&data);
    symlink(generation, mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        let _ = symlink(Path::new("..data").join(file), mount.join(file));
    }
}

#[tokio::test]
async fn a_swapped_secret_is_used_from_the_next_handshake_on() {
    let (first, second) = (authority(), authority());
    let mount = tempfile::tempdir().unwrap();
    swap(mount.path(), "..1", |data| {
        issue(&first, LeafRequest::new(Role::Source)).write(data).unwrap();
    });
    let client = Connector::new(IdentitySource::new(mount.path()).unwrap());
    for (generation, authority) in [("..2", &second), ("..3", &first)] {
        swap(mount.path(), generation, |data| {
            issue(authority, LeafRequest::new(Role::Source)).write(data).unwrap();
        });
        let (address, accepted) = accept_one(acceptor(authority)).await;
        client.connect(&Target::from(address), None).await.unwrap();
        accepted.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_last_good_set_stays_while_the_new_one_is_broken() {
    let (first, second) = (authority(), authority());
    let mount = tempfile::tempdir().unwrap();
    let next = issue(&second, LeafRequest::new(Role::Source));
    swap(mount.path(), "..1", |data| {
        issue(&first, LeafRequest::new(Role::Source)).write(data).unwrap();
    });
    let client = Connector::new(IdentitySource::new(mount.path()).unwrap());
    let meets = async |authority: &Authority| {
        let (address, accepted) = accept_one(acceptor(authority)).await;
        let connected = client.connect(&Target::from(address), None).await;
        connected.is_ok() && accepted.await.unwrap().is_ok()
    };

    swap(mount.path(), "..2", |data| {
        next.write(data).unwrap();
        fs::write(data.join("tls.key"), "").unwrap();
    });
    assert!(meets(&first).await, "half a set took the place of a good one");
    fs::remove_file(mount.path().join("..data")).unwrap();
    assert!(meets(&first).await, "a missing set took the place of a good one");
    swap(mount.path(), "..3", |data| next.write(data).unwrap());
    assert!(meets(&second).await, "the new set was not taken up");
}

#[test]
fn an_identity_of_one_volume_is_not_replaced_by_one_for_more_or_for_another() {
    let temp = tempfile::tempdir().unwrap();
    let (pki, own) = (temp.path().join("pki"), temp.path().join("own"));
    pki::init(&pki, MIGRATION, HOUR).unwrap();
    let issue = |volume| pki::issue(&pki, Role::Source, volume, &own, HOUR).unwrap();
    issue(Some("data"));
    let source = IdentitySource::of_volume(&own, "data").unwrap();
    for other in [None, Some("logs"), Some("data2")] {
        issue(other);
        assert_eq!(source.current().unwrap().name().volume(), Some("data"), "{other:?}");
        let refused = IdentitySource::of_volume(&own, "data").unwrap_err().to_string();
        assert!(refused.contains("volume"), "{refused}");
    }
    issue(Some("data"));
    IdentitySource::of_volume(&own, "data").unwrap();
}
