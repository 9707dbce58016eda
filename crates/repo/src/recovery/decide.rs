//! Step 2: one backup and the WAL it needs.

use super::{
    BeginningKind, Candidate, Hole, NeededTail, Newer, OtherLine, ReachableWindow, RecoveryPath, Unreachable, WalRun,
};
use crate::catalog::SegmentRange;
use crate::name::BackupId;
use chrono::{DateTime, Utc};
use holdfast_pgtypes::recovery_target::RecoveryTarget;
use holdfast_pgtypes::{Lsn, TimelineId};
use serde::{Deserialize, Serialize};

/// What the caller found in the runs of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// Facts of each run, in the order of [`RecoveryPath::runs`]. At the end, runs without facts may be left out.
    pub runs: Vec<RunFacts>,
    /// Start LSNs of the target's records, in any order: commits, aborts and prepares of the transaction, or restore
    /// points with the name. For a time, if known: the commits or aborts at which recovery would stop.
    pub records: Vec<Lsn>,
}

/// Facts of one run, about its WAL before [`WalRun::end_lsn`] only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// Start of the last record, if it was looked up. It gives LSN targets a more exact end.
    pub last_record: Option<Lsn>,
    /// The latest time of a commit or abort; `None` if there is none or it was not looked up.
    pub last_transaction_time: Option<DateTime<Utc>>,
}

/// The way to the target: `restore --plan` prints it, and the restore executes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPlan {
    /// The backup to restore, or the snapshot that the directory was filled from.
    pub backup: BackupId,
    /// Whether it is a backup or a snapshot.
    pub begins_with: BeginningKind,
    /// The timeline of the backup itself.
    pub backup_timeline: TimelineId,
    /// The timeline to recover along: the number to write as `recovery_target_timeline`.
    pub timeline: TimelineId,
    /// Where recovery begins: the backup's redo LSN.
    pub start_lsn: Lsn,
    /// Where recovery is consistent: the backup's stop LSN.
    pub consistent_lsn: Lsn,
    /// Where recovery stops, as far as it is known before recovery runs.
    pub target_lsn: Option<Lsn>,
    /// The segments that recovery will read, in order, under the names that it asks for. If the place of the target is
    /// not known, these are all segments to the end of the run, and recovery may stop earlier.
    pub segments: Vec<SegmentRange>,
    /// The number of these segments.
    pub segment_count: u64,
    /// The raw size of these segments in bytes.
    pub wal_bytes: u64,
    /// The timelines whose history files recovery reads, oldest first.
    pub history_files: Vec<TimelineId>,
    /// The window around the target.
    pub window: ReachableWindow,
    /// Timelines whose content the chosen one does not include.
    pub other_lines: Vec<OtherLine>,
    /// The end of the archive, if recovery may read up to it and its last segments are pieces from streaming.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_lsn: Option<Lsn>,
    /// What recovery may read from pieces, one for each timeline: then `restore_command` must give them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tails: Vec<NeededTail>,
    /// If recovery ends at the end of a tail and not of the archive: the missing WAL, after which the archive has
    /// segments that no recovery can reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Hole>,
}

/// The most segments that can be in the archive after one that was on its way when the machine died: archiving stores
/// at most this many ahead (`wal.push_ahead`).
const MOST_AHEAD: u64 = 256;

/// Why a candidate cannot be used for the target.
enum Miss {
    /// The target is before the candidate's consistent point.
    Before,
    /// The gapless WAL after the candidate does not reach the target.
    Beyond,
}

impl RecoveryPath {
    /// Picks the newest backup from which the target can be reached, and the segments that it needs.
    ///
    /// # Errors
    /// [`Unreachable`], with the windows that can be reached.
    pub fn decide(&self, facts: &TargetFacts) -> Result<RecoveryPlan, Unreachable> {
        let decided = self.decide_along(facts);
        let Some((newer, backup)) = self.newer_backup().and_then(|line| Some((line, line.backup?))) else {
            return decided;
        };
        match decided {
            // Before they part, all lines have the same history. "The end of the backup" means the newest backup.
            Ok(plan) if self.request.target != RecoveryTarget::Immediate && self.is_common(plan.target_lsn) => Ok(plan),
            Err(error @ (Unreachable::NoBackups | Unreachable::BeforeFirstBackup { .. })) => Err(error),
            _ => Err(Unreachable::NewerBackupElsewhere {
                timeline: self.timeline,
                backup,
                backup_timeline: newer.timeline,
                other_lines: self.others.clone(),
            }),
        }
    }

    /// Whether recovery stops before the point where any line with a newer backup parts from the chosen one.
    fn is_common(&self, target_lsn: Option<Lsn>) -> bool {
        let mut newer = self.others.iter().filter(|other| other.newer == Newer::Backup);
        target_lsn.is_some_and(|target| newer.all(|other| target < other.parts_at))
    }

