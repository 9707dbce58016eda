//! Archives a WAL file whose content is in memory: one that was streamed.

use std::path::Path;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use holdfast_contract::report::wal::PushOutcome;
use holdfast_pgtypes::WalFileName;
use tokio_util::sync::CancellationToken;

use super::archiver::Archiver;
use super::deliver::blocking;
use super::prefetched::write_whole;
use super::resident::Purpose;
use super::spool;
use crate::error::{Cause, Error};

/// Archives the file as `wal push` does, by way of a file in `folder`; `Ok` means durable in every repository.
///
/// # Errors
/// Those of [`Archiver::archive`], and [`Cause::Refused`] for a file that the history of the server left behind.
pub(crate) async fn hand_in(
    archiver: &Archiver,
    folder: &Path,
    file: WalFileName,
    content: Bytes,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let path = folder.join(file.to_string());
    let written = path.clone();
    blocking(move || write_whole(&written, &content)).await?;
    let done = archiver.archive(&path, Purpose::Asked, now, &CancellationToken::new()).await;
    spool::remove_quietly(&path);
    match done?.outcome {
        PushOutcome::Archived(_) | PushOutcome::Marked => Ok(()),
        PushOutcome::AfterFork(fork) => {
            Err(Cause::Refused(format!("{file} was streamed and is not archived: {fork}")).into())
        }
    }
}
