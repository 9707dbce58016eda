use super::*;

const LABEL: &str = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\nCHECKPOINT LOCATION: 0/3000060\n\
                     BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-22 10:15:00 UTC\nLABEL: nightly\n\
                     START TIMELINE: 1\n";

fn hot() -> serde_json::Value {
    serde_json::json!({
        "name": "nightly", "online": true, "backup_label": LABEL, "end_lsn": "0/3000158",
        "started_at": "2026-11-22T10:15:00Z", "stopped_at": "2026-11-22T10:15:09Z",
        "snapshots": [{ "name": "nightly-data", "type": "PG_DATA" }, { "name": "nightly-wal", "type": "PG_WAL" }],
    })
}

fn outcome(request: serde_json::Value) -> String {
    let request: SnapshotRequest = match serde_json::from_value(request) {
        Ok(request) => request,
        Err(error) => return error.to_string(),
    };
    match span_of(&request) {
        Ok(span) => format!("{} to {} on {}", span.start_lsn, span.stop_lsn, span.timeline),
        Err(error) => error.what.to_string(),
    }
}

#[test]
fn a_request_is_checked_by_itself() {
    let with = |key: &str, value: serde_json::Value| {
        let mut request = hot();
        request[key] = value;
        request
    };
    let cold = |key: &str, value: serde_json::Value| {
        let mut request = with(key, value);
        request["online"] = false.into();
        request["backup_label"] = serde_json::Value::Null;
        request
    };
    let null = serde_json::Value::Null;
    let mut stopped = cold("end_lsn", null.clone());
    stopped["begin_lsn"] = "0/3000028".into();
    stopped["timeline"] = 2.into();
    for (request, expected) in [
        (hot(), "0/3000028 to 0/3000158 on 1"),
        (with("begin_lsn", "0/3000028".into()), "0/3000028 to 0/3000158 on 1"),
        (stopped, "0/3000028 to 0/3000028 on 2"),
        (with("snapshots", serde_json::json!([])), "snapshots nightly: no snapshot is named"),
        (with("end_lsn", null.clone()), "snapshots nightly: the stop LSN (end_lsn) is missing"),
        (
            with("backup_label", null.clone()),
            "snapshots nightly: the server was running, but backup_label from pg_backup_stop() is missing: nothing \
             could be recovered",
        ),
        (
            with("begin_lsn", "0/4000028".into()),
            "snapshots nightly: begin_lsn is not 0/3000028, the start LSN of backup_label",
        ),
        (
            with("end_lsn", "0/2000000".into()),
            "snapshots nightly: the stop LSN 0/2000000 is before the start LSN 0/3000028",
        ),
        (with("tablespace_map", "16400 /srv".into()), "snapshots nightly: tablespace_map ends within a line"),
        (with("stopped_at", "2026-11-22T10:14:00Z".into()), "snapshots nightly: they ended before they began"),
        (
            cold("end_lsn", null.clone()),
            "snapshots nightly: the server was stopped: begin_lsn and timeline of its last checkpoint are missing",
        ),
        (
            with("online", false.into()),
            "snapshots nightly: the server was stopped, but there is a backup_label from a running server",
        ),
    ] {
        assert_eq!(outcome(request), expected);
    }
    assert!(outcome(with("lable", "x".into())).starts_with("unknown field `lable`"));
}
