//! `holdfast.json`: the record that makes a prefix a repository.

use super::{RecordBody, RecordKind};
use crate::identity::RepositoryId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The version of the repository format that this crate writes and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// How the objects of a repository are sealed. Fixed at `repo init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EncryptionKind {
    /// AES-256-GCM under a key per object.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// Objects are stored as they are.
    #[serde(rename = "none")]
    None,
}

impl EncryptionKind {
    /// Whether objects are encrypted.
    pub fn is_encrypted(self) -> bool {
        self == Self::Aes256Gcm
    }

    /// The word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::None => "none",
        }
    }
}

impl std::fmt::Display for EncryptionKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How the store creates an object only if it is absent, as the probe of `repo init` found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConditionalCreate {
    /// The store does it in one request.
    Native,
    /// The store cannot; a look-up before each write stands in for it, and two writers at one moment may both succeed.
    Emulated,
}

/// Identity and fixed parameters of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRecord {
    /// Random identity; bound into every encrypted object and every object's head.
    pub repository_id: RepositoryId,
    /// Version of the repository format, [`FORMAT_VERSION`] when written by this crate.
    pub format_version: u32,
    /// When `repo init` ran.
    pub created: DateTime<Utc>,
    /// How objects are sealed.
    pub encryption: EncryptionKind,
    /// How create-if-absent works on this store.
    pub conditional_create: ConditionalCreate,
    /// Size of the extents files are cut in, in bytes.
    pub extent_size_bytes: u32,
    /// Size at which a pack is closed, in bytes.
    pub pack_size_bytes: u64,
    /// Version of the software that made the repository.
    pub software_version: String,
}

impl RecordBody for RepositoryRecord {
    const KIND: RecordKind = RecordKind::Repository;
    const ALWAYS_PLAIN: bool = true;
}
