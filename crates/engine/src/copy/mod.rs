//! Copy: backups and WAL of one repository into another, which may be another store, encrypted or not, under another
//! key.
//!
//! Order:
//! 1. A lease in the source, as that of a restore. Which backups are copied is listed after that.
//! 2. The claim in the target: the same cluster's, or a new one. The archive of another cluster is refused.
//! 3. Two leases in the target: one of the run, for the start records that it writes, and one that uses everything,
//!    since packs of other backups come there before a manifest names them. A running `expire` is waited for.
//! 4. Backup by backup, the oldest first: `start.json`, the packs that are not there ([`crate::carry`]), the manifest,
//!    the WAL from its start to its stop. All of it is looked at as a restore does, and `backup.json` comes last
//!    ([`backup`]).
//! 5. The other WAL, if it is asked for ([`wal`]), then the records of volume snapshots, then an entry in the ledger.
//!
//! After a crash: complete backups stay, and the rest is not a backup. The next copy continues: it takes over the
//! start record, and skips packs and WAL that are there and right. A backup that cannot be read in the source is left
//! out, and what was stored for it is removed; the others are copied, and the copy fails in the end.

mod backup;
mod options;
mod run;
mod wal;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

pub use holdfast_contract::report::copy::{CopiedWal, CopyOutcome};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::options::{Copied, CopiedBackup, CopyOptions, Which};
use self::run::Run;
use crate::error::{Cause, Error, ResultExt};
use crate::progress::Progress;
use crate::repository::Repository;

/// Copies backups and WAL of a cluster from one repository into another.
///
/// # Errors
/// [`Cause::Refused`] for a repository onto itself, and where there is nothing to copy; [`Cause::NoSuchBackup`];
/// [`Cause::WrongCluster`] if the target's archive is another cluster's, [`Cause::Divergence`] if it has other WAL
/// under one of the names; [`Cause::AnotherRun`] while a run that makes the same backup is alive there;
/// [`Cause::Cancelled`]; those of the stores. What is wrong with a single backup or WAL file is in [`Copied`].
pub async fn copy(
    from: &Repository,
    to: &Repository,
    options: &CopyOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Copied, Error> {
    let began = Instant::now();
    let phrase = || format!("copying {} from {} to {}", options.cluster, from.describe(), to.describe());
    if from.id() == to.id() {
        let same = format!("{} and {} are the same repository", from.describe(), to.describe());
        return Err(Cause::Refused(same)).doing(phrase);
    }
    let mut run = Run::begin(from, to, options, progress, cancel).await.doing(phrase)?;
    let outcome = tokio::select! {
        outcome = run.all() => outcome,
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
    };
    let copied = run.end().await;
    outcome.doing(phrase)?;
    Ok(Copied { duration: began.elapsed(), ..copied })
}
