//! For `verify`, `wal verify` and `check`: the timelines along which an archive can be restored, the backups to begin
//! with, and the gaps in its WAL.
//!
//! This is the planner's first step for every timeline of a claim, as [`super::reach`] does for `info`. It can be
//! repeated with less WAL and fewer backups: that gives the windows that remain without the damaged ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use holdfast_pgtypes::{Ancestry, HistoryFile, Lsn, PgVersion, TimelineId};
use holdfast_repo::catalog::{SegmentRange, WalInventory};
use holdfast_repo::name::BackupId;
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::recovery::{
    Beginning, Hole, ReachableWindow, RecoveryPath, RecoveryRequest, RecoveryWorld, Rejection, TargetFacts, WalRun,
};
use tokio_util::sync::CancellationToken;

use super::lookup::WalLookup;
use super::preflight::Archive;
use crate::archive::ListedWal;
use crate::error::Error;
use crate::pipeline::crew::Crew;
use crate::repository::Repository;
use crate::repository::listed::Unreadable;

/// The listed archive of one claim.
pub(crate) struct Chains {
    archive: Archive,
    beginnings: Vec<Beginning>,
}

/// What can be restored along one timeline.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The path to the timeline.
    pub(crate) ancestry: Ancestry,
    /// The gaps after the first stretch that have WAL after them, oldest first.
    pub(crate) holes: Vec<LineHole>,
    /// The stretches with a usable backup, oldest first.
    pub(crate) stretches: Vec<Stretch>,
    /// Backups that lack WAL between their start and stop.
    pub(crate) rejected: Vec<Rejection>,
}

/// A gap in the WAL of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineHole {
    /// The missing segments, under the names that recovery asks for.
    pub(crate) hole: Hole,
    /// The last stretch before it.
    pub(crate) before: usize,
    /// The first stretch after it; `None` if no backup begins after it.
    pub(crate) after: Option<usize>,
}

/// A run of WAL without a gap, and the backups with which a recovery along it can begin.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    /// The moments that can be restored.
    pub(crate) window: ReachableWindow,
    /// The backups, oldest first.
    pub(crate) backups: Vec<BackupId>,
    /// The segments, under the names that recovery asks for.
    pub(crate) segments: Vec<SegmentRange>,
    /// The gap after it, if there is WAL after the gap.
    pub(crate) hole: Option<Hole>,
    run: WalRun,
}

impl Chains {
    /// Reads the histories of a claim whose WAL was listed.
    pub(crate) async fn read(
        repository: &Repository,
        claim: &ClaimRecord,
        listed: &ListedWal,
        beginnings: Vec<Beginning>,
    ) -> Result<Self, Error> {
        let beginnings: Vec<Beginning> =
            beginnings.into_iter().filter(|beginning| beginning.claim == claim.number).collect();
        let archive = Archive::of_listed(repository, claim.clone(), listed, beginnings.clone()).await?;
        Ok(Self { archive, beginnings })
    }

    /// Histories that exist and cannot be read.
    pub(crate) fn unreadable_histories(&self) -> &[Unreadable<TimelineId>] {
        &self.archive.unreadable_histories
    }

    /// Timelines above the lowest one that have WAL or a backup but no history file: their origin is not known. The
    /// lowest one may come from elsewhere, as in a repository that was added later.
    pub(crate) fn without_history(&self) -> Vec<TimelineId> {
        let of_backups = self.beginnings.iter().map(|beginning| beginning.timeline);
        let known: BTreeSet<TimelineId> = self.archive.wal.timelines().chain(of_backups).collect();
        let has_file: BTreeSet<TimelineId> = self.archive.wal.histories().collect();
        known.into_iter().skip(1).filter(|timeline| !has_file.contains(timeline)).collect()
    }

    /// The history files that can be read.
    pub(crate) fn histories(&self) -> &BTreeMap<TimelineId, HistoryFile> {
        &self.archive.histories
    }

    /// The listed WAL.
    pub(crate) fn wal(&self) -> &WalInventory {
        &self.archive.wal
    }

    /// The backups of the claim.
    pub(crate) fn beginnings(&self) -> &[Beginning] {
        &self.beginnings
    }

    /// The line of each timeline that a backup can reach, with this WAL and these backups.
    pub(crate) fn lines(&self, wal: &WalInventory, beginnings: &[Beginning]) -> Vec<Line> {
        let world = RecoveryWorld {
            claim: self.archive.claim.number,
            backups: beginnings,
            histories: &self.archive.histories,
            wal,
        };
        let of_backups = beginnings.iter().map(|beginning| beginning.timeline);
        let timelines: BTreeSet<TimelineId> = wal.timelines().chain(wal.histories()).chain(of_backups).collect();
        let mut lines = Vec::new();
        for timeline in timelines {
            if self.archive.unreadable_histories.iter().any(|bad| bad.id == timeline) {
                continue;
            }
            let request = RecoveryRequest {
                target: RecoveryTarget::Latest,
                timeline: TargetTimeline::Number(timeline),
                ..RecoveryRequest::default()
            };
            let Ok(path) = RecoveryPath::find(&request, &world) else { continue };
            let rejected = path.rejected().to_vec();
            let ancestry = path.ancestry().clone();
            lines.push(Line { ancestry, holes: holes(&path), stretches: stretches(&path), rejected });
        }
        lines
    }

