//! What the chosen timeline does not include: timelines that part from it and have WAL or backups of their own.
//!
//! PostgreSQL numbers timelines in the order of their creation, not by their value: a copy that was restored for a
//! drill and promoted has a higher number than the production that it was copied from. So a restore reports what is on
//! the other lines, and which of it is newer than anything on the chosen one.

use super::ancestry::ancestry;
use super::{Beginning, RecoveryWorld};
use crate::name::BackupId;
use chrono::{DateTime, SecondsFormat, Utc};
use holdfast_pgtypes::{Ancestry, Lsn, TimelineId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What on another line is newer than everything on the chosen one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Newer {
    /// Nothing is newer.
    Nothing,
    /// Its WAL was stored later. Without storage times: its WAL reaches further.
    Wal,
    /// It has a complete backup that ended later.
    Backup,
}

/// A timeline that parts from the chosen one and contains something that the chosen one does not lead to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherLine {
    /// The timeline. A restore that names it follows this line.
    pub timeline: TimelineId,
    /// Both lines are the same up to this LSN.
    pub parts_at: Lsn,
    /// Its newest backup that the chosen timeline does not lead to.
    pub backup: Option<BackupId>,
    /// When that backup ended.
    pub backup_stop_time: Option<DateTime<Utc>>,
    /// The end of its WAL, if it has any after the place where they part.
    pub wal_end: Option<Lsn>,
    /// When its newest segment was stored, by the store's clock.
    pub wal_stored: Option<DateTime<Utc>>,
    /// What on this line is newer.
    pub newer: Newer,
}

impl fmt::Display for OtherLine {
    /// `timeline 1 separates from it at 0/5000000, has backup 20260822T101500Z, and WAL to 0/9000000, stored ...`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts_at.is_valid() {
            write!(formatter, "timeline {} separates from it at {} and has ", self.timeline, self.parts_at)?;
        } else {
            write!(formatter, "timeline {}, without a common history, has ", self.timeline)?;
        }
        if let Some(backup) = self.backup {
            write!(formatter, "backup {backup}")?;
        }
        if let Some(end) = self.wal_end {
            let and = if self.backup.is_some() { " and " } else { "" };
            write!(formatter, "{and}WAL to {end}")?;
            if let Some(stored) = self.wal_stored {
                write!(formatter, ", last stored {}", stored.to_rfc3339_opts(SecondsFormat::Secs, true))?;
            }
        }
        Ok(())
    }
}

/// The other lines of a world, ascending.
pub(super) fn other_lines(
    world: &RecoveryWorld<'_>,
    chosen: &Ancestry,
    timeline: TimelineId,
    known: &BTreeSet<TimelineId>,
    backups: &[&Beginning],
) -> Vec<OtherLine> {
    let size = world.wal.segment_size();
    let last_number = |timeline: TimelineId| world.wal.number_ranges(timeline).last().map(|(_, last)| *last);
    let end_of = |number: u64| Lsn::new(number.saturating_add(1).saturating_mul(size.as_u64()));
    let newest_here = backups.iter().filter(|backup| backup.is_on(chosen)).map(|backup| backup.stop_time).max();
    let stored_here = world.wal.last_stored(timeline);
    let end_here = chosen.path().iter().rev().find_map(|span| last_number(span.timeline)).map(end_of);
    let mut found = Vec::new();
    for other in known.iter().copied() {
        let Some(parts_at) = parting(chosen, &ancestry(world, other)) else { continue };
        // The segment in which they part may exist under both names; everything after it belongs to one line only.
        let first_own = parts_at.as_u64().div_ceil(size.as_u64());
        let wal_end = last_number(other).filter(|last| *last >= first_own).map(end_of);
        let of_other = |backup: &&&Beginning| backup.timeline == other || backup.stop_segment.timeline() == other;
        let backup = backups
            .iter()
            .filter(of_other)
            .filter(|backup| !backup.is_on(chosen))
            .max_by_key(|backup| (backup.stop_time, backup.backup_id));
        if wal_end.is_none() && backup.is_none() {
            continue;
        }
        let wal_stored = wal_end.and_then(|_| world.wal.last_stored(other));
        let newer_wal = match (wal_stored, stored_here) {
            (Some(there), Some(here)) => there > here,
            _ => wal_end.is_some_and(|there| end_here.is_none_or(|here| there > here)),
        };
        let newer = match backup {
            Some(backup) if newest_here.is_none_or(|here| backup.stop_time > here) => Newer::Backup,
            _ if newer_wal => Newer::Wal,
            _ => Newer::Nothing,
        };
        found.push(OtherLine {
            timeline: other,
            parts_at,
            backup: backup.map(|backup| backup.backup_id),
            backup_stop_time: backup.map(|backup| backup.stop_time),
            wal_end,
            wal_stored,
            newer,
        });
    }
    found
}

/// The LSN up to which two lines are the same; `None` if the other one is a part of the chosen one.
fn parting(chosen: &Ancestry, other: &Ancestry) -> Option<Lsn> {
    let mut same_until = Lsn::new(0);
    for (index, span) in other.path().iter().enumerate() {
        let Some(here) = chosen.path().get(index).filter(|here| here.timeline == span.timeline) else {
            return Some(same_until);
        };
        match (here.end, span.end) {
            (None, None) => return None,
            (Some(here), Some(there)) if here == there => same_until = here,
            (Some(end), None) | (None, Some(end)) => return Some(end),
            (Some(here), Some(there)) => return Some(here.min(there)),
        }
    }
    None
}
