//! Answers: a status, a media type and a whole body.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// An answer with its whole body in memory.
pub type Answer = Response<Full<Bytes>>;

/// Makes an answer with a body of this media type.
pub fn text(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// Makes an answer in JSON. The body is empty if `value` cannot be written as JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    text(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}
