//! What went wrong with a file, before it is known for which object.

use std::io;

use crate::StoreErrorKind;

/// An error that does not yet name its store and object.
#[derive(Debug)]
pub(super) struct LocalError {
    pub(super) kind: Option<StoreErrorKind>,
    pub(super) detail: String,
    pub(super) source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl LocalError {
    pub(super) fn new(kind: StoreErrorKind, detail: impl Into<String>) -> Self {
        Self { kind: Some(kind), detail: detail.into(), source: None }
    }
}

impl From<io::Error> for LocalError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound | Io::NotADirectory | Io::IsADirectory => Some(StoreErrorKind::NotFound),
            Io::AlreadyExists => Some(StoreErrorKind::AlreadyExists),
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Some(StoreErrorKind::PermissionDenied),
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Some(StoreErrorKind::NoSpace),
            Io::CrossesDevices | Io::InvalidFilename => Some(StoreErrorKind::InvalidConfig),
            Io::TimedOut => Some(StoreErrorKind::Timeout),
            _ => None,
        };
        Self { kind, detail: error.to_string(), source: Some(Box::new(error)) }
    }
}

impl From<rustix::io::Errno> for LocalError {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}