    fn decide_along(&self, facts: &TargetFacts) -> Result<RecoveryPlan, Unreachable> {
        let named = self.request.backup;
        let eligible: Vec<&Candidate> = self
            .candidates
            .iter()
            .filter(|candidate| named.is_none_or(|backup| candidate.backup.backup_id == backup))
            .collect();
        let Some(newest) = eligible.first() else {
            return Err(self.no_usable_backup(facts));
        };
        let mut first_beyond = None;
        for candidate in &eligible {
            match self.reach(candidate, facts) {
                Ok(target_lsn) => return Ok(self.plan(candidate, target_lsn, facts)),
                Err(Miss::Before) => {}
                Err(Miss::Beyond) => {
                    // Older backups follow the same WAL or stop at an earlier hole, so none of them gets further.
                    first_beyond = Some(*candidate);
                    break;
                }
            }
        }
        let target = self.request.target.clone();
        let (windows, other_lines) = (self.windows(facts), self.others.clone());
        let looks_for_records = matches!(target, RecoveryTarget::Xid(_) | RecoveryTarget::Name(_));
        match first_beyond {
            Some(_) if looks_for_records && facts.records.is_empty() => {
                Err(Unreachable::TargetNotFound { target, windows, other_lines })
            }
            Some(candidate) => Err(self.beyond(candidate, facts)),
            None => match named {
                Some(backup) => Err(Unreachable::TargetBeforeChosenBackup {
                    target,
                    backup,
                    stop_lsn: newest.backup.stop_lsn,
                    stop_time: newest.backup.stop_time,
                    windows,
                    other_lines,
                }),
                None => Err(Unreachable::BeforeFirstBackup { target, windows, other_lines }),
            },
        }
    }

    /// The ranges on this timeline to which a restore is possible, oldest first: one window for each run with a usable
    /// backup.
    pub fn windows(&self, facts: &TargetFacts) -> Vec<ReachableWindow> {
        (0..self.runs.len()).filter_map(|run| self.window(run, facts)).collect()
    }

    fn window(&self, index: usize, facts: &TargetFacts) -> Option<ReachableWindow> {
        let run = self.runs.get(index)?;
        let first = self.candidates.iter().rev().find(|candidate| candidate.run == index)?;
        Some(ReachableWindow {
            timeline: self.timeline,
            first_backup: first.backup.backup_id,
            from_lsn: first.backup.stop_lsn,
            from_time: first.backup.stop_time,
            to_lsn: run.end_lsn,
            to_time: run_facts(facts, index).last_transaction_time,
        })
    }

    /// Where recovery from a candidate stops, if it is known, or why it does not reach the target.
    fn reach(&self, candidate: &Candidate, facts: &TargetFacts) -> Result<Option<Lsn>, Miss> {
        let backup = &candidate.backup;
        let run = self.runs.get(candidate.run).ok_or(Miss::Beyond)?;
        let known = run_facts(facts, candidate.run);
        match &self.request.target {
            RecoveryTarget::Latest => {
                let is_end = candidate.run + 1 == self.runs.len() && run.hole.is_none();
                if is_end || self.was_in_flight(run) { Ok(None) } else { Err(Miss::Beyond) }
            }
            // Recovery notices that it is consistent, and may stop, only when it has the next record.
            RecoveryTarget::Immediate if backup.stop_lsn < run.end_lsn => Ok(Some(backup.stop_lsn)),
            RecoveryTarget::Immediate => Err(Miss::Beyond),
            RecoveryTarget::Lsn(lsn) => {
                if *lsn < backup.stop_lsn {
                    return Err(Miss::Before);
                }
                let reached = *lsn < run.end_lsn && known.last_record.is_none_or(|last| *lsn <= last);
                if reached { Ok(Some(*lsn)) } else { Err(Miss::Beyond) }
            }
            RecoveryTarget::Time(time) => {
                // Every commit before the stop LSN has the stop time or an earlier time.
                let (consistent, reached) = if self.request.inclusive {
                    (backup.stop_time <= *time, known.last_transaction_time.is_some_and(|last| last > *time))
                } else {
                    (backup.stop_time < *time, known.last_transaction_time.is_some_and(|last| last >= *time))
                };
                if !consistent {
                    return Err(Miss::Before);
                }
                if !reached {
                    return Err(Miss::Beyond);
                }
                let stop = facts.records.iter().copied().filter(|lsn| *lsn >= backup.stop_lsn && *lsn < run.end_lsn);
                Ok(stop.min())
            }
            RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => {
                let met = facts.records.iter().copied().filter(|lsn| *lsn >= backup.start_lsn).min();
                match met {
                    // A later backup has passed the record; an earlier one may still meet it.
                    Some(lsn) if lsn < backup.stop_lsn => Err(Miss::Before),
                    Some(lsn) if lsn < run.end_lsn => Ok(Some(lsn)),
                    Some(_) => Err(Miss::Beyond),
                    None if facts.records.is_empty() => Err(Miss::Beyond),
                    None => Err(Miss::Before),
                }
            }
        }
    }

