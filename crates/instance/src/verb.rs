//! Holdfast's own verbs, run as child processes: there is one implementation of each.
//!
//! A verb runs with `--output json`: its result is one JSON object on stdout, its error one on stderr, and its progress
//! lines there too. It is in a process group of its own, so that a signal to the manager's does not reach it before the
//! manager decided; it is ended by `SIGTERM`, after which it cleans up behind itself, and killed when it does not end.

use crate::error::{Error, Kind, Result};
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// After `SIGTERM` a verb has this long to remove what it left half done.
const CLEAN_WITHIN: Duration = Duration::from_secs(20);

/// Exit codes of `docs/exit-codes.md` that somebody has to do something about; the others pass by themselves.
const STUCK: &[i64] = &[2, 10, 11, 12, 13, 16, 17, 18, 20, 21, 22, 41, 42, 43, 44, 60, 61, 62];

/// One run of a verb.
#[derive(Debug)]
pub struct Verb<'a> {
    /// The program.
    pub program: &'a Path,
    /// The configuration.
    pub config: &'a Path,
    /// Its words.
    pub words: Vec<OsString>,
    /// What it reads from stdin.
    pub input: Option<Vec<u8>>,
    /// Whether it works in the background: it gives way to the server.
    pub nice: bool,
}

/// What a verb says while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VerbProgress {
    /// The step.
    pub step: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: Option<u64>,
    /// The backup that is made or restored.
    pub backup_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Line {
    progress: Option<VerbProgress>,
    error: Option<VerbError>,
}

#[derive(Debug, Deserialize)]
struct VerbError {
    code: i64,
    message: String,
    #[serde(rename = "while")]
    doing: Option<String>,
    hint: Option<String>,
}

impl<'a> Verb<'a> {
    /// A verb with these words.
    pub fn new<W: Into<OsString>>(program: &'a Path, config: &'a Path, words: impl IntoIterator<Item = W>) -> Self {
        Self { program, config, words: words.into_iter().map(Into::into).collect(), input: None, nice: false }
    }

    /// Runs it to its end and gives its result.
    ///
    /// # Errors
    /// The verb's own error; [`Kind::Cancelled`] when it was cancelled and has ended.
    pub async fn run(self, cancel: &CancellationToken, mut progress: impl FnMut(VerbProgress)) -> Result<Value> {
        let mut command = if self.nice {
            let mut command = Command::new("nice");
            command.arg("-n").arg("10").arg(self.program);
            command
        } else {
            Command::new(self.program)
        };
        command.arg("--config").arg(self.config).args(["--output", "json"]).args(&self.words);
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| Error::file("run", self.program, &error))?;
        if let (Some(input), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // A verb that ends without reading it says so by itself.
            drop(stdin.write_all(&input).await);
        }
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let output = tokio::spawn(async move {
            let mut text = Vec::new();
            if let Some(mut stdout) = stdout {
                drop(stdout.read_to_end(&mut text).await);
            }
            text
        });
        let mut lines = stderr.map(|stderr| BufReader::new(stderr).lines());
        let mut failure = None;
        let mut cancelled = false;
        let deadline = tokio::time::sleep(Duration::MAX);
        tokio::pin!(deadline);
        loop {
            let next = async {
                match lines.as_mut() {
                    Some(lines) => lines.next_line().await.ok().flatten(),
                    None => None,
                }
            };
            tokio::select! {
                line = next => match line {
                    Some(line) => match serde_json::from_str::<Line>(&line) {
                        Ok(Line { progress: Some(now), .. }) => progress(now),
                        Ok(Line { error: Some(error), .. }) => failure = Some(error),
                        _ => tracing::info!(verb = ?self.words.first(), "{line}"),
                    },
                    None => break,
                },
                () = cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    deadline.as_mut().reset(tokio::time::Instant::now() + CLEAN_WITHIN);
                    if let Some(pid) = pid {
                        let _ = rustix::process::kill_process(pid, Signal::TERM);
                    }
                }
                () = &mut deadline, if cancelled => {
                    drop(child.start_kill());
                    break;
                }
            }
        }
        let status = child.wait().await.map_err(|error| Error::retry(format!("waiting for a verb: {error}")))?;
        let output = output.await.unwrap_or_default();
        if status.success() {
            return Ok(serde_json::from_slice(&output).unwrap_or(Value::Null));
        }
        if cancelled {
            return Err(Error::cancelled());
        }
        Err(match failure {
            Some(VerbError { code, message, doing, hint }) => Error {
                kind: if STUCK.contains(&code) { Kind::Stuck } else { Kind::Retry },
                what: message,
                doing,
                hint,
            },
            None => Error::retry(format!(
                "`holdfast {}` ended with {status}",
                self.words.first().map(|word| word.to_string_lossy()).unwrap_or_default()
            )),
        })
    }
}
