//! One session after the other, until the caller says that it is enough.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::report::wal_receive::ReceiveReport;
use holdfast_store::StoreErrorKind;
use tokio_util::sync::CancellationToken;

use super::ReceiveOptions;
use super::lock::ReceiverLock;
use super::session::{self, Ended, Shared};
use crate::archive::{Archiver, PushOptions, Reopen};
use crate::error::{Cause, Error};
use crate::repository::RepositoryTarget;
use crate::repository::leases::Clock;

/// The pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The pause after a session that has ended without an error: a server that ends each of them at once is not asked
/// without rest.
const SHORT_PAUSE: Duration = Duration::from_secs(1);

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
/// [`Cause::OtherWal`], [`Cause::SlotLost`], [`Cause::WalGap`], and those of local files. They are returned also after
/// `stop`. [`Cause::AnotherRun`] if another receiver uses the folder.
pub async fn receive(
    repositories: Repositories,
    options: &ReceiveOptions<'_>,
    stop: &CancellationToken,
) -> Result<ReceiveReport, Error> {
    let _lock = prepare_folder(options.folder.clone()).await?;
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
        reached: None,
        made_again: false,
    };
    let mut pause = FIRST_PAUSE;
    let mut has_reopened = false;
    loop {
        (shared.has_streamed, shared.reached) = (false, None);
        let ended = session::run(&targets, &mut shared, stop).await;
        if shared.has_streamed {
            (pause, has_reopened, shared.made_again) = (FIRST_PAUSE, false, false);
        }
        let waits = match ended {
            Ok(Ended::Stopped) => return Ok(shared.report),
            Ok(Ended::AtTimelineEnd | Ended::NotCompared | Ended::MadeAgain) => SHORT_PAUSE,
            Ok(Ended::Skip(to)) => {
                shared.skip_to = Some(to);
                SHORT_PAUSE
            }
            Err(error) if stop.is_cancelled() && passes(&error) => {
                tracing::warn!(%error, "receiving was interrupted before its end; WAL waits in the slot on the server");
                return Ok(shared.report);
            }
            // The secrets may have been replaced while this session ran: they are read once more.
            Err(error) if passes(&error) || (is_of_credentials(&error) && !has_reopened) => {
                tracing::warn!(%error, again_in_seconds = pause.as_secs(), "receiving is interrupted; WAL waits in the \
                                                                           slot on the server");
                has_reopened |= is_of_credentials(&error);
                let waits = pause;
                pause = LONGEST_PAUSE.min(pause * 2);
                waits
            }
            Err(error) => return Err(error),
        };
        tokio::select! {
            () = tokio::time::sleep(waits) => {}
            () = stop.cancelled() => return Ok(shared.report),
        }
        if let Some(reopened) = reopen().await {
            targets = reopened;
        }
        shared.report.reconnects += 1;
    }
}

/// Makes the folder for segments, takes its lock, and removes what a killed run left there: it is on the server, too.
async fn prepare_folder(folder: PathBuf) -> Result<ReceiverLock, Error> {
    let failed = |folder: &Path| {
        let folder = folder.to_owned();
        move |error| Error::file("write", &folder, error)
    };
    tokio::fs::create_dir_all(&folder).await.map_err(failed(&folder))?;
    let lock = ReceiverLock::acquire(&folder)?;
    let mut entries = tokio::fs::read_dir(&folder).await.map_err(failed(&folder))?;
    while let Some(entry) = entries.next_entry().await.map_err(failed(&folder))? {
        if entry.file_name() != super::lock::NAME {
            tokio::fs::remove_file(entry.path()).await.map_err(failed(&folder))?;
        }
    }
    Ok(lock)
}

/// Whether the store refuses the credentials, or has none.
fn is_of_credentials(error: &Error) -> bool {
    matches!(
        &*error.what,
        Cause::Store(error) if matches!(error.kind(), StoreErrorKind::PermissionDenied | StoreErrorKind::NoCredentials)
    )
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
    use holdfast_store::{Failure, Operation, StoreError};

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
            assert!(!is_of_credentials(&error), "{error}");
        }
    }

    #[test]
    fn refused_credentials_are_read_once_more() {
        for (kind, expected) in [
            (StoreErrorKind::PermissionDenied, true),
            (StoreErrorKind::NoCredentials, true),
            (StoreErrorKind::NoSuchBucket, false),
            (StoreErrorKind::Timeout, false),
        ] {
            let failure = Failure {
                store: "s3://b".to_owned(),
                name: "n".to_owned(),
                operation: Operation::List,
                detail: String::new(),
                source: None,
            };
            let error = Error::from(Cause::Store(StoreError::new(kind, failure)));
            assert_eq!(is_of_credentials(&error), expected, "{kind:?}");
        }
    }
}
