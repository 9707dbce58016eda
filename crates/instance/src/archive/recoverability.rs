//! What could be restored, from `holdfast info` and from the server itself.
//!
//! `from` and `to` are the first and last target time of a recovery. PostgreSQL stops at a time only when it meets a
//! transaction that ended after it. So `to` is just before the last archived transaction, and does not move while
//! nothing is written. `latest` is the time whose state a recovery without a target restores ([`super::archived`]).
//!
//! Recovery can also begin with volume snapshots, but the archive only has their records. What begins with them is
//! reported separately, for the operator, which sees the snapshots themselves.

use super::archived::{self, Archived, Probe};
use crate::context::Context;
use crate::verb::Verb;
use crate::volume;
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_contract::report::info::{ClaimInfo, InfoReport, Reach};
use holdfast_contract::report::snapshot::SnapshotListReport;
use holdfast_kube_api::cluster::{LastBackup, Recoverability, RecoverabilityGap};
use holdfast_kube_api::status_port::{Role, SnapshotStart};
use holdfast_repo::record::SnapshotRecord;
use holdfast_repo::recovery::ReachableWindow;
use std::sync::Arc;
use std::time::Duration;

/// The time between two look-ups. Each lists the WAL that came since the last complete log, and a limited part of the
/// logs that it does not know or has known for a day.
const EVERY: Duration = Duration::from_mins(1);
/// The time between two checks whether a look-up is needed, and of the server's position.
const ROUND: Duration = Duration::from_secs(2);

/// Looks up on the primary what could be restored, as long as the instance runs.
pub async fn watch(context: Arc<Context>) {
    let mut last: Option<tokio::time::Instant> = None;
    let mut done = ((None, None), false);
    let mut archived = Archived::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = context.stop.cancelled() => return,
        }
        let primary = context.state.facts().is_some_and(|facts| facts.role == Role::Primary) && context.state.ready();
        if !primary || !context.paths.archive_config().exists() {
            context.state.set_recoverability(None, Vec::new());
            (last, archived) = (None, Archived::default());
            continue;
        }
        record_positions(&context, &mut archived).await;
        // A change of these values is a reason for a look-up before its time.
        let now = (
            context.state.change_backup(|run| run.as_ref().and_then(|run| run.stopped_at)),
            context.state.change_snapshot(|run| run.as_ref().and_then(|run| run.snapshot_id.clone())),
        );
        let now = (now, archived.until().is_some());
        if last.is_some_and(|at| at.elapsed() < EVERY) && now == done {
            continue;
        }
        (last, done) = (Some(tokio::time::Instant::now()), now);
        let (mut found, starts) = match ask(&context, archived.until()).await {
            Ok(found) => found,
            Err(error) => {
                // What was known is still true: nothing is deleted.
                let before = context.state.recoverability().unwrap_or_default();
                (Recoverability { error: Some(error.to_string()), ..before }, context.state.snapshot_starts())
            }
        };
        found.checked_at = Some(Utc::now());
        if let Some(archive) = context.state.status().archive {
            found.wal_lag_bytes = i64::try_from(archive.waiting_bytes).ok();
            found.wal_lag_seconds = Some(match (archive.waiting_segments, archive.last_archived_time) {
                (0, _) | (_, None) => 0,
                (_, Some(archived)) => (Utc::now() - archived).num_seconds().max(0),
            });
        }
        context.state.set_recoverability(Some(found), starts);
    }
}

/// Records the positions of the server and of its archiver.
async fn record_positions(context: &Context, archived: &mut Archived) {
    let Some(timeline) = context.state.facts().and_then(|facts| facts.timeline) else { return };
    let Ok(rows) = context.sql.query(archived::QUESTION, &[]).await else { return };
    let Ok(Some(control)) = volume::control(&context.paths.pgdata) else { return };
    let size = control.wal_segment_size;
    let Some(probe) = rows.first().and_then(|row| Probe::of(row, size)) else { return };
    let folder = context.paths.pg_wal().join("archive_status");
    archived.add(timeline, probe, archived::end(&folder, timeline, size));
    if archived.wants_switch(probe)
        && let Err(error) = context.sql.query("SELECT pg_switch_wal()", &[]).await
    {
        tracing::debug!("{error}");
    }
}

