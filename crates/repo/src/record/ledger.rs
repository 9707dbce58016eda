//! `ledger/<time>-<kind>.json`: events in an archive that must not be overlooked.

use super::{Closed, RecordBody, RecordKind};
use crate::identity::RepositoryId;
use crate::name::{BackupId, ClaimNumber, LedgerKind, LedgerTime, RunId, SlotName};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalFileName};
use serde::{Deserialize, Serialize};

/// One entry of a cluster's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// When it was written.
    pub time: DateTime<Utc>,
    /// Host that wrote it.
    pub host: String,
    /// The release of Holdfast that wrote it.
    pub software_version: String,
    /// The event.
    pub entry: LedgerEntry,
}

/// The event that a ledger entry records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LedgerEntry {
    /// Segments `first` to `last` of one timeline should be in the archive and are not.
    Gap {
        /// Claim that the segments belong to.
        claim: ClaimNumber,
        /// First missing segment.
        first: SegmentName,
        /// Last missing segment.
        last: SegmentName,
        /// Number of missing segments.
        count: u64,
        /// How the gap arose or was found.
        reason: String,
        /// Whether somebody has said that archiving continues after it (`wal receive --accept-gap`).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accepted: bool,
    },
    /// Segments that earlier entries of the kind `gap` name are no longer missed.
    GapClosed {
        /// Claim that the segments belong to.
        claim: ClaimNumber,
        /// Inclusive. It may be in the middle of a gap.
        first: SegmentName,
        /// Inclusive, on the timeline of `first`.
        last: SegmentName,
        /// Number of these segments.
        count: u64,
        /// Why they are no longer missed.
        outcome: GapOutcome,
    },
    /// A WAL file was offered whose content differs from the stored one.
    Divergence {
        /// Claim that the file belongs to.
        claim: ClaimNumber,
        /// As PostgreSQL named it.
        file: WalFileName,
        /// SHA-256 of the stored content, 64 hex digits.
        stored_sha256: String,
        /// SHA-256 of the offered content, 64 hex digits.
        offered_sha256: String,
    },
    /// Objects will be deleted, unless something needs them when it is time.
    Deletion {
        /// Backups to be deleted.
        backups: Vec<BackupId>,
        /// Packs to be deleted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        packs: Vec<PackRange>,
        /// WAL to be deleted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        wal: Vec<DecidedWal>,
        /// When it was decided, if an earlier entry recorded that; `None` for the time of the record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decided: Option<DateTime<Utc>>,
        /// Number of objects to be deleted.
        object_count: u64,
        /// Of these objects, as they are stored.
        size_bytes: u64,
        /// Nothing is deleted before this time.
        not_before: DateTime<Utc>,
        /// The rule that decided the deletion.
        reason: String,
    },
    /// Objects are being deleted. While this entry exists, any of them may be gone.
    Removing {
        /// The run that deletes them.
        run: RunId,
        /// Backups that are being deleted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        backups: Vec<BackupId>,
        /// Packs that are being deleted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        packs: Vec<PackRange>,
        /// WAL that is being deleted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        wal: Vec<DecidedWal>,
        /// The size of these packs in bytes.
        pack_bytes: u64,
    },
    /// Objects were deleted.
    Removal {
        /// Backups that were deleted.
        backups: Vec<BackupId>,
        /// Number of packs that were deleted.
        pack_count: u64,
        /// Number of WAL files that were deleted.
        wal_file_count: u64,
        /// The size of packs and WAL files in bytes.
        size_bytes: u64,
        /// The run; its entries [`LedgerEntry::Removing`] no longer count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        /// Whether the run ended before it wrote this, so that a later one checked what was gone. Then `wal_file_count`
        /// counts segments, and `size_bytes` counts packs.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        found_later: bool,
        /// The whole segments that were deleted, so that nobody takes them for a gap. Nothing is known of earlier
        /// entries without it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        wal: Vec<DecidedWal>,
    },
    /// While this entry exists, a backup is not deleted, whatever the policy says.
    Hold {
        /// The held backup.
        backup: BackupId,
        /// The end of the hold; `None` until it is released.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<DateTime<Utc>>,
        /// The reason, in the user's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Whether all WAL after the backup is kept as well, for a server that was restored from it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        with_wal: bool,
    },
    /// Objects were verified.
    Verification {
        /// The verified backup; `None` for WAL alone.
        backup: Option<BackupId>,
        /// Whether every byte was read, or only presence and size were checked.
        deep: bool,
        /// Number of objects that were checked.
        object_count: u64,
        /// Bytes read.
        size_bytes: u64,
        /// The problems found; empty if there are none.
        problems: Vec<VerificationProblem>,
        /// The percentage of further objects of which every byte was read, if a sample was read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sample_percent: Option<u8>,
        /// The number of packs and segments that an earlier run had read, so that this one did not read them.
        #[serde(default, skip_serializing_if = "is_zero")]
        passed_over_count: u64,
    },
    /// Key slots of the repository were added, replaced or removed.
    Key {
        /// The requested change.
        change: KeyChange,
        /// Added, or in the place of slots that are removed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        written: Vec<SlotName>,
        /// They no longer open the repository.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<SlotName>,
        /// The newest key epoch after the change.
        epoch: u32,
    },
    /// A backup was restored into a temporary directory, recovered, started and checked.
    Drill {
        /// The backup that the restore began with.
        backup: BackupId,
        /// Claim of its WAL.
        claim: ClaimNumber,
        /// The timeline that was followed.
        timeline: TimelineId,
        /// The last transaction that was replayed; `None` if there was none, or the server did not get this far.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restored_time: Option<DateTime<Utc>>,
        /// Where replay ended; `None` if the server did not get this far.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restored_lsn: Option<Lsn>,
        /// Bytes written to the data directory.
        size_bytes: u64,
        /// Bytes of WAL that the recovery needs at most.
        wal_bytes: u64,
        /// Milliseconds from the choice of the backup to the end of the restore.
        restore_milliseconds: u64,
        /// Milliseconds from the start of the server to its first answer.
        replay_milliseconds: u64,
        /// Number of pages whose checksums or headers were checked.
        page_count: u64,
        /// Whether `pg_amcheck` ran.
        amcheck: bool,
        /// Number of the user's queries that ran.
        probe_count: u64,
        /// The problems; empty if the restore is proven.
        problems: Vec<String>,
        /// The kinds of the problems, each once. Empty if there were none, or if an earlier release wrote the entry.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        found: Vec<DrillFound>,
        /// The objects that are damaged or missing, as far as that is known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        objects: Vec<String>,
    },
    /// Backups and WAL came from another repository.
    Copy {
        /// The repository that they came from.
        repository_id: RepositoryId,
        /// The backups that exist here since this copy.
        backups: Vec<BackupId>,
        /// Number of packs that were stored for them.
        pack_count: u64,
        /// Number of WAL files that were stored.
        wal_file_count: u64,
        /// The size of these packs and WAL files in bytes.
        size_bytes: u64,
    },
    /// Objects that were missing or damaged were brought back from other repositories.
    Repair {
        /// The first thousand of these objects.
        objects: Vec<RepairedObject>,
        /// The number of these objects.
        object_count: u64,
        /// Number of objects that could not be brought back.
        left_count: u64,
    },
    /// Packs and WAL were read to their last byte, and were sound.
    Reading {
        /// The packs.
        packs: Vec<PacksRead>,
        /// The WAL.
        wal: Vec<WalRead>,
        /// Earlier entries of this kind, by their times: all that they say is also here, or no longer needed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        includes: Vec<LedgerTime>,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Packs of one backup with consecutive numbers that were read at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacksRead {
    /// The backup that wrote them.
    pub backup: BackupId,
    /// The number of the first pack.
    pub first: u32,
    /// The number of the last pack.
    pub last: u32,
    /// When the run began that read them.
    pub time: DateTime<Utc>,
}

