//! What can go wrong in a reconcile. The categories are a closed set: they label metrics.

/// Why a reconcile did not come to its end. It is tried again, later each time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be asked.
    #[error("{doing}")]
    Api {
        /// What was being done, in the present tense.
        doing: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// What was read has changed meanwhile: read again.
    #[error("{what} was changed in the meantime")]
    Changed {
        /// The object.
        what: String,
    },
    /// An object could not be understood.
    #[error("cannot parse {what}")]
    Malformed {
        /// The object.
        what: String,
        /// Where it went wrong.
        source: serde_json::Error,
    },
    /// A certificate or key could not be made or read.
    #[error("cannot make the certificate in {secret}: {why}")]
    Certificate {
        /// The Secret.
        secret: String,
        /// Why.
        why: String,
    },
    /// The API server took too long.
    #[error("the API server did not answer within {seconds} s while {doing}")]
    Slow {
        /// What was being done.
        doing: String,
        /// How long it had.
        seconds: u64,
    },
    /// An instance manager refused, or could not be asked.
    #[error("{instance}: {why}")]
    Instance {
        /// The instance.
        instance: String,
        /// Why.
        why: String,
    },
}

impl Error {
    /// An answer of the API server.
    pub fn api(doing: impl Into<String>, source: kube::Error) -> Self {
        Self::Api { doing: doing.into(), source: Box::new(source) }
    }

    /// The category, as metrics name it.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api { .. } => "api",
            Self::Changed { .. } => "changed",
            Self::Malformed { .. } => "malformed",
            Self::Certificate { .. } => "certificate",
            Self::Slow { .. } => "slow",
            Self::Instance { .. } => "instance",
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

/// Whether the API server says that an object is not there.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API server says that an object is there already, or was changed meanwhile.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
