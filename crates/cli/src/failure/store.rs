//! Errors of object stores.

use super::{Explain, Failure};
use crate::exit_code::ExitCode;
use holdfast_store::{Operation, StoreError, StoreErrorKind};
use std::error::Error as _;

impl Explain for StoreError {
    fn explain(&self) -> Failure {
        let code = match self.kind() {
            StoreErrorKind::NotFound => ExitCode::MissingObject,
            StoreErrorKind::AlreadyExists => ExitCode::Diverged,
            // The store holds the object and does not give it out: somebody has to act at the store.
            StoreErrorKind::PermissionDenied | StoreErrorKind::Archived | StoreErrorKind::KeyRefused => {
                ExitCode::PermissionDenied
            }
            StoreErrorKind::NoCredentials => ExitCode::NoCredentials,
            StoreErrorKind::NoSuchBucket => ExitCode::NoSuchBucket,
            StoreErrorKind::ClockSkew => ExitCode::ClockSkew,
            StoreErrorKind::NoSpace => ExitCode::NoSpace,
            StoreErrorKind::Throttled | StoreErrorKind::Timeout | StoreErrorKind::Unreachable => ExitCode::Unreachable,
            StoreErrorKind::Truncated => ExitCode::TruncatedObject,
            StoreErrorKind::Corrupt | StoreErrorKind::TooLarge => ExitCode::CorruptObject,
            StoreErrorKind::InvalidConfig if self.failure().operation == Operation::Open => ExitCode::Configuration,
            StoreErrorKind::BadCertificate | StoreErrorKind::ProxyRefused => ExitCode::Configuration,
            StoreErrorKind::Unsupported | StoreErrorKind::InvalidConfig | StoreErrorKind::Other => {
                ExitCode::StoreRefused
            }
            StoreErrorKind::Cancelled => ExitCode::Cancelled,
        };
        // The detail is the full answer of the store or the system; the cause below repeats it in the client's words.
        let cause = if self.failure().detail.is_empty() { self.source() } else { None };
        let failure = Failure::new(code, self.to_string()).caused_by(cause).doing(self.doing());
        match self.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: StoreErrorKind, detail: &str) -> StoreError {
        StoreError::new(
            kind,
            holdfast_store::Failure {
                store: "s3://bucket/pg".to_owned(),
                name: "holdfast.json".to_owned(),
                operation: Operation::Get,
                detail: detail.to_owned(),
                source: None,
            },
        )
    }

    #[test]
    fn each_kind_has_its_code() {
        for (kind, code) in [
            (StoreErrorKind::NotFound, ExitCode::MissingObject),
            (StoreErrorKind::AlreadyExists, ExitCode::Diverged),
            (StoreErrorKind::PermissionDenied, ExitCode::PermissionDenied),
            (StoreErrorKind::NoCredentials, ExitCode::NoCredentials),
            (StoreErrorKind::NoSuchBucket, ExitCode::NoSuchBucket),
            (StoreErrorKind::ClockSkew, ExitCode::ClockSkew),
            (StoreErrorKind::NoSpace, ExitCode::NoSpace),
            (StoreErrorKind::Throttled, ExitCode::Unreachable),
            (StoreErrorKind::Timeout, ExitCode::Unreachable),
            (StoreErrorKind::Unreachable, ExitCode::Unreachable),
            (StoreErrorKind::Truncated, ExitCode::TruncatedObject),
            (StoreErrorKind::Corrupt, ExitCode::CorruptObject),
            (StoreErrorKind::TooLarge, ExitCode::CorruptObject),
            (StoreErrorKind::Archived, ExitCode::PermissionDenied),
            (StoreErrorKind::KeyRefused, ExitCode::PermissionDenied),
            (StoreErrorKind::Unsupported, ExitCode::StoreRefused),
            (StoreErrorKind::InvalidConfig, ExitCode::StoreRefused),
            (StoreErrorKind::BadCertificate, ExitCode::Configuration),
            (StoreErrorKind::ProxyRefused, ExitCode::Configuration),
            (StoreErrorKind::Cancelled, ExitCode::Cancelled),
            (StoreErrorKind::Other, ExitCode::StoreRefused),
        ] {
            assert_eq!(error(kind, "").explain().code, code, "{kind:?}");
        }
    }

    #[test]
    fn the_three_parts_come_from_the_store() {
        let failure = error(StoreErrorKind::NoSuchBucket, "404 NoSuchBucket").explain();
        assert_eq!(
            super::super::present::text(&failure, crate::style::Style::Plain),
            "error: s3://bucket/pg does not exist: 404 NoSuchBucket\n\
             while: get holdfast.json from s3://bucket/pg\n\
             hint:  create the bucket, or correct `url`\n"
        );
    }
}