/// Consecutive segments of one timeline that were read at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalRead {
    /// Claim to which the segments belong.
    pub claim: ClaimNumber,
    /// The first segment.
    pub first: SegmentName,
    /// The last segment.
    pub last: SegmentName,
    /// When the run began that read them.
    pub time: DateTime<Utc>,
}

/// Why the segments of a gap are no longer missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapOutcome {
    /// They are in the archive again.
    CameBack,
    /// They are still missing, and no backup needs them any more.
    NotNeeded,
}

/// An object that was brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedObject {
    /// Object name, relative to the repository's prefix.
    pub object: String,
    /// The repository that it came from.
    pub repository_id: RepositoryId,
}

/// A kind of problem that a drill found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillFound {
    /// An object of the repository is damaged or missing.
    Object,
    /// A page is damaged.
    Page,
    /// `pg_amcheck` found something.
    Amcheck,
    /// The server does not start, does not reach the target or does not stay up.
    Server,
    /// A query of the user failed.
    Probe,
    /// The drill reached its time limit.
    Time,
    /// The host of the drill was at fault: its disk was full, or a process was killed.
    Host,
    /// A kind that only a later release knows.
    #[serde(other)]
    Other,
}

impl DrillFound {
    /// Whether it says something about the backup. A failed query may itself be wrong, and time and host say nothing. A
    /// kind of a later release may say something.
    pub fn is_of_the_backup(self) -> bool {
        !matches!(self, Self::Probe | Self::Time | Self::Host)
    }

