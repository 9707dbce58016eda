//! One session after the other, until the caller says that it is enough.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::report::wal_receive::ReceiveReport;
use tokio_util::sync::CancellationToken;

use super::ReceiveOptions;
use super::session::{self, Ended, Shared};
use crate::archive::{Archiver, PushOptions, Reopen};
use crate::error::{Cause, Error};
use crate::repository::RepositoryTarget;
use crate::repository::leases::Clock;

/// The pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: a server that is back is found within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The repositories to store into.
pub struct Repositories {
    /// The targets as they are now.
    pub targets: Vec<RepositoryTarget>,
    /// Makes the targets of a session, with secrets and certificates as they are then.
    pub reopen: Reopen,
    /// The same for the archiver of whole segments.
    pub reopen_archiver: Reopen,
}

/// Receives until `stop`; then stores what is in hand, and reports.
///
/// # Errors
/// What does not pass by itself: those of connecting with wrong parameters or without the right to replicate, of
/// [`Repository::open_to_write`](crate::repository::Repository::open_to_write) and of claims, [`Cause::Divergence`],
/// [`Cause::OtherWal`], [`Cause::SlotLost`], [`Cause::WalGap`], and those of local files.
pub async fn receive(
    repositories: Repositories,
    options: &ReceiveOptions<'_>,
    stop: &CancellationToken,
) -> Result<ReceiveReport, Error> {
    prepare_folder(options.folder.clone()).await?;
    let Repositories { mut targets, reopen, reopen_archiver } = repositories;
    let push = PushOptions { spool: None, push_ahead: 0, ..options.push.clone() };
    let archiver = Arc::new(Archiver::new(targets.clone(), reopen_archiver, push));
    let mut shared = Shared {
        options,
        archiver,
        clock: Clock::starting(options.push.now),
        report: ReceiveReport { slot: options.slot.clone(), ..ReceiveReport::default() },
        skip_to: None,
        compares: true,
        has_streamed: false,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        shared.has_streamed = false;
        let ended = session::run(&targets, &mut shared, stop).await;
        if shared.has_streamed {
            pause = FIRST_PAUSE;
        }
        match ended {
            Ok(Ended::Stopped) => return Ok(shared.report),
            Ok(Ended::AtTimelineEnd | Ended::NotCompared) => {}
            Ok(Ended::Skip(to)) => shared.skip_to = Some(to),
            Err(_) if stop.is_cancelled() => return Ok(shared.report),
            Err(error) if passes(&error) => {
                tracing::warn!(%error, again_in_seconds = pause.as_secs(), "receiving is interrupted; WAL waits in the \
                                                                           slot on the server");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => return Ok(shared.report),
                }
                pause = LONGEST_PAUSE.min(pause * 2);
                if let Some(reopened) = reopen().await {
                    targets = reopened;
                }
            }
            Err(error) => return Err(error),
        }
        shared.report.reconnects += 1;
    }
}

/// Makes the folder for segments, and removes what a killed run left there: it is on the server, too.
async fn prepare_folder(folder: PathBuf) -> Result<(), Error> {
    let failed = |folder: &Path| {
        let folder = folder.to_owned();
        move |error| Error::file("write", &folder, error)
    };
    tokio::fs::create_dir_all(&folder).await.map_err(failed(&folder))?;
    let mut entries = tokio::fs::read_dir(&folder).await.map_err(failed(&folder))?;
    while let Some(entry) = entries.next_entry().await.map_err(failed(&folder))? {
        tokio::fs::remove_file(entry.path()).await.map_err(failed(&folder))?;
    }
    Ok(())
}

/// Whether the same may succeed later without anybody's help. Everything else ends the receiver, so that somebody
/// looks at it.
fn passes(error: &Error) -> bool {
    match &*error.what {
        Cause::StreamLost { .. }
        | Cause::Connection(_)
        | Cause::SessionLost { .. }
        | Cause::NotReadable { .. }
        | Cause::PostmasterPid { .. } => true,
        Cause::Store(error) => error.is_retryable(),
        Cause::Postgres(error) => error.code().is_none_or(|code| passes_by_itself(code.code())),
        Cause::ServerAnswer { sqlstate, .. } => passes_by_itself(sqlstate),
        _ => false,
    }
}

/// Errors of a server that starts, stops, is full, or still holds the slot for the session before.
fn passes_by_itself(sqlstate: &str) -> bool {
    const OBJECT_IN_USE: &str = "55006";
    const IO_ERROR: &str = "58030";
    let class = |class: &str| sqlstate.starts_with(class);
    sqlstate == OBJECT_IN_USE || sqlstate == IO_ERROR || class("57") || class("53") || class("08") || class("XX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        let answer = |sqlstate: &str| Cause::ServerAnswer {
            severity: "ERROR".to_owned(),
            message: "m".to_owned(),
            sqlstate: sqlstate.to_owned(),
        };
        for (cause, expected) in [
            (Cause::StreamLost { reason: "gone".to_owned() }, true),
            (Cause::Connection("refused".to_owned()), true),
            (answer("57P03"), true),
            (answer("53300"), true),
            (answer("55006"), true),
            (answer("28P01"), false),
            (answer("42501"), false),
            (Cause::ConnectionParameters("port".to_owned()), false),
            (Cause::SlotLost { slot: "s".to_owned(), reason: "r".to_owned() }, false),
            (Cause::OtherWal { store: "s3://b".to_owned(), reason: "r".to_owned() }, false),
            (Cause::Internal("a bug".to_owned()), false),
        ] {
            let error = Error::from(cause);
            assert_eq!(passes(&error), expected, "{error}");
        }
    }
}
