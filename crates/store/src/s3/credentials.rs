//! Why there are no credentials: either none exist, or the service that hands them out does not answer now.
//!
//! The first stays until somebody acts. The second passes, as an outage of the store does, and the request is repeated.
//! On a host without instance metadata no connection to its address succeeds: then there are no credentials. If a
//! connection succeeds and no answer comes, the service exists.

use aws_config::meta::ProviderChainError;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::ConnectorError;

use super::dial::TimedOut;
use super::errors::{Judged, causes, chain, judge_tls, judged};
use super::tunnel::Refused;
use crate::StoreErrorKind;
use crate::error::NO_CREDENTIALS_CAME;

/// Judges an error of the credentials chain.
pub(super) fn judge(error: &CredentialsError) -> Judged {
    use StoreErrorKind as Kind;
    let fault = match error {
        CredentialsError::InvalidConfiguration(_) => return judged(Kind::InvalidConfig, chain(error)),
        CredentialsError::CredentialsNotLoaded(_) => is_silent(error).then_some(Kind::Timeout),
        CredentialsError::ProviderTimedOut(_) => Some(Kind::Timeout),
        _ => fault_of_service(error),
    };
    match fault {
        Some(kind) => judged(kind, format!("{NO_CREDENTIALS_CAME}{}", chain(error))),
        None => judged(Kind::NoCredentials, chain(error)),
    }
}

/// Whether a service accepted a connection and did not answer. The chain keeps the error of each of its providers.
fn is_silent(error: &CredentialsError) -> bool {
    causes(error).any(|cause| {
        let attempts = cause.downcast_ref::<ProviderChainError<CredentialsError>>();
        cause.downcast_ref::<TimedOut>().is_some_and(|limit| limit.what == "read")
            || attempts.is_some_and(|chain| chain.attempts().iter().any(|attempt| is_silent(attempt.error())))
    })
}

/// What is wrong with a service that was asked for credentials. `None` if it refuses them.
fn fault_of_service(error: &CredentialsError) -> Option<StoreErrorKind> {
    use StoreErrorKind as Kind;
    for cause in causes(error) {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return Some(refused.kind());
        }
        if cause.downcast_ref::<rustls::Error>().is_some_and(|tls| judge_tls(tls).is_some()) {
            return Some(Kind::BadCertificate);
        }
        if cause.downcast_ref::<TimedOut>().is_some() {
            return Some(Kind::Timeout);
        }
    }
    // The SDK's own timeouts have no type to test for.
    let text = chain(error);
    if text.contains("timeout occurred") || text.contains("timed out") {
        return Some(Kind::Timeout);
    }
    if text.contains("Throttling") {
        return Some(Kind::Throttled);
    }
    match status(error) {
        Some(429) => Some(Kind::Throttled),
        Some(500..=599) => Some(Kind::Unreachable),
        Some(_) => None,
        None => causes(error)
            .any(|cause| cause.downcast_ref::<ConnectorError>().is_some_and(ConnectorError::is_io))
            .then_some(Kind::Unreachable),
    }
}

/// The HTTP status of the service's answer. Each service has its own type of error, and all show the answer only in
/// their `Debug` output.
fn status(error: &CredentialsError) -> Option<u16> {
    let shown = format!("{error:?}");
    let (_, rest) = shown.split_once("StatusCode(")?;
    rest.split(')').next()?.parse().ok()
}
