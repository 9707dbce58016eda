//! For `check`: whether what happens now can be restored, and which gaps there are before.
//!
//! It follows the timeline of the server, with the newest part of the WAL that a report looks at. Older gaps are known
//! from the ledger. A segment that cannot be read counts as missing.

use chrono::{DateTime, SecondsFormat, Utc};
use holdfast_pgtypes::{SegmentName, TimelineId, WalFileName};
use holdfast_repo::catalog::WalInventory;
use holdfast_repo::name::ObjectPath;
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::recovery::{Beginning, BeginningKind};
use holdfast_retention::NumberRanges;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::findings::Places;
use super::look::with;
use super::losses::under_their_names;
use super::record::recorded_gaps;
use super::removed::Removed;
use super::young::young;
use crate::archive::{LIST_AGAIN_AFTER, SHOW_AT_LEAST, WalFolders, WalScope};
use crate::error::{Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::repository::Repository;
use crate::restore::{Chains, Line, LineHole};
use crate::verify::judge::{Judged, judge as verify_judge};

/// How often the WAL is planned again without what could not be read. More damage than this is an error.
const MOST_DAMAGED: usize = 64;

/// Whether what happens now can be restored from one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Every moment since the end of a backup or a snapshot can be restored.
    Unbroken {
        /// What can be restored, for people.
        since: String,
        /// The gaps before that, for people.
        gaps: Vec<String>,
        /// Segments that are there and cannot be read, for people.
        damaged: Vec<String>,
    },
    /// There is neither a complete backup nor a snapshot.
    NoBackup,
    /// WAL is missing and may still be on its way; the reason is for people.
    Waiting(String),
    /// Nothing that happens now can be restored until there is another backup; the reason is for people.
    Broken(String),
}

/// Looks at the WAL of a claim along a timeline.
///
/// # Errors
/// [`Cause::Store`](crate::Cause::Store) if the store cannot be asked, [`Cause::Cancelled`](crate::Cause::Cancelled).
/// The error of reading an object that is not a segment.
pub async fn state(
    repository: &Repository,
    claim: &ClaimRecord,
    timeline: TimelineId,
    now: DateTime<Utc>,
    crew: &Crew,
    cancel: &CancellationToken,
) -> Result<State, Error> {
    let phrase = || format!("looking for gaps in the WAL of {} in {}", claim.cluster, repository.describe());
    state_inner(repository, claim, timeline, now, crew, cancel).await.doing(phrase)
}

async fn state_inner(
    repository: &Repository,
    claim: &ClaimRecord,
    timeline: TimelineId,
    now: DateTime<Utc>,
    crew: &Crew,
    cancel: &CancellationToken,
) -> Result<State, Error> {
    let (backups, snapshots) =
        tokio::try_join!(repository.backups(&claim.cluster), repository.snapshots(&claim.cluster))?;
    let beginnings = backups.records.iter().map(Beginning::from).chain(snapshots.records.iter().map(Beginning::from));
    let beginnings: Vec<Beginning> = beginnings.filter(|begins| begins.claim == claim.number).collect();
    let starts = || beginnings.iter().map(|begins| begins.start_lsn);
    let (Some(oldest), Some(newest)) = (starts().min(), starts().max()) else { return Ok(State::NoBackup) };
    let wanted = WalScope::Shown { oldest, newest };
    let began = Instant::now();
    let (listed, chains, wal, line, late, mut damaged) = loop {
        let listed = WalFolders::read_and_list(repository, claim, wanted).await?;
        let covered = beginnings.iter().filter(|begins| listed.covers(begins.start_lsn)).cloned().collect();
        let chains = Chains::read(repository, claim, &listed, covered).await?;
        let mut wal = listed.whole();
        let too_small = |(file, bytes): &(WalFileName, u64)| match file {
            WalFileName::Segment(segment) => {
                Some((*segment, format!("it has {bytes} bytes, less than the head of an object")))
            }
            _ => None,
        };
        let mut damaged: Vec<(SegmentName, String)> = listed.stunted().iter().filter_map(too_small).collect();
        let line = readable_line(&chains, &mut wal, timeline, &mut damaged, (repository, crew, cancel)).await?;
        let late = young(repository, claim, line.as_slice(), &wal, now).await;
        if late.is_empty() || began.elapsed() >= SHOW_AT_LEAST {
            break (listed, chains, wal, line, late, damaged);
        }
        tokio::time::sleep(LIST_AGAIN_AFTER).await;
    };
    let has_hole = line.as_ref().is_some_and(|line| !line.holes.is_empty());
    let removed = if has_hole { Removed::read(repository, claim).await? } else { Removed::default() };
    let recorded = recorded_gaps(repository, &claim.cluster, std::slice::from_ref(claim)).await?;
    // What the listing does not reach is known from the ledger only.
    let size = claim.wal_segment_size;
    let older =
        recorded.of_claim(claim.number, &wal).into_iter().filter(|gap| !listed.covers(gap.last.start_lsn(size)));
    let older: Vec<String> = older
        .map(|gap| {
            let since = gap.since.to_rfc3339_opts(SecondsFormat::Secs, true);
            format!("{} to {} ({}) are missing, recorded {since}", gap.first, gap.last, gap.count)
        })
        .collect();
    damaged.retain(|(segment, _)| segment.end_lsn(size) > oldest);
    let unreadable =
        |(segment, problem): &(SegmentName, String)| format!("{segment} is there and cannot be read: {problem}");
    let damaged: Vec<String> = damaged.iter().map(unreadable).collect();
    let facts = Facts { timeline, removed: &removed, late: &late, claim, beginnings: chains.beginnings() };
    Ok(judge(line.as_ref(), &facts, older, damaged))
}