async fn ask(
    context: &Context,
    archived: Option<DateTime<Utc>>,
) -> crate::error::Result<(Recoverability, Vec<SnapshotStart>)> {
    let config = context.paths.archive_config();
    let verb = |words: &[&str]| Verb::new(&context.paths.program, &config, words.iter().copied());
    let cache = context.paths.wal_cache().to_string_lossy().into_owned();
    let info: InfoReport = verb(&["info", "--wal-cache", &cache]).run(&context.stop, |_| {}).await?.report()?;
    let starts = if info.claims().any(|claim| claim.snapshots.recorded > 0) {
        let listed: SnapshotListReport = verb(&["snapshot", "list"]).run(&context.stop, |_| {}).await?.report()?;
        snapshot_starts(&info, &listed, archived)
    } else {
        Vec::new()
    };
    Ok((of_info(&info, archived), starts))
}

/// The last target time within a window. Pure.
fn until(window: &ReachableWindow) -> Option<DateTime<Utc>> {
    // PostgreSQL's times have microseconds.
    let last = window.to_time? - TimeDelta::microseconds(1);
    Some(last).filter(|last| window.from_time <= *last)
}

/// Whether a window ends where the archive does. Pure.
fn to_end(window: &ReachableWindow, claim: &ClaimInfo) -> bool {
    claim.wal_end.as_ref().is_some_and(|end| window.timeline == end.timeline && window.to_lsn == end.end_lsn)
}

fn windows(reach: &[Reach]) -> impl Iterator<Item = &ReachableWindow> {
    reach.iter().flat_map(|reach| &reach.windows).map(|window| &window.window)
}

/// What the archive alone can restore. Pure.
fn of_info(info: &InfoReport, archived: Option<DateTime<Utc>>) -> Recoverability {
    let of_backups = || info.claims().flat_map(|claim| windows(&claim.reach).map(move |window| (claim, window)));
    let gaps = info
        .claims()
        .flat_map(|claim| &claim.wal)
        .flat_map(|wal| &wal.timelines)
        .flat_map(|timeline| &timeline.gaps)
        .map(|gap| RecoverabilityGap { first_segment: gap.first.to_string(), last_segment: gap.last.to_string() })
        .collect();
    let last_backup =
        info.claims().filter_map(|claim| claim.backups.last.as_ref()).max_by_key(|backup| backup.stop_time).map(
            |backup| LastBackup {
                id: backup.backup_id.clone(),
                completed_at: backup.stop_time,
                size_bytes: i64::try_from(backup.stored_bytes).ok(),
            },
        );
    Recoverability {
        from: of_backups().map(|(_, window)| window.from_time).min(),
        to: of_backups().filter_map(|(_, window)| until(window)).max(),
        latest: archived.filter(|_| of_backups().any(|(claim, window)| to_end(window, claim))),
        gaps,
        last_backup,
        ..Recoverability::default()
    }
}

/// What each recorded set of snapshots can restore. Pure.
fn snapshot_starts(
    info: &InfoReport,
    listed: &SnapshotListReport,
    archived: Option<DateTime<Utc>>,
) -> Vec<SnapshotStart> {
    let start = |record: &SnapshotRecord| {
        let claim = info.claims().find(|claim| claim.claim.number == record.claim)?;
        let reach = &claim.snapshots.reach;
        // Snapshots cannot be used if the WAL of their own timeline has a gap after them.
        let mut own = reach.iter().filter(|reach| reach.timeline == record.timeline);
        if own.any(|reach| reach.unusable.iter().any(|rejected| rejected.backup == record.snapshot_id)) {
            return None;
        }
        // Windows of its own timeline, and of those that branched off later.
        let ahead: Vec<&ReachableWindow> = windows(reach)
            .filter(|window| window.from_lsn <= record.stop_lsn && record.stop_lsn <= window.to_lsn)
            .collect();
        if ahead.is_empty() {
            return None;
        }
        Some(SnapshotStart {
            id: record.snapshot_id.to_string(),
            volumes: record.snapshots.iter().map(|volume| volume.kind.clone()).collect(),
            from: record.stop_time,
            to: ahead.iter().filter_map(|window| until(window)).max().filter(|to| *to >= record.stop_time),
            latest: archived.filter(|_| ahead.iter().any(|window| to_end(window, claim))),
        })
    };
    listed.records().filter_map(start).collect()
}

#[cfg(test)]
mod tests;
