//! `holdfast.json`: the record that makes a prefix a repository.

use super::{Closed, RecordBody, RecordKind};
use crate::identity::RepositoryId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The version of the repository format that this crate writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The allowed values of [`RepositoryRecord::extent_size_bytes`]: whole pages of PostgreSQL's largest block size, and
/// small enough that a byte budget has room for many extents.
pub const EXTENT_SIZE_BYTES: RangeInclusive<u32> = LARGEST_PAGE..=16 << 20;

/// The allowed values of [`RepositoryRecord::pack_size_bytes`]: pack numbers have six digits, and offsets in a pack 32
/// bits.
pub const PACK_SIZE_BYTES: RangeInclusive<u64> = 1 << 20..=2 << 30;

/// The allowed lengths of locks, in days: S3's own limits.
pub const LOCK_DAYS: RangeInclusive<u32> = 1..=36_500;

/// PostgreSQL's largest block size.
const LARGEST_PAGE: u32 = 32 << 10;

/// The encryption of a repository's objects. Fixed at `repo init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EncryptionKind {
    /// AES-256-GCM with a key for each object.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// Objects are not encrypted.
    #[serde(rename = "none")]
    None,
}

impl EncryptionKind {
    /// All words that records use.
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

/// How the store creates an object only if it is absent, as the probe of `repo init` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConditionalCreate {
    /// The store does it atomically, in one request.
    Native,
    /// The store cannot do it. Instead Holdfast looks the object up before each write, and two writers at the same
    /// moment may both succeed.
    Emulated,
}

/// Whether a checksum that the store reports without sending the object's bytes can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksums {
    /// The store refused bytes that did not match their checksum, and it reports the checksum of the bytes that it
    /// keeps.
    Kept,
    /// The store keeps no checksum or did not compare it. Any unknown value of a newer version also reads as this.
    #[serde(other)]
    NotCompared,
}

/// How Holdfast writes objects that are larger than one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uploads {
    /// In one request, because multipart uploads do not work on this store.
    Whole,
    /// As multipart uploads. Any unknown value of a newer version also reads as this.
    #[serde(other)]
    Parts,
}

/// How strict the locks of a repository's objects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockMode {
    /// Nobody can end a lock.
    Compliance,
    /// Credentials with a special right can end a lock. Any unknown value of a newer version also reads as this.
    #[serde(other)]
    Governance,
}

impl LockMode {
    /// The word used in records and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compliance => "compliance",
            Self::Governance => "governance",
        }
    }
}

/// How far the store was seen to keep locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockProof {
    /// It refused to delete the version of a locked object, and deleted one without a lock.
    Enforced,
    /// It kept and extended the date of a lock. Whether it refuses to delete could not be tried, because the
    /// credentials may not delete versions. Any unknown value of a newer version also reads as this.
    #[serde(other)]
    Dates,
}

/// How objects that are uploaded in parts get their locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockedUploads {
    /// By the request that begins the upload.
    AtCreation,
    /// By a request after the object was completed. Any unknown value of a newer version also reads as this.
    #[serde(other)]
    Afterwards,
}

/// The locks with which the repository was made (Object Lock).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectLock {
    /// How strict the locks are.
    pub mode: LockMode,
    /// How long an object is locked after it was written, in days.
    pub days: u32,
    /// How far the store was seen to keep locks.
    pub proof: LockProof,
    /// How objects that are uploaded in parts get their locks.
    pub uploads: LockedUploads,
}

/// What the probe of `repo init` found about the store, besides [`ConditionalCreate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoreCapabilities {
    /// How create-if-absent works when a multipart upload is completed.
    pub conditional_complete: ConditionalCreate,
    /// How far the store's checksums can be trusted.
    pub checksums: Checksums,
    /// How Holdfast writes large objects.
    pub uploads: Uploads,
    /// The locks of the objects. Absent if `lock` was not configured when the repository was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_lock: Option<ObjectLock>,
}

/// Identity and fixed parameters of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRecord {
    /// Random identity; bound into every encrypted object and every object's head.
    pub repository_id: RepositoryId,
    /// Version of the repository format; this crate writes [`FORMAT_VERSION`].
    pub format_version: u32,
    /// When `repo init` ran.
    pub created: DateTime<Utc>,
    /// The encryption of the objects.
    pub encryption: EncryptionKind,
    /// How create-if-absent works on this store.
    pub conditional_create: ConditionalCreate,
    /// Further abilities of the store. Absent in repositories made before the probe existed; then the store's checksums
    /// are not trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreCapabilities>,
    /// Size of the extents that files are cut into, in bytes.
    pub extent_size_bytes: u32,
    /// Size at which a pack is closed, in bytes.
    pub pack_size_bytes: u64,
    /// Version of the software that made the repository.
    pub software_version: String,
}

/// Refuses an extent length that is outside of [`EXTENT_SIZE_BYTES`] or is not a multiple of whole pages.
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

    /// The record is plain, and anyone who can write to the store can change it. So its values are checked before they
    /// are used.
    fn check(&self) -> Result<(), String> {
        let Self { extent_size_bytes: extent, pack_size_bytes: pack, .. } = self;
        check_extent_bytes(*extent).map_err(|problem| format!("extent_size_bytes {problem}"))?;
        if !PACK_SIZE_BYTES.contains(pack) {
            let (least, most) = (PACK_SIZE_BYTES.start(), PACK_SIZE_BYTES.end());
            return Err(format!("pack_size_bytes {pack} is not from {least} to {most}"));
        }
        if let Some(lock) = self.store.and_then(|store| store.object_lock)
            && !LOCK_DAYS.contains(&lock.days)
        {
            let (least, most) = (LOCK_DAYS.start(), LOCK_DAYS.end());
            return Err(format!("object_lock.days {} is not from {least} to {most}", lock.days));
        }
        Ok(())
    }
}
