//! Copies the server's stderr to stdout, as records.

use super::{Parser, Record};
use chrono::{DateTime, Utc};
use holdfast_contract::problem::Problem;
use parking_lot::Mutex;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// After this long without a line, a message counts as complete.
const QUIET: Duration = Duration::from_millis(100);
/// A longer line is cut: it contains a client's statement.
const LONGEST_LINE: usize = 1 << 20;

/// The last error of a program that the server called, mostly of `archive_command`.
#[derive(Debug, Clone, Default)]
pub struct Errors(Arc<Mutex<Option<TimedError>>>);

/// The time and the three lines of an error.
type TimedError = (DateTime<Utc>, String);

impl Errors {
    pub fn last(&self) -> Option<(DateTime<Utc>, String)> {
        self.0.lock().clone()
    }

    fn note(&self, record: &Record) {
        let Record { message, context, hint, .. } = record;
        let problem = Problem { hint: hint.clone(), message: message.clone(), doing: context.clone() };
        *self.0.lock() = Some((Utc::now(), problem.to_string()));
    }
}

/// Follows a server's stderr to its end. `fatal` gets each record of level ERROR or worse that the server wrote itself,
/// so that a failed start can say why.
pub async fn follow(stderr: impl AsyncRead + Unpin, errors: Errors, last_fatal: Arc<Mutex<Option<String>>>) {
    let mut reader = BufReader::new(stderr);
    let mut parser = Parser::default();
    let mut line = Vec::new();
    loop {
        // When the time is over, `read_until` keeps in `line` what it has read, so nothing is lost.
        let read = match tokio::time::timeout(QUIET, reader.read_until(b'\n', &mut line)).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => 0,
            Err(_) if line.is_empty() => {
                if let Some(record) = parser.flush() {
                    emit(&record, &errors, &last_fatal);
                }
                reader.read_until(b'\n', &mut line).await.unwrap_or_default()
            }
            Err(_) => continue,
        };
        if read == 0 && line.is_empty() {
            break;
        }
        let kept = &line[..line.len().min(LONGEST_LINE)];
        let text = String::from_utf8_lossy(kept);
        if let Some(record) = parser.push(text.trim_end_matches(['\n', '\r'])) {
            emit(&record, &errors, &last_fatal);
        }
        line.clear();
    }
    if let Some(record) = parser.flush() {
        emit(&record, &errors, &last_fatal);
    }
}

fn emit(record: &Record, errors: &Errors, last_fatal: &Mutex<Option<String>>) {
    if record.target == "postgres-child" && record.level == "ERROR" {
        errors.note(record);
    }
    if matches!(record.severity.as_deref(), Some("FATAL" | "PANIC")) {
        let detail = record.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        *last_fatal.lock() = Some(format!("{}{detail}", record.message));
    }
    if let Ok(mut text) = serde_json::to_vec(record) {
        text.push(b'\n');
        // If stdout cannot be written, nobody reads it.
        drop(std::io::stdout().lock().write_all(&text));
    }
}
