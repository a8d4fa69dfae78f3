//! Where a repository is: the URLs of restic that this crate can open.

use std::path::PathBuf;

use crate::{Error, Result, error::Kind};

/// A parsed repository URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory.
    Local(PathBuf),
    /// A prefix of a bucket.
    S3 {
        /// Scheme and host, such as `https://s3.example.org:9000`.
        endpoint: String,
        /// The bucket.
        bucket: String,
        /// Path below the bucket, without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl Location {
    /// Parses a URL as restic writes it: `/path`, `local:/path`, `s3:https://host/bucket/prefix`, `s3:host/bucket/prefix`
    /// or `s3://host/bucket/prefix`.
    ///
    /// # Errors
    /// [`Kind::Usage`] for every other form. The message never holds the URL: it may carry a password.
    pub fn parse(url: &str) -> Result<Self> {
        if let Some(rest) = url.strip_prefix("s3:") {
            return Self::s3(rest);
        }
        let path = url.strip_prefix("local:").unwrap_or(url);
        let scheme = path.split_once(':').is_some_and(|(scheme, _)| !scheme.contains('/'));
        if path.is_empty() || scheme {
            let forms = "expected a path, local:PATH or s3:https://HOST/BUCKET/PREFIX";
            return Err(Error::new(Kind::Usage, format!("repository URL: {forms}")));
        }
        Ok(Self::Local(PathBuf::from(path)))
    }

    fn s3(rest: &str) -> Result<Self> {
        let (scheme, rest) = if let Some(rest) = rest.strip_prefix("http://") {
            ("http", rest)
        } else {
            ("https", rest.strip_prefix("https://").or(rest.strip_prefix("//")).unwrap_or(rest))
        };
        let mut parts = rest.splitn(3, '/');
        let (host, bucket) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        if host.is_empty() || bucket.is_empty() || host.contains('@') {
            let what = "repository URL: expected s3:https://HOST/BUCKET/PREFIX";
            return Err(Error::new(Kind::Usage, what));
        }
        let prefix = parts.next().unwrap_or("").trim_matches('/').to_owned();
        Ok(Self::S3 { endpoint: format!("{scheme}://{host}"), bucket: bucket.to_owned(), prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restic_urls_of_directories_and_buckets_are_read() {
        let s3 = |endpoint: &str, bucket: &str, prefix: &str| Location::S3 {
            endpoint: endpoint.into(),
            bucket: bucket.into(),
            prefix: prefix.into(),
        };
        for (url, location) in [
            ("/srv/repo", Location::Local("/srv/repo".into())),
            ("local:repo", Location::Local("repo".into())),
            ("s3:https://h:9000/b/a/c/", s3("https://h:9000", "b", "a/c")),
            ("s3:http://127.0.0.1:7070/b", s3("http://127.0.0.1:7070", "b", "")),
            ("s3:s3.amazonaws.com/b/p", s3("https://s3.amazonaws.com", "b", "p")),
            ("s3://h/b/p", s3("https://h", "b", "p")),
        ] {
            assert_eq!(Location::parse(url), Ok(location), "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_repeating_them() {
        for url in [
            "",
            "sftp:user:secret@host:/x",
            "rest:http://u:secret@h/",
            "s3:https://h",
            "s3:http://secret@h/b",
        ] {
            let error = Location::parse(url).unwrap_err();
            assert_eq!(error.kind, Kind::Usage, "{url}");
            assert!(!error.what.contains("secret"), "{error}");
        }
    }
}
