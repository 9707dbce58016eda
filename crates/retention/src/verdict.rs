//! The verdicts: one for each backup, each pack and each range of WAL, from closed sets of reasons.
//!
//! Every reason prints as the end of a sentence that begins with "kept: " or "goes: ". "Goes" means that the planner
//! wants it removed.

use crate::catalog::UnknownReason;
use chrono::{DateTime, SecondsFormat, Utc};
use holdfast_pgtypes::{SegmentName, TimelineId, WalSegmentSize};
use holdfast_repo::name::{BackupId, ClaimNumber, PackId};
use std::fmt;

/// The verdict on a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupVerdict {
    /// It stays, for each of these reasons; at least one.
    Kept(Vec<BackupKept>),
    /// It is to be removed, for this reason.
    Goes(BackupGoes),
}

/// Why a backup stays. The order is that in which the reasons are listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackupKept {
    /// The policy is empty.
    NoPolicy,
    /// A user holds it: `backup hold`.
    Held,
    /// It is held with all WAL after it.
    HeldWithWal,
    /// A restore is reading it.
    Restoring,
    /// A running backup builds on it.
    ParentOf(BackupId),
    /// Its removal is decided, and the grace time is not over.
    Waiting,
    /// It is inside the window.
    Window,
    /// It is the newest backup before the window that leads to this timeline. The window's first moments need it.
    WindowStart(TimelineId),
    /// It is one of the newest.
    Last,
    /// It is the newest backup that leads to this timeline, which got WAL not long ago. There is no window.
    Line(TimelineId),
    /// It is the newest of its hour.
    Hourly,
    /// It is the newest of its day.
    Daily,
    /// It is the newest of its week.
    Weekly,
    /// It is the newest of its month.
    Monthly,
    /// It is the newest of its year.
    Yearly,
    /// It is one of the newest whose verification succeeded.
    Verified,
    /// It is the last restorable backup of the newest claim that has one.
    LastRestorable,
    /// No backup of the whole archive is known to be restorable, so none is removed.
    NothingRestorable,
    /// No backup of its claim, which is the current one, is known to be restorable.
    NothingRestorableInClaim,
    /// The policy would keep it if it were sound. It does not fill the counts of the policy.
    Unsound,
    /// It is a snapshot: its record stays as long as the snapshot does.
    Snapshot,
    /// One of its times is in the future, so its age is not known.
    InTheFuture,
    /// The record of its claim cannot be read.
    UnknownClaim,
    /// Its manifest cannot be read.
    ManifestUnreadable(String),
    /// Its record is unreadable or newer.
    Unknown(UnknownReason),
    /// It is not finished: it is running, or the next backup on its host removes it.
    Unfinished,
}

/// Why a backup is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackupGoes {
    /// No rule of the policy keeps it.
    OutOfPolicy,
    /// Its removal was interrupted: only its manifest is left.
    HalfRemoved,
    /// It was never complete: its run was taken for dead, and wrote its record after the removal had begun.
    Remnant,
}

/// The verdict on a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackVerdict {
    /// It stays, for this reason.
    Kept(PackKept),
    /// It stays, but little of it is live, so it should be written again.
    Rewrite {
        /// The maximum of the live bytes that one kept manifest names. At least this many bytes are live.
        live_bytes: u64,
        /// Of the whole pack, as it is stored.
        size_bytes: u64,
    },
    /// It is to be removed, for this reason.
    Goes(PackGoes),
}

/// Why a pack stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackKept {
    /// The policy is empty.
    NoPolicy,
    /// Kept manifests name it.
    Named {
        /// The oldest backup that names it.
        by: BackupId,
        /// The number of backups that name it.
        count: u32,
    },
    /// Its backup is not finished. The pack belongs to that run, or to the next backup on its host, which removes it.
    Unfinished,
    /// This backup may name it: its record or manifest cannot be read, or its parent is unknown or gone.
    MayBeNamedBy(BackupId),
    /// A restore is running and does not name its backup.
    UnknownRestore,
    /// The id of its backup is in the future, so its age is not known.
    InTheFuture,
}

/// Why a pack is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackGoes {
    /// Its backup is to be removed, and no other backup names it.
    WithItsBackup,
    /// Its backup stays or is already gone, and no backup names it.
    NotNamed,
}

