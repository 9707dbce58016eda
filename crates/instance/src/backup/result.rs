//! The engine's report, converted for the operator. Pure.

use holdfast_contract::report::backup::BackupReport;
use holdfast_kube_api::status_port::BackupResult;

/// From the report of `holdfast backup`: the backup is the same in all repositories, and the size in the first one is
/// used. `None` if it names no repository.
pub(super) fn of_report(report: BackupReport) -> Option<BackupResult> {
    let backup = report.repositories.into_iter().next()?.backup;
    Some(BackupResult {
        backup_id: backup.backup_id.to_string(),
        begin_wal: Some(backup.start_segment.to_string()),
        end_wal: Some(backup.stop_segment.to_string()),
        begin_lsn: Some(backup.start_lsn.to_string()),
        end_lsn: Some(backup.stop_lsn.to_string()),
        timeline_id: Some(backup.timeline.get()),
        data_bytes: Some(backup.size_bytes),
        stored_bytes: Some(backup.stored_bytes),
        warnings: report.warnings,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;

    /// The frozen sample of the contract.
    fn report() -> BackupReport {
        serde_json::from_str(include_str!("../../../contract/tests/samples/backup.json")).unwrap()
    }

    #[test]
    fn a_report() {
        let report = report();
        let record = report.repositories[0].backup.clone();
        let result = of_report(report).unwrap();
        assert_eq!((result.backup_id, result.timeline_id), (record.backup_id.to_string(), Some(record.timeline.get())));
        assert_eq!((result.data_bytes, result.stored_bytes), (Some(record.size_bytes), Some(record.stored_bytes)));
        assert_eq!(
            (result.begin_lsn, result.end_lsn),
            (Some("16/B4000028".to_owned()), Some("16/B4000158".to_owned()))
        );
        assert_eq!(result.begin_wal.as_deref(), Some("0000000100000016000000B4"));
        assert_eq!(result.end_wal.as_deref(), Some("0000000100000016000000B4"));
        assert_eq!(result.warnings, ["the clock of the server is 3 s behind"]);
        assert_eq!(of_report(BackupReport { repositories: Vec::new(), ..self::report() }), None);
    }
}