    /// Looks up the last transaction of each stretch. Damage that it finds is returned, and that stretch gets no end
    /// time.
    pub(crate) async fn find_times(
        &self,
        lines: &mut [Line],
        repository: &Repository,
        crew: &Crew,
        cancel: &CancellationToken,
    ) -> Result<Vec<Error>, Error> {
        let mut damaged = Vec::new();
        // The claim is of a PostgreSQL version that this release does not know, so its WAL cannot be read.
        let Some(lookup) = self.lookup(repository, crew, cancel) else { return Ok(damaged) };
        for stretch in lines.iter_mut().flat_map(|line| &mut line.stretches) {
            let of_stretch = self.beginnings.iter().filter(|begins| stretch.backups.contains(&begins.backup_id));
            let Some(start) = of_stretch.map(|begins| begins.start_lsn).min() else { continue };
            match lookup.last_transaction(&stretch.run, start, DateTime::<Utc>::MAX_UTC).await {
                Ok(last) => stretch.window.to_time = last,
                Err(error) if error.is_of_one_object() => damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    /// The last transaction of a stretch before an LSN; `None` if there is none, or if the WAL cannot be read.
    pub(crate) async fn last_before(
        &self,
        stretch: &Stretch,
        end: Lsn,
        repository: &Repository,
        crew: &Crew,
        cancel: &CancellationToken,
    ) -> Result<Option<DateTime<Utc>>, Error> {
        let Some(lookup) = self.lookup(repository, crew, cancel) else { return Ok(None) };
        let of_stretch = self.beginnings.iter().filter(|begins| stretch.backups.contains(&begins.backup_id));
        let Some(start) = of_stretch.map(|begins| begins.start_lsn).min() else { return Ok(None) };
        let size = self.archive.claim.wal_segment_size;
        let mut run = stretch.run.clone();
        let last = (end.as_u64() / size.as_u64()).checked_sub(1);
        let before = run.segments.iter().filter_map(|range| {
            let last = range.last.number(size).min(last?);
            SegmentRange::new(range.timeline, range.first.number(size), last, size)
        });
        run.segments = before.collect();
        run.end_lsn = end.min(run.end_lsn);
        match lookup.last_transaction(&run, start, DateTime::<Utc>::MAX_UTC).await {
            Err(error) if error.is_of_one_object() => Ok(None),
            found => found,
        }
    }

    fn lookup(&self, repository: &Repository, crew: &Crew, cancel: &CancellationToken) -> Option<WalLookup> {
        let version = PgVersion::new(self.archive.claim.pg_major).ok()?;
        let claim = Arc::clone(&self.archive.claim);
        let (repository, crew, cancel) = (repository.clone(), crew.clone(), cancel.clone());
        Some(WalLookup { repository, claim, version, crew, cancel })
    }
}

/// The gaps of a path after its first usable backup. The stretches are the runs that have one, in their order.
fn holes(path: &RecoveryPath) -> Vec<LineHole> {
    let runs = path.runs();
    let with_backup: Vec<usize> =
        (0..runs.len()).filter(|run| path.candidates().iter().any(|candidate| candidate.run == *run)).collect();
    let mut found = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        // After the last run there is no WAL: a timeline that has only begun.
        let Some(hole) = run.hole.filter(|_| number + 1 < runs.len()) else { continue };
        let Some(before) = with_backup.iter().rposition(|run| *run <= number) else { continue };
        let after = with_backup.iter().position(|run| *run > number);
        found.push(LineHole { hole, before, after });
    }
    found
}

fn stretches(path: &RecoveryPath) -> Vec<Stretch> {
    let windows = path.windows(&TargetFacts::default());
    let mut windows = windows.into_iter();
    let runs = path.runs();
    let mut found = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let of_run = path.candidates().iter().rev().filter(|candidate| candidate.run == number);
        let backups: Vec<BackupId> = of_run.map(|candidate| candidate.backup.backup_id).collect();
        if backups.is_empty() {
            continue;
        }
        // The planner makes a window for each run with a usable backup, in the order of the runs.
        let Some(window) = windows.next() else { break };
        let hole = run.hole.filter(|_| number + 1 < runs.len());
        found.push(Stretch { window, backups, segments: run.segments.clone(), hole, run: run.clone() });
    }
    found
}
