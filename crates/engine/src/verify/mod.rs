//! Verify: checks whether the stored objects are those that were written, and what damage means for the backups and
//! windows of an archive.
//!
//! Order:
//! 1. The claims and backups are listed. For each requested backup, the record and the manifest are read with the
//!    restore's own checks. Every pack is looked up: its size, and its CRC-32C if the store keeps one.
//! 2. The WAL of each claim is listed, and the planner finds its windows and its gaps ([`chains`]).
//! 3. With [`Level::Deep`], for each backup: each pack is read as a stream ([`packs`]), then the WAL from the start of
//!    the backup to the start of the next one ([`segments`]).
//! 4. The result of each backup is written to the ledger as soon as it is known ([`crate::repository::verified`]). What
//!    was read is written every few minutes ([`crate::repository::readings`]), so that the next run can continue a run
//!    that ended early.
//!
//! Three results are always kept apart. *Damaged*: an object is missing or is not what was written ([`judge`]).
//! *Newer*: a later release wrote it, and it may be sound. *Incomplete*: a fault of the store says nothing about any
//! object, and unfinished parts are not called sound.
//!
//! [`verify_and_repair`] then brings back from other repositories what is missing or damaged ([`repair`]), and verifies
//! again.
//!
//! Nothing else is changed but the ledger. A bit that flipped on the way is read once more before it is called damage.

mod chains;
mod findings;
pub(crate) mod judge;
mod packs;
mod repair;
mod run;
mod segments;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_contract::report::verify::{Damage, NewerObject, Repair, VerifiedBackup, VerifiedClaim};
pub use holdfast_contract::report::verify::{Level, Sample, Verified};
use holdfast_repo::name::{BackupId, ClusterName};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::repair::{RepairOptions, verify_and_repair};
use self::run::Run;
use crate::error::{Cause, Error, ResultExt};
use crate::progress::Progress;
use crate::repository::Repository;
pub use crate::repository::verified::{Verifications, sound_backups, verifications};

/// Chooses the backups to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupChoice {
    /// All backups, with all WAL from the oldest one on.
    All,
    /// The newest backup, with its own WAL.
    Latest,
    /// One backup, with its own WAL.
    One(BackupId),
}

/// The usual [`VerifyOptions::remember_every`]: a small object every few minutes, and at most that much work lost.
pub const REMEMBER_EVERY: Duration = Duration::from_mins(5);

/// The options of a verification.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The cluster's name in the repository.
    pub cluster: ClusterName,
    /// The backups to verify.
    pub which: BackupChoice,
    /// How deep the verification is.
    pub level: Level,
    /// With [`Level::Deep`], reads only this sample of packs and WAL; `None` for all.
    pub sample: Option<Sample>,
    /// With [`Level::Deep`], packs and WAL that a verification read within this time and found sound are not read
    /// again; `None` reads everything.
    pub max_age: Option<Duration>,
    /// How often a long run writes down what it has read, so that the next run continues there after a kill; see
    /// [`REMEMBER_EVERY`].
    pub remember_every: Duration,
    /// Whether the results are written to the ledger.
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

/// The result of a verification.
#[derive(Debug, Default)]
pub struct Verification {
    /// The requested backups, oldest first.
    pub backups: Vec<VerifiedBackup>,
    /// The verified WAL, by claim.
    pub claims: Vec<VerifiedClaim>,
    /// Objects that are missing or not as they were written.
    pub damage: Vec<Damage>,
    /// Objects that a newer release wrote.
    pub newer: Vec<NewerObject>,
    /// What was brought back, where that was asked for.
    pub repair: Option<Repair>,
    /// Further notes for people.
    pub notes: Vec<String>,
    /// The number of examined objects.
    pub object_count: u64,
    /// The number of bytes that were read of packs and WAL.
    pub read_bytes: u64,
    /// How long it took.
    pub duration: Duration,
    /// Why it did not finish; `None` if it did.
    pub interrupted: Option<Error>,
}

/// Chooses a random sample of `percent` percent of the objects.
///
/// # Errors
/// [`Cause::Internal`] if the system provides no random bytes.
pub fn random_sample(percent: u8) -> Result<Sample, Error> {
    let mut bytes = [0; 4];
    // Few digits, so that a person can type them without a mistake.
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Cause::Internal("no random bytes".to_owned()))?;
    Ok(Sample { percent, seed: u64::from(u32::from_le_bytes(bytes)) })
}

/// Whether an object is in the sample; without one, every object is.
pub(crate) fn is_chosen(sample: Option<Sample>, object: &str) -> bool {
    let Some(sample) = sample else { return true };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&sample.seed.to_le_bytes()).update(object.as_bytes());
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    u64::from_le_bytes(number) % 100 < u64::from(sample.percent)
}

/// The time for the last entry in the ledger.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Verifies the backups and the WAL of a cluster in one repository.
///
/// # Errors
/// [`Cause::NoSuchBackup`] if the requested backup does not exist, [`Cause::NoClaim`] if nothing was ever archived for
/// the cluster, [`Cause::Cancelled`]. Any other failure is in [`Verification::interrupted`], with all findings before
/// it.
pub async fn verify(
    repository: &Repository,
    options: &VerifyOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Verification, Error> {
    let began = Instant::now();
    let phrase = || format!("verifying {} in {}", options.cluster, repository.describe());
    let mut run = Run::new(repository, options, progress, cancel);
    let outcome = tokio::select! {
        outcome = run.all() => outcome,
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
    };
    // A user who cancels waits for it, but not for a store that does not answer.
    if tokio::time::timeout(END_WITHIN, run.remember_at_the_end(outcome.is_ok())).await.is_err() {
        tracing::warn!("the store did not answer in time, so the next verification reads some objects again");
    }
    let interrupted = match outcome {
        Ok(()) => None,
        Err(error) if matches!(*error.what, Cause::NoSuchBackup { .. } | Cause::NoClaim { .. } | Cause::Cancelled) => {
            return Err(error).doing(phrase);
        }
        Err(error) => Some(error.doing(phrase())),
    };
    Ok(Verification { interrupted, duration: began.elapsed(), ..run.finish() })
}
