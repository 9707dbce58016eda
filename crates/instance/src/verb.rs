//! Holdfast's own verbs, run as child processes: each verb has one implementation.
//!
//! A verb runs with `--output json`. Its report is one JSON object on stdout, and its error one on stderr, where its
//! progress lines are too; all have the types of `holdfast_contract`. It runs in its own process group, so that a
//! signal to the manager's group does not reach it before the manager has decided. `SIGTERM` ends it, after which it
//! removes what is half done; if it does not end, it is killed.

use crate::error::{Error, Result};
use holdfast_contract::problem::ErrorLine;
use holdfast_contract::progress::{Progress, ProgressLine};
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// The time a verb has after `SIGTERM` to remove what is half done.
const CLEAN_WITHIN: Duration = Duration::from_secs(20);

/// One run of a verb.
#[derive(Debug)]
pub struct Verb<'a> {
    pub program: &'a Path,
    /// The path of the configuration.
    pub config: &'a Path,
    /// Its arguments.
    pub words: Vec<OsString>,
    /// Its stdin.
    pub input: Option<Vec<u8>>,
    /// Whether it runs with lower priority than the server.
    pub nice: bool,
}

/// A line of a verb's stderr.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Progress(ProgressLine),
    Error(ErrorLine),
}

/// The stdout of a verb that succeeded.
#[derive(Debug)]
pub struct VerbOutput {
    verb: String,
    bytes: Vec<u8>,
}

impl VerbOutput {
    /// Parses the report in it.
    ///
    /// # Errors
    /// When it is not the report of this verb: the program is of another release than this manager.
    pub fn report<R: DeserializeOwned>(&self) -> Result<R> {
        serde_json::from_slice(&self.bytes).map_err(|error| {
            Error::retry(format!("the report of `holdfast {}` cannot be read: {error}", self.verb))
                .doing("reading the report of a command")
                .hint("the instance manager and `holdfast` must be of the same release: check the image")
        })
    }
}

impl<'a> Verb<'a> {
    /// A verb with these arguments.
    pub fn new<W: Into<OsString>>(program: &'a Path, config: &'a Path, words: impl IntoIterator<Item = W>) -> Self {
        Self { program, config, words: words.into_iter().map(Into::into).collect(), input: None, nice: false }
    }

    /// Runs it to its end and returns its result.
    ///
    /// # Errors
    /// The verb's own error; `Kind::Cancelled` when it was cancelled and has ended.
    pub async fn run(self, cancel: &CancellationToken, mut progress: impl FnMut(Progress)) -> Result<VerbOutput> {
        let verb = self.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
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
            // A verb that ends without reading its stdin reports its own error.
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
                        Ok(Line::Progress(line)) => progress(line.progress),
                        Ok(Line::Error(line)) => failure = Some(line.error),
                        Err(_) => tracing::info!(verb, "{line}"),
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
        let status =
            child.wait().await.map_err(|error| Error::retry(format!("cannot wait for the command to end: {error}")))?;
        let output = output.await.unwrap_or_default();
        if status.success() {
            return Ok(VerbOutput { verb, bytes: output });
        }
        if cancelled {
            return Err(Error::cancelled());
        }
        Err(match failure {
            Some(error) => Error::of_verb(error),
            None => Error::retry(format!("`holdfast {verb}` ended with {status}")),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;
    use crate::error::Kind;
    use holdfast_contract::exit_code::ExitCode;
    use holdfast_contract::problem::Problem;
    use std::fs;

    /// Runs a program with this output in the place of `holdfast`, and records the steps that it reported.
    async fn run(stderr: &str, stdout: &str, status: u8) -> (Result<VerbOutput>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        for (name, text) in [("stderr", stderr), ("stdout", stdout), ("status", &status.to_string())] {
            fs::write(config.with_extension(name), text).unwrap();
        }
        let program = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/verb/says.sh"));
        let mut steps = Vec::new();
        let verb = Verb::new(program, &config, ["list"]);
        let ended = verb.run(&CancellationToken::new(), |now| steps.push(now.step)).await;
        (ended, steps)
    }

    #[tokio::test]
    async fn what_a_verb_writes_is_parsed_into_its_types() {
        let progress = ProgressLine { progress: Progress { step: "copying".to_owned(), ..Progress::default() } };
        let (ended, steps) = run(&format!("{progress}\na log line\n"), "[1]", 0).await;
        let output = ended.unwrap();
        assert_eq!(steps, ["copying"]);
        assert_eq!(output.report::<Vec<u8>>().unwrap(), [1]);
        let error = output.report::<String>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "error: the report of `holdfast list` cannot be read: invalid type: sequence, expected a string at line 1 column 0\n\
             while: reading the report of a command\n\
             hint:  the instance manager and `holdfast` must be of the same release: check the image"
        );
    }

    #[tokio::test]
    async fn a_verb_s_own_error_is_passed_on() {
        let problem = Problem::new("no").doing("looking").hint("look again");
        let line = ErrorLine::new(ExitCode::CorruptObject, problem);
        let (ended, _) = run(&format!("{line}\n"), "", 40).await;
        let error = ended.unwrap_err();
        assert_eq!(error.kind, Kind::Stuck);
        assert_eq!(error.to_string(), "error: no\nwhile: looking\nhint:  look again");
        let (ended, _) = run("", "", 7).await;
        let error = ended.unwrap_err();
        assert_eq!((error.kind, error.what.as_str()), (Kind::Retry, "`holdfast list` ended with exit status: 7"));
    }
}
