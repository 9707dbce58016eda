//! What could be restored, from `holdfast info` and what the server itself knows.
//!
//! `from` and `to` bound the moments that a recovery takes as its target: PostgreSQL stops at a time only when it meets a
//! transaction that ended after it, so `to` is just before the last archived one, and stands still while nothing is
//! written. `latest` is the moment whose state a recovery without a target brings ([`super::archived`]).
//!
//! Volume snapshots are places to begin as well, but the archive only has their records. What begins with them is told
//! apart, for the operator, which sees the snapshots themselves.

use super::archived::{self, Archived, Look};
use crate::context::Context;
use crate::verb::Verb;
use crate::volume;
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_kube_api::cluster::{LastBackup, Recoverability, RecoverabilityGap};
use holdfast_kube_api::status_port::{Role, SnapshotStart};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Between looks. Each lists the WAL that came since the last whole log; once a day all of it is listed.
const EVERY: Duration = Duration::from_mins(1);
/// Between looks at whether there is anything to look up, and at how far the server is.
const ROUND: Duration = Duration::from_secs(2);

/// Looks it up, on the primary, for as long as the instance runs.
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
        if !primary || !context.places.archive_config().exists() {
            context.state.set_recoverability(None, Vec::new());
            (last, archived) = (None, Archived::default());
            continue;
        }
        look(&context, &mut archived).await;
        // What makes a look worth it before its time.
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

/// Notes how far the server is, and how far its archiver.
async fn look(context: &Context, archived: &mut Archived) {
    let Some(timeline) = context.state.facts().and_then(|facts| facts.timeline) else { return };
    let Ok(rows) = context.sql.query(archived::QUESTION, &[]).await else { return };
    let Ok(Some(control)) = volume::control(&context.places.pgdata) else { return };
    let size = control.wal_segment_size;
    let Some(look) = rows.first().and_then(|row| Look::of(row, size)) else { return };
    let folder = context.places.pg_wal().join("archive_status");
    archived.look(timeline, look, archived::end(&folder, timeline, size));
    if archived.wants_switch(look)
        && let Err(error) = context.sql.query("SELECT pg_switch_wal()", &[]).await
    {
        tracing::debug!("{error}");
    }
}

async fn ask(
    context: &Context,
    archived: Option<DateTime<Utc>>,
) -> crate::error::Result<(Recoverability, Vec<SnapshotStart>)> {
    let config = context.places.archive_config();
    let verb = |words: &[&str]| Verb::new(&context.places.program, &config, words.iter().copied());
    let cache = context.places.wal_cache().to_string_lossy().into_owned();
    let info = verb(&["info", "--wal-cache", &cache]).run(&context.stop, |_| {}).await?;
    let recorded = claims(&info).any(|claim| claim["snapshots"]["recorded"].as_u64().is_some_and(|count| count > 0));
    let listed = if recorded { verb(&["snapshot", "list"]).run(&context.stop, |_| {}).await? } else { Value::Null };
    Ok((of_info(&info, archived), snapshot_starts(&info, &listed, archived)))
}

fn claims(info: &Value) -> impl Iterator<Item = &Value> {
    list(&info["repositories"]).flat_map(|repository| list(&repository["claims"]))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str()?.parse().ok()
}

/// The newest moment in a window that a recovery takes as its target. Pure.
fn until(window: &Value) -> Option<DateTime<Utc>> {
    // The unit of PostgreSQL's times.
    let last = time(&window["to_time"])? - TimeDelta::microseconds(1);
    Some(last).filter(|last| time(&window["from_time"]).is_some_and(|from| from <= *last))
}

/// Whether a window ends where the archive does. Pure.
fn to_end(window: &Value, claim: &Value) -> bool {
    let end = &claim["wal_end"];
    end.is_object() && window["timeline"] == end["timeline"] && window["to_lsn"] == end["end_lsn"]
}

fn windows(reach: &Value) -> impl Iterator<Item = &Value> {
    list(reach).flat_map(|reach| list(&reach["windows"]))
}

/// What the archive alone can restore, from the JSON of `holdfast info`. Pure.
fn of_info(info: &Value, archived: Option<DateTime<Utc>>) -> Recoverability {
    let of_backups = || claims(info).flat_map(|claim| windows(&claim["reach"]).map(move |window| (claim, window)));
    let gaps = claims(info)
        .flat_map(|claim| list(&claim["wal"]["timelines"]))
        .flat_map(|timeline| list(&timeline["gaps"]))
        .filter_map(|gap| {
            Some(RecoverabilityGap {
                first_segment: gap["first"].as_str()?.to_owned(),
                last_segment: gap["last"].as_str()?.to_owned(),
            })
        })
        .collect();
    let last_backup = claims(info)
        .filter_map(|claim| {
            let last = &claim["backups"]["last"];
            Some(LastBackup {
                id: last["backup_id"].as_str()?.to_owned(),
                completed_at: time(&last["stop_time"])?,
                size_bytes: last["stored_bytes"].as_i64(),
            })
        })
        .max_by_key(|backup| backup.completed_at);
    Recoverability {
        from: of_backups().filter_map(|(_, window)| time(&window["from_time"])).min(),
        to: of_backups().filter_map(|(_, window)| until(window)).max(),
        latest: archived.filter(|_| of_backups().any(|(claim, window)| to_end(window, claim))),
        gaps,
        last_backup,
        ..Recoverability::default()
    }
}

/// What each recorded set of snapshots could begin, from the JSON of `holdfast info` and `holdfast snapshot list`. Pure.
fn snapshot_starts(info: &Value, listed: &Value, archived: Option<DateTime<Utc>>) -> Vec<SnapshotStart> {
    let records = list(&listed["repositories"]).flat_map(|repository| list(&repository["snapshots"]));
    let start = |record: &Value| {
        let id = record["snapshot_id"].as_str()?;
        let from = time(&record["stop_time"])?;
        let claim = claims(info).find(|claim| claim["claim"]["number"] == record["claim"])?;
        // One that its own timeline has no whole WAL for cannot be begun with.
        let mut own = list(&claim["snapshots"]["reach"]).filter(|reach| reach["timeline"] == record["timeline"]);
        if own.any(|reach| list(&reach["unusable"]).any(|rejected| rejected["backup"] == id)) {
            return None;
        }
        // Windows of its own timeline and of those that branched off it later.
        let stop = record["stop_lsn"].as_str()?.parse::<holdfast_pgtypes::Lsn>().ok()?;
        let lsn = |window: &Value, key: &str| window[key].as_str()?.parse::<holdfast_pgtypes::Lsn>().ok();
        let mut ahead = windows(&claim["snapshots"]["reach"])
            .filter(|window| {
                lsn(window, "from_lsn").is_some_and(|from| from <= stop)
                    && lsn(window, "to_lsn").is_some_and(|to| stop <= to)
            })
            .peekable();
        ahead.peek()?;
        let ahead: Vec<&Value> = ahead.collect();
        Some(SnapshotStart {
            id: id.to_owned(),
            volumes: list(&record["snapshots"])
                .filter_map(|volume| volume["type"].as_str().map(str::to_owned))
                .collect(),
            from,
            to: ahead.iter().filter_map(|window| until(window)).max().filter(|to| *to >= from),
            latest: archived.filter(|_| ahead.iter().any(|window| to_end(window, claim))),
        })
    };
    records.filter_map(start).collect()
}

#[cfg(test)]
mod tests;
