//! [`StoreError`]: what can go wrong with a store, one variant for each thing a caller does differently.
//!
//! Every variant carries the same [`Failure`]: which store (redacted URL), which object, which operation, what the
//! store said, and the source. `Display` says what happened, without the source; [`StoreError::doing`] is the "while"
//! line and [`StoreError::hint`] the "hint" line of a message in three parts.

use std::error::Error;
use std::fmt;

/// The request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Opening the store.
    Open,
    /// [`crate::Store::put`]
    Put,
    /// [`crate::Store::get`]
    Get,
    /// [`crate::Store::get_range`]
    GetRange,
    /// [`crate::Store::get_tail`]
    GetTail,
    /// [`crate::Store::head`]
    Head,
    /// [`crate::Store::list`]
    List,
    /// [`crate::Store::list_folders`]
    ListFolders,
    /// [`crate::Store::delete`]
    Delete,
    /// [`crate::Store::begin_upload`]
    BeginUpload,
    /// [`crate::Upload::part`]
    Part,
    /// [`crate::Upload::complete`]
    Complete,
    /// [`crate::Upload::abort`]
    Abort,
    /// [`crate::Store::lock_until`]
    Lock,
}

impl Operation {
    /// All operations, in the order of their discriminants.
    pub const ALL: [Self; 14] = [
        Self::Open,
        Self::Put,
        Self::Get,
        Self::GetRange,
        Self::GetTail,
        Self::Head,
        Self::List,
        Self::ListFolders,
        Self::Delete,
        Self::BeginUpload,
        Self::Part,
        Self::Complete,
        Self::Abort,
        Self::Lock,
    ];

    /// Whether it changes the store.
    pub fn is_write(self) -> bool {
        matches!(
            self,
            Self::Put | Self::Delete | Self::BeginUpload | Self::Part | Self::Complete | Self::Abort | Self::Lock
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Put => "put",
            Self::Get => "get",
            Self::GetRange => "get a range of",
            Self::GetTail => "get the end of",
            Self::Head => "look at",
            Self::List => "list",
            Self::ListFolders => "list folders of",
            Self::Delete => "delete",
            Self::BeginUpload => "begin the upload of",
            Self::Part => "upload a part of",
            Self::Complete => "complete the upload of",
            Self::Abort => "abort the upload of",
            Self::Lock => "set the lock of",
        })
    }
}

