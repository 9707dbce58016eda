//! What could be restored: what the primary reports about the archive, and what begins with volume snapshots that still
//! exist.
//!
//! The archive keeps the record of snapshots for ever. The snapshots themselves may be deleted, and what began with
//! them can then not be restored. Only the API server knows which exist.

use crate::cluster::observed::KeptSnapshots;
use holdfast_kube_api::cluster::{LastBackup, Recoverability};
use holdfast_kube_api::status_port::{InstanceStatus, SnapshotStart};

/// What could be restored; `None` until the primary has reported it. Pure.
pub(super) fn of(answer: &InstanceStatus, kept: &KeptSnapshots) -> Option<Recoverability> {
    let mut found = answer.recoverability.clone()?;
    for start in answer.snapshot_starts.iter().filter(|start| is_there(start, kept)) {
        found.from = [found.from, Some(start.from)].into_iter().flatten().min();
        found.to = found.to.max(start.to);
        found.latest = found.latest.max(start.latest);
        if found.last_backup.as_ref().is_none_or(|last| last.completed_at < start.from) {
            found.last_backup = Some(LastBackup { id: start.id.clone(), completed_at: start.from, size_bytes: None });
        }
    }
    Some(found)
}

fn is_there(start: &SnapshotStart, kept: &KeptSnapshots) -> bool {
    !start.volumes.is_empty() && start.volumes.iter().all(|volume| kept.contains(&(start.id.clone(), volume.clone())))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
    use super::*;
    use chrono::{DateTime, Utc};

    #[expect(clippy::unnecessary_wraps, reason = "as the fields that it is compared with")]
    fn hour(hour: u32) -> Option<DateTime<Utc>> {
        Some(format!("2026-11-22T{hour:02}:00:00Z").parse().unwrap())
    }

    fn start(id: &str, from: u32, volumes: &[&str]) -> SnapshotStart {
        SnapshotStart {
            id: id.to_owned(),
            volumes: volumes.iter().map(|volume| (*volume).to_owned()).collect(),
            from: hour(from).unwrap(),
            to: hour(11),
            latest: hour(12),
        }
    }

    /// A backup of 9:00 that reaches to 10:00, or no backup; snapshots of 7:00 and 10:00 that reach to 11:00.
    #[test]
    fn what_still_exists_counts() {
        type Row = (&'static str, Recoverability, Vec<(&'static str, &'static str)>, &'static str);
        let archive = || Recoverability {
            from: hour(9),
            to: hour(10),
            latest: None,
            last_backup: Some(LastBackup { id: "b".to_owned(), completed_at: hour(9).unwrap(), size_bytes: Some(1) }),
            ..Recoverability::default()
        };
        let nothing = Recoverability::default;
        let starts = || vec![start("old", 7, &["PG_DATA", "PG_WAL"]), start("new", 10, &["PG_DATA"])];
        let table: [Row; 6] = [
            ("no snapshot is left", archive(), vec![], "9 10 - b"),
            ("all exist", archive(), vec![("old", "PG_DATA"), ("old", "PG_WAL"), ("new", "PG_DATA")], "7 11 12 new"),
            ("half of the old ones", archive(), vec![("old", "PG_DATA"), ("new", "PG_DATA")], "9 11 12 new"),
            ("only the old ones", archive(), vec![("old", "PG_DATA"), ("old", "PG_WAL")], "7 11 12 b"),
            ("nothing but snapshots", nothing(), vec![("new", "PG_DATA")], "10 11 12 new"),
            ("nothing at all", nothing(), vec![("other", "PG_DATA")], "- - - -"),
        ];
        for (name, recoverability, kept, expected) in table {
            let answer = InstanceStatus {
                recoverability: Some(recoverability),
                snapshot_starts: starts(),
                ..InstanceStatus::default()
            };
            let kept = kept.into_iter().map(|(id, kind)| (id.to_owned(), kind.to_owned())).collect();
            let found = of(&answer, &kept).unwrap();
            let one = |time: Option<DateTime<Utc>>| time.map_or("-".to_owned(), |time| time.format("%-H").to_string());
            let last = found.last_backup.map_or("-".to_owned(), |last| last.id);
            assert_eq!(
                format!("{} {} {} {last}", one(found.from), one(found.to), one(found.latest)),
                expected,
                "{name}"
            );
        }
        assert_eq!(
            of(&InstanceStatus { snapshot_starts: starts(), ..InstanceStatus::default() }, &KeptSnapshots::new()),
            None
        );
    }
}