    /// Whether a failed drill with these findings failed because of its backup. A drill that does not say what kinds it
    /// found may have.
    pub fn blames_the_backup(found: &[Self]) -> bool {
        found.is_empty() || found.iter().any(|kind| kind.is_of_the_backup())
    }
}

/// The change to the key slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyChange {
    /// A slot was added.
    Add,
    /// A new key epoch was begun, and the slots of earlier ones were replaced or removed.
    Rotate,
    /// A slot was removed.
    Remove,
}

/// Packs of one backup with consecutive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackRange {
    /// The backup that wrote them.
    pub backup: BackupId,
    /// The number of the first pack.
    pub first: u32,
    /// The number of the last pack.
    pub last: u32,
}

/// Consecutive segments of one timeline, with the partial segments and backup history files of the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedWal {
    /// Claim to which the segments belong.
    pub claim: ClaimNumber,
    /// The first segment.
    pub first: SegmentName,
    /// The last segment.
    pub last: SegmentName,
}

/// One problem that a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationProblem {
    /// Object name, relative to the repository's prefix.
    pub object: String,
    /// What is wrong with the object.
    pub problem: String,
}

impl LedgerEntry {
    /// The kind, as in the object's name.
    pub fn kind(&self) -> LedgerKind {
        match self {
            Self::Gap { .. } => LedgerKind::Gap,
            Self::GapClosed { .. } => LedgerKind::GapClosed,
            Self::Divergence { .. } => LedgerKind::Divergence,
            Self::Deletion { .. } => LedgerKind::Deletion,
            Self::Removing { .. } => LedgerKind::Removing,
            Self::Removal { .. } => LedgerKind::Removal,
            Self::Hold { .. } => LedgerKind::Hold,
            Self::Verification { .. } => LedgerKind::Verification,
            Self::Key { .. } => LedgerKind::Key,
            Self::Drill { .. } => LedgerKind::Drill,
            Self::Copy { .. } => LedgerKind::Copy,
            Self::Repair { .. } => LedgerKind::Repair,
            Self::Reading { .. } => LedgerKind::Reading,
        }
    }
}

impl RecordBody for LedgerRecord {
    const KIND: RecordKind = RecordKind::Ledger;
    const CLOSED: &'static [Closed] = &[
        Closed {
            at: "/entry/kind",
            values: &[
                "gap",
                "gap-closed",
                "divergence",
                "deletion",
                "removing",
                "removal",
                "hold",
                "verification",
                "key",
                "drill",
                "copy",
                "repair",
                "reading",
            ],
        },
        Closed { at: "/entry/change", values: &["add", "rotate", "remove"] },
        Closed { at: "/entry/outcome", values: &["came-back", "not-needed"] },
    ];
}