/// The circumstances of a [`StoreError`].
#[derive(Debug)]
pub struct Failure {
    /// The store's URL, redacted.
    pub store: String,
    /// The object, or the prefix of a listing; empty if the operation concerns the whole store.
    pub name: String,
    /// The request that failed.
    pub operation: Operation,
    /// What the store or the operating system said, with its code; may be empty.
    pub detail: String,
    /// The underlying error, if there is one.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

macro_rules! store_errors {
    ($($(#[$doc:meta])* $variant:ident),+ $(,)?) => {
        /// What went wrong; the [`Failure`] inside says where.
        #[derive(Debug)]
        pub enum StoreError {
            $($(#[$doc])* $variant(Box<Failure>),)+
        }

        /// The variants of [`StoreError`] without their contents.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum StoreErrorKind {
            $($(#[$doc])* $variant,)+
        }

        impl StoreError {
            /// Makes the error of a kind.
            pub fn new(kind: StoreErrorKind, failure: Failure) -> Self {
                match kind {
                    $(StoreErrorKind::$variant => Self::$variant(Box::new(failure)),)+
                }
            }

            /// Which kind of error it is.
            pub fn kind(&self) -> StoreErrorKind {
                match self {
                    $(Self::$variant(_) => StoreErrorKind::$variant,)+
                }
            }

            /// Where it happened.
            pub fn failure(&self) -> &Failure {
                match self {
                    $(Self::$variant(failure) => failure,)+
                }
            }

            pub(crate) fn failure_mut(&mut self) -> &mut Failure {
                match self {
                    $(Self::$variant(failure) => failure,)+
                }
            }
        }
    };
}

store_errors! {
    /// The store said that there is no such object. Never used in doubt.
    NotFound,
    /// The name is taken and the mode was [`crate::PutMode::Create`].
    AlreadyExists,
    /// The credentials are wrong, expired or not allowed to do this; or the file system refuses access.
    PermissionDenied,
    /// No credentials were found where the configuration looks for them.
    NoCredentials,
    /// The bucket, or the directory of the store, does not exist.
    NoSuchBucket,
    /// The store refuses our requests because our clock and its clock differ.
    ClockSkew,
    /// The disk or the quota is full.
    NoSpace,
    /// The store asks for fewer requests, or is overloaded.
    Throttled,
    /// No answer within the time limit.
    Timeout,
    /// No connection, or a connection that broke, or an internal failure of the server.
    Unreachable,
    /// The object is shorter than the range asked for.
    Truncated,
    /// The bytes do not match the checksum that the store keeps.
    Corrupt,
    /// The object has more bytes than one of its kind can have.
    TooLarge,
    /// The object is in an archive storage class: it is not lost, and has to be restored before it can be read.
    Archived,
    /// The store cannot decrypt the object for us: the key that it was written with is disabled, deleted, or not ours
    /// to use.
    KeyRefused,
    /// The store does not support this operation.
    Unsupported,
    /// The request cannot succeed as configured: wrong region, wrong CA, uneven parts, a bad name.
    InvalidConfig,
    /// The server's certificate is not trusted; nothing was sent.
    BadCertificate,
    /// The proxy refuses the requests, and will do so until somebody changes its configuration or ours.
    ProxyRefused,
    /// The program is ending.
    Cancelled,
    /// Anything else.
    Other,
}

/// The start of the detail of an error that concerns the credentials service; the store was not asked yet.
pub(crate) const NO_CREDENTIALS_CAME: &str = "no credentials could be fetched: ";

impl StoreErrorKind {
    /// Whether the same request may succeed a little later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Timeout | Self::Unreachable)
    }
}

impl StoreError {
    /// Whether the same request may succeed a little later. After a retryable error of a write it is unknown whether
    /// the write took effect.
    pub fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }

    /// The "while" line: `get main/holdfast.json from s3://bucket`.
    pub fn doing(&self) -> String {
        let failure = self.failure();
        let preposition = match failure.operation {
            Operation::Open => return format!("open {}", failure.store),
            Operation::List | Operation::ListFolders | Operation::Lock => "in",
            operation if operation.is_write() && operation != Operation::Delete => "to",
            _ => "from",
        };
        let name = if failure.name.is_empty() { "/" } else { &failure.name };
        format!("{} {name} {preposition} {}", failure.operation, failure.store)
    }

    /// The hint if the service that hands out the credentials failed; the store was not asked.
    fn hint_of_credentials(&self) -> &'static str {
        match self.kind() {
            StoreErrorKind::ProxyRefused => {
                "the proxy refuses the service that hands out the credentials (STS, SSO), and not the store: write user and \
                 password into the URL of the proxy's variable (http://USER:PASSWORD@HOST:PORT), ask the person \
                 who runs the proxy to allow that service's host, or list that host in no_proxy"
            }
            StoreErrorKind::BadCertificate => {
                "the certificate is that of the service that hands out the credentials (container, STS, SSO), or of the proxy on \
                 the way to it, and not the store's: correct it, or add its CA to `ca_file` of this [[repo]]"
            }
            StoreErrorKind::Timeout => {
                "look at the service that hands out the credentials (instance metadata, container, STS, SSO) and the way to it, \
                 then run this again; in a container on EC2 the answers of instance metadata need a second hop: `aws ec2 \
                 modify-instance-metadata-options --http-put-response-hop-limit 2`; keys in the configuration or in \
                 AWS_ACCESS_KEY_ID need no such service"
            }
            _ => {
                "look at the service that hands out the credentials (instance metadata, container, STS, SSO) and the way to it, \
                 then run this again; keys in the configuration or in AWS_ACCESS_KEY_ID need no such service"
            }
        }
    }

    /// The "hint" line: what a person can do about the error.
    pub fn hint(&self) -> Option<&'static str> {
        let local = self.failure().store.starts_with("file://");
        if self.failure().detail.starts_with(NO_CREDENTIALS_CAME) {
            return Some(self.hint_of_credentials());
        }
        Some(match self.kind() {
            StoreErrorKind::PermissionDenied if local => {
                "check the owner and mode of the directory; holdfast runs as the user that PostgreSQL runs as"
            }
            StoreErrorKind::PermissionDenied => "check the access key, the secret key and the policy of the bucket",
            StoreErrorKind::NoCredentials => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or credentials in the configuration"
            }
            StoreErrorKind::NoSuchBucket if local => {
                "mount the disk it is on, or correct `url`; `holdfast repo init` creates a new repository"
            }
            StoreErrorKind::NoSuchBucket => "create the bucket, or correct `url`",
            StoreErrorKind::ClockSkew => "set this machine's clock; S3 allows 15 minutes of difference",
            StoreErrorKind::NoSpace => "free or add space; what is already stored is not lost",
            StoreErrorKind::Throttled => {
                "lower the number of requests in flight, or ask the provider for a higher limit"
            }
            StoreErrorKind::Timeout if local => {
                "look at the file system: the server of a network mount may be gone, or a disk hangs; run this again when \
                 it answers"
            }
            StoreErrorKind::Timeout | StoreErrorKind::Unreachable => {
                "check `endpoint`, the network and the state of the server"
            }
            StoreErrorKind::Truncated | StoreErrorKind::Corrupt | StoreErrorKind::TooLarge => {
                "no part of it was used: look for another copy (a second repository, a version of the object in the \
                 bucket), and check the store"
            }
            StoreErrorKind::Archived => {
                "it is not lost: restore it (RestoreObject, which may take hours) and copy it to a storage class that can \
                 be read at once; then leave the repository's prefix out of the lifecycle rule that moves objects, and \
                 look at `storage_class` of this [[repo]]"
            }
            StoreErrorKind::KeyRefused => {
                "enable the key of the key service that the object was written with, or allow these credentials to \
                 decrypt with it (kms:Decrypt); other objects may have been written with another key"
            }
            StoreErrorKind::NotFound => {
                "look for another copy (a second repository, a deleted version in the bucket), and check who may \
                 delete there"
            }
            StoreErrorKind::InvalidConfig if local => "name a directory in `url`",
            StoreErrorKind::InvalidConfig => "check `url`, `endpoint` and `region` of this [[repo]]",
            StoreErrorKind::BadCertificate => {
                "correct `ca_file` or `endpoint` of this [[repo]], or the server's certificate"
            }
            StoreErrorKind::ProxyRefused => {
                "write user and password into the URL of the proxy's variable (http://USER:PASSWORD@HOST:PORT), ask the \
                 person who runs the proxy to allow the store's host, or list that host in no_proxy"
            }
            StoreErrorKind::Unsupported | StoreErrorKind::Other => {
                "this answer came from the store itself: look in its log, or ask the person who runs the store"
            }
            StoreErrorKind::AlreadyExists | StoreErrorKind::Cancelled => return None,
        })
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { store, name, detail, .. } = self.failure();
        // The store was not asked.
        let of_service = detail.starts_with(NO_CREDENTIALS_CAME);
        let service = of_service.then(|| format!("the credentials service of {store}"));
        let store = service.as_ref().unwrap_or(store);
        match self.kind() {
            StoreErrorKind::NotFound => write!(f, "object {name} does not exist in {store}")?,
            StoreErrorKind::AlreadyExists => write!(f, "object {name} already exists in {store}")?,
            StoreErrorKind::PermissionDenied => write!(f, "permission denied by {store}")?,
            StoreErrorKind::NoCredentials => write!(f, "no credentials for {store}")?,
            StoreErrorKind::NoSuchBucket => write!(f, "{store} does not exist")?,
            StoreErrorKind::ClockSkew => write!(f, "the clocks of this machine and of {store} differ too much")?,
            StoreErrorKind::NoSpace => write!(f, "no space left in {store}")?,
            StoreErrorKind::Throttled => write!(f, "{store} is overloaded or limits the rate of requests")?,
            StoreErrorKind::Timeout => write!(f, "{store} did not answer in time")?,
            StoreErrorKind::Unreachable => write!(f, "{store} is not available")?,
            StoreErrorKind::Truncated => write!(f, "object {name} in {store} is shorter than expected")?,
            StoreErrorKind::Corrupt => write!(f, "object {name} in {store} does not match its checksum")?,
            StoreErrorKind::TooLarge => write!(f, "object {name} in {store} is larger than such an object can be")?,
            StoreErrorKind::Archived => write!(f, "object {name} in {store} is in an archive storage class")?,
            StoreErrorKind::KeyRefused => write!(f, "{store} cannot decrypt object {name}")?,
            StoreErrorKind::Unsupported => write!(f, "{store} does not support this request")?,
            StoreErrorKind::InvalidConfig => write!(f, "wrong request or configuration for {store}")?,
            StoreErrorKind::BadCertificate => write!(f, "no secure connection to {store}")?,
            StoreErrorKind::ProxyRefused => write!(f, "the proxy on the way to {store} refuses")?,
            StoreErrorKind::Cancelled => write!(f, "the request to {store} was cancelled")?,
            StoreErrorKind::Other => write!(f, "unexpected answer from {store}")?,
        }
        if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failure().source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: StoreErrorKind, operation: Operation, detail: &str) -> StoreError {
        StoreError::new(
            kind,
            Failure {
                store: "s3://bucket".to_owned(),
                name: "a/b".to_owned(),
                operation,
                detail: detail.to_owned(),
                source: None,
            },
        )
    }

    #[test]
    fn texts_are_exact() {
        let denied = error(StoreErrorKind::PermissionDenied, Operation::Put, "403 AccessDenied: go away");
        assert_eq!(denied.to_string(), "permission denied by s3://bucket: 403 AccessDenied: go away");
        assert_eq!(denied.doing(), "put a/b to s3://bucket");
        assert_eq!(denied.hint(), Some("check the access key, the secret key and the policy of the bucket"));
        let absent = error(StoreErrorKind::NotFound, Operation::Get, "");
        assert_eq!(absent.to_string(), "object a/b does not exist in s3://bucket");
        assert_eq!(absent.doing(), "get a/b from s3://bucket");
        assert_eq!(error(StoreErrorKind::Other, Operation::List, "").doing(), "list a/b in s3://bucket");
        let mut still = error(StoreErrorKind::Timeout, Operation::Put, "the file system has not answered for 120 s");
        still.failure_mut().store = "file:///srv/backups".to_owned();
        let text = "file:///srv/backups did not answer in time: the file system has not answered for 120 s";
        assert_eq!(still.to_string(), text);
        assert_eq!(
            still.hint(),
            Some(
                "look at the file system: the server of a network mount may be gone, or a disk hangs; run this again \
                 when it answers"
            )
        );
    }

    #[test]
    fn a_failure_of_the_credentials_service_is_not_reported_as_the_stores() {
        for kind in [StoreErrorKind::ProxyRefused, StoreErrorKind::BadCertificate, StoreErrorKind::Timeout] {
            let of_store = error(kind, Operation::Get, "refused");
            let of_service = error(kind, Operation::Get, &format!("{NO_CREDENTIALS_CAME}refused"));
            let hint = of_service.hint().unwrap_or_default();
            assert!(hint.contains("the service that hands out the credentials"), "{kind:?}: {hint}");
            assert_ne!(of_store.hint(), of_service.hint(), "{kind:?}");
            let text = of_service.to_string();
            assert!(text.contains("the credentials service of s3://bucket"), "{kind:?}: {text}");
        }
    }

    #[test]
    fn operations_are_listed_in_order() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
        }
    }
}
