//! What other runs left: records of runs that were taken for dead, files of an interrupted removal, uploads.

use super::bench::{Bench, first_segment};
use crate::error::Cause;
use crate::expire::plan;
use crate::progress::Silent;
use chrono::TimeDelta;
use holdfast_repo::name::{self, BackupId};
use holdfast_repo::record::{LeasePurpose, RunIdentity, StartRecord};
use holdfast_store::PutMode;
use std::time::Duration;

/// The run of the newest backup was taken for dead. It writes its record after its start record and more were removed.
#[tokio::test]
async fn a_record_that_came_too_late_is_not_a_backup_and_is_removed() {
    for (encrypted, has_manifest) in [(false, false), (true, false), (false, true), (true, true)] {
        let bench = Bench::with_days(encrypted, 4).await;
        let late = bench.id(3);
        bench.remove(&name::backup_start(&bench.cluster, &late)).await;
        for number in 1..=2 {
            bench.remove(&name::pack(&bench.cluster, &late, number)).await;
        }
        if !has_manifest {
            bench.remove(&name::manifest(&bench.cluster, &late)).await;
        }
        let listed = bench.repository.backups(&bench.cluster).await.unwrap();
        assert_eq!(listed.records.len(), 3, "it cannot be restored, and it cannot be a parent");
        let [bad] = listed.unreadable.as_slice() else { unreachable!("{:?}", listed.unreadable) };
        assert_eq!(bad.id, late);
        assert!(matches!(*bad.error.what, Cause::Remnant { .. }), "{}", bad.error);

        let planned = plan(&bench.repository, &bench.last(2), &Silent).await.unwrap();
        assert!(planned.warnings.iter().any(|warning| warning.contains(&late.to_string())), "{:?}", planned.warnings);
        let fates: Vec<bool> = planned.backups.iter().map(|backup| backup.kept).collect();
        assert_eq!(fates, [false, true, true, false]);
        assert_eq!(planned.backups[3].why, ["not a backup: its run was taken for dead and wrote its record later"]);

        let report = bench.expire(&bench.last(2)).await.unwrap();
        assert_eq!(report.removed.backups, [bench.id(0), late]);
        for folder in ["backups", "packs"] {
            assert_eq!(bench.names(&format!("{folder}/{late}/")).await, [""; 0], "{folder}");
        }
        assert_eq!(bench.sound_days().await, [1, 2]);
        assert!(!bench.segments().await.contains(&(first_segment(1) - 1)), "it keeps no WAL");
    }
}

/// A whole backup that lost its start record to an interrupted removal, and then one pack: it is damaged, as one with a
/// start record would be, and no remnant.
#[tokio::test]
async fn a_backup_that_lost_one_pack_is_damaged_and_stays() {
    for has_start in [false, true] {
        let bench = Bench::with_days(true, 4).await;
        let damaged = bench.id(3);
        if !has_start {
            bench.remove(&name::backup_start(&bench.cluster, &damaged)).await;
        }
        bench.remove(&name::pack(&bench.cluster, &damaged, 1)).await;
        let listed = bench.repository.backups(&bench.cluster).await.unwrap();
        let bad: Vec<&Cause> = listed.unreadable.iter().map(|bad| &*bad.error.what).collect();
        assert!(bad.iter().all(|bad| matches!(bad, Cause::LostPack { .. })), "{bad:?}");
        assert_eq!(bad.is_empty(), has_start);
        let report = bench.expire(&bench.last(2)).await.unwrap();
        assert_eq!(report.removed.backups, [bench.id(0)]);
        assert_eq!(report.backups[3].why, ["not known to be sound, but not old enough to be removed"]);
        assert!(bench.names("packs/").await.contains(&name::pack(&bench.cluster, &damaged, 2)));
    }
}

/// The removal was interrupted after the start record: the backup is still whole, and can be restored.
#[tokio::test]
async fn a_whole_backup_without_a_start_record_is_a_backup() {
    let bench = Bench::with_days(true, 3).await;
    bench.remove(&name::backup_start(&bench.cluster, &bench.id(2))).await;
    assert_eq!(bench.repository.backups(&bench.cluster).await.unwrap().records.len(), 3);
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [2]);
}

/// A run was killed while it removed WAL: it removed a segment and left the backup history file of that segment.
#[tokio::test]
async fn a_backup_history_file_without_its_segment_is_removed_with_its_range() {
    let bench = Bench::with_days(false, 3).await;
    let orphan = first_segment(0) + 2;
    bench.backup_history(orphan).await;
    bench.remove_segment(orphan).await;
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [2]);
    let left = bench.names("wal/").await;
    assert!(left.iter().all(|name| !name.contains(".backup")), "{left:?}");
    // All its neighbours were removed before: nothing else has its number.
    let late = first_segment(1);
    bench.backup_history(late).await;
    let report = bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(report.removed.wal_files, 1);
    let left = bench.names("wal/").await;
    assert!(left.iter().all(|name| !name.contains(".backup")), "{left:?}");
}

#[tokio::test]
async fn old_uploads_are_aborted_and_those_of_a_running_backup_are_not() {
    let bench = Bench::with_days(false, 2).await;
    let (running, dead) = (
        BackupId::new(bench.now - TimeDelta::hours(2)).unwrap(),
        BackupId::new(bench.now - TimeDelta::days(9)).unwrap(),
    );
    let holder = super::users::lease(&bench, LeasePurpose::Backup, Vec::new()).await;
    let run = RunIdentity {
        id: holder.run().to_string(),
        machine: None,
        boot: None,
        pid_namespace: None,
        removes: Vec::new(),
        leased: true,
    };
    for (id, run) in [(running, Some(run)), (dead, None)] {
        let start = StartRecord { run, ..bench.start(id) };
        bench.repository.create_record(&name::backup_start(&bench.cluster, &id), &start).await.unwrap();
    }
    let pack = |id, number| name::pack(&bench.cluster, id, number);
    let begin =
        async |name: &str| drop(bench.store.begin_upload(&name.parse().unwrap(), PutMode::Create).await.unwrap());
    let kept = [pack(&running, 7), "main/README".to_owned(), "other/packs/20260101T000000Z/000001.pack".to_owned()];
    let old = [pack(&dead, 1), name::manifest(&bench.cluster, &dead), bench.wal_of(first_segment(2))];
    for name in kept.iter().chain(&old) {
        begin(name).await;
    }
    // All uploads are a few hours old, so none is aborted.
    let report = plan(&bench.repository, &bench.last(2), &Silent).await.unwrap();
    assert_eq!(report.uploads_going, 0);
    bench.memory.age_uploads(Duration::from_hours(25));
    let young = bench.wal_of(first_segment(2) + 1);
    begin(&young).await;
    let report = plan(&bench.repository, &bench.last(2), &Silent).await.unwrap();
    assert_eq!(report.uploads_going, 3);
    let report = bench.expire(&bench.last(2)).await.unwrap();
    assert_eq!((report.uploads_going, report.removed.uploads), (3, 3));
    let left = bench.store.unfinished_uploads("").await.unwrap().unwrap();
    let mut left: Vec<String> = left.iter().map(|upload| upload.name.to_string()).collect();
    left.sort();
    let mut expected: Vec<String> = kept.into_iter().chain([young]).collect();
    expected.sort();
    assert_eq!(left, expected);
}
