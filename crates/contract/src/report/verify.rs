//! `holdfast verify`: whether the stored data is what was written.

use super::{PerRepository, RepositoryDescription};
use crate::problem::BriefError;
use chrono::{DateTime, Utc};
use holdfast_repo::name::{BackupId, ClaimNumber, ClusterName};
use holdfast_repo::recovery::ReachableWindow;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// How much was checked.
    pub level: Level,
    /// The part of the objects that was read, if not all of them.
    pub sample: Option<Sample>,
    /// The repositories, in the order of the configuration.
    pub repositories: Vec<PerRepository<RepositoryVerified>>,
}

/// How much a verification checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Records and manifests are read; for everything else, size and checksum are looked up.
    Shallow,
    /// Every byte is read.
    Deep,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Shallow => "shallow",
            Self::Deep => "deep",
        })
    }
}

/// A part of the objects, chosen at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The percentage of objects that are read.
    pub percent: u8,
    /// The seed; the same seed chooses the same objects.
    pub seed: u64,
}

/// The result for one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryVerified {
    /// The properties of the repository.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Its number in the configuration, from 1.
    pub number: usize,
    /// Why the verification ended early: what it did not check may be sound or not.
    pub interrupted: Option<BriefError>,
    /// The requested backups, oldest first.
    pub backups: Vec<VerifiedBackup>,
    /// The WAL, by claim.
    pub claims: Vec<VerifiedClaim>,
    /// Objects that differ from what was written.
    pub damage: Vec<Damage>,
    /// Objects of a newer release, which this one cannot judge.
    pub newer: Vec<NewerObject>,
    /// What a repair did, if one was requested. The other fields then show the state after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
    /// Further notes, as text for people.
    pub notes: Vec<String>,
    /// The number of checked objects.
    pub object_count: u64,
    /// Bytes of packs and WAL that were read.
    pub read_bytes: u64,
    /// The duration of the verification.
    pub duration_milliseconds: u64,
}

/// The result for one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedBackup {
    pub backup_id: BackupId,
    /// The claim of its WAL; `None` if its record cannot be read.
    pub claim: Option<ClaimNumber>,
    /// What the verification found.
    pub result: BackupResult,
    /// How much of it was checked.
    pub level: Level,
    /// The number of packs that its manifest names.
    pub pack_count: u64,
    /// The size of these packs in bytes.
    pub pack_bytes: u64,
    /// How packs were compared without reading them.
    pub compared: Compared,
    /// Whether the result was recorded in the repository.
    pub recorded: bool,
}

/// The result of verifying a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupResult {
    /// Nothing that was checked is wrong.
    Sound,
    /// Something that a restore of it needs is missing or damaged.
    Damaged,
    /// A newer release wrote something that a restore of it needs.
    Newer,
    /// The verification ended before its result was known.
    NotVerified,
    /// It was verified a short time ago, and nothing that was checked contradicts that.
    PassedOver,
}

impl BackupResult {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Damaged => "DAMAGED",
            Self::Newer => "newer",
            Self::NotVerified => "not verified",
            Self::PassedOver => "passed over",
        }
    }
}

/// How packs were compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// Size, and the CRC-32C that the store keeps.
    Checksum,
    /// Size only: the store keeps no checksum of a whole object.
    Size,
    /// Not at all: there was no list of packs.
    Nothing,
}

/// The WAL of one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedClaim {
    pub claim: ClaimNumber,
    /// The number of listed segments.
    pub segment_count: u64,
    /// The number of segments that were read.
    pub segments_read: u64,
    /// What can be restored according to the listing.
    pub windows: Vec<ReachableWindow>,
    /// What can be restored without the damaged objects.
    pub sound_windows: Vec<ReachableWindow>,
}

