//! Files of a repository in a directory or a bucket. The only user of opendal.
//!
//! Calls block: they come from threads that read volumes and pack blobs. Network traffic runs on a small runtime that
//! belongs to the storage. Requests that fail for a passing reason are repeated with growing pauses; a request without an
//! answer ends after `TIMEOUT`.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use opendal::{
    Buffer, ErrorKind, Operator,
    layers::{RetryLayer, TimeoutLayer},
    services::{Fs, S3},
};
use tokio::runtime::{Builder, Runtime};

use crate::{Credentials, Error, Location, Result, error::Kind};

/// How long one request may take without an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a failed request is repeated, and the first and longest pause between two attempts.
const RETRIES: usize = 8;
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(20));
/// Region of servers that have none.
const DEFAULT_REGION: &str = "us-east-1";
/// Directory of a local repository for files that are not complete.
const PARTIAL: &str = "tmp";

/// The files of one repository.
pub struct Storage {
    operator: Operator,
    runtime: Runtime,
    /// Without credentials.
    shown: String,
}

impl Storage {
    /// Opens the storage at `location`. Sends nothing yet.
    ///
    /// # Errors
    /// Where the location or the credentials are not usable.
    pub fn open(location: &Location, credentials: &Credentials) -> Result<Self> {
        opendal::install_default();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("storage")
            .enable_all()
            .build()
            .map_err(|error| Error::new(Kind::Storage, format!("cannot start threads: {error}")))?;
        let refused = |error: opendal::Error| {
            Error::new(Kind::Usage, format!("cannot open the storage: {}", sentence(&error)))
        };
        let (operator, shown) = match location {
            Location::Local(path) => {
                let root = std::path::absolute(path).map_err(|error| {
                    Error::new(Kind::Usage, format!("{}: {error}", path.display()))
                })?;
                let text = root.to_str().ok_or_else(|| {
                    Error::new(Kind::Usage, "the path of the repository is not UTF-8")
                })?;
                let partial = format!("{text}/{PARTIAL}");
                let service = Fs::default().root(text).atomic_write_dir(&partial);
                (Operator::new(service).map_err(refused)?, text.to_owned())
            }
            Location::S3 { endpoint, bucket, prefix } => {
                let service = s3(credentials).endpoint(endpoint).bucket(bucket).root(prefix);
                let shown = format!("s3:{endpoint}/{bucket}/{prefix}");
                (Operator::new(service).map_err(refused)?, shown)
            }
        };
        let retry = RetryLayer::new()
            .with_max_times(RETRIES)
            .with_min_delay(PAUSES.0)
            .with_max_delay(PAUSES.1)
            .with_jitter();
        let timeout = TimeoutLayer::new().with_timeout(TIMEOUT).with_io_timeout(TIMEOUT);
        Ok(Self { operator: operator.layer(timeout).layer(retry), runtime, shown })
    }

    /// The location for messages.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Paths and sizes of all files below the directory `dir`.
    pub(crate) fn list(&self, dir: &str) -> Result<Vec<(String, u64)>> {
        let below = format!("{dir}/");
        self.runtime.block_on(async {
            let entries = match self.operator.list_with(&below).recursive(true).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                other => other.map_err(|error| self.failed("list", dir, &error))?,
            };
            let mut files = Vec::with_capacity(entries.len());
            for entry in entries {
                let (path, meta) = entry.into_parts();
                if meta.is_file() {
                    files.push((path, meta.content_length()));
                }
            }
            Ok(files)
        })
    }

    /// The size of a file; `None` where there is none.
    pub(crate) fn size(&self, path: &str) -> Result<Option<u64>> {
        match self.runtime.block_on(self.operator.stat(path)) {
            Ok(meta) => Ok(Some(meta.content_length())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("stat", path, &error)),
        }
    }

    /// The content of a file, or a range of it.
    pub(crate) fn read(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let wanted = range.as_ref().map(|range| range.end.saturating_sub(range.start));
        let read = self.runtime.block_on(async {
            match range {
                Some(range) => self.operator.read_with(path).range(range).await,
                None => self.operator.read(path).await,
            }
        });
        let content = read.map_err(|error| self.failed("read", path, &error))?.to_bytes();
        match wanted {
            Some(wanted) if wanted != content.len() as u64 => Err(Error::new(
                Kind::Damaged,
                format!("{path}: expected {wanted} bytes, got {}", content.len()),
            )),
            _ => Ok(content),
        }
    }

    /// Writes a file, which shows when it is complete.
    pub(crate) fn write(&self, path: &str, content: Vec<Bytes>) -> Result<()> {
        let content: Buffer = content.into();
        self.runtime
            .block_on(self.operator.write(path, content))
            .map(drop)
            .map_err(|error| self.failed("write", path, &error))
    }

    /// Removes a file. Succeeds where there is none.
    pub(crate) fn remove(&self, path: &str) -> Result<()> {
        self.runtime
            .block_on(self.operator.delete(path))
            .map_err(|error| self.failed("remove", path, &error))
    }

    fn failed(&self, operation: &str, path: &str, error: &opendal::Error) -> Error {
        let what = format!("{}: cannot {operation} {path}: {}", self.shown, sentence(error));
        // What the repository refers to and the storage does not have is lost; to ask again does not help.
        let lost = operation == "read"
            && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::RangeNotSatisfied);
        Error::new(if lost { Kind::Damaged } else { Kind::Storage }, what)
    }
}

fn s3(credentials: &Credentials) -> S3 {
    let mut service = S3::default().disable_ec2_metadata();
    service = service.region(credentials.get("AWS_DEFAULT_REGION").unwrap_or(DEFAULT_REGION));
    if let Some(id) = credentials.get("AWS_ACCESS_KEY_ID") {
        // What is given is all that counts: no other source of keys is searched.
        service = service.disable_config_load().access_key_id(id);
    }
    if let Some(key) = credentials.get("AWS_SECRET_ACCESS_KEY") {
        service = service.secret_access_key(key);
    }
    if let Some(token) = credentials.get("AWS_SESSION_TOKEN") {
        service = service.session_token(token);
    }
    service
}

/// What went wrong, without the context that names headers, requests and paths.
fn sentence(error: &opendal::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let said = first.split(" => ").last().unwrap_or(first).trim();
    if said == first { error.kind().to_string() } else { format!("{} ({said})", error.kind()) }
}
