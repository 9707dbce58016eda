//! Copy: copies backups and WAL of one repository into another. That may be another store, encrypted or not, under
//! another key.
//!
//! Order:
//! 1. A lease in the source for the chosen backups, as in a restore. Their records are read after that.
//! 2. The claim in the target: a claim of the same cluster, or a new one. The archive of another cluster is refused.
//! 3. Two leases in the target. One is for the start records that this run writes. The other one protects everything,
//!    because packs of other backups are stored before a manifest names them. Then the copy waits for a running
//!    `expire` to end.
//! 4. Each backup, oldest first: `start.json`, the packs that the target lacks ([`crate::carry`]), the manifest, the
//!    WAL from its start to its stop. Everything is checked as in a restore, and `backup.json` is written last
//!    ([`backup`]).
//! 5. The other WAL if requested ([`wal`]), then the records of volume snapshots, then an entry in the ledger.
//!
//! After a crash: complete backups stay, and everything else is not a backup. The next copy continues: it takes over
//! the start record, and skips packs and WAL that are there and correct. If a backup cannot be read in the source, what
//! was stored for it is removed. The other backups are copied, and the copy fails at the end.

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

pub use self::options::{Copied, CopiedBackup, CopyChoice, CopyOptions};
use self::run::Run;
use crate::error::{Cause, Error, ResultExt};
use crate::progress::Progress;
use crate::repository::Repository;

/// Copies backups and WAL of a cluster from one repository into another.
///
/// # Errors
/// [`Cause::Refused`] if both are the same repository, or if the target has another backup with the same id or a later
/// claim; [`Cause::NoSuchBackup`] if a requested backup does not exist, or if there is no backup at all;
/// [`Cause::WrongCluster`] if the target's archive belongs to another cluster, [`Cause::Divergence`] if it has
/// different WAL under one of the names; [`Cause::AnotherRun`] while another run makes the same backup there;
/// [`Cause::Cancelled`]; errors of the stores. What is wrong with a single backup or WAL file is in [`Copied`].
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
