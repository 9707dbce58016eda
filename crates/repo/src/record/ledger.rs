//! `ledger/<time>-<kind>.json`: events in an archive that must not be overlooked.

use super::{Closed, RecordBody, RecordKind};
use crate::name::{BackupId, ClaimNumber, LedgerKind};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{SegmentName, WalFileName};
use serde::{Deserialize, Serialize};

/// One entry of a cluster's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// When it was written.
    pub time: DateTime<Utc>,
    /// Host that wrote it.
    pub host: String,
    /// Version of the software.
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
    },
    /// A WAL file was offered whose content differs from the stored one.
    Divergence {
        /// Claim that the file belongs to.
        claim: ClaimNumber,
        /// Name of the file.
        file: WalFileName,
        /// SHA-256 of the stored content, 64 hex digits.
        stored_sha256: String,
        /// SHA-256 of the offered content, 64 hex digits.
        offered_sha256: String,
    },
    /// Objects will be deleted.
    Deletion {
        /// Backups to be deleted.
        backups: Vec<BackupId>,
        /// Number of objects to be deleted.
        object_count: u64,
        /// Their size in bytes.
        size_bytes: u64,
        /// Nothing is deleted before this time.
        not_before: DateTime<Utc>,
        /// The rule that decided the deletion.
        reason: String,
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
    },
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
            Self::Divergence { .. } => LedgerKind::Divergence,
            Self::Deletion { .. } => LedgerKind::Deletion,
            Self::Verification { .. } => LedgerKind::Verification,
        }
    }
}

impl RecordBody for LedgerRecord {
    const KIND: RecordKind = RecordKind::Ledger;
    const CLOSED: &'static [Closed] =
        &[Closed { at: "/entry/kind", values: &["gap", "divergence", "deletion", "verification"] }];
}
