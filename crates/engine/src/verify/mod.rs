//! Verify: whether what is stored is what was written, and what that means for the backups and windows of an archive.
//!
//! Order:
//! 1. The claims and backups are listed. For each backup that is asked for, the record and the manifest are read with the
//!    restore's own checks, and every pack is looked up: its size, and its CRC-32C where the store keeps one.
//! 2. The WAL of each claim is listed, and the planner says which windows it gives, where it is torn ([`chains`]).
//! 3. With [`Level::Deep`], backup by backup: each pack is read as a stream ([`packs`]), then the WAL from the start of the
//!    backup to that of the next one ([`segments`]).
//! 4. The result of each backup is written into the ledger as soon as it is known ([`crate::repository::verified`]), so that a run that ends
//!    early is continued by the next one.
//!
//! Three answers are never mixed up. *Damaged*: an object is missing or is not what was written ([`judge`]). *Newer*: a later
//! release wrote it, and it may be sound. And a fault of the store says nothing of any object: the verification is not
//! complete, and what it had not finished is not called sound.
//!
//! Nothing is changed but the ledger. A bit that flipped on the way is read once more before it is called damage.

mod chains;
mod findings;
mod judge;
mod packs;
mod run;
mod segments;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_contract::report::verify::{Damage, NewerObject, VerifiedBackup, VerifiedClaim};
pub use holdfast_contract::report::verify::{Level, Sample, Verified};
use holdfast_repo::name::{BackupId, ClusterName};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::run::Run;
use crate::error::{Cause, Error, ResultExt};
use crate::progress::Progress;
use crate::repository::Repository;
pub use crate::repository::verified::{Verifications, sound_backups, verifications};

/// Which backups are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All of them, with all WAL from the oldest on.
    All,
    /// The newest, with its own WAL.
    Latest,
    /// This one, with its own WAL.
    One(BackupId),
}

/// What is verified, and how.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The cluster's name in the repository.
    pub cluster: ClusterName,
    /// Which backups.
    pub which: Which,
    /// How much is looked at.
    pub level: Level,
    /// With [`Level::Deep`]: only a part of packs and WAL is read.
    pub sample: Option<Sample>,
    /// Backups that were found sound on this level within this time are not read again.
    pub max_age: Option<Duration>,
    /// Whether the results are written into the ledger.
    pub remember: bool,
    /// Threads that decompress and check; 0 for one a processor.
    pub jobs: usize,
    /// Bytes that the buffers may hold together.
    pub memory_bytes: u64,
    /// This host, for the ledger.
    pub host: String,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Verification {
    /// The backups that were asked for, oldest first.
    pub backups: Vec<VerifiedBackup>,
    /// The WAL, by claim.
    pub claims: Vec<VerifiedClaim>,
    /// What is not as it was written.
    pub damage: Vec<Damage>,
    /// What a newer release wrote.
    pub newer: Vec<NewerObject>,
    /// What one should know besides.
    pub notes: Vec<String>,
    /// Objects that were looked at.
    pub object_count: u64,
    /// Bytes that were read of packs and WAL.
    pub read_bytes: u64,
    /// How long it took.
    pub duration: Duration,
    /// Why it did not come to its end.
    pub interrupted: Option<Error>,
}

/// A part of all objects.
///
/// # Errors
/// [`Cause::Internal`] if the system gives no random bytes.
pub fn random_sample(percent: u8) -> Result<Sample, Error> {
    let mut bytes = [0; 4];
    // As many digits as somebody types without a mistake.
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Cause::Internal("no random bytes".to_owned()))?;
    Ok(Sample { percent, seed: u64::from(u32::from_le_bytes(bytes)) })
}

/// Whether an object is in the sample; without one, every object is.
fn is_chosen(sample: Option<Sample>, object: &str) -> bool {
    let Some(sample) = sample else { return true };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&sample.seed.to_le_bytes()).update(object.as_bytes());
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    u64::from_le_bytes(number) % 100 < u64::from(sample.percent)
}

/// Verifies the backups and the WAL of a cluster in one repository.
///
/// # Errors
/// [`Cause::NoSuchBackup`] if the backup that is asked for is not there, [`Cause::NoClaim`] if nothing was ever archived for
/// the cluster, [`Cause::Cancelled`]. Any other failure is in [`Verification::interrupted`], with what was found before it.
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
    let interrupted = match outcome {
        Ok(()) => None,
        Err(error) if matches!(*error.what, Cause::NoSuchBackup { .. } | Cause::NoClaim { .. } | Cause::Cancelled) => {
            return Err(error).doing(phrase);
        }
        Err(error) => Some(error.doing(phrase())),
    };
    Ok(Verification { interrupted, duration: began.elapsed(), ..run.finish() })
}