/// A range of segments of one timeline; never empty. Partial segments and backup history files have the same verdict as
/// the segment in their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalRange {
    /// The claim under which the segments are archived.
    pub claim: ClaimNumber,
    /// The timeline in the names of the segments.
    pub timeline: TimelineId,
    /// The number of the first segment.
    pub first: u64,
    /// The number of the last segment.
    pub last: u64,
}

impl WalRange {
    /// The names of the first and the last segment; `None` if the numbers are too large for a segment name.
    pub fn names(&self, size: WalSegmentSize) -> Option<(SegmentName, SegmentName)> {
        let name = |number| SegmentName::from_number(number, self.timeline, size);
        Some((name(self.first)?, name(self.last)?))
    }

    /// The number of segments.
    pub fn count(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// The verdict on a range of WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalVerdict {
    /// It stays, for this reason.
    Kept(WalKept),
    /// It is to be removed, for this reason.
    Goes(WalGoes),
}

/// Why WAL stays. Only the first reason that applies is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalKept {
    /// The policy is empty.
    NoPolicy,
    /// Any moment after this backup can be restored.
    EveryMomentSince(BackupId),
    /// The backup needs it to become consistent.
    ConsistencyOf(BackupId),
    /// The backup is running or may be running, and may need it.
    RunningBackup(BackupId),
    /// This backup cannot be read, and may need it.
    MayBeNeededBy(BackupId),
    /// The timeline has no history file, so it is not known where it branched off. This backup may lead to it.
    UnknownHistory(BackupId),
    /// The claim is the current one and has no backup that is known to be restorable.
    NoBackupYet,
    /// The record of the claim cannot be read.
    UnknownClaim,
    /// A restore is running and does not name its backup.
    UnknownRestore,
}

/// Why WAL is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalGoes {
    /// It is older than every kept backup that leads to its timeline.
    BeforeAllBackups,
    /// It is between kept backups outside the window. Each of them can be restored only to its own end.
    BetweenBackups,
    /// It belongs to a branch to which no kept backup leads.
    Unreachable,
}

impl fmt::Display for BackupKept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoPolicy => "no retention is configured",
            Self::Held => "held",
            Self::HeldWithWal => "held with all WAL after it",
            Self::Restoring => "a restore is reading it",
            Self::ParentOf(id) => return write!(out, "the running backup {id} builds on it"),
            Self::Waiting => "waits for the end of the grace time",
            Self::Window => "inside the window",
            Self::WindowStart(timeline) => return write!(out, "the window begins on it (timeline {timeline})"),
            Self::Last => "one of the last",
            Self::Line(timeline) => {
                return write!(out, "the newest that leads to timeline {timeline}, which is in use");
            }
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Verified => "verified",
            Self::LastRestorable => "the last that can be restored",
            Self::NothingRestorable => "no backup is known to be restorable",
            Self::NothingRestorableInClaim => "no backup of the current claim is known to be restorable",
            Self::Unsound => "not known to be sound, but not old enough to be removed",
            Self::Snapshot => "a snapshot, kept as long as its record",
            Self::InTheFuture => "its time is in the future",
            Self::UnknownClaim => "the record of its claim cannot be read",
            Self::ManifestUnreadable(why) => return write!(out, "its manifest cannot be read: {why}"),
            Self::Unknown(UnknownReason::Newer) => "written by a newer release",
            Self::Unknown(UnknownReason::Unreadable(why)) => return write!(out, "its record cannot be read: {why}"),
            Self::Unfinished => "not finished",
        })
    }
}

impl fmt::Display for BackupGoes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::OutOfPolicy => "no rule keeps it",
            Self::HalfRemoved => "its removal was interrupted",
            Self::Remnant => "not a backup: its run was taken for dead and wrote its record later",
        })
    }
}

impl fmt::Display for PackKept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => out.write_str("no retention is configured"),
            Self::Named { by, count: 1 } => write!(out, "backup {by} needs it"),
            Self::Named { by, count } => write!(out, "{count} backups need it, the oldest is {by}"),
            Self::Unfinished => out.write_str("its backup is not finished"),
            Self::MayBeNamedBy(id) => write!(out, "backup {id} may need it"),
            Self::UnknownRestore => out.write_str("a restore is running and does not name its backup"),
            Self::InTheFuture => out.write_str("the time of its backup is in the future"),
        }
    }
}

impl fmt::Display for PackGoes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::WithItsBackup => "goes with its backup",
            Self::NotNamed => "no backup names it",
        })
    }
}

