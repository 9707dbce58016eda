//! Finds what can be restored, for `info`.
//!
//! The planner's first step for every timeline of a claim, and the last transaction of each stretch, looked up in the
//! facts of its newest segments. Nothing is cached: the answer is the present state.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use holdfast_contract::report::info::{Reach, Window};
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use holdfast_pgtypes::version::UnsupportedVersion;
use holdfast_pgtypes::{PgVersion, TimelineId};
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::recovery::{
    Beginning, OtherLine, ReachableWindow, RecoveryPath, RecoveryRequest, RecoveryWorld, RunFacts, TargetFacts,
};
use tokio_util::sync::CancellationToken;

use super::lookup::WalLookup;
use super::preflight::Archive;
use crate::archive::{ListedWal, tail};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::repository::Repository;

/// The moments of a claim that can be restored.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// By timeline, ascending. Timelines that no backup reaches are left out.
    pub timelines: Vec<Reach>,
    /// The timeline that a restore follows by default; `None` if nothing can be restored.
    pub followed: Option<TimelineId>,
    /// Whether a restore works only if its timeline is named: a complete backup elsewhere is newer than all that reach
    /// the followed one, or the WAL of the followed one has a hole and that of another one has not.
    pub must_be_named: bool,
    /// Lines with data that are not part of that timeline.
    pub other_lines: Vec<OtherLine>,
    /// The number of backups that begin before the listed WAL; nothing is known about them.
    pub not_looked_at: usize,
}

impl Reached {
    fn of_unknown_version(error: UnsupportedVersion, archive: &Archive) -> Self {
        let unreadable = |timeline| Reach {
            timeline,
            windows: Vec::new(),
            unusable: Vec::new(),
            unreadable: Some(format!("{error}; a newer holdfast may know it")),
        };
        Self { timelines: archive.wal.timelines().map(unreadable).collect(), ..Self::default() }
    }
}

/// Finds what can be restored of a claim, with its listed WAL. `backups` may hold backups of other claims, or snapshots
/// instead of backups. Those that begin before the listed WAL are only counted.
///
/// # Errors
/// [`Cause::Store`] if the store cannot be asked, [`Cause::Format`] if the search for the last transaction meets a
/// damaged segment, [`Cause::Cancelled`]. A history that cannot be read is in `unreadable` of its timeline.
pub async fn reach(
    repository: &Repository,
    claim: &ClaimRecord,
    wal: &ListedWal,
    backups: &[Beginning],
    crew: &Crew,
    cancel: &CancellationToken,
) -> Result<Reached, Error> {
    let looking = async {
        let mut archive = Archive::of_listed(repository, claim.clone(), wal, backups.to_vec()).await?;
        tail::add_tails(repository, claim, &mut archive.wal, crew).await?;
        let version = match PgVersion::new(claim.pg_major) {
            Ok(version) => version,
            // The claim is of a PostgreSQL version that this release does not know. The rest of the archive is still
            // shown.
            Err(error) => return Ok(Reached::of_unknown_version(error, &archive)),
        };
        let lookup = WalLookup {
            repository: repository.clone(),
            claim: Arc::clone(&archive.claim),
            version,
            crew: crew.clone(),
            cancel: cancel.clone(),
        };
        let of_claim = backups.iter().filter(|backup| backup.claim == claim.number);
        let (looked_at, others): (Vec<_>, Vec<_>) = of_claim.cloned().partition(|backup| wal.covers(backup.start_lsn));
        let looked_at = RecoveryWorld { backups: &looked_at, ..archive.world() };
        let of_backups = backups.iter().filter(|backup| backup.claim == claim.number).map(|backup| backup.timeline);
        let timelines: BTreeSet<TimelineId> =
            archive.wal.timelines().chain(archive.wal.histories()).chain(of_backups).collect();
        let mut found = Reached { not_looked_at: others.len(), ..Reached::default() };
        let latest = RecoveryRequest::default();
        let is_whole = |path: &RecoveryPath| path.decide(&TargetFacts::default()).is_ok();
        let mut has_hole = false;
        if let Ok(path) = RecoveryPath::find(&latest, &archive.world())
            && archive.check_histories(&latest, Some(path.timeline())).is_ok()
        {
            found.followed = Some(path.timeline());
            found.must_be_named = path.newer_backup().is_some();
            has_hole = !is_whole(&path);
            found.other_lines = path.other_lines().to_vec();
        }
        for timeline in timelines {
            if let Some(bad) = archive.unreadable_histories.iter().find(|bad| bad.id == timeline) {
                let unreadable = Some(bad.error.what.to_string());
                found.timelines.push(Reach { timeline, windows: Vec::new(), unusable: Vec::new(), unreadable });
                continue;
            }
            let request = RecoveryRequest {
                target: RecoveryTarget::Latest,
                timeline: TargetTimeline::Number(timeline),
                ..RecoveryRequest::default()
            };
            let Ok(path) = RecoveryPath::find(&request, &looked_at) else { continue };
            found.must_be_named |= has_hole && found.followed != Some(timeline) && is_whole(&path);
            found.timelines.push(Reach {
                timeline,
                windows: with_times(path.windows(&last_transactions(&path, &lookup).await?), wal.newest(timeline)),
                unusable: path.rejected().to_vec(),
                unreadable: None,
            });
        }
        Ok(found)
    };
    let looked: Result<_, Error> = tokio::select! {
        found = looking => found,
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
    };
    looked.doing(|| format!("looking for what can be restored of {} in {}", claim.cluster, repository.describe()))
}

/// The windows of a timeline, with the time at which its newest WAL was stored.
fn with_times(windows: Vec<ReachableWindow>, newest: Option<DateTime<Utc>>) -> Vec<Window> {
    let last = windows.len().saturating_sub(1);
    let windows = windows.into_iter().enumerate();
    // All windows but the last end at a gap, long before the newest segment.
    windows.map(|(n, window)| Window { window, to_stored: newest.filter(|_| n == last) }).collect()
}

async fn last_transactions(path: &RecoveryPath, lookup: &WalLookup) -> Result<TargetFacts, Error> {
    let mut facts = TargetFacts::default();
    for (index, run) in path.runs().iter().enumerate() {
        let starts = path.candidates().iter().filter(|candidate| candidate.run == index);
        let last_transaction_time = match starts.map(|candidate| candidate.backup.start_lsn).min() {
            // No transaction is later than this, so the search ends at the first segments that hold one.
            Some(start) => lookup.last_transaction(run, start, DateTime::<Utc>::MAX_UTC).await?,
            None => None,
        };
        facts.runs.push(RunFacts { last_transaction_time, ..RunFacts::default() });
    }
    Ok(facts)
}
