//! The engine's answer as the operator reads it. Pure.

use holdfast_kube_api::status_port::BackupResult;
use serde_json::Value;

/// From the JSON of `holdfast backup`.
pub(super) fn of_report(report: &Value) -> Option<BackupResult> {
    let backup = &report["repositories"].get(0)?["backup"];
    let text = |key: &str| backup[key].as_str().map(str::to_owned);
    Some(BackupResult {
        backup_id: text("backup_id")?,
        begin_wal: text("start_segment"),
        end_wal: text("stop_segment"),
        begin_lsn: text("start_lsn"),
        end_lsn: text("stop_lsn"),
        timeline_id: backup["timeline"].as_u64().and_then(|number| u32::try_from(number).ok()),
        data_bytes: backup["size_bytes"].as_u64(),
        stored_bytes: backup["stored_bytes"].as_u64(),
        warnings: report["warnings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|warning| warning.as_str().map(str::to_owned))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report() {
        let result = of_report(&json!({"repositories": [{"repository": "s3://x", "backup": {
            "backup_id": "20261122T101500Z", "start_segment": "000000010000000000000002",
            "stop_segment": "000000010000000000000002", "start_lsn": "0/2000028", "stop_lsn": "0/2000100",
            "timeline": 1, "size_bytes": 10, "stored_bytes": 5
        }}], "warnings": ["w"]}))
        .unwrap();
        assert_eq!((result.backup_id.as_str(), result.timeline_id), ("20261122T101500Z", Some(1)));
        assert_eq!((result.data_bytes, result.stored_bytes, result.warnings.len()), (Some(10), Some(5), 1));
        assert_eq!(of_report(&Value::Null), None);
    }
}
