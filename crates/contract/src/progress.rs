//! The progress of a running command: a line of JSON on stderr at each change (`--progress json`).

use serde::{Deserialize, Serialize};
use std::fmt;

/// `{"progress":{"backup_id":"20260822T101500Z","done_bytes":52428800,"step":"copying","total_bytes":1073741824}}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressLine {
    /// Where the command is.
    pub progress: Progress,
}

/// The progress of a command. The fields have the order in which they are printed: sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The backup that is taken or restored; `None` until it is known.
    pub backup_id: Option<String>,
    /// Bytes done within the step.
    pub done_bytes: u64,
    /// The step; the names are part of the format.
    pub step: String,
    /// Bytes of the whole step; `None` in a step without a byte count.
    pub total_bytes: Option<u64>,
}

/// The step in which a backup waits until its WAL is archived.
pub const WAITING_FOR_WAL: &str = "waiting-for-wal";

impl fmt::Display for ProgressLine {
    /// The line, without its line end.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}