    /// Whether the run ends in pieces from streaming, and the WAL after it looks like what a dying machine leaves that
    /// stores several segments at the same time. Then the end of the pieces is the end of what was acknowledged. Far
    /// more WAL after a hole means that something else was lost, and nobody should open the cluster without it by
    /// chance.
    fn was_in_flight(&self, run: &WalRun) -> bool {
        let newest = self.runs.last().map_or(0, WalRun::last_number);
        // The pieces of an older timeline say nothing about what is missing of the next one.
        let is_of_hole = run.hole.zip(run.tails.last()).is_some_and(|(hole, tail)| hole.timeline == tail.timeline);
        run.tail_lsn.is_some() && is_of_hole && newest.saturating_sub(run.last_number()) <= MOST_AHEAD
    }

    fn plan(&self, candidate: &Candidate, target_lsn: Option<Lsn>, facts: &TargetFacts) -> RecoveryPlan {
        let backup = &candidate.backup;
        let first = backup.start_segment.number(self.size);
        let (segments, window) = match self.runs.get(candidate.run) {
            Some(run) => (
                self.segments_between(run, first, self.last_needed(run, target_lsn)),
                self.window(candidate.run, facts),
            ),
            None => (Vec::new(), None),
        };
        let segment_count = segments.iter().map(|range| range.count).sum();
        let run = self.runs.get(candidate.run);
        let (tail_lsn, tails) = run.map_or((None, Vec::new()), |run| (run.tail_lsn, run.tails.clone()));
        RecoveryPlan {
            backup: backup.backup_id,
            begins_with: backup.kind,
            backup_timeline: backup.timeline,
            timeline: self.timeline,
            start_lsn: backup.start_lsn,
            consistent_lsn: backup.stop_lsn,
            target_lsn,
            segments,
            segment_count,
            wal_bytes: self.size.as_u64().saturating_mul(segment_count),
            history_files: self.history_files.clone(),
            window: window.unwrap_or(ReachableWindow {
                timeline: self.timeline,
                first_backup: backup.backup_id,
                from_lsn: backup.stop_lsn,
                from_time: backup.stop_time,
                to_lsn: backup.stop_lsn,
                to_time: None,
            }),
            other_lines: self.others.clone(),
            tail_lsn,
            tails,
            ends_at: run.and_then(|run| run.hole).filter(|_| self.request.target == RecoveryTarget::Latest),
        }
    }

    /// The last segment that recovery reads to stop at a known LSN: one more than the segment of the LSN, because the
    /// record at which it stops may begin or end there.
    fn last_needed(&self, run: &WalRun, target_lsn: Option<Lsn>) -> u64 {
        match target_lsn {
            Some(lsn) => (lsn.as_u64() / self.size.as_u64()).saturating_add(1).min(run.last_number()),
            None => run.last_number(),
        }
    }

    /// The WAL after a candidate ends before the target: there is a hole, or no more WAL.
    fn beyond(&self, candidate: &Candidate, facts: &TargetFacts) -> Unreachable {
        let target = self.request.target.clone();
        let (windows, other_lines) = (self.windows(facts), self.others.clone());
        let run = self.runs.get(candidate.run);
        match run.and_then(|run| run.hole) {
            Some(hole) => Unreachable::Hole { target, hole, follows: self.begins_with(hole), windows, other_lines },
            None => Unreachable::BeyondArchive {
                target,
                until_lsn: run.map_or(candidate.backup.stop_lsn, |run| run.end_lsn),
                until_time: run_facts(facts, candidate.run).last_transaction_time,
                windows,
                other_lines,
            },
        }
    }

    /// The timeline before, if the hole begins with the first segment of a later one.
    fn begins_with(&self, hole: Hole) -> Option<TimelineId> {
        let mut spans = self.ancestry.path().windows(2);
        spans.find_map(|pair| {
            let first = pair[1].start.as_u64() / self.size.as_u64();
            let is_first = pair[1].timeline == hole.timeline && hole.first_missing.number(self.size) == first;
            is_first.then_some(pair[0].timeline)
        })
    }

    /// Every backup on the timeline, or the named one, lacks WAL between its start and its stop.
    fn no_usable_backup(&self, facts: &TargetFacts) -> Unreachable {
        let target = self.request.target.clone();
        let rejection = match self.request.backup {
            Some(backup) => self.rejected.iter().find(|rejection| rejection.backup == backup),
            None => self.rejected.first(),
        };
        match rejection {
            Some(rejection) => Unreachable::Hole {
                target,
                hole: rejection.hole,
                follows: self.begins_with(rejection.hole),
                windows: self.windows(facts),
                other_lines: self.others.clone(),
            },
            None => Unreachable::NoBackups,
        }
    }
}

fn run_facts(facts: &TargetFacts, run: usize) -> RunFacts {
    facts.runs.get(run).copied().unwrap_or_default()
}