/// The line of a timeline, without the segments that cannot be read.
async fn readable_line(
    chains: &Chains,
    wal: &mut WalInventory,
    timeline: TimelineId,
    damaged: &mut Vec<(SegmentName, String)>,
    (repository, crew, cancel): (&Repository, &Crew, &CancellationToken),
) -> Result<Option<Line>, Error> {
    for tries in 0.. {
        let mut lines = chains.lines(wal, chains.beginnings());
        lines.retain(|line| line.ancestry.timeline() == timeline);
        let errors = chains.find_times(&mut lines, repository, crew, cancel).await?;
        let is_over = errors.is_empty();
        for error in errors {
            let (object, problem) = match verify_judge(&error, "") {
                Judged::Damaged { kind, object, problem } => (object, with(kind.words(), &problem)),
                Judged::Newer { object, reason } => (object, reason),
                Judged::Nothing => return Err(error),
            };
            let segment = match object.parse() {
                Ok(ObjectPath::WalFile { file: WalFileName::Segment(segment), .. }) => Some(segment),
                _ => None,
            };
            let Some(segment) = segment.filter(|segment| wal.contains(*segment) && tries < MOST_DAMAGED) else {
                return Err(error);
            };
            wal.remove(segment);
            damaged.push((segment, problem));
        }
        if is_over {
            return Ok(lines.pop());
        }
    }
    Ok(None)
}

/// What the state depends on besides the line.
struct Facts<'a> {
    timeline: TimelineId,
    removed: &'a Removed,
    late: &'a Places,
    claim: &'a ClaimRecord,
    beginnings: &'a [Beginning],
}

impl Facts<'_> {
    /// The segments of a hole that are neither removed by `expire` nor, if these count, on their way.
    fn is_missed(&self, line: &Line, hole: &LineHole, with_late: bool) -> bool {
        let size = self.claim.wal_segment_size;
        let first = hole.hole.first_missing.number(size);
        let last = first + hole.hole.count.saturating_sub(1);
        under_their_names(&line.ancestry, first, last, size).into_iter().any(|range| {
            let missing = NumberRanges::of(range.first.number(size), range.last.number(size));
            let missing = missing.without(&self.removed.of(range.timeline));
            let late = self.late.get(&(self.claim.number, range.timeline)).filter(|_| !with_late);
            late.map_or_else(|| missing.clone(), |late| missing.without(late)).iter().next().is_some()
        })
    }
}

/// The state by the line of the server's timeline. Pure.
fn judge(line: Option<&Line>, facts: &Facts<'_>, older: Vec<String>, damaged: Vec<String>) -> State {
    let timeline = facts.timeline;
    // The damage is the reason of what is called missing.
    let broken = |reason: String| State::Broken(damaged.iter().cloned().chain([reason]).collect::<Vec<_>>().join("; "));
    let Some(line) = line else {
        return broken(format!(
            "no backup leads to timeline {timeline}, on which this server is: nothing that happens can be restored"
        ));
    };
    let Some(newest) = line.stretches.last() else {
        let reason = line.rejected.first().map(|rejection| format!(": {}", rejection.hole)).unwrap_or_default();
        return broken(format!(
            "no backup that leads to timeline {timeline} has its own WAL{reason}: nothing that happens can be restored"
        ));
    };
    let at = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let open = || line.holes.iter().filter(|hole| hole.after.is_none());
    if let Some(open) = open().find(|hole| facts.is_missed(line, hole, false)) {
        let before = line.stretches.get(open.before).unwrap_or(newest);
        let since = match before.window.to_time {
            Some(last) => format!("after {} ({})", at(last), before.window.to_lsn),
            None => format!("after {}", before.window.to_lsn),
        };
        return broken(format!("{}: no moment {since} can be restored", open.hole));
    }
    if let Some(late) = open().find(|hole| facts.is_missed(line, hole, true)) {
        return State::Waiting(format!("{}, and later WAL is there: it may still be on its way", late.hole));
    }
    let since = match newest.backups.first() {
        Some(id) => {
            let is_of = |begins: &&Beginning| begins.backup_id == *id;
            let kind = facts.beginnings.iter().find(is_of).map(|begins| begins.kind);
            let what = if kind == Some(BeginningKind::Snapshot) { "snapshot" } else { "backup" };
            format!("{}, the end of {what} {id}", at(newest.window.from_time))
        }
        None => at(newest.window.from_time),
    };
    let gaps = line.holes.iter().filter(|hole| facts.is_missed(line, hole, false)).map(|hole| {
        let before = line.stretches.get(hole.before).map(|stretch| &stretch.window);
        let after = hole.after.and_then(|after| line.stretches.get(after)).map(|stretch| &stretch.window);
        let from = before.map_or(String::new(), |window| match window.to_time {
            Some(last) => format!(" after {}", at(last)),
            None => format!(" after {}", window.to_lsn),
        });
        let until = after.map_or(String::new(), |window| format!(" and before {}", at(window.from_time)));
        format!("{}: no moment{from}{until} can be restored", hole.hole)
    });
    let gaps = older.into_iter().chain(gaps).collect();
    State::Unbroken { since, gaps, damaged }
}
