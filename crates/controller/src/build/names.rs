//! Names and labels. They follow from the migration alone, so that a controller that begins anew finds what it made.

use std::collections::BTreeMap;

use crate::api::DirectVolumeMigration;

/// The names of one transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    base: String,
    uid: String,
    migration: String,
    transfer: String,
    token: String,
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
            migration: name,
            transfer,
            token: token.to_owned(),
        }
    }

    /// The source pod.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{}-source", self.base)
    }

    /// The destination pod, its Service, and what is in front of that.
    #[must_use]
    pub fn destination(&self) -> String {
        format!("{}-destination", self.base)
    }

    /// Labels of everything that this transfer has at one end.
    #[must_use]
    pub fn labels(&self, role: &str) -> BTreeMap<String, String> {
        let mut labels = labels(&self.uid);
        labels.insert("pvferry.io/transfer".into(), self.transfer.clone());
        labels.insert("pvferry.io/role".into(), role.into());
        if !self.token.is_empty() {
            labels.insert("pvferry.io/token".into(), self.token.clone());
        }
        labels
    }

    /// The migration by name, for people.
    #[must_use]
    pub fn annotations(&self, namespace: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(
            "pvferry.io/migration".to_owned(),
            format!("{namespace}/{}", self.migration),
        )])
    }

    /// Selects everything of this transfer.
    #[must_use]
    pub fn selector(&self) -> String {
        format!("{},pvferry.io/transfer={}", selector(&self.uid), self.transfer)
    }
}

/// Labels of everything of a migration.
#[must_use]
pub fn labels(uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "pvferry".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), super::MANAGER.to_owned()),
        ("pvferry.io/migration-uid".to_owned(), uid.to_owned()),
    ])
}

/// Selects everything of a migration.
#[must_use]
pub fn selector(uid: &str) -> String {
    format!("pvferry.io/migration-uid={uid}")
}
