//! Continuity: whether the archived WAL leads without a gap from each backup to now, and what it costs where it does
//! not.
//!
//! [`wal_verify`] is the verb `wal verify`. Steps: list the WAL of each claim by its log folders; follow each timeline
//! that a backup leads to, as recovery would ([`crate::restore`]); find gaps, objects that are too small, histories
//! that are missing or contradict each other, and partial segments ([`look`]); compare neighbouring segments, by stored
//! facts or by their bytes ([`compare`]); bring missing files back from folders, if that is asked for ([`heal`]); write
//! to the ledger which gaps are new and which are over ([`record`]). [`state`] is the short form for `check`: whether
//! what happens now can be restored.
//!
//! Only what a recovery needs is a gap: WAL before the oldest backup or snapshot is not, nor are segments of a timeline
//! after the point where the next one left it, nor WAL that `expire` removed ([`removed`]), nor segments that may still
//! be on their way ([`young`]).
//!
//! What cannot be read is never taken for something that is there, or for something that nobody needs.
//!
//! Nothing is ever replaced: a healed file is created under the rules of `wal push`. After a kill, whole files are
//! healed or not. What is left of a gap is judged again in the next run, which also writes to the ledger.
//!
//! Memory does not grow with the number of segments: a listing is kept as ranges, and of the compared segments only the
//! last one.

mod alarm;
mod compare;
mod ends;
mod findings;
mod heal;
mod histories;
mod look;
mod losses;
mod proof;
mod record;
mod remember;
mod removed;
mod run;
mod young;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_contract::report::verify::{Level, Sample};
pub use holdfast_contract::report::wal_verify::RecordedGap;
use holdfast_contract::report::wal_verify::{ClaimWalVerified, WalFinding, WalHealing};
use holdfast_pgtypes::TimelineId;
use holdfast_repo::Compression;
use holdfast_repo::name::ClusterName;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::alarm::{State, state};
pub use self::record::{RecordedGaps, last_verified, recorded_gaps};
use self::run::Run;
use crate::error::{Cause, Error, ResultExt};
use crate::progress::Progress;
use crate::repository::Repository;

/// The options of `wal verify`.
#[derive(Debug, Clone)]
pub struct WalVerifyOptions {
    /// The cluster's name in the repository.
    pub cluster: ClusterName,
    /// The timeline to follow; `None` for all.
    pub timeline: Option<TimelineId>,
    /// Whether every byte of the segments is read.
    pub level: Level,
    /// With [`Level::Deep`], reads only this sample of the segments; `None` for all.
    pub sample: Option<Sample>,
    /// Folders from which missing files are brought back: `pg_wal` of a server, or an archive of plain files.
    pub heal_from: Vec<PathBuf>,
    /// The compression of files that are brought back.
    pub compression: Compression,
    /// Whether gaps are written to the ledger.
    pub remember: bool,
    /// Threads that decompress and check; 0 for one per processor.
    pub jobs: usize,
    /// The total size of the buffers, in bytes.
    pub memory_bytes: u64,
    /// The name of this host, for the ledger.
    pub host: String,
    /// The time of the verification.
    pub now: DateTime<Utc>,
}

/// The result of `wal verify` for one repository.
#[derive(Debug, Default)]
pub struct WalVerification {
    /// The claims, oldest first.
    pub claims: Vec<ClaimWalVerified>,
    /// What was found; after a healing, what is left.
    pub findings: Vec<WalFinding>,
    /// What was brought back; `None` if that was not asked for.
    pub healing: Option<WalHealing>,
    /// Further notes for people.
    pub notes: Vec<String>,
    /// The number of listed segments.
    pub segment_count: u64,
    /// The number of segments that were compared with the segment before them.
    pub compared_count: u64,
    /// The number of bytes that were read of segments.
    pub read_bytes: u64,
    /// How long it took.
    pub duration: Duration,
    /// Why it did not finish; `None` if it did.
    pub interrupted: Option<Error>,
}

/// Follows the WAL of a cluster in one repository, and heals it if that is asked for.
///
/// # Errors
/// [`Cause::NoClaim`] if nothing was ever archived for the cluster, [`Cause::Refused`] or [`Cause::File`] if a folder
/// to heal from cannot be used, [`Cause::WrongCluster`] if it is of another cluster, [`Cause::Cancelled`]. Any other
/// failure is in [`WalVerification::interrupted`], with all findings before it.
pub async fn wal_verify(
    repository: &Repository,
    options: &WalVerifyOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<WalVerification, Error> {
    let began = Instant::now();
    let phrase = || format!("verifying the WAL of {} in {}", options.cluster, repository.describe());
    let mut run = Run::new(repository, options, progress, cancel);
    let outcome = tokio::select! {
        outcome = run.all() => outcome,
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
    };
    let interrupted = match outcome {
        Ok(()) => None,
        Err(error) if is_refusal(&error) => return Err(error).doing(phrase),
        Err(error) => Some(error.doing(phrase())),
    };
    Ok(WalVerification { interrupted, duration: began.elapsed(), ..run.finish() })
}

fn is_refusal(error: &Error) -> bool {
    matches!(
        *error.what,
        Cause::NoClaim { .. }
            | Cause::Cancelled
            | Cause::Refused(_)
            | Cause::File { .. }
            | Cause::ControlFile { .. }
            | Cause::UnsupportedVersion(_)
            | Cause::StoredVersion { .. }
            | Cause::WrongCluster { .. }
    )
}
