//! The planner of `expire`: it decides what stays and what is removed.
//!
//! It is pure, without input, output or a clock. From the [`Catalog`] of an archive, the [`Policy`] and the time it
//! makes a [`Plan`]: one verdict for each backup, each pack and each range of WAL, the restorable windows before and
//! after the removal, and warnings. [`decide`] finds what to remove, and the caller writes that into the ledger. After
//! a grace time, [`carry_out`] plans again and returns what may be removed now.
//!
//! What it promises:
//!
//! - It never removes the last restorable backup of the newest claim that has one, or WAL that a kept backup needs.
//! - It keeps a pack while the manifest of a kept, waiting or running backup names it. While such a manifest cannot be
//!   read, it keeps every pack. The same is true of the manifests to which such a manifest refers.
//! - In doubt everything stays: times in the future, unreadable or newer records, missing history files, an empty
//!   policy. Doubts are reported as warnings.
//! - Data that nothing needs is removed in the end.
//!
//! ```
//! use chrono::{DateTime, Duration, Utc};
//! use holdfast_pgtypes::{TimelineId, WalSegmentSize};
//! use holdfast_retention::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let day = |day: u32| format!("2026-08-{day:02}T00:00:00Z").parse::<DateTime<Utc>>();
//! let mut wal = WalArchive::new(WalSegmentSize::DEFAULT);
//! wal.segments.insert(TimelineId::FIRST, NumberRanges::of(1, 40));
//! let claim = Claim { since: Some(day(1)?), wal };
//! let mut catalog = Catalog { claims: [(ClaimNumber::FIRST, claim)].into(), ..Catalog::default() };
//! for (start, number) in [(2, 10), (4, 20), (6, 30)] {
//!     catalog.backups.push(Backup {
//!         id: BackupId::new(day(start)?)?,
//!         claim: ClaimNumber::FIRST,
//!         timeline: TimelineId::FIRST,
//!         start_lsn: (number << 24).into(),
//!         stop_timeline: TimelineId::FIRST,
//!         stop_lsn: ((number << 24) + 0x100).into(),
//!         start_time: day(start)?,
//!         stop_time: day(start)?,
//!         place: Place::Packs,
//!         hold: None,
//!         hold_with_wal: None,
//!         verified: Verified::Never,
//!     });
//! }
//! let manifests = catalog.backups.iter().map(|backup| (backup.id, ManifestUses::default())).collect();
//! let policy = Policy { window: Some(Duration::days(3)), ..Policy::default() };
//!
//! // The window begins on the 5th, so the backup of the 4th is needed, and the WAL from its start on.
//! let plan = decide(&catalog, &manifests, &policy, day(8)?)?;
//! let going = plan.going();
//! assert_eq!(going.backups.into_iter().collect::<Vec<_>>(), [BackupId::new(day(2)?)?]);
//! assert_eq!((going.wal[0].first, going.wal[0].last), (1, 19));
//! # Ok(())
//! # }
//! ```

// A caller decides by the kind of an error, so every public function documents its errors (docs/style.md).
#![warn(clippy::missing_errors_doc)]

mod carry_out;
mod catalog;
mod decision;
mod judge;
mod lines;
mod number_ranges;
mod packs;
mod plan;
mod policy;
mod recoverable;
mod setting;
mod slots;
mod verdict;
mod wal_archive;
mod wal_needs;
mod wal_verdicts;
mod warnings;
mod window;

pub use holdfast_repo::name::{BackupId, ClaimNumber, PackId};

pub use carry_out::{Removal, carry_out, waiting};
pub use catalog::{
    Backup, Catalog, Claim, Hold, Pack, Parent, Place, RunningRestore, UnfinishedBackup, UnknownBackup, UnknownReason,
    Verified,
};
pub use decision::Decision;
pub use number_ranges::NumberRanges;
pub use packs::{CannotPlan, ManifestUses, PackTally, PackUse};
pub use plan::{Manifests, Outline, Plan, decide};
pub use policy::{Keep, Policy, RewriteRule};
pub use recoverable::RecoverableWindow;
pub use verdict::{
    BackupGoes, BackupKept, BackupVerdict, PackGoes, PackKept, PackVerdict, WalGoes, WalKept, WalRange, WalVerdict,
    Warning,
};
pub use wal_archive::WalArchive;