impl fmt::Display for WalKept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => out.write_str("no retention is configured"),
            Self::EveryMomentSince(id) => write!(out, "any moment since backup {id}"),
            Self::ConsistencyOf(id) => write!(out, "backup {id} needs it"),
            Self::RunningBackup(id) => write!(out, "backup {id} runs and may need it"),
            Self::MayBeNeededBy(id) => write!(out, "backup {id} cannot be read and may need it"),
            Self::UnknownHistory(id) => write!(out, "its timeline has no history file; backup {id} may lead to it"),
            Self::NoBackupYet => out.write_str("its claim has no restorable backup yet"),
            Self::UnknownClaim => out.write_str("the record of its claim cannot be read"),
            Self::UnknownRestore => out.write_str("a restore is running and does not name its backup"),
        }
    }
}

impl fmt::Display for WalGoes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::BeforeAllBackups => "older than every kept backup",
            Self::BetweenBackups => "between kept backups outside of the window",
            Self::Unreachable => "no kept backup leads to it",
        })
    }
}

/// A warning for the user, besides the verdicts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// No backup of the archive is known to be restorable.
    NothingRestorable,
    /// The current claim has no restorable backup yet.
    CurrentClaimHasNone(ClaimNumber),
    /// The time of this backup is in the future. The clock of this host, or of the backup's host, is wrong.
    InTheFuture(BackupId),
    /// It is not known what this backup needs. Nothing is removed until it can be read, or is removed by hand.
    BlockedBy(BackupId),
    /// This backup is not finished, and may still be running. Nothing that it may need is removed.
    MayRun(BackupId),
    /// The parent of this unfinished backup is gone.
    ParentIsGone(BackupId),
    /// WAL between the start and the stop of this backup is missing, so it cannot be restored.
    WalMissing(BackupId),
    /// A kept manifest names a pack that is not in the listing.
    PackMissing {
        /// The backup with that manifest.
        backup: BackupId,
        /// The first missing pack.
        pack: PackId,
    },
    /// A kept manifest refers to one that is not in the listing.
    ManifestMissing {
        /// The backup with the manifest that refers to it.
        backup: BackupId,
        /// The first backup whose manifest is missing.
        of: BackupId,
    },
    /// A timeline with WAL or backups has no readable history file.
    UnknownHistory {
        /// The claim of the timeline.
        claim: ClaimNumber,
        /// The timeline without a history file.
        timeline: TimelineId,
    },
    /// No restorable backup is as old as the beginning of the window.
    WindowNotReached {
        /// The first moment that can be restored, if there is one.
        from: Option<DateTime<Utc>>,
    },
    /// This backup has a record but lacks data: its run was taken for dead. It cannot be restored, and will be removed.
    Remnant(BackupId),
    /// There are fewer verified backups than the policy requires.
    FewVerified {
        /// The number of verified backups.
        found: u32,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingRestorable => out.write_str("no backup is known to be restorable, so none is removed"),
            Self::CurrentClaimHasNone(claim) => {
                write!(out, "the current claim, {claim}, has no restorable backup yet")
            }
            Self::InTheFuture(id) => write!(out, "backup {id} is later than now: look at the clocks"),
            Self::BlockedBy(id) => write!(out, "nobody can read what backup {id} needs, so nothing goes"),
            Self::MayRun(id) => write!(out, "backup {id} is not finished and may still run"),
            Self::ParentIsGone(id) => write!(out, "the unfinished backup {id} builds on a backup that is gone"),
            Self::WalMissing(id) => write!(out, "WAL that backup {id} needs is missing"),
            Self::PackMissing { backup, pack } => write!(out, "pack {pack} of backup {backup} is missing"),
            Self::ManifestMissing { backup, of } => {
                write!(out, "backup {backup} needs the manifest of backup {of}, which is missing")
            }
            Self::UnknownHistory { claim, timeline } => {
                write!(out, "timeline {timeline} of claim {claim} has no history file")
            }
            Self::WindowNotReached { from: Some(from) } => {
                let from = from.to_rfc3339_opts(SecondsFormat::Secs, true);
                write!(out, "the window is not full yet: it begins at {from}")
            }
            Self::WindowNotReached { from: None } => out.write_str("no moment of the window can be restored"),
            Self::Remnant(id) => write!(
                out,
                "backup {id} cannot be restored and will be removed: its run was taken for dead and wrote its record \
                 later"
            ),
            Self::FewVerified { found } => write!(out, "only {found} backups are verified, fewer than configured"),
        }
    }
}
