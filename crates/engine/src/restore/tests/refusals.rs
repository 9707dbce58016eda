//! What a plan lists: as much WAL as its answer needs, also when the answer is no.

use std::sync::Arc;

use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use holdfast_repo::name;
use holdfast_repo::record::{BackupRecord, ManifestEntry};
use holdfast_repo::recovery::RecoveryRequest;
use holdfast_store::{Counted, Counters, Operation, PutMode};

use super::super::*;
use super::sample::Sample;
use crate::progress::Silent;
use crate::repository::{RepositoryTarget, Unlock, object_name};

/// Segments in a log folder: 4 GiB in segments of 1 MiB.
const PER_LOG: u64 = 4096;

/// Another backup, whose WAL is in the segments `start` and `start` + 1.
async fn add_backup(sample: &Sample, id: &str, start: u64) -> BackupRecord {
    let size = sample.backup.wal_segment_size;
    let segment = |number| SegmentName::from_number(number, TimelineId::FIRST, size).unwrap();
    let manifest = name::manifest(&sample.backup.cluster, &id.parse().unwrap());
    // A backup without its manifest is not one. This manifest cannot be read, which a plan notices after its choice.
    sample.store.put(&object_name(&manifest).unwrap(), "x".into(), PutMode::Create).await.unwrap();
    let minutes = chrono::TimeDelta::minutes(i64::try_from(start).unwrap());
    let record = BackupRecord {
        backup_id: id.parse().unwrap(),
        start_lsn: segment(start).start_lsn(size).saturating_add(0x28),
        stop_lsn: segment(start + 1).start_lsn(size).saturating_add(0x100),
        start_segment: segment(start),
        stop_segment: segment(start + 1),
        start_time: sample.backup.start_time + minutes,
        stop_time: sample.backup.stop_time + minutes,
        manifest: ManifestEntry { name: manifest, ..sample.backup.manifest.clone() },
        ..sample.backup.clone()
    };
    let summary = name::backup_summary(&record.cluster, &record.backup_id);
    sample.repository.create_record(&summary, &record).await.unwrap();
    record
}

/// The requests of a plan that list something, and the plan.
async fn listings(sample: &Sample, options: &RestoreOptions) -> (u64, Result<RestorePlan, Error>) {
    let counters = Arc::new(Counters::default());
    let store = Arc::new(Counted::new(Arc::clone(&sample.store), Arc::clone(&counters)));
    let target = RepositoryTarget { store, unlock: Unlock::NotEncrypted };
    let repository = Repository::open(&target).await.unwrap();
    let before = counters.of(Operation::List).requests + counters.of(Operation::ListFolders).requests;
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let planned = plan(&repository, options, &progress, &CancellationToken::new()).await;
    let after = counters.of(Operation::List).requests + counters.of(Operation::ListFolders).requests;
    (after - before, planned)
}

fn with(sample: &Sample, change: impl FnOnce(&mut RecoveryRequest)) -> RestoreOptions {
    let mut options = sample.options();
    change(&mut options.request);
    options
}

/// Years of WAL, a backup at each end, and a gap after the newer one. A whole listing would take 240 requests.
#[tokio::test]
async fn a_refused_restore_does_not_list_a_whole_archive() {
    let sample = Sample::new(false).await;
    let logs = 60;
    let object = |number| {
        let segment = SegmentName::from_number(number, TimelineId::FIRST, sample.backup.wal_segment_size).unwrap();
        object_name(&sample.wal_object(segment)).unwrap()
    };
    for number in 0xC..logs * PER_LOG {
        sample.store.put(&object(number), "x".into(), PutMode::Create).await.unwrap();
    }
    let start = (logs - 2) * PER_LOG;
    let newest = add_backup(&sample, "20261001T101500Z", start).await;
    sample.store.delete(&[object(start + 5)]).await.unwrap();

    let hole = "is missing";
    for (options, refusal) in [
        (with(&sample, |_| ()), hole),
        (with(&sample, |request| request.target = RecoveryTarget::Lsn(Lsn::new((logs - 1) << 32))), hole),
        (with(&sample, |request| request.backup = Some(newest.backup_id)), hole),
        (with(&sample, |request| request.backup = Some("20250101T000000Z".parse().unwrap())), "20250101T000000Z"),
        (with(&sample, |request| request.timeline = TargetTimeline::Number(TimelineId::new(9).unwrap())), "timeline 9"),
        (with(&sample, |request| request.target = RecoveryTarget::Lsn(Lsn::new(0x10))), "before the end of the oldest"),
    ] {
        let (requests, planned) = listings(&sample, &options).await;
        let error = planned.unwrap_err();
        assert!(error.to_string().contains(refusal), "{error}");
        assert!(requests < 120, "{requests} for {:?}: {error}", options.request);
        // What was not listed is not passed off as lost.
        if refusal == hole {
            assert!(error.to_string().contains("the WAL of the 1 oldest was not looked at"), "{error}");
        }
    }
    // A target before the gap needs no more than the newer backup.
    let target = RecoveryTarget::Lsn(newest.stop_lsn.saturating_add(0x100));
    let (requests, planned) = listings(&sample, &with(&sample, |request| request.target = target)).await;
    assert!(!planned.is_err_and(|error| matches!(&*error.what, Cause::Unreachable(_))));
    assert!(requests < 40, "{requests}");
}

/// What only the WAL can tell is searched for further back.
#[tokio::test]
async fn an_older_backup_is_found_when_the_newer_ones_do_not_serve() {
    let sample = Sample::new(false).await;
    for log in 1..=5 {
        let id = format!("2026100{log}T101500Z");
        add_backup(&sample, &id, log * PER_LOG).await;
        sample.put_segment(log * PER_LOG, b"WAL", None).await;
        if log < 5 {
            sample.put_segment(log * PER_LOG + 1, b"WAL", None).await;
            sample.put_segment(log * PER_LOG + 2, b"WAL", None).await;
        }
    }
    let chosen = async |target| {
        let (_, planned) = listings(&sample, &with(&sample, |request| request.target = target)).await;
        planned.unwrap_or_else(|error| panic!("{error}")).recovery.backup.to_string()
    };
    // The newest backup lacks its last segment.
    let (_, planned) = listings(&sample, &with(&sample, |request| request.target = RecoveryTarget::Immediate)).await;
    let error = planned.unwrap_err();
    assert!(!matches!(&*error.what, Cause::Unreachable(_)), "the fourth backup has a summary only: {error}");
    // These records are in the WAL of the oldest backup, and in no other.
    assert_eq!(chosen(RecoveryTarget::Xid(775)).await, "20260822T101500Z");
    assert_eq!(chosen(RecoveryTarget::Name("before drop".to_owned())).await, "20260822T101500Z");
}
