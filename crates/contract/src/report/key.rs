//! `holdfast key list`, `key add`, `key rotate`, `key remove` and `key generate`.

use super::{PerRepository, UnreadableRecord};
use chrono::{DateTime, Utc};
use holdfast_repo::key::KeySlotKind;
use holdfast_repo::name::SlotName;
use holdfast_repo::record::{EncryptionKind, KeyChange};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyListReport {
    /// In the order of the configuration.
    pub repositories: Vec<PerRepository<RepositoryKeys>>,
}

/// The key slots of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryKeys {
    /// The redacted URL.
    pub repository: String,
    /// How its objects are encrypted.
    pub encryption: EncryptionKind,
    /// The key epoch for data written with the configured secret; `None` without encryption.
    pub epoch: Option<u32>,
    /// Sorted by epoch and name.
    pub slots: Vec<KeySlotReport>,
    /// Slots that cannot be read.
    pub unreadable: Vec<UnreadableRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySlotReport {
    pub slot: SlotName,
    /// The name of the slot that it replaces, or its own.
    pub label: SlotName,
    /// The kind of secret that opens it.
    pub kind: KeySlotKind,
    /// The newest epoch whose key it contains; it contains the keys of all earlier epochs too.
    pub epoch: u32,
    /// When it was created.
    pub created: DateTime<Utc>,
    /// Whether the configured secret opened the repository with it.
    pub opened: bool,
    /// Whether a removal of it has begun and not ended.
    pub removal_begun: bool,
    /// For a slot of a public key (`x25519`), that key (`age1...`), as the slot says.
    #[serde(default)]
    pub recipient: Option<String>,
}

/// What `key generate` made. The private key itself is never part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyGenerateReport {
    /// The file with the private key.
    pub file: String,
    /// The public key (`age1...`).
    pub recipient: String,
}

/// The report of `key add`, `key rotate` and `key remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChangeReport {
    /// The redacted URL.
    pub repository: String,
    /// The kind of the change.
    pub change: KeyChange,
    /// The newest key epoch.
    pub epoch: u32,
    /// The slots that were written. Empty if an earlier run had written them.
    pub written: Vec<SlotName>,
    /// The slots that were removed. Empty if an earlier run had removed them.
    pub removed: Vec<SlotName>,
    /// The slot that the configured secret opens now, proved after the change.
    pub opens: SlotName,
}
