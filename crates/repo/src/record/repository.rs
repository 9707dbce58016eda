//! `holdfast.json`: the record that makes a prefix a repository.

use super::{Closed, RecordBody, RecordKind};
use crate::identity::RepositoryId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The version of the repository format that this crate writes and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// What [`RepositoryRecord::extent_size_bytes`] may be: whole pages of the largest block size PostgreSQL has, and small enough
/// that a byte budget holds many of them.
pub const EXTENT_SIZE_BYTES: RangeInclusive<u32> = LARGEST_PAGE..=16 << 20;

/// What [`RepositoryRecord::pack_size_bytes`] may be: packs are numbered with six digits, and an offset in a pack has 32 bits.
pub const PACK_SIZE_BYTES: RangeInclusive<u64> = 1 << 20..=2 << 30;

/// PostgreSQL's largest block size.
const LARGEST_PAGE: u32 = 32 << 10;

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
    /// All words used in records.
    pub(super) const WORDS: &'static [&'static str] = &["aes-256-gcm", "none"];

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

/// What the checksum of an object is worth that the store tells without handing over its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksums {
    /// The store refused bytes that did not fit their checksum, and repeats the one of what it keeps.
    Kept,
    /// The store keeps none or did not compare it; so also whatever a newer version found.
    #[serde(other)]
    NotCompared,
}

/// How objects that are larger than one part are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uploads {
    /// In one request: multipart uploads do not work on this store.
    Whole,
    /// As multipart uploads; so also whatever a newer version found.
    #[serde(other)]
    Parts,
}

/// What the probe of `repo init` found about the store, beside [`ConditionalCreate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoreCapabilities {
    /// How create-if-absent works on completing a multipart upload.
    pub conditional_complete: ConditionalCreate,
    /// What the store's checksums are worth.
    pub checksums: Checksums,
    /// How large objects are written.
    pub uploads: Uploads,
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
    /// What else the store can do; absent in repositories made before it was looked at, whose store's checksums are not
    /// believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreCapabilities>,
    /// Size of the extents files are cut in, in bytes.
    pub extent_size_bytes: u32,
    /// Size at which a pack is closed, in bytes.
    pub pack_size_bytes: u64,
    /// Version of the software that made the repository.
    pub software_version: String,
}

/// Refuses a length of extents outside of [`EXTENT_SIZE_BYTES`], or one that is not in whole pages.
pub(crate) fn check_extent_bytes(bytes: u32) -> Result<(), String> {
    if EXTENT_SIZE_BYTES.contains(&bytes) && bytes.is_multiple_of(LARGEST_PAGE) {
        return Ok(());
    }
    let (least, most) = (EXTENT_SIZE_BYTES.start(), EXTENT_SIZE_BYTES.end());
    Err(format!("{bytes} is not a multiple of {LARGEST_PAGE} from {least} to {most}"))
}

impl RecordBody for RepositoryRecord {
    const KIND: RecordKind = RecordKind::Repository;
    const ALWAYS_PLAIN: bool = true;
    const CLOSED: &'static [Closed] = &[
        Closed { at: "/format_version", values: &["1"] },
        Closed { at: "/encryption", values: EncryptionKind::WORDS },
        Closed { at: "/conditional_create", values: &["native", "emulated"] },
    ];

    /// The record is plain, and everyone who may write to the store can change it: what it says is bounded before it is used.
    fn check(&self) -> Result<(), String> {
        let Self { extent_size_bytes: extent, pack_size_bytes: pack, .. } = self;
        check_extent_bytes(*extent).map_err(|problem| format!("extent_size_bytes {problem}"))?;
        if !PACK_SIZE_BYTES.contains(pack) {
            let (least, most) = (PACK_SIZE_BYTES.start(), PACK_SIZE_BYTES.end());
            return Err(format!("pack_size_bytes {pack} is not from {least} to {most}"));
        }
        Ok(())
    }
}
