//! Whether the server that answers is the one whose files are in the data directory.
//!
//! A primary, its standbys, every restored copy and an old primary that was fenced share a system identifier, and often
//! a path and a port as well. A backup with the files of one and the label of another looks complete and has lost rows.
//! So each of these must be true:
//!
//! - `postmaster.pid` of the directory exists and is the server's: its lines are equal, if the role may read them
//!   (`pg_read_file`), or else start time and port, which every role may read;
//! - the server's `data_directory`, if it can be seen from here, is this directory (device and inode);
//! - the control file has the state "in production" exactly if the server is not in recovery, and names the same last
//!   checkpoint as the server does;
//! - a temporary file that the server makes on request appears in this directory ([`super::temporary_file`]): all of
//!   the above can be equal on two standbys;
//! - once the backup has started, the control file's checkpoint is not before the one at which the backup starts, nor
//!   on an older timeline: everything that happened before is then in these files.
//!
//! No process is looked for: the server may run in another container with the same volume, where its process id means
//! nothing here. A server that answers is alive, and only that server can give the compared values.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_pgtypes::control::DbState;
use holdfast_pgtypes::{ControlFile, Lsn, TimelineId};
use tokio_postgres::error::SqlState;

use super::control::read_control_file;
use super::temporary_file::{self, Proof};
use super::{Connection, PostmasterPid, RawText};
use crate::error::{Cause, Error, ResultExt, ServerSetting};

/// How often two sides that differ are compared again: a checkpoint, a restart point or a promotion may happen between
/// reading one side and reading the other.
const ATTEMPTS: u32 = 10;

/// The pause between two comparisons.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How far `pg_postmaster_start_time()` may be from the time in `postmaster.pid`. The server records the time in the
/// file first, then loads its libraries, binds its sockets and gets its shared memory, and then records the other time.
/// That is less than a second on an idle machine, and more with a slow name server or a clock that is set while the
/// machine starts.
const STARTED_WITHIN_SECONDS: i64 = 120;

/// How many lines of `postmaster.pid` are compared: pid, data directory, start time, port, socket directory. Later
/// lines change while the server runs.
const COMPARED_LINES: usize = 5;

/// What the server reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reported {
    in_recovery: bool,
    port: u16,
    start_seconds: i64,
    data_directory: Option<PathBuf>,
    postmaster_pid: Option<Vec<u8>>,
    checkpoint: Option<Checkpoint>,
}

/// The last checkpoint, as in a control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checkpoint {
    lsn: Lsn,
    timeline: TimelineId,
}

impl Checkpoint {
    fn of(control: &ControlFile) -> Self {
        Self { lsn: control.checkpoint, timeline: control.timeline }
    }
}

