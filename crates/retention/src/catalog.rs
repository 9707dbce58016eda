//! What the planner is told about an archive: a plain value, which the caller reads from listings and records.
//!
//! Whatever could not be read must be in here as such. The planner can only respect what it knows of: a backup that is
//! left out because its record did not open is a backup whose packs go.

use crate::names::{BackupId, ClaimNumber, PackId};
use crate::policy::Policy;
use crate::wal_archive::WalArchive;
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, TimelineId};
use std::collections::{BTreeMap, BTreeSet};

/// Everything in one archive that may stay or go.
///
/// List `backups/` before `packs/` and WAL: what comes into being between the listings then has a backup that is not
/// known yet, and the grace time protects it.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// The claims with their WAL. The highest number is the current one.
    pub claims: BTreeMap<ClaimNumber, Claim>,
    /// Complete backups and snapshots.
    pub backups: Vec<Backup>,
    /// Backups with `start.json` and without `backup.json`: they run, or died.
    pub unfinished: Vec<UnfinishedBackup>,
    /// Backups whose record does not tell what they need.
    pub unknown: Vec<UnknownBackup>,
    /// Backups that have a manifest and neither `start.json` nor `backup.json`: their removal was interrupted.
    pub half_removed: BTreeSet<BackupId>,
    /// Backups whose record was written after others had begun to remove them, since their run was taken for dead: they lack
    /// their manifest or packs, and nobody builds on them.
    pub remnants: BTreeSet<BackupId>,
    /// Every pack that was listed.
    pub packs: Vec<Pack>,
    /// Restores that run, by their leases.
    pub restores: Vec<RunningRestore>,
}

impl Catalog {
    /// Unfinished backups that run, or may run.
    pub fn may_run(&self, policy: &Policy, now: DateTime<Utc>) -> impl Iterator<Item = &UnfinishedBackup> {
        // A time that does not fit is later than any clock says.
        let not_over = move |end: Option<DateTime<Utc>>| end.is_none_or(|end| now <= end);
        self.unfinished.iter().filter(move |unfinished| match unfinished.lease_until {
            Some(until) => not_over(until.checked_add_signed(policy.clock_difference)),
            None => not_over(unfinished.started.checked_add_signed(policy.longest_backup)),
        })
    }
}

/// A claim and the WAL below it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// From when the archive belongs to this system identifier; `None` if the record cannot be read.
    pub since: Option<DateTime<Utc>>,
    /// Its WAL.
    pub wal: WalArchive,
}

/// A complete backup.
///
/// Its type and its parent are not here: each manifest is complete in itself, so a parent may go before its children.
/// What they share are packs, and those stay by reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its identity.
    pub id: BackupId,
    /// The claim under which its WAL is archived.
    pub claim: ClaimNumber,
    /// Timeline of the start LSN.
    pub timeline: TimelineId,
    /// Recovery reads WAL from this LSN.
    pub start_lsn: Lsn,
    /// Timeline of the stop LSN: a later one if a standby followed a switch meanwhile.
    pub stop_timeline: TimelineId,
    /// Recovery is consistent at this LSN.
    pub stop_lsn: Lsn,
    /// When it started, by the server's clock.
    pub start_time: DateTime<Utc>,
    /// When it stopped, by the server's clock: the first moment that it can restore.
    pub stop_time: DateTime<Utc>,
    /// Where its data is.
    pub place: Place,
    /// Whether somebody holds it.
    pub hold: Option<Hold>,
    /// What is known about its soundness.
    pub verified: Verified,
}

/// Where the data of a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In packs, named by its manifest.
    Packs,
    /// In volume snapshots outside of the repository. Their record goes when whoever owns them removes it.
    Snapshot,
}

/// `backup hold`: a backup that no policy removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Until when; `None` until it is released.
    pub until: Option<DateTime<Utc>>,
}

/// What is known about a backup's soundness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// Nobody looked.
    Never,
    /// The last verification found nothing wrong.
    Sound,
    /// The last verification found it damaged.
    Damaged,
    /// Its manifest cannot be read, for this reason: nobody knows which packs it names.
    ManifestUnreadable(String),
}

/// A backup that began and has no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedBackup {
    /// Its identity.
    pub id: BackupId,
    /// The claim, if its start record can be read.
    pub claim: Option<ClaimNumber>,
    /// When it started, by the clock of its host.
    pub started: DateTime<Utc>,
    /// The end of its lease; `None` if it has no lease, as those of early releases.
    pub lease_until: Option<DateTime<Utc>>,
    /// The backup whose packs it may name.
    pub parent: Parent,
    /// The LSN from which it needs WAL, once that is known.
    pub start_lsn: Option<Lsn>,
}

/// What an unfinished backup builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The start record does not say.
    Unknown,
    /// Nothing: it is a full backup.
    Nothing,
    /// This backup.
    Backup(BackupId),
}

/// A backup that this program cannot judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownBackup {
    /// Its identity, which is known from the object's name.
    pub id: BackupId,
    /// Its claim, if that much could be read.
    pub claim: Option<ClaimNumber>,
    /// Why.
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
    /// Its identity.
    pub id: PackId,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// A restore that reads from the archive now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningRestore {
    /// The backup it restores; `None` if its lease does not say.
    pub backup: Option<BackupId>,
    /// The end of its lease.
    pub lease_until: DateTime<Utc>,
}
