//! For `check`: whether what happens now can be restored, and which gaps there are before.
//!
//! It follows the timeline of the server, with the newest part of the WAL that a report looks at. Older gaps are known
//! from the ledger.

use chrono::{DateTime, SecondsFormat, Utc};
use holdfast_pgtypes::TimelineId;
use holdfast_repo::record::{BackupRecord, ClaimRecord};
use holdfast_repo::recovery::Beginning;
use tokio_util::sync::CancellationToken;

use super::record::recorded_gaps;
use super::removed::Removed;
use crate::archive::{KnownLogs, Wanted, list_settled};
use crate::error::{Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::repository::Repository;
use crate::restore::{Chains, Line, LineHole};

/// Whether what happens now can be restored from one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Every moment since the end of a backup can be restored.
    Unbroken {
        /// What can be restored, for people.
        since: String,
        /// The gaps before that, for people.
        gaps: Vec<String>,
    },
    /// There is no complete backup.
    NoBackup,
    /// Nothing that happens now can be restored until there is another backup; the reason is for people.
    Broken(String),
}

/// Looks at the WAL of a claim along a timeline.
///
/// # Errors
/// [`Cause::Store`](crate::Cause::Store) if the store cannot be asked, [`Cause::Cancelled`](crate::Cause::Cancelled).
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
    let backups: Vec<BackupRecord> = repository.backups(&claim.cluster).await?.records;
    let beginnings: Vec<Beginning> =
        backups.iter().filter(|backup| backup.claim == claim.number).map(Beginning::from).collect();
    let starts = || beginnings.iter().map(|begins| begins.start_lsn);
    let (Some(oldest), Some(newest)) = (starts().min(), starts().max()) else { return Ok(State::NoBackup) };
    let wanted = Wanted::Shown { oldest, newest };
    let listed = list_settled(repository, claim, wanted, &KnownLogs::default(), now).await?;
    let recorded = recorded_gaps(repository, &claim.cluster, std::slice::from_ref(claim)).await?;
    let snapshots = repository.snapshots(&claim.cluster).await?.records;
    let removed = Removed::read(repository, claim, &beginnings, &snapshots).await?;
    // What the listing does not reach is known from the ledger only.
    let older = recorded
        .of_claim(claim.number, listed.inventory())
        .into_iter()
        .filter(|gap| !listed.covers(gap.last.start_lsn(claim.wal_segment_size)));
    let older: Vec<String> = older
        .map(|gap| {
            let since = gap.since.to_rfc3339_opts(SecondsFormat::Secs, true);
            format!("{} to {} ({}) are missing, recorded {since}", gap.first, gap.last, gap.count)
        })
        .collect();
    let beginnings = beginnings.into_iter().filter(|begins| listed.covers(begins.start_lsn)).collect();
    let chains = Chains::read(repository, claim, &listed, beginnings).await?;
    let mut lines = chains.lines(chains.wal(), chains.beginnings());
    lines.retain(|line| line.ancestry.timeline() == timeline);
    chains.find_times(&mut lines, repository, crew, cancel).await?;
    let is_removed = |hole: &LineHole| {
        let first = hole.hole.first_missing.number(claim.wal_segment_size);
        removed.is_between_backups(first, first + hole.hole.count.saturating_sub(1))
    };
    Ok(judge(lines.first(), timeline, is_removed, older))
}

/// The state by the line of the server's timeline. Pure.
fn judge(
    line: Option<&Line>,
    timeline: TimelineId,
    is_removed: impl Fn(&LineHole) -> bool,
    older: Vec<String>,
) -> State {
    let Some(line) = line else {
        return State::Broken(format!(
            "no backup leads to timeline {timeline}, on which this server is: nothing that happens can be restored"
        ));
    };
    let Some(newest) = line.stretches.last() else {
        let reason = line.rejected.first().map(|rejection| format!(": {}", rejection.hole)).unwrap_or_default();
        return State::Broken(format!(
            "no backup that leads to timeline {timeline} has its own WAL{reason}: nothing that happens can be restored"
        ));
    };
    let at = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    if let Some(open) = line.holes.iter().find(|hole| hole.after.is_none()) {
        let before = line.stretches.get(open.before).unwrap_or(newest);
        let since = match before.window.to_time {
            Some(last) => format!("after {} ({})", at(last), before.window.to_lsn),
            None => format!("after {}", before.window.to_lsn),
        };
        return State::Broken(format!("{}: no moment {since} can be restored", open.hole));
    }
    let since = match newest.backups.first() {
        Some(backup) => format!("{}, the end of backup {backup}", at(newest.window.from_time)),
        None => at(newest.window.from_time),
    };
    let gaps = line.holes.iter().filter(|hole| !is_removed(hole)).map(|hole| {
        let before = line.stretches.get(hole.before).map(|stretch| &stretch.window);
        let after = hole.after.and_then(|after| line.stretches.get(after)).map(|stretch| &stretch.window);
        let from = before.map_or(String::new(), |window| match window.to_time {
            Some(last) => format!(" after {}", at(last)),
            None => format!(" after {}", window.to_lsn),
        });
        let until = after.map_or(String::new(), |window| format!(" and before {}", at(window.from_time)));
        format!("{}: no moment{from}{until} can be restored", hole.hole)
    });
    State::Unbroken { since, gaps: older.into_iter().chain(gaps).collect() }
}
