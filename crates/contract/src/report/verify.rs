//! `holdfast verify`: whether what is stored is what was written.

use super::{PerRepository, RepositoryDescription};
use crate::problem::BriefError;
use chrono::{DateTime, Utc};
use holdfast_repo::name::{BackupId, ClaimNumber, ClusterName};
use holdfast_repo::recovery::ReachableWindow;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// How much was looked at.
    pub level: Level,
    /// The part of the objects that was read, if not all of them.
    pub sample: Option<Sample>,
    /// In the order of the configuration.
    pub repositories: Vec<PerRepository<RepositoryVerified>>,
}

/// How much a verification looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Records and manifests are read, everything else is looked up.
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
    /// How many of a hundred objects are read.
    pub percent: u8,
    /// The same seed chooses the same objects.
    pub seed: u64,
}

/// What was found in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryVerified {
    /// What the repository says of itself.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Its number in the configuration, from 1.
    pub number: usize,
    /// Why the verification did not come to its end: what it did not look at may be sound or not.
    pub interrupted: Option<BriefError>,
    /// The backups that were asked for, oldest first.
    pub backups: Vec<VerifiedBackup>,
    /// The WAL, by claim.
    pub claims: Vec<VerifiedClaim>,
    /// What is not as it was written.
    pub damage: Vec<Damage>,
    /// What a newer release wrote, and this one cannot judge.
    pub newer: Vec<NewerObject>,
    /// What one should know besides.
    pub notes: Vec<String>,
    /// Objects that were looked at.
    pub object_count: u64,
    /// Bytes that were read of packs and WAL.
    pub read_bytes: u64,
    /// How long it took.
    pub duration_milliseconds: u64,
}

/// What was found about one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedBackup {
    /// Its id.
    pub backup_id: BackupId,
    /// The claim of its WAL; none if its record cannot be read.
    pub claim: Option<ClaimNumber>,
    /// What it is worth.
    pub result: BackupResult,
    /// How much of it was looked at.
    pub level: Level,
    /// Packs that its manifest names.
    pub pack_count: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// What the packs were compared by without reading them.
    pub compared: Compared,
    /// Whether the result is remembered in the repository.
    pub recorded: bool,
}

/// What a backup is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupResult {
    /// Nothing is wrong with it, as far as was looked.
    Sound,
    /// Something that a restore of it needs is missing or damaged.
    Damaged,
    /// A newer release wrote something that a restore of it needs.
    Newer,
    /// The verification ended before its result was known.
    NotVerified,
    /// It was verified lately, and nothing that was looked at says otherwise.
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

/// What packs were compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// Size, and the CRC-32C that the store keeps.
    Checksum,
    /// Size only: the store keeps no checksum of a whole object.
    Size,
    /// Nothing: there was no list of packs.
    Nothing,
}

/// The WAL of one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedClaim {
    /// The claim.
    pub claim: ClaimNumber,
    /// Segments that are listed.
    pub segment_count: u64,
    /// Segments that were read.
    pub segments_read: u64,
    /// What the listing says can be restored.
    pub windows: Vec<ReachableWindow>,
    /// What is left of it without what is damaged.
    pub sound_windows: Vec<ReachableWindow>,
}

/// An object that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// What is wrong.
    pub kind: DamageKind,
    /// What the object is.
    pub class: ObjectClass,
    /// The object; the first of them, where several in a row are missing.
    pub object: String,
    /// How many in a row.
    pub count: u64,
    /// What was found, in words.
    pub problem: String,
    /// Backups that cannot be restored because of it.
    pub backups: Vec<BackupId>,
    /// Windows that it cuts or shortens.
    pub windows: Vec<ClaimWindow>,
}

/// A window of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimWindow {
    /// The claim.
    pub claim: ClaimNumber,
    /// What the listing says can be restored.
    #[serde(flatten)]
    pub window: ReachableWindow,
}

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DamageKind {
    /// It is not there.
    Missing,
    /// It has fewer bytes.
    TooShort,
    /// It has more bytes.
    TooLong,
    /// Its bytes do not give the checksum that was written down.
    WrongChecksum,
    /// It fails its authentication.
    NotAuthentic,
    /// It is sound, and another object than its name says.
    Foreign,
    /// Its bytes do not follow the format.
    Malformed,
    /// The disk of the store cannot read it.
    Unreadable,
}

impl DamageKind {
    /// All of them.
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

    /// What follows the name of the object.
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::TooShort => "is shorter than it was written",
            Self::TooLong => "is longer than it was written",
            Self::WrongChecksum => "does not match its checksum",
            Self::NotAuthentic => "is not authentic: it was changed, or put in the place of another object",
            Self::Foreign => "is another object than its name says",
            Self::Malformed => "cannot be understood",
            Self::Unreadable => "cannot be read from the disk of the store",
        }
    }
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectClass {
    /// Who owns the archive.
    Claim,
    /// That a backup began: no restore needs it.
    StartRecord,
    /// `backup.json`.
    BackupRecord,
    /// Where everything of a backup is.
    Manifest,
    /// Data of files.
    Pack,
    /// A WAL segment.
    WalSegment,
    /// A history file.
    TimelineHistory,
    /// Anything else.
    Other,
}

impl ObjectClass {
    /// What stands before the name of the object.
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

/// An object of a newer release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewerObject {
    /// The object.
    pub object: String,
    /// What this release does not know.
    pub reason: String,
    /// Backups that only a newer release can restore because of it.
    pub backups: Vec<BackupId>,
}

/// A verification that the repository remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The backup.
    pub backup_id: BackupId,
    /// When it ended.
    pub time: DateTime<Utc>,
    /// How much was looked at.
    pub level: Level,
    /// Whether nothing was wrong.
    pub sound: bool,
    /// Who did it.
    pub host: String,
    /// With which release.
    pub software_version: String,
}

impl fmt::Display for Verified {
    /// `verified 2026-11-30 deep`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = if self.sound { "verified" } else { "found DAMAGED" };
        write!(formatter, "{found} {} {}", self.time.format("%Y-%m-%d"), self.level)
    }
}
