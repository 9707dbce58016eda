//! A line for each request that a server has answered, so that a benchmark can count what a tool asks of its store.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use hyper::Request;
use parking_lot::Mutex;

use crate::error::{KitError, Result};

/// A log of requests in a file: method, path with query, and status, such as `PUT /bucket/key?partNumber=1 200`.
#[derive(Clone, Debug)]
pub struct RequestLog {
    file: Arc<Mutex<File>>,
}

impl RequestLog {
    /// Adds to the file at this path, which is made if it is not there.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn append_to(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(KitError::io(format!("open the log {}", path.display())))?;
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    /// The beginning of the line for this request.
    pub(super) fn line_of<B>(request: &Request<B>) -> String {
        let path = request.uri().path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
        format!("{} {path}", request.method())
    }

    /// Adds a line in one write, so that a reader sees whole lines. A full disk must not fail the request.
    pub(super) fn add(&self, line: &str, status: u16) {
        let _ = self.file.lock().write_all(format!("{line} {status}\n").as_bytes());
    }
}
