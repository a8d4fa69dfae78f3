//! How the API server of the controller's own cluster is reached: a kubeconfig, or the service account of its pod.

use std::path::{Path, PathBuf};

use kube::Config;

use crate::error::{Error, Result};

/// What a client for the controller's own cluster is made from.
pub struct Home {
    pub(crate) config: Config,
}

impl Home {
    /// Reads the kubeconfig that `KUBECONFIG` or the home directory of the user leads to, else what a pod is given.
    ///
    /// # Errors
    /// Where neither exists, or the kubeconfig cannot be used.
    pub async fn find() -> Result<Self> {
        let config = Config::infer()
            .await
            .map_err(|error| Error::SetUp(format!("cannot find the API server: {error}")))?;
        Ok(Self { config })
    }

    /// Files that are read again while the controller runs, because they are replaced there: the token and the authority of
    /// a service account, or the token file of a kubeconfig.
    pub fn rotating(&self) -> impl Iterator<Item = &Path> {
        let token = self.config.auth_info.token_file.as_deref().map(Path::new);
        self.config.root_cert_file.as_deref().into_iter().chain(token)
    }

    /// Files that are read when the client is made.
    pub fn read_once(&self) -> impl Iterator<Item = PathBuf> {
        let user = &self.config.auth_info;
        [&user.client_certificate, &user.client_key].into_iter().flatten().map(PathBuf::from)
    }

    /// Whether a program issues the credentials. It may need anything, at any time.
    #[must_use]
    pub fn runs_program(&self) -> bool {
        self.config.auth_info.exec.is_some() || self.config.auth_info.auth_provider.is_some()
    }
}