/// Proves that the server's files are those in `pgdata`.
///
/// # Errors
/// [`Cause::ServerSetting`] with [`ServerSetting::OtherFiles`], which says what differs, if the two still differ after
/// some two seconds. [`Cause::File`], [`Cause::ControlFile`] or [`Cause::PostmasterPid`] if a file of the directory
/// cannot be read, [`Cause::Postgres`] if a query fails, [`Cause::Internal`] if the checkpoint that the server names is
/// not one.
pub async fn prove_same(connection: &Connection, pgdata: &Path) -> Result<(), Error> {
    let phrase = || format!("comparing the server with {}", pgdata.display());
    let mut attempt = 0;
    loop {
        attempt += 1;
        let before = read_control_file(pgdata)?;
        let reported = Reported::ask(connection).await.doing(phrase)?;
        let after = read_control_file(pgdata)?;
        match difference(&reported, pgdata, &[before, after])? {
            None => return prove_by_file(connection, &reported, pgdata).await.doing(phrase),
            Some(reason) if attempt >= ATTEMPTS => return Err(other_files(pgdata, reason)),
            Some(reason) => tracing::debug!(reason, "server and data directory differ; they are compared again"),
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// The last proof: nothing that two servers may have in common.
async fn prove_by_file(connection: &Connection, reported: &Reported, pgdata: &Path) -> Result<(), Error> {
    match temporary_file::prove(connection, pgdata).await? {
        Proof::Given => Ok(()),
        Proof::Missing(folder) => Err(other_files(
            pgdata,
            format!("the server that answers made a temporary file, and it did not appear in {}", folder.display()),
        )),
        // Its own postmaster.pid is the next best proof.
        Proof::Forbidden(why) if reported.postmaster_pid.is_some() => {
            tracing::debug!(why, "the server makes no temporary file; its postmaster.pid is the same");
            Ok(())
        }
        Proof::Forbidden(why) => Err(other_files(
            pgdata,
            format!(
                "the server that answers may not make a temporary file ({why}), and the role may not read its \
                 postmaster.pid: raise temp_file_limit, or grant pg_read_file(text)"
            ),
        )),
    }
}

/// Proves that the data directory is not older than the start of the backup. Returns its control file. The server has
/// written its own control file before it answered.
///
/// # Errors
/// [`Cause::ServerSetting`] with [`ServerSetting::OtherFiles`] if the last checkpoint of the directory is still before
/// `start_lsn` after some two seconds; otherwise as [`read_control_file`].
pub async fn prove_started(pgdata: &Path, start_lsn: Lsn) -> Result<ControlFile, Error> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let control = read_control_file(pgdata)?;
        if control.redo >= start_lsn {
            return Ok(control);
        }
        if attempt >= ATTEMPTS {
            let redo = control.redo;
            return Err(other_files(
                pgdata,
                format!(
                    "the backup starts at {start_lsn}, but the last checkpoint of these files is before it, at {redo}"
                ),
            ));
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// Proves that the data directory was on the label's timeline at the start of the backup: files of an old primary can
/// be ahead in LSN, on the abandoned history.
///
/// # Errors
/// [`Cause::ServerSetting`] with [`ServerSetting::OtherFiles`], which names both timelines.
pub fn prove_timeline(
    pgdata: &Path,
    at_start: &ControlFile,
    start_lsn: Lsn,
    label_timeline: TimelineId,
) -> Result<(), Error> {
    let same_checkpoint = at_start.redo == start_lsn;
    if at_start.timeline < label_timeline || (same_checkpoint && at_start.timeline != label_timeline) {
        let found = at_start.timeline;
        return Err(other_files(
            pgdata,
            format!("the backup starts on timeline {label_timeline}, but the control file says timeline {found}"),
        ));
    }
    Ok(())
}

fn other_files(directory: &Path, reason: String) -> Error {
    Cause::ServerSetting(ServerSetting::OtherFiles { directory: directory.to_owned(), reason }).into()
}

impl Reported {
    async fn ask(connection: &Connection) -> Result<Self, Error> {
        let client = connection.client();
        let row = client
            .query_one(
                "SELECT pg_is_in_recovery(), current_setting('port')::int4, \
                 floor(extract(epoch FROM pg_postmaster_start_time()))::int8, \
                 (SELECT setting FROM pg_settings WHERE name = 'data_directory'), \
                 has_function_privilege('pg_read_file(text)', 'EXECUTE'), \
                 has_function_privilege('pg_control_checkpoint()', 'EXECUTE')",
                &[],
            )
            .await?;
        let checkpoint = if row.get(5) {
            let row = client
                .query_one("SELECT checkpoint_lsn::text, timeline_id::int8 FROM pg_control_checkpoint()", &[])
                .await?;
            let (lsn, timeline) = (row.get::<_, &str>(0), row.get::<_, i64>(1));
            // If the proof cannot be read, that is an error and not a reason to skip it.
            let unread = || Cause::Internal(format!("pg_control_checkpoint() says {lsn} on timeline {timeline}"));
            let timeline = u32::try_from(timeline).ok().and_then(TimelineId::new).ok_or_else(unread)?;
            Some(Checkpoint { lsn: lsn.parse().map_err(|_| unread())?, timeline })
        } else {
            None
        };
        let postmaster_pid = if row.get(4) {
            match client.query_one("SELECT convert_to(pg_read_file('postmaster.pid'), 'UTF8')", &[]).await {
                Ok(row) => Some(row.get(0)),
                // The path in the file is not valid text in this database, or another rule forbids reading it: then the
                // path is unknown.
                Err(error) if error.code().is_some_and(|code| !connection_ended(code)) => None,
                Err(error) => return Err(error.into()),
            }
        } else {
            None
        };
        Ok(Self {
            in_recovery: row.get(0),
            port: u16::try_from(row.get::<_, i32>(1)).unwrap_or(0),
            start_seconds: row.get(2),
            data_directory: row.get::<_, Option<RawText>>(3).map(RawText::into_path),
            postmaster_pid,
            checkpoint,
        })
    }
}

fn connection_ended(code: &SqlState) -> bool {
    code.code().starts_with("57P")
}

/// The first difference, if there is any.
fn difference(reported: &Reported, pgdata: &Path, controls: &[ControlFile]) -> Result<Option<String>, Error> {
    if let Some(reason) = directory_difference(reported, pgdata)? {
        return Ok(Some(reason));
    }
    let Some(bytes) = PostmasterPid::read_bytes(pgdata)? else {
        return Ok(Some("no server runs there: there is no postmaster.pid".to_owned()));
    };
    let Some(postmaster) = PostmasterPid::parse(&bytes, &pgdata.join(PostmasterPid::PATH))? else {
        return Ok(Some("no server runs there: postmaster.pid is empty".to_owned()));
    };
    Ok(postmaster_difference(reported, &bytes, &postmaster).or_else(|| control_difference(reported, controls)))
}

/// A path of the server that leads to another data directory on this side. If it leads to nothing, or to something that
/// is not this cluster's, it belongs to another mount namespace and proves nothing.
fn directory_difference(reported: &Reported, pgdata: &Path) -> Result<Option<String>, Error> {
    let Some(theirs) = &reported.data_directory else { return Ok(None) };
    let ours = fs::metadata(pgdata).map_err(|e| Error::file("look at", pgdata, e))?;
    let Ok(found) = fs::metadata(theirs) else { return Ok(None) };
    if (found.dev(), found.ino()) == (ours.dev(), ours.ino()) {
        return Ok(None);
    }
    let same_cluster = match fs::read(theirs.join(ControlFile::PATH)) {
        Ok(bytes) => match (ControlFile::parse(&bytes), read_control_file(pgdata)) {
            (Ok(theirs), Ok(ours)) => theirs.system_identifier == ours.system_identifier,
            _ => true,
        },
        Err(e) => !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    };
    Ok(same_cluster.then(|| format!("the server that answers uses {}", theirs.display())))
}

fn postmaster_difference(reported: &Reported, bytes: &[u8], postmaster: &PostmasterPid) -> Option<String> {
    if let Some(theirs) = &reported.postmaster_pid {
        // As text, because the server returns it as text.
        let lines = |bytes: &[u8]| -> Vec<String> {
            String::from_utf8_lossy(bytes).lines().take(COMPARED_LINES).map(|line| line.trim().to_owned()).collect()
        };
        if lines(theirs) == lines(bytes) {
            return None;
        }
    } else if postmaster.port == Some(reported.port)
        && postmaster
            .start_seconds
            .is_some_and(|start| start.abs_diff(reported.start_seconds) <= STARTED_WITHIN_SECONDS.unsigned_abs())
    {
        return None;
    }
    let here = format!("{}, port {}", shown(postmaster.start_seconds), shown_port(postmaster.port));
    let there = format!("{}, port {}", shown(Some(reported.start_seconds)), reported.port);
    Some(format!(
        "postmaster.pid there belongs to a server started {here}, but the one that answers was started {there}"
    ))
}

fn shown(seconds: Option<i64>) -> String {
    seconds
        .and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0))
        .map_or_else(|| "at an unknown time".to_owned(), |time| format!("at {}", time.format("%Y-%m-%dT%H:%M:%SZ")))
}

fn shown_port(port: Option<u16>) -> String {
    port.map_or_else(|| "unknown".to_owned(), |port| port.to_string())
}

fn control_difference(reported: &Reported, controls: &[ControlFile]) -> Option<String> {
    let agrees = |control: &ControlFile| {
        let state = if reported.in_recovery { DbState::InArchiveRecovery } else { DbState::InProduction };
        control.state == state
    };
    if !controls.iter().any(agrees) {
        let role = if reported.in_recovery { "a standby" } else { "a primary" };
        let found = controls.last().map_or("nothing", |control| in_words(control.state));
        return Some(format!("{role} answers, but the control file of these files says: {found}"));
    }
    let checkpoint = reported.checkpoint?;
    if controls.iter().any(|control| Checkpoint::of(control) == checkpoint) {
        return None;
    }
    let here = controls.last().map(Checkpoint::of)?;
    Some(format!(
        "the server's last checkpoint is at {} on timeline {}, but that of these files is at {} on timeline {}",
        checkpoint.lsn, checkpoint.timeline, here.lsn, here.timeline
    ))
}

/// The words of `pg_controldata`.
fn in_words(state: DbState) -> &'static str {
    match state {
        DbState::StartingUp => "starting up",
        DbState::ShutDown => "shut down",
        DbState::ShutDownInRecovery => "shut down in recovery",
        DbState::ShuttingDown => "shutting down",
        DbState::InCrashRecovery => "in crash recovery",
        DbState::InArchiveRecovery => "in archive recovery",
        DbState::InProduction => "in production",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported() -> Reported {
        Reported {
            in_recovery: false,
            port: 5432,
            start_seconds: 1_795_000_001,
            data_directory: None,
            postmaster_pid: None,
            checkpoint: None,
        }
    }

    const FILE: &[u8] = b"99\n/srv/pg\n1795000000\n5432\n/run\n*\n 1 2\nready   \n";

    #[expect(clippy::unwrap_in_result, reason = "a failed set-up fails the test")]
    fn compared(reported: &Reported, file: &[u8]) -> Option<String> {
        let postmaster = PostmasterPid::parse(file, Path::new("/x")).expect("a sound file").expect("a file");
        postmaster_difference(reported, file, &postmaster)
    }

    #[test]
    fn start_time_and_port_prove_a_server_whose_files_cannot_be_read() {
        assert_eq!(compared(&reported(), FILE), None);
        // The time in the file is before the server's own start time, by less than the limit: a slow start.
        assert_eq!(compared(&Reported { start_seconds: 1_795_000_119, ..reported() }, FILE), None);
        for other in [
            Reported { start_seconds: 1_795_000_200, ..reported() },
            Reported { start_seconds: 1_794_990_000, ..reported() },
            Reported { port: 5433, ..reported() },
        ] {
            let reason = compared(&other, FILE).expect("another server");
            assert!(
                reason
                    .starts_with("postmaster.pid there belongs to a server started at 2026-11-18T11:06:40Z, port 5432"),
                "{reason}"
            );
        }
        compared(&reported(), b"99\n").expect("a file without a start time proves nothing");
    }

    #[test]
    fn the_lines_that_the_server_reads_count_more_than_its_clock() {
        let same = Reported { postmaster_pid: Some(FILE.to_vec()), start_seconds: 0, ..reported() };
        assert_eq!(compared(&same, FILE), None);
        let ready = Reported {
            postmaster_pid: Some(b"99\n/srv/pg\n1795000000\n5432\n/run\n*\n 1 3\nstandby \n".to_vec()),
            ..reported()
        };
        assert_eq!(compared(&ready, FILE), None);
        let other = Reported {
            postmaster_pid: Some(b"98\n/srv/pg\n1795000000\n5432\n/run\n*\n 1 2\nready   \n".to_vec()),
            ..reported()
        };
        compared(&other, FILE).expect("another process");
    }
}
