//! The status port's answers for refused requests.

use holdfast_http::{Answer, answer};
use holdfast_kube_api::status_port::Refused;
use hyper::StatusCode;

/// Refuses a request, with the reason.
pub(crate) fn refused(status: StatusCode, error: &str, hint: Option<String>) -> Answer {
    answer::json(status, &Refused { error: error.to_owned(), hint })
}

/// Refuses a request that would begin something while the instance is stopping.
pub(crate) fn stopping() -> Answer {
    refused(StatusCode::SERVICE_UNAVAILABLE, "this instance is stopping", None)
}
