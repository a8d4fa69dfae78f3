//! What opens a repository: a password, and keys of the storage.
//!
//! Read from a directory with one file per value (a Secret mounted as a volume), or handed over by name. Values never appear
//! in messages, and `Debug` shows names only.

use std::{collections::BTreeMap, fmt, fs, io, path::Path};

use crate::{Error, Result, error::Kind};

/// Names that are read; the same as restic's environment variables.
const NAMES: [&str; 6] = [
    REPOSITORY,
    PASSWORD,
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
];
const REPOSITORY: &str = "RESTIC_REPOSITORY";
const PASSWORD: &str = "RESTIC_PASSWORD";

/// Values by name.
#[derive(Clone, Default)]
pub struct Credentials(BTreeMap<&'static str, String>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Credentials {
    /// Reads the files of `dir` that are called like restic's environment variables. One line end behind a value is not part of it.
    ///
    /// # Errors
    /// Where the directory or one of the files cannot be read, or is not text.
    pub fn read(dir: &Path) -> Result<Self> {
        let fail = |path: &Path, error: &dyn fmt::Display| {
            Error::new(Kind::Usage, format!("cannot read credentials {}: {error}", path.display()))
        };
        fs::read_dir(dir).map_err(|error| fail(dir, &error))?;
        let mut values = BTreeMap::new();
        for name in NAMES {
            let path = dir.join(name);
            match fs::read_to_string(&path) {
                Ok(value) => {
                    let value = value.strip_suffix('\n').unwrap_or(&value);
                    values.insert(name, value.strip_suffix('\r').unwrap_or(value).to_owned());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail(&path, &error)),
            }
        }
        Ok(Self(values))
    }

    /// Values that `get` has for the names of restic's environment variables.
    #[must_use]
    pub fn from_names(get: impl Fn(&str) -> Option<String>) -> Self {
        Self(NAMES.iter().filter_map(|&name| Some((name, get(name)?))).collect())
    }

    /// The URL of the repository, if given.
    #[must_use]
    pub fn repository(&self) -> Option<&str> {
        self.get(REPOSITORY)
    }

    /// The password of the repository.
    ///
    /// # Errors
    /// [`Kind::Usage`] where none is given, or an empty one.
    pub fn password(&self) -> Result<&str> {
        self.get(PASSWORD).ok_or_else(|| {
            Error::new(Kind::Usage, format!("no repository password: {PASSWORD} is not set"))
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_secret_are_read_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PASSWORD), "se cret\n").unwrap();
        fs::write(dir.path().join("other"), "x").unwrap();
        let credentials = Credentials::read(dir.path()).unwrap();
        assert_eq!(credentials.password().unwrap(), "se cret");
        assert!(!format!("{credentials:?}").contains("cret"));
    }

    #[test]
    fn missing_directory_and_empty_password_are_usage_errors() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Credentials::read(&dir.path().join("no")).unwrap_err().kind, Kind::Usage);
        fs::write(dir.path().join(PASSWORD), "\n").unwrap();
        let credentials = Credentials::read(dir.path()).unwrap();
        assert_eq!(credentials.password().unwrap_err().kind, Kind::Usage);
    }
}
