//! The failures of a reconcile. The categories are a closed set: they label metrics.

/// Why a reconcile failed. It is tried again, with growing waits.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused the request, or could not be reached.
    #[error("{doing}")]
    Api {
        /// What was being done, as in "read the cluster".
        doing: String,
        /// The error of the client library.
        source: Box<kube::Error>,
    },
    /// The object was changed in the meantime: read it again.
    #[error("{what} was changed in the meantime")]
    Changed {
        /// The name of the object.
        what: String,
    },
    /// An object could not be parsed.
    #[error("cannot parse {what}")]
    Malformed {
        /// The name of the object.
        what: String,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A certificate or key could not be made or read.
    #[error("cannot make the certificate in {secret}: {why}")]
    Certificate {
        /// The name of the Secret.
        secret: String,
        /// The reason, as text for people.
        why: String,
    },
    /// The API server did not answer in time.
    #[error("the API server did not answer within {seconds} s while {doing}")]
    Slow {
        /// What was being done, as in "reading the pods".
        doing: String,
        /// The time limit in seconds.
        seconds: u64,
    },
    /// An instance manager refused a request, or could not be reached.
    #[error("{instance}: {why}")]
    Instance {
        /// The name of the instance.
        instance: String,
        /// The reason, as text for people.
        why: String,
    },
}

impl Error {
    /// An error of the API server while doing this.
    pub fn api(doing: impl Into<String>, source: kube::Error) -> Self {
        Self::Api { doing: doing.into(), source: Box::new(source) }
    }

    /// The category, as a label of metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.code == 403 => "forbidden",
                _ => "api",
            },
            Self::Changed { .. } => "changed",
            Self::Malformed { .. } => "malformed",
            Self::Certificate { .. } => "certificate",
            Self::Slow { .. } => "slow",
            Self::Instance { .. } => "instance",
        }
    }

    /// Whether trying again changes nothing until somebody else changes something: the API server has said no.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => matches!(status.code, 400..=499) && !matches!(status.code, 408 | 409 | 429),
                _ => false,
            },
            Self::Certificate { .. } | Self::Malformed { .. } => true,
            Self::Changed { .. } | Self::Slow { .. } | Self::Instance { .. } => false,
        }
    }

    /// What the other side said, if it answered; otherwise the error with its causes.
    pub fn words(&self) -> String {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
                other => other.to_string(),
            },
            other => other.in_full(),
        }
    }

    /// The error with its causes, in one line.
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let said = cause.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            next = cause.source();
        }
        text
    }
}

/// Whether the API server reports that an object does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API server reports that an object already exists, or was changed in the meantime.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