/// An object that differs from what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    pub kind: DamageKind,
    /// The kind of object.
    pub class: ObjectClass,
    /// The name of the object; if several in a row are missing, of the first.
    pub object: String,
    /// The number of objects in a row.
    pub count: u64,
    /// The damage, as text for people.
    pub problem: String,
    /// Backups that cannot be restored because of it.
    pub backups: Vec<BackupId>,
    /// Windows that it cuts or shortens.
    pub windows: Vec<ClaimWindow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimWindow {
    pub claim: ClaimNumber,
    /// The window according to the listing.
    #[serde(flatten)]
    pub window: ReachableWindow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DamageKind {
    /// It does not exist.
    Missing,
    /// It has fewer bytes.
    TooShort,
    /// It has more bytes.
    TooLong,
    /// Its bytes do not match the recorded checksum.
    WrongChecksum,
    /// It fails its authentication.
    NotAuthentic,
    /// It is sound, but it is another object than its name says.
    Foreign,
    /// Its bytes do not follow the format.
    Malformed,
    /// The store has it and does not give it out: its disk cannot read it, or it is in an archive storage class.
    Unreadable,
}

impl DamageKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Missing,
        Self::TooShort,
        Self::TooLong,
        Self::WrongChecksum,
        Self::NotAuthentic,
        Self::Foreign,
        Self::Malformed,
        Self::Unreadable,
    ];

    /// The words after the name of the object.
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::TooShort => "is shorter than it was written",
            Self::TooLong => "is longer than it was written",
            Self::WrongChecksum => "does not match its checksum",
            Self::NotAuthentic => "is not authentic: it was changed, or put in the place of another object",
            Self::Foreign => "is another object than its name says",
            Self::Malformed => "cannot be understood",
            Self::Unreadable => "cannot be read from the store",
        }
    }
}

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectClass {
    /// A claim: which cluster owns the archive.
    Claim,
    /// `start.json`: a backup began. No restore needs it.
    StartRecord,
    /// `backup.json`: the record of a complete backup.
    BackupRecord,
    /// The manifest: where all data of a backup is.
    Manifest,
    /// A pack: data of files.
    Pack,
    WalSegment,
    /// A history file.
    TimelineHistory,
    Other,
}

impl ObjectClass {
    /// The words before the name of the object.
    pub fn words(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::StartRecord => "start record",
            Self::BackupRecord => "backup record",
            Self::Manifest => "manifest",
            Self::Pack => "pack",
            Self::WalSegment => "WAL segment",
            Self::TimelineHistory => "timeline history",
            Self::Other => "object",
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, class, object, count, problem, .. } = self;
        write!(formatter, "{} {object}", class.words())?;
        if *count > 1 {
            write!(formatter, " and the {} after it: each", count - 1)?;
        }
        write!(formatter, " {}", kind.words())?;
        if problem.is_empty() { Ok(()) } else { write!(formatter, ": {problem}") }
    }
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Objects that are sound again.
    pub repaired: Vec<RepairedObject>,
    /// Objects that could not be repaired.
    pub left: Vec<UnrepairedObject>,
    /// Backups that can be restored again.
    pub backups: Vec<BackupId>,
    /// Windows that were cut or missing, as they are after the repair.
    pub windows: Vec<ClaimWindow>,
}

/// An object that is sound again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedObject {
    /// The name of the object.
    pub object: String,
    /// The redacted URL of the repository that it was brought back from.
    pub from: String,
    /// How it was brought back.
    pub how: RepairKind,
}

/// How an object was brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepairKind {
    /// It has exactly the same bytes as before.
    SameBytes,
    /// It has the same content, sealed again.
    #[serde(rename = "sealed-anew")]
    SealedAgain,
    /// Everything that its backup needs was taken from the other repository. The backup no longer needs this object.
    TakenOver,
}

impl RepairKind {
    /// The words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::SameBytes => "its very bytes are there again",
            Self::SealedAgain => "sealed again",
            Self::TakenOver => "the backup was taken over, with a new manifest",
        }
    }
}

/// An object that could not be brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnrepairedObject {
    /// The name of the object; if several in a row are missing, of the first.
    pub object: String,
    /// Why it could not be brought back, as text for people.
    pub reason: String,
}

/// An object of a newer release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewerObject {
    /// The name of the object.
    pub object: String,
    /// What this release does not know.
    pub reason: String,
    /// Backups that only a newer release can restore because of it.
    pub backups: Vec<BackupId>,
}

/// A verification that the repository has on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub backup_id: BackupId,
    /// When the verification ended.
    pub time: DateTime<Utc>,
    /// How much was checked.
    pub level: Level,
    /// Whether nothing was wrong.
    pub sound: bool,
    /// The name of the host that ran it.
    pub host: String,
    /// The release of Holdfast that ran it.
    pub software_version: String,
}

impl fmt::Display for Verified {
    /// `verified 2026-11-30 deep`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = if self.sound { "verified" } else { "found DAMAGED" };
        write!(formatter, "{found} {} {}", self.time.format("%Y-%m-%d"), self.level)
    }
}
