//! What can go wrong, and whether it may go better the next time.

use kube::core::Status;
use pod::Text;

/// A step of the controller failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call to an API server.
    #[error("{}: {}", shown(.what), told(.source))]
    Api {
        /// What was to be done.
        what: String,
        /// Why not.
        source: kube::Error,
    },
    /// The status of a migration could not be written.
    #[error("cannot write the status: {}", told(.0))]
    StatusNotWritten(kube::Error),
    /// A cluster that is referred to cannot be talked to.
    #[error("{}", shown(.0))]
    Cluster(String),
    /// Identities could not be made.
    #[error("cannot create identities: {}", shown(.0))]
    Identity(String),
    /// The specification or an object that it refers to is invalid; only a change by a user helps.
    #[error("{}", shown(.1))]
    Invalid(&'static str, String),
    /// Not yet.
    #[error("{}", shown(.1))]
    Waiting(&'static str, String),
    /// The process could not be set up.
    #[error("{}", shown(.0))]
    SetUp(String),
}

impl Error {
    /// An API error, with what was to be done.
    pub fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source }
    }

    fn status(&self) -> Option<&Status> {
        match self.call()? {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }

    fn call(&self) -> Option<&kube::Error> {
        match self {
            Self::Api { source, .. } | Self::StatusNotWritten(source) => Some(source),
            _ => None,
        }
    }

    /// The HTTP status of a refused call.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    fn is_transport(&self) -> bool {
        matches!(self.call(), Some(kube::Error::Service(_) | kube::Error::HyperError(_)))
    }

    /// Somebody else wrote in between.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// There is an object of that name. A quota that changes has the same code and another reason.
    #[must_use]
    pub fn already_exists(&self) -> bool {
        self.status().is_some_and(|status| status.reason == "AlreadyExists")
    }

    /// The server understood and said no: asking again changes nothing, as long as nobody changes something else.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(400 | 403 | 404 | 405 | 413 | 422))
    }

    /// A ResourceQuota has no room for the object, or wants it to have limits that it does not have. Either can change at any time.
    #[must_use]
    pub fn is_quota(&self) -> bool {
        let of_a_quota = |status: &Status| {
            status.code == 403
                && ["exceeded quota", "failed quota"]
                    .iter()
                    .any(|what| status.message.contains(what))
        };
        self.status().is_some_and(of_a_quota)
    }

    /// The same error; one of a quota as something that is waited for.
    pub(crate) fn waiting_for_quota(self) -> Self {
        if self.is_quota() { Self::Waiting("QuotaExceeded", self.to_string()) } else { self }
    }

    /// Waiting for what ends without anybody: workloads that stop, claims and pods that are being deleted.
    #[must_use]
    pub fn ends_by_itself(&self) -> bool {
        matches!(self, Self::Waiting("StillInUse" | "TargetTerminating", _))
    }

    /// One word for conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(reason, _) | Self::Waiting(reason, _) => reason,
            Self::Cluster(_) => "ClusterUnreachable",
            Self::Identity(_) => "IdentityFailed",
            Self::SetUp(_) => "SetupFailed",
            Self::Api { .. } | Self::StatusNotWritten(_) if self.is_transport() => {
                "ClusterUnreachable"
            }
            Self::Api { .. } | Self::StatusNotWritten(_) => match self.code() {
                Some(403) => "Forbidden",
                Some(404) => "NotFound",
                Some(409) => "Conflict",
                Some(422 | 400) => "Invalid",
                _ => "ApiError",
            },
        }
    }
}

/// What the server said, without the wrapping.
fn told(error: &kube::Error) -> Text {
    match error {
        kube::Error::Api(status) => clip(&status.message),
        // Its text quotes the answer.
        kube::Error::SerdeError(_) => "the answer is not an object of this kind".into(),
        other => clip(&other.to_string()),
    }
}

/// As much of a text as an event takes, and a status should.
pub(crate) fn clip(text: &str) -> Text {
    Text::within(text, 1000)
}

/// Names in specifications, and what kubeconfigs and API servers say, end up in statuses, events and logs.
fn shown(text: &str) -> Text {
    text.into()
}

/// The result of a step.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden(message: &str) -> Error {
        let status = serde_json::json!({
            "status": "Failure", "code": 403, "reason": "Forbidden", "message": message,
        });
        let status: Box<Status> = Box::new(serde_json::from_value(status).unwrap());
        Error::api("create Pod")(kube::Error::Api(status))
    }

    #[test]
    fn texts_of_errors_are_safe_to_show() {
        let text = || "a\u{202e}b\u{2028}c\nd".to_owned();
        for error in [
            forbidden(&text()),
            Error::api(text())(kube::Error::Api(Box::default())),
            Error::api("list")(kube::Error::Service(text().into())),
            Error::StatusNotWritten(kube::Error::Service(text().into())),
            Error::Cluster(text()),
            Error::Identity(text()),
            Error::Invalid("Invalid", text()),
            Error::Waiting("Waiting", text()),
            Error::SetUp(text()),
        ] {
            let said = error.to_string();
            assert_eq!(Text::from(&*said).as_str(), said);
            assert!(said.contains(r"a\xe2\x80\xaeb"), "{said}");
        }
    }

    #[test]
    fn a_quota_is_waited_for_and_another_refusal_is_not() {
        for (message, is_quota) in [
            ("pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=5", true),
            ("pods \"a\" is forbidden: failed quota: q: must specify limits.cpu for: sync", true),
            ("pods \"a\" is forbidden: User \"b\" cannot create resource", false),
            ("pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\"", false),
        ] {
            let error = forbidden(message);
            assert_eq!(error.is_quota(), is_quota, "{message}");
            assert_eq!(
                error.waiting_for_quota().reason() == "QuotaExceeded",
                is_quota,
                "{message}"
            );
        }
    }
}
