//! The answer of the status port to what is not carried out.

use holdfast_http::{Answer, answer};
use holdfast_kube_api::status_port::Refused;
use hyper::StatusCode;

/// Why a request is not carried out.
pub(crate) fn refused(status: StatusCode, error: &str, hint: Option<String>) -> Answer {
    answer::json(status, &Refused { error: error.to_owned(), hint })
}

/// To a request that would begin something, while the instance ends.
pub(crate) fn stopping() -> Answer {
    refused(StatusCode::SERVICE_UNAVAILABLE, "this instance is stopping", None)
}
