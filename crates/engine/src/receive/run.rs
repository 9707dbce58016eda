//! One session after the other, until the caller says that it is enough.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::report::wal_receive::ReceiveReport;
use tokio_util::sync::CancellationToken;

use super::ReceiveOptions;
use super::again::{is_of_credentials, passes};
use super::lock::ReceiverLock;
use super::session::{self, Ended};
use super::shared::{SERVER, Shared};
use crate::archive::{Archiver, PushOptions, Reopen};
use crate::error::Error;
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
/// [`Repository::open_to_write`](crate::repository::Repository::open_to_write) and of claims, `Cause::Divergence`,
/// `Cause::OtherWal`, `Cause::SlotLost`, `Cause::WalGap`, and those of local files. They are returned also after
/// `stop`. `Cause::AnotherRun` if another receiver uses the folder.
pub async fn receive(
    repositories: Repositories,
    options: &ReceiveOptions<'_>,
    stop: &CancellationToken,
) -> Result<ReceiveReport, Error> {
    let _lock = prepare_folder(options.folder.clone()).await?;
    let Repositories { mut targets, reopen, reopen_archiver } = repositories;
    let push = PushOptions { path: SERVER.into(), spool: None, push_ahead: 0, ..options.push.clone() };
    let archiver = Arc::new(Archiver::new(targets.clone(), reopen_archiver, push));
    let mut shared = Shared {
        options,
        archiver,
        clock: Clock::starting(options.push.now),
        report: ReceiveReport { slot: options.slot.clone(), ..ReceiveReport::default() },
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
            Ok(Ended::AtTimelineEnd | Ended::NotCompared | Ended::MadeAgain | Ended::Passed) => SHORT_PAUSE,
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
