//! Answers: a status, a type and a whole body.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// An answer with a body of this media type.
pub fn text(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// An answer in JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    text(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}
