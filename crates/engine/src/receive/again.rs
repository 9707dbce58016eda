//! Which failures pass by themselves, so that the same is tried again. Pure.

use holdfast_store::StoreErrorKind;

use crate::error::{Cause, Error};

/// Whether the store refuses the credentials, or has none, or the repository refuses the secret, as after a rotation.
pub(super) fn is_of_credentials(error: &Error) -> bool {
    match &*error.what {
        Cause::Store(error) => matches!(error.kind(), StoreErrorKind::PermissionDenied | StoreErrorKind::NoCredentials),
        Cause::Key(_) | Cause::KeysRotated { .. } | Cause::NoKeySlot { .. } => true,
        _ => false,
    }
}

/// Whether the same may succeed later without anybody's help. Everything else ends the receiver, so that somebody
/// looks at it.
pub(super) fn passes(error: &Error) -> bool {
    match &*error.what {
        Cause::StreamLost { .. }
        | Cause::Connection(_)
        | Cause::SessionLost { .. }
        | Cause::NotReadable { .. }
        | Cause::PostmasterPid { .. } => true,
        Cause::Store(error) => error.is_retryable(),
        Cause::Postgres(error) => error.code().is_none_or(|code| passes_by_itself(code.code())),
        Cause::ServerAnswer { sqlstate, .. } => passes_by_itself(sqlstate),
        _ => false,
    }
}

/// Errors of a server that starts, stops, is full, or still holds the slot for the session before.
fn passes_by_itself(sqlstate: &str) -> bool {
    const OBJECT_IN_USE: &str = "55006";
    const IO_ERROR: &str = "58030";
    let class = |class: &str| sqlstate.starts_with(class);
    sqlstate == OBJECT_IN_USE || sqlstate == IO_ERROR || class("57") || class("53") || class("08") || class("XX")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use holdfast_store::{Failure, Operation, StoreError};

    use super::*;

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        let answer = |sqlstate: &str| Cause::ServerAnswer {
            severity: "ERROR".to_owned(),
            message: "m".to_owned(),
            sqlstate: sqlstate.to_owned(),
        };
        for (cause, expected) in [
            (Cause::StreamLost { reason: "gone".to_owned() }, true),
            (Cause::Connection("refused".to_owned()), true),
            (answer("57P03"), true),
            (answer("53300"), true),
            (answer("55006"), true),
            (answer("28P01"), false),
            (answer("42501"), false),
            (Cause::ConnectionParameters("port".to_owned()), false),
            (Cause::SlotLost { slot: "s".to_owned(), reason: "r".to_owned() }, false),
            (Cause::OtherWal { store: "s3://b".to_owned(), reason: "r".to_owned() }, false),
            (Cause::Internal("a bug".to_owned()), false),
        ] {
            let error = Error::from(cause);
            assert_eq!(passes(&error), expected, "{error}");
            assert!(!is_of_credentials(&error), "{error}");
        }
    }

    #[test]
    fn refused_credentials_are_read_once_more() {
        for (kind, expected) in [
            (StoreErrorKind::PermissionDenied, true),
            (StoreErrorKind::NoCredentials, true),
            (StoreErrorKind::NoSuchBucket, false),
            (StoreErrorKind::Timeout, false),
        ] {
            let failure = Failure {
                store: "s3://b".to_owned(),
                name: "n".to_owned(),
                operation: Operation::List,
                detail: String::new(),
                source: None,
            };
            let error = Error::from(Cause::Store(StoreError::new(kind, failure)));
            assert_eq!(is_of_credentials(&error), expected, "{kind:?}");
        }
        let wrong = holdfast_repo::KeyError::WrongPassphrase { slot: "default".parse().unwrap() };
        assert!(is_of_credentials(&Error::from(Cause::Key(wrong))));
    }
}
