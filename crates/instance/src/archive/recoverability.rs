//! What could be restored, from `holdfast info`.

use crate::manager::Manager;
use crate::verb::Verb;
use chrono::{DateTime, Utc};
use holdfast_kube_api::cluster::{LastBackup, Recoverability, RecoverabilityGap};
use holdfast_kube_api::status_port::Role;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Between looks. Each lists the archive.
const EVERY: Duration = Duration::from_mins(1);
/// Between looks at whether there is anything to look up.
const ROUND: Duration = Duration::from_secs(2);

/// Looks it up, on the primary, for as long as the instance runs.
pub async fn watch(manager: Arc<Manager>) {
    let mut last: Option<tokio::time::Instant> = None;
    let mut backup = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = manager.stop.cancelled() => return,
        }
        let primary = manager.state.facts().is_some_and(|facts| facts.role == Role::Primary) && manager.state.ready();
        let config = manager.places.archive_config();
        if !primary || !config.exists() {
            manager.state.set_recoverability(None);
            last = None;
            continue;
        }
        let done = manager.state.change_backup(|run| run.as_ref().and_then(|run| run.stopped_at));
        if last.is_some_and(|at| at.elapsed() < EVERY) && done == backup {
            continue;
        }
        (last, backup) = (Some(tokio::time::Instant::now()), done);
        let looked = Verb::new(&manager.places.program, &config, ["info"]).run(&manager.stop, |_| {}).await;
        let archive = manager.state.status().archive;
        let mut found = match looked {
            Ok(info) => of_info(&info),
            Err(error) => Recoverability {
                error: Some(error.to_string()),
                // What was known is still true: nothing is deleted.
                ..manager.state.recoverability().unwrap_or_default()
            },
        };
        found.checked_at = Some(Utc::now());
        if let Some(archive) = archive {
            found.wal_lag_bytes = i64::try_from(archive.waiting_bytes).ok();
            found.wal_lag_seconds = Some(match (archive.waiting_segments, archive.last_archived_time) {
                (0, _) | (_, None) => 0,
                (_, Some(archived)) => (Utc::now() - archived).num_seconds().max(0),
            });
        }
        manager.state.set_recoverability(Some(found));
    }
}

/// From the JSON of `holdfast info`. Pure.
fn of_info(info: &Value) -> Recoverability {
    let claims = || {
        let repositories = info["repositories"].as_array().into_iter().flatten();
        repositories.flat_map(|repository| repository["claims"].as_array().into_iter().flatten())
    };
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    let windows = || {
        // Volume snapshots are places to begin as well.
        let lists = claims().flat_map(|claim| [&claim["reach"], &claim["snapshots"]["reach"]]);
        let reach = lists.flat_map(|list| list.as_array().into_iter().flatten());
        reach.flat_map(|reach| reach["windows"].as_array().into_iter().flatten())
    };
    let gaps = claims()
        .flat_map(|claim| claim["wal"]["timelines"].as_array().into_iter().flatten())
        .flat_map(|timeline| timeline["gaps"].as_array().into_iter().flatten())
        .filter_map(|gap| {
            Some(RecoverabilityGap {
                first_segment: gap["first"].as_str()?.to_owned(),
                last_segment: gap["last"].as_str()?.to_owned(),
            })
        })
        .collect();
    let last_backup = claims()
        .filter_map(|claim| {
            let last = &claim["backups"]["last"];
            Some(LastBackup {
                id: last["backup_id"].as_str()?.to_owned(),
                completed_at: time(&last["stop_time"])?,
                size_bytes: last["stored_bytes"].as_i64(),
            })
        })
        .max_by_key(|backup| backup.completed_at);
    let until =
        |window: &Value| [&window["to_time"], &window["to_stored"], &window["from_time"]].into_iter().find_map(time);
    Recoverability {
        from: windows().filter_map(|window| time(&window["from_time"])).min(),
        to: windows().filter_map(until).max(),
        gaps,
        last_backup,
        ..Recoverability::default()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_answer_of_info() {
        let found = of_info(&json!({"repositories": [{"claims": [{
            "backups": {"last": {"backup_id": "20261122T101500Z", "stop_time": "2026-11-22T10:16:00Z"}},
            "wal": {"timelines": [{"gaps": [{"first": "000000010000000000000003", "last": "000000010000000000000004"}]}]},
            "reach": [{"windows": [
                {"from_time": "2026-11-22T09:00:00Z", "to_time": "2026-11-22T09:30:00Z"},
                {"from_time": "2026-11-22T10:16:00Z", "to_time": null}
            ]}]
        }]}]}));
        assert_eq!(found.from.unwrap().to_rfc3339(), "2026-11-22T09:00:00+00:00");
        assert_eq!(found.to.unwrap().to_rfc3339(), "2026-11-22T10:16:00+00:00");
        assert_eq!(found.gaps.len(), 1);
        assert_eq!(found.last_backup.unwrap().id, "20261122T101500Z");
        assert_eq!(of_info(&Value::Null), Recoverability::default());
    }
}
