//! Names and labels. They follow from the migration alone, so that a controller that begins anew finds what it made.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::api::{DirectVolumeMigration, IdentityUids};

/// An end of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends.
    Source,
    /// Receives.
    Destination,
}

impl Role {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// The names of one transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    base: String,
    uid: String,
    home: String,
    migration: String,
    transfer: String,
    token: String,
    owners: Option<IdentityUids>,
}

impl Names {
    /// Of transfer `number` in run `run` of `migration`, whose pods bear `token`.
    #[must_use]
    pub fn new(migration: &DirectVolumeMigration, run: i64, number: i64, token: &str) -> Self {
        let name = migration.metadata.name.clone().unwrap_or_default();
        let uid = migration.metadata.uid.clone().unwrap_or_default();
        let short: String = uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        let head = name.replace('.', "-");
        // The name of a Service begins with a letter, and has 63 characters with whatever a run and its transfers count to.
        let head = head.get(..14).unwrap_or(&head).trim_end_matches('-');
        let transfer = format!("{run}-{number}");
        Self {
            base: format!("pv-{head}-{short}-{transfer}"),
            uid,
            home: migration.metadata.namespace.clone().unwrap_or_default(),
            migration: name,
            transfer,
            token: token.to_owned(),
            owners: None,
        }
    }

    /// The same, with these Secrets as the owners of everything else: it is removed with them, by the garbage collector of the cluster.
    #[must_use]
    pub fn owned_by(self, identities: Option<&IdentityUids>) -> Self {
        Self { owners: identities.cloned(), ..self }
    }

    /// The run and the number of the transfer of `migration` whose pod has this name.
    #[must_use]
    pub fn transfer_of(migration: &DirectVolumeMigration, pod: &str) -> Option<(i64, i64)> {
        let (base, role) = pod.rsplit_once('-')?;
        let mut numbers = base.rsplitn(3, '-');
        let (number, run) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let names = Self::new(migration, run, number, "");
        let is_of = |of: &Role| of.word() == role && names.of(*of) == pod;
        [Role::Source, Role::Destination].iter().any(is_of).then_some((run, number))
    }

    /// Of what the transfers of a run share.
    #[must_use]
    pub fn of_run(migration: &DirectVolumeMigration, run: i64) -> Self {
        let one = Self::new(migration, run, 0, "");
        let base = one.base.strip_suffix(&format!("-{}", one.transfer));
        let base = format!("{}-{run}", base.unwrap_or_default());
        Self { base, transfer: String::new(), ..one }
    }

    /// The name of everything that this transfer has at one end: pod, Secret, Service and what is in front of that.
    #[must_use]
    pub fn of(&self, role: Role) -> String {
        format!("{}-{}", self.base, role.word())
    }

    /// The metadata of everything that this transfer has at one end.
    #[must_use]
    pub fn metadata(&self, role: Role, namespace: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.of(role)),
            namespace: Some(namespace.to_owned()),
            labels: Some(self.labels(role)),
            // The migration by name, for people, and for who watches the pods.
            annotations: Some(BTreeMap::from([(
                MIGRATION.to_owned(),
                format!("{}/{}", self.home, self.migration),
            )])),
            owner_references: self.owners.as_ref().map(|owners| vec![self.owner(role, owners)]),
            ..ObjectMeta::default()
        }
    }

    /// Selects everything of this transfer, at both ends.
    #[must_use]
    pub fn selector(&self) -> String {
        format!("{},{TOKEN}={}", selector(&self.uid), self.token)
    }

    fn owner(&self, role: Role, owners: &IdentityUids) -> OwnerReference {
        let uid = match role {
            Role::Source => &owners.source,
            Role::Destination => &owners.destination,
        };
        OwnerReference {
            api_version: "v1".into(),
            kind: "Secret".into(),
            name: self.of(role),
            uid: uid.clone(),
            ..OwnerReference::default()
        }
    }

    /// Labels of everything that this transfer has at one end.
    #[must_use]
    pub fn labels(&self, role: Role) -> BTreeMap<String, String> {
        let mut labels = labels(&self.uid);
        if !self.transfer.is_empty() {
            labels.insert("pvferry.io/transfer".into(), self.transfer.clone());
        }
        labels.insert("pvferry.io/role".into(), role.word().into());
        if !self.token.is_empty() {
            labels.insert(TOKEN.into(), self.token.clone());
        }
        labels
    }
}

/// The domain of labels and annotations of this project.
pub(super) const DOMAIN: &str = "pvferry.io";
/// The annotation of a claim with the uid of the migration that created it.
pub const CREATED_BY: &str = "pvferry.io/created-by";
/// The annotation of a claim with the migration that writes to it, as [`reservation`] has it.
pub const RESERVED_BY: &str = "pvferry.io/reserved-by";
/// The annotation of a PersistentVolume with the provisioner that made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The annotation of a source pod with the claims that it fills.
pub const TARGETS: &str = "pvferry.io/targets";
/// The annotation that names the migration, `NAMESPACE/NAME`.
pub const MIGRATION: &str = "pvferry.io/migration";
/// The label that bears the token of a transfer.
const TOKEN: &str = "pvferry.io/token";
/// The label that bears the uid of the migration.
pub const MIGRATION_UID: &str = "pvferry.io/migration-uid";

/// A migration as `NAMESPACE/NAME/UID`.
#[must_use]
pub fn reservation(migration: &DirectVolumeMigration) -> String {
    let metadata = &migration.metadata;
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}/{}", part(&metadata.namespace), part(&metadata.name), part(&metadata.uid))
}

/// Labels of everything of a migration.
#[must_use]
pub fn labels(uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "pvferry".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), super::MANAGER.to_owned()),
        (MIGRATION_UID.to_owned(), uid.to_owned()),
    ])
}

/// Selects everything of a migration.
#[must_use]
pub fn selector(uid: &str) -> String {
    format!("{MIGRATION_UID}={uid}")
}

/// The token of the transfer that an object says it is of.
#[must_use]
pub fn token(object: &impl kube::ResourceExt) -> Option<&String> {
    object.labels().get(TOKEN)
}

/// Whether an object belongs to the migration.
#[must_use]
pub fn is_of(object: &impl kube::ResourceExt, uid: &str) -> bool {
    object.labels().get(MIGRATION_UID).is_some_and(|of| of == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_name_leads_to_the_run_and_transfer_that_it_was_made_of_and_no_other_name_does() {
        let mut migration: DirectVolumeMigration = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "my-shop.1", "uid": "0a1b2c3d-4e" },
            "spec": {
                "source": { "namespace": "a" }, "destination": { "namespace": "b" },
                "volumes": [{ "name": "data" }],
            },
        }))
        .unwrap();
        for role in [Role::Source, Role::Destination] {
            let name = Names::new(&migration, 3, 12, "t").of(role);
            assert_eq!(Names::transfer_of(&migration, &name), Some((3, 12)), "{name}");
        }
        let name = Names::new(&migration, 3, 12, "t").of(Role::Source);
        for wrong in [
            name.replace("-source", ""),
            name.replace("-source", "-tunnel"),
            name.replace("-12-", "-+12-"),
            name.replace("-12-", "-012-"),
            format!("x{name}"),
            format!("{name}-source"),
            "-".into(),
            String::new(),
        ] {
            assert_eq!(Names::transfer_of(&migration, &wrong), None, "{wrong}");
        }
        migration.metadata.uid = Some("9a1b2c3d-4e".into());
        assert_eq!(Names::transfer_of(&migration, &name), None);
    }
}
