//! Tables: one answer of `info`, one thing changed.

#![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
use super::*;
use serde_json::json;

const NOW: &str = "2026-11-22T12:00:00Z";

#[expect(clippy::unnecessary_wraps, reason = "as the fields that it is compared with")]
fn moment(text: &str) -> Option<DateTime<Utc>> {
    Some(text.parse().unwrap())
}

/// One backup of 09:00, WAL to 0/9000000 with its last transaction at 09:30.
fn info() -> Value {
    json!({"repositories": [{"claims": [{
        "claim": {"number": 1},
        "backups": {"last": {"backup_id": "20261122T085900Z", "stop_time": "2026-11-22T09:00:00Z", "stored_bytes": 7}},
        "wal": {"timelines": [{"timeline": 1, "gaps": []}]},
        "wal_end": {"timeline": 1, "segment": "000000010000000000000008", "end_lsn": "0/9000000"},
        "reach": [{"timeline": 1, "unusable": [], "windows": [{
            "timeline": 1, "first_backup": "20261122T085900Z", "from_lsn": "0/3000100", "from_time": "2026-11-22T09:00:00Z",
            "to_lsn": "0/9000000", "to_time": "2026-11-22T09:30:00Z", "to_stored": "2026-11-22T11:00:00Z"
        }]}],
        "snapshots": {"recorded": 0, "reach": []}
    }]}]})
}

#[expect(clippy::needless_pass_by_value, reason = "rows of the table are made where they are used")]
fn window(change: Value) -> Value {
    let mut info = info();
    let window = &mut info["repositories"][0]["claims"][0]["reach"][0]["windows"][0];
    for (key, value) in change.as_object().unwrap() {
        window[key] = value.clone();
    }
    info
}

/// `from`, `to` and `latest`, each as a time of the day.
fn said(found: &Recoverability) -> String {
    let one = |time: Option<DateTime<Utc>>| time.map_or("-".to_owned(), |time| time.format("%H:%M:%S%.6f").to_string());
    format!("{} {} {}", one(found.from), one(found.to), one(found.latest))
}

#[test]
fn what_the_archive_alone_can_restore() {
    let gap = {
        let mut info = info();
        let claim = &mut info["repositories"][0]["claims"][0];
        claim["wal"]["timelines"][0]["gaps"] =
            json!([{"first": "000000010000000000000009", "last": "00000001000000000000000A", "count": 2}]);
        claim["wal_end"]["end_lsn"] = json!("0/C000000");
        info
    };
    let two = {
        let mut info = info();
        let windows = &mut info["repositories"][0]["claims"][0]["reach"][0]["windows"];
        windows.as_array_mut().unwrap().insert(
            0,
            json!({"timeline": 1, "from_lsn": "0/1000100", "from_time": "2026-11-22T07:00:00Z", "to_lsn": "0/2000000",
                "to_time": "2026-11-22T07:30:00Z"}),
        );
        info
    };
    for (name, info, archived, expected) in [
        (
            "a transaction that ended later is needed to stop: the last one itself is no target",
            info(),
            Some(NOW),
            "09:00:00.000000 09:29:59.999999 12:00:00.000000",
        ),
        ("not known how far the archiver is", info(), None, "09:00:00.000000 09:29:59.999999 -"),
        (
            "idle since the backup: no time is a target, the end is",
            window(json!({"to_time": null})),
            Some(NOW),
            "09:00:00.000000 - 12:00:00.000000",
        ),
        (
            "the last transaction ended with the backup",
            window(json!({"to_time": "2026-11-22T09:00:00Z"})),
            Some(NOW),
            "09:00:00.000000 - 12:00:00.000000",
        ),
        (
            "one that ended just after it",
            window(json!({"to_time": "2026-11-22T09:00:00.000001Z"})),
            Some(NOW),
            "09:00:00.000000 09:00:00.000000 12:00:00.000000",
        ),
        ("a gap before the end: the end cannot be restored", gap, Some(NOW), "09:00:00.000000 09:29:59.999999 -"),
        ("two windows", two, Some(NOW), "07:00:00.000000 09:29:59.999999 12:00:00.000000"),
        ("no backup", json!({"repositories": [{"claims": [{"reach": []}]}]}), Some(NOW), "- - -"),
        ("nothing", Value::Null, None, "- - -"),
    ] {
        let found = of_info(&info, archived.and_then(moment));
        assert_eq!(said(&found), expected, "{name}");
    }
    let found = of_info(&info(), None);
    assert_eq!(found.last_backup.unwrap().id, "20261122T085900Z");
}

#[test]
fn gaps_are_named() {
    let mut info = info();
    info["repositories"][0]["claims"][0]["wal"]["timelines"][0]["gaps"] =
        json!([{"first": "000000010000000000000003", "last": "000000010000000000000004"}]);
    let found = of_info(&info, None);
    assert_eq!((found.gaps.len(), found.gaps[0].first_segment.as_str()), (1, "000000010000000000000003"));
}

/// The snapshots of 08:00 and 10:00; the window of the first ends at a hole.
fn with_snapshots() -> Value {
    let mut info = info();
    info["repositories"][0]["claims"][0]["snapshots"] = json!({"recorded": 2, "reach": [{
    "timeline": 1, "unusable": [], "windows": [
        {"timeline": 1, "from_lsn": "0/2000100", "from_time": "2026-11-22T08:00:00Z", "to_lsn": "0/3000000",
            "to_time": "2026-11-22T08:30:00Z"},
        {"timeline": 1, "from_lsn": "0/5000100", "from_time": "2026-11-22T10:00:00Z", "to_lsn": "0/9000000",
            "to_time": "2026-11-22T09:30:00Z"}
    ]}]});
    info
}

fn records() -> Value {
    let volumes = json!([{"name": "b", "type": "PG_DATA"}, {"name": "b", "type": "PG_WAL"}]);
    json!({"repositories": [{"snapshots": [
        {"snapshot_id": "a", "claim": 1, "timeline": 1, "stop_lsn": "0/2000100", "stop_time": "2026-11-22T08:00:00Z",
            "snapshots": volumes},
        {"snapshot_id": "b", "claim": 1, "timeline": 1, "stop_lsn": "0/5000100", "stop_time": "2026-11-22T10:00:00Z",
            "snapshots": volumes}
    ]}]})
}

#[test]
fn what_snapshots_can_begin() {
    let words = |info: &Value| {
        let starts = snapshot_starts(info, &records(), moment(NOW));
        starts
            .iter()
            .map(|start| {
                let found = Recoverability {
                    from: Some(start.from),
                    to: start.to,
                    latest: start.latest,
                    ..Recoverability::default()
                };
                format!("{} {} {}", start.id, start.volumes.join("+"), said(&found))
            })
            .collect::<Vec<_>>()
    };
    let first = "a PG_DATA+PG_WAL 08:00:00.000000 08:29:59.999999 -";
    // Nothing was committed since the second one.
    let second = "b PG_DATA+PG_WAL 10:00:00.000000 - 12:00:00.000000";
    assert_eq!(words(&with_snapshots()), [first, second]);
    let mut info = with_snapshots();
    let reach = &mut info["repositories"][0]["claims"][0]["snapshots"]["reach"][0];
    reach["unusable"] = json!([{"backup": "a", "hole": {}}]);
    assert_eq!(words(&info), [second], "one that misses WAL of its own");
    assert_eq!(words(&super::tests::info()), Vec::<String>::new(), "no window holds them");
    assert_eq!(said(&of_info(&with_snapshots(), moment(NOW))), said(&of_info(&super::tests::info(), moment(NOW))));
}
