//! Files that the containers of a transfer pod are given: identities, and the directories of sockets and markers.
//!
//! The tunnel has an identity and a directory for each volume. A sync container has the directory of its own volume and no
//! identity.

use k8s_openapi::{
    api::core::v1::{EmptyDirVolumeSource, KeyToPath, SecretVolumeSource, Volume},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{Names, Role};
use crate::plan::Planned;

/// The directory that a sync container shares with the tunnel alone.
pub(super) fn run_volume(volume: &Planned) -> Volume {
    Volume {
        name: run_name(volume),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".into()),
            size_limit: Some(Quantity("16Mi".into())),
        }),
        ..Volume::default()
    }
}

pub(super) fn run_name(volume: &Planned) -> String {
    format!("run-{}", volume.name)
}

/// Where the files of a volume in [`source_secret`](super::source_secret) belong: the directory of an identity for each volume.
pub(super) fn identity_files(volume: &str) -> [KeyToPath; 3] {
    let file = |key: String, name: &str| KeyToPath {
        key,
        path: format!("{volume}/{name}"),
        ..KeyToPath::default()
    };
    [
        file("ca.crt".into(), "ca.crt"),
        file(format!("{volume}.crt"), "tls.crt"),
        file(format!("{volume}.key"), "tls.key"),
    ]
}

/// All files of the Secret, or those of `files`.
pub(super) fn identity_volume(names: &Names, role: Role, files: Vec<KeyToPath>) -> Volume {
    Volume {
        name: "identity".into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(names.of(role)),
            // The files belong to root. A source pod has no group of the file system by which another user could read them;
            // nobody but the containers of the pod reaches them.
            items: (!files.is_empty()).then_some(files),
            default_mode: Some(if role == Role::Source { 0o444 } else { 0o440 }),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}
