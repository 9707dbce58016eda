//! `wal push` and `wal get` ask the agent first. Without its answer they do the work themselves: `None`.

use super::wal;
use crate::config::Config;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_agent::client::{self, Conversation, Reply};
use holdfast_contract::agent::{Answer, FileIdentity, Request};
use holdfast_contract::problem::ErrorReport;
use holdfast_engine::archive::{self, GetReport, GetSource, PushReport};
use holdfast_pgtypes::{SegmentName, WalFileName};
use std::path::Path;
use std::time::Duration;

/// A digest of the settings on which the agent's answers depend. The tables of the file are part of it as they are,
/// because a new access key in them must not be answered with the old one. Of what flags and variables change, the
/// parts count that the answers depend on.
pub(super) fn settings(config: &Config, file: Option<&Path>) -> String {
    let Config { cluster, repositories, wal, .. } = config;
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let tables = text.parse::<toml::Table>().unwrap_or_default();
    let written = ["cluster", "repo", "wal"].map(|table| tables.get(table).map(ToString::to_string));
    let meant = format!("{cluster:?} {repositories:?} {:?} {}", wal.compression, wal.spool.display());
    archive::digest_of_settings(&format!("{meant} {written:?}"))
}

/// The agent's answer for one file of `pg_wal`.
pub(crate) fn push(config: &Config, config_file: Option<&Path>, path: &Path) -> Option<Result<PushReport, Failure>> {
    let spool = wal::existing_spool(config, path)?;
    let file: WalFileName = path.file_name()?.to_str()?.parse().ok()?;
    let path = std::path::absolute(path).ok()?;
    let identity = FileIdentity::of(&std::fs::metadata(&path).ok()?);
    let conversation =
        answered(client::ask(&spool, settings(config, config_file), Request::Push { path, file: identity }, None))?;
    match &conversation.answer {
        Answer::Pushed(outcome) => Some(Ok(PushReport {
            file,
            outcome: outcome.clone(),
            neighbours: Vec::new(),
            failed_neighbours: Vec::new(),
        })),
        Answer::Failed(report) => failure(report).map(Err),
        _ => None,
    }
}

/// The agent's answer for one file of the archive, which is then at its destination.
pub(crate) fn get(
    config: &Config,
    config_file: Option<&Path>,
    name: &str,
    destination: &Path,
    until: Option<SegmentName>,
    patience: Option<Duration>,
) -> Option<Result<GetReport, Failure>> {
    let spool = wal::existing_spool(config, destination)?;
    let file: WalFileName = name.parse().ok()?;
    // A person who runs the command by hand, outside of a data directory, may mean another cluster than the agent.
    let system_identifier = wal::recovering_system(destination).ok()??;
    let request = Request::Get { file, system_identifier, until };
    let conversation = answered(client::ask(&spool, settings(config, config_file), request, patience))?;
    let size_bytes = match &conversation.answer {
        // The agent and this process may see different file systems: then the file is not there.
        Answer::Fetched { path, blake3, .. } if path.starts_with(spool.folder()) => {
            alone_after_failure(archive::hand_over_from_agent(path, *blake3, destination))?
        }
        Answer::Content(digits) => alone_after_failure(archive::write_small(destination, digits))?,
        Answer::Failed(report) => return failure(report).map(Err),
        _ => return None,
    };
    Some(Ok(GetReport { file, source: GetSource::Spool, size_bytes, prefetched: 0 }))
}

/// What was handed over; `None` also after a failure. The command alone may succeed, and if it does not, its failure is
/// the one that recovery reads: many of them end it.
fn alone_after_failure(handed: Result<Option<u64>, holdfast_engine::Error>) -> Option<u64> {
    handed.unwrap_or_else(|error| {
        tracing::warn!(%error, "what the agent has fetched cannot be used; working without the agent");
        None
    })
}

fn answered(reply: Reply) -> Option<Box<Conversation>> {
    match reply {
        Reply::Answered(conversation) => Some(conversation),
        Reply::Alone(reason) => {
            if let Some(reason) = reason {
                tracing::warn!(reason, "working without the agent");
            }
            None
        }
    }
}

/// The failure that the agent reports, if it is about the store, the archive or the file. `None` for any other code:
/// the agent may be in trouble itself, or have credentials and certificates of before.
fn failure(report: &ErrorReport) -> Option<Failure> {
    let code: ExitCode = report.exit_code()?;
    let counts = matches!(
        code,
        ExitCode::Absent
            | ExitCode::Diverged
            | ExitCode::WrongCluster
            | ExitCode::WrongVersion
            | ExitCode::Unreachable
            | ExitCode::StoreRefused
            | ExitCode::CorruptObject
            | ExitCode::TruncatedObject
            | ExitCode::SwappedObject
            | ExitCode::MissingObject
    );
    if !counts {
        tracing::warn!(reason = report.problem.message, "working without the agent");
        return None;
    }
    let mut failure = Failure::new(code, report.problem.message.clone());
    failure.doing.clone_from(&report.problem.doing);
    failure.hint.clone_from(&report.problem.hint);
    Some(failure)
}
