//! The facts about an archive: a plain value that the caller fills from listings and records.
//!
//! Unreadable objects must be in it as unreadable. The planner can protect only what it knows: if the caller leaves out
//! a backup because its record cannot be read, its packs are removed.

use crate::policy::Policy;
use crate::wal_archive::WalArchive;
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, TimelineId};
use holdfast_repo::name::{BackupId, ClaimNumber, PackId};
use std::collections::{BTreeMap, BTreeSet};

/// Everything in one archive that may be kept or removed.
///
/// List `backups/` before `packs/` and WAL. A pack or segment that appears between the listings then belongs to a
/// backup that is not known yet, and the grace time protects it.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// The claims with their WAL. The highest number is the current one.
    pub claims: BTreeMap<ClaimNumber, Claim>,
    /// Complete backups and snapshots.
    pub backups: Vec<Backup>,
    /// Backups with `start.json` and without `backup.json`: they are running or dead.
    pub unfinished: Vec<UnfinishedBackup>,
    /// Backups whose record is unreadable or newer, so that it is not known what they need.
    pub unknown: Vec<UnknownBackup>,
    /// Backups that have a manifest and neither `start.json` nor `backup.json`: their removal was interrupted.
    pub half_removed: BTreeSet<BackupId>,
    /// Backups whose run was taken for dead and wrote its record after their removal had begun. They lack their
    /// manifest or packs, and no other backup builds on them.
    pub remnants: BTreeSet<BackupId>,
    /// Every pack that was listed.
    pub packs: Vec<Pack>,
    /// The backups whose manifest was listed, whether they are complete or not. Other manifests may refer to parts of
    /// it.
    pub manifests: BTreeSet<BackupId>,
    /// Running restores, from their leases.
    pub restores: Vec<RunningRestore>,
}

impl Catalog {
    /// Unfinished backups that are running or may be running.
    pub fn may_run(&self, policy: &Policy, now: DateTime<Utc>) -> impl Iterator<Item = &UnfinishedBackup> {
        // A sum that does not fit into a time is later than any clock.
        let not_over = move |end: Option<DateTime<Utc>>| end.is_none_or(|end| now <= end);
        self.unfinished.iter().filter(move |unfinished| match unfinished.lease_until {
            Some(until) => not_over(until.checked_add_signed(policy.clock_difference)),
            None => not_over(unfinished.started.checked_add_signed(policy.longest_backup)),
        })
    }
}

/// A claim with its WAL.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The time since which the archive belongs to this system identifier; `None` if the record cannot be read.
    pub since: Option<DateTime<Utc>>,
    /// The WAL that was archived under this claim.
    pub wal: WalArchive,
}

/// A complete backup.
///
/// Its type and parent are not needed: each manifest is complete, so a parent may be removed before its children. They
/// share packs, which stay while a manifest names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The id, which is the second of its start.
    pub id: BackupId,
    /// The claim under which its WAL is archived.
    pub claim: ClaimNumber,
    /// The timeline of the start LSN.
    pub timeline: TimelineId,
    /// The LSN from which recovery reads WAL.
    pub start_lsn: Lsn,
    /// The timeline of the stop LSN: a later one if a standby followed a timeline switch during the backup.
    pub stop_timeline: TimelineId,
    /// The LSN at which recovery is consistent.
    pub stop_lsn: Lsn,
    /// When it started, by the server's clock.
    pub start_time: DateTime<Utc>,
    /// When it stopped, by the server's clock: the first moment that can be restored from it.
    pub stop_time: DateTime<Utc>,
    /// Where its data is.
    pub place: Place,
    /// The hold on it, if any.
    pub hold: Option<Hold>,
    /// Whether somebody holds it with all WAL after it.
    pub hold_with_wal: Option<Hold>,
    /// The result of its last verification.
    pub verified: Verified,
}

/// Where the data of a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the packs that its manifest names.
    Packs,
    /// In volume snapshots outside the repository. Only the owner of the snapshots removes their record.
    Snapshot,
}

/// A hold by `backup hold`: no policy removes the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// When the hold ends; `None` if it stays until it is released.
    pub until: Option<DateTime<Utc>>,
}

impl Hold {
    /// Whether the hold has not ended.
    pub fn is_in_force(self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now <= until)
    }

    /// The hold that ends later. A hold without an end is the longest.
    #[must_use]
    pub fn longer(self, other: Option<Self>) -> Self {
        let until = other.map_or(self.until, |other| self.until.zip(other.until).map(|(one, other)| one.max(other)));
        Self { until }
    }
}

/// Whether a backup is known to be sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// It was never verified.
    Never,
    /// The last verification found nothing wrong.
    Sound,
    /// The last verification found it damaged.
    Damaged,
    /// Its manifest cannot be read, for this reason. It is not known which packs it names.
    ManifestUnreadable(String),
}

/// A backup that began and is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedBackup {
    /// The id, which is the second of its start.
    pub id: BackupId,
    /// The claim, if its start record can be read.
    pub claim: Option<ClaimNumber>,
    /// When it started, by the clock of its host.
    pub started: DateTime<Utc>,
    /// The end of its lease; `None` if it has no lease, as in early releases.
    pub lease_until: Option<DateTime<Utc>>,
    /// The backup whose packs it may name.
    pub parent: Parent,
    /// The LSN from which it needs WAL, once that is known.
    pub start_lsn: Option<Lsn>,
}

/// The parent of an unfinished backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The start record does not name one.
    Unknown,
    /// No parent: it is a full backup.
    Nothing,
    /// It builds on this backup.
    Backup(BackupId),
}

/// A backup that this program cannot judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownBackup {
    /// The id, known from the object's name.
    pub id: BackupId,
    /// The claim, if that much could be read.
    pub claim: Option<ClaimNumber>,
    /// Why it cannot be judged.
    pub reason: UnknownReason,
}

/// Why a backup cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnknownReason {
    /// Its record could not be read, for this reason.
    Unreadable(String),
    /// A newer release wrote it.
    Newer,
}

/// A pack as the store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    /// The backup that wrote it, and its number.
    pub id: PackId,
    /// The size of the object, in bytes.
    pub size_bytes: u64,
}

/// A restore that is reading from the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningRestore {
    /// The backup that it restores; `None` if its lease does not name one.
    pub backup: Option<BackupId>,
    /// The end of its lease.
    pub lease_until: DateTime<Utc>,
}
