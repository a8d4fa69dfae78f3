//! A repository of one test, and the program on it.

#[allow(dead_code, reason = "not every test has devices")]
pub(crate) mod loop_device;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use testkit::{Finished, Process};

pub(crate) const PASSWORD: &str = "correct horse";

/// A repository and the credentials for it.
pub(crate) struct Repo {
    pub(crate) url: String,
    dir: tempfile::TempDir,
}

impl Repo {
    /// An empty repository in a directory.
    pub(crate) fn local() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("repository").to_str().unwrap().to_owned();
        let repo = Self::at(url, dir);
        repo.mover(["init"]).expect(0);
        repo
    }

    /// A repository at `url`, which nobody has created yet.
    pub(crate) fn at(url: String, dir: tempfile::TempDir) -> Self {
        let repo = Self { url, dir };
        std::fs::create_dir_all(repo.credentials()).unwrap();
        repo.credential("RESTIC_PASSWORD", PASSWORD);
        repo
    }

    pub(crate) fn credentials(&self) -> PathBuf {
        self.dir.path().join("credentials")
    }

    pub(crate) fn credential(&self, name: &str, value: &str) {
        std::fs::write(self.credentials().join(name), value).unwrap();
    }

    /// The directory of a local repository.
    #[allow(dead_code, reason = "not every test looks into it")]
    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.url)
    }

    /// The command line of the program with this repository.
    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pvferry-mover"));
        command.args(arguments).args(["--repository", &self.url]);
        command.arg("--credentials").arg(self.credentials());
        command
    }

    pub(crate) fn mover<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Finished {
        Process::run(self.command(arguments))
    }

    /// Backs `source` up, expects `code`, and answers the report.
    pub(crate) fn backup(&self, source: &Path, code: i32) -> Value {
        let source = source.to_str().unwrap();
        let arguments = ["backup", source, "--host", "claim", "--path", "/data", "--json"];
        report(self.mover(arguments).expect(code))
    }

    /// Restores the last snapshot into `destination`, expects `code`, and answers the report.
    #[allow(dead_code, reason = "not every test restores in this way")]
    pub(crate) fn restore(&self, destination: &Path, code: i32) -> Value {
        let destination = destination.to_str().unwrap();
        report(self.mover(["restore", "latest", destination, "--verify", "--json"]).expect(code))
    }
}

/// The JSON object on standard output.
pub(crate) fn report(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}
