#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod begun;
mod holes;
mod lease;
pub(crate) mod patched;
mod refusals;
pub(crate) mod sample;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use holdfast_pgtypes::recovery_target::TargetTimeline;
use holdfast_pgtypes::{TimelineId, WalFileName};
use holdfast_repo::name;
use holdfast_repo::recovery::RecoveryRequest;
use holdfast_repo::{BackupRecord, wal_object};
use holdfast_store::{Fault, FaultRule, Faulty, Operation, PutMode, Store};

use self::sample::{CONTROL, SEGMENT, Sample, label_start, noise};
use super::*;
use crate::progress::Silent;
use crate::repository::RepositoryTarget;

#[tokio::test]
async fn a_fresh_restore_is_the_backup_to_the_last_byte() {
    for encrypted in [false, true] {
        let sample = Sample::new(encrypted).await;
        assert_eq!(label_start(), sample.backup.start_lsn);
        let report = sample.restore().await.unwrap();
        sample.check();
        assert_eq!(report.target_state, TargetState::Fresh);
        assert_eq!((report.reused_bytes, report.removed_entries), (0, 0));
        let holes = fs::metadata(sample.pgdata().join("base/5/1262")).unwrap();
        assert_eq!((holes.len(), holes.blocks()), (3 * 64 * 1024, 0));
        assert_eq!(holes.mtime(), 1_787_393_700);
        assert_eq!(report.hole_bytes, 6 * 64 * 1024);
        assert!(report.fetched_bytes > 0 && report.written_bytes > 0);
        assert_eq!(
            report.next,
            format!(
                "start it with `pg_ctl -D {} start`: it recovers along timeline 1 to the end of the archived WAL and \
                 opens for writing on a new timeline",
                sample.pgdata().display()
            )
        );
    }
}

#[tokio::test]
async fn the_plan_writes_nothing_and_knows_what_the_restore_does() {
    let sample = Sample::new(true).await;
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let planned = plan(&sample.repository, &sample.options(), &progress, &CancellationToken::new()).await.unwrap();
    assert!(!sample.pgdata().exists());
    let report = sample.restore().await.unwrap();
    assert_eq!(planned.fetch_bytes, report.fetched_bytes);
    assert_eq!(planned.write_bytes, report.written_bytes);
    assert_eq!(planned.recovery, report.recovery);
    assert_eq!(planned.recovery.segment_count, 4);
    assert_eq!(planned.signal_file, "recovery.signal");
    let json = serde_json::to_value(&planned).unwrap();
    assert_eq!(json.pointer("/recovery/backup").and_then(|b| b.as_str()), Some("20260822T101500Z"));
    assert_eq!(json.pointer("/target_state").and_then(|b| b.as_str()), Some("fresh"));
}

#[tokio::test]
async fn a_standby_gets_its_own_signal_file() {
    let sample = Sample::new(false).await;
    let options = RestoreOptions { standby: true, ..sample.options() };
    sample.restore_with(&sample.repository, &options).await.unwrap();
    assert!(sample.pgdata().join("standby.signal").exists());
    assert!(!sample.pgdata().join("recovery.signal").exists());
    let auto_conf = fs::read_to_string(sample.pgdata().join("postgresql.auto.conf")).unwrap();
    assert!(auto_conf.contains("recovery_target_timeline = 'latest'"));
}

#[tokio::test]
async fn a_restore_over_itself_is_refused_and_with_delta_fetches_nothing() {
    let sample = Sample::new(true).await;
    sample.restore().await.unwrap();
    let error = sample.restore().await.unwrap_err();
    assert!(matches!(*error.what, Cause::NotEmpty { .. }));
    sample.check();
    let options = RestoreOptions { delta: true, ..sample.options() };
    let report = sample.restore_with(&sample.repository, &options).await.unwrap();
    assert_eq!((report.target_state, report.fetched_bytes, report.written_bytes), (TargetState::Delta, 0, 0));
    assert!(report.reused_bytes > 0);
    sample.check();
}

#[tokio::test]
async fn delta_brings_back_whatever_was_changed() {
    let sample = Sample::new(false).await;
    sample.restore().await.unwrap();
    let pgdata = sample.pgdata();
    let change = |path: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = fs::read(pgdata.join(path)).unwrap();
        change(&mut content);
        fs::write(pgdata.join(path), content).unwrap();
    };
    change("base/5/1259", &|content| content[700_000] ^= 1);
    change("base/5/1260", &|content| content[100_000] = 1);
    change("base/5/1261", &|content| content.extend_from_slice(b"more"));
    change("base/5/1262", &|content| content.truncate(10));
    change("base/5/1263", &|content| content.truncate(70_000));
    fs::remove_file(pgdata.join("base/5/s001")).unwrap();
    fs::write(pgdata.join("base/5/99999"), "a new table").unwrap();
    fs::create_dir_all(pgdata.join("base/6/deep")).unwrap();
    fs::write(pgdata.join("pg_wal/000000010000000000000007"), "old WAL").unwrap();
    fs::write(sample.fast().join("PG_18_202506291/5/77"), "a new table").unwrap();
    // We do not remove the directory of another version in the tablespace.
    fs::create_dir(sample.fast().join("PG_17_202406281")).unwrap();
    // A link in place of a directory or file leads out of the data directory and must not be followed.
    let outside = sample.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    fs::remove_dir_all(pgdata.join("pg_wal")).unwrap();
    std::os::unix::fs::symlink(&outside, pgdata.join("pg_wal")).unwrap();
    fs::remove_file(pgdata.join("PG_VERSION")).unwrap();
    std::os::unix::fs::symlink(outside.join("kept"), pgdata.join("PG_VERSION")).unwrap();
    // Another name of a file must not change with it.
    let other_name = sample.directory.path().join("other-name");
    fs::hard_link(pgdata.join("base/5/s002"), &other_name).unwrap();
    fs::write(&other_name, "changed").unwrap();

    let options = RestoreOptions { delta: true, ..sample.options() };
    let report = sample.restore_with(&sample.repository, &options).await.unwrap();
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept");
    assert_eq!(fs::read(&other_name).unwrap(), b"changed");
    assert!(report.fetched_bytes < 600_000, "{report:?}");
    assert!(sample.fast().join("PG_17_202406281").exists());
    fs::remove_dir(sample.fast().join("PG_17_202406281")).unwrap();
    sample.check();
}

/// A failure at each request in turn: the directory cannot start, and the next run completes it.
#[tokio::test]
async fn a_restore_that_fails_at_any_request_is_resumed() {
    let sample = Sample::new(true).await;
    let mut completed = 0;
    for requests in 1.. {
        let faulty = Arc::new(Faulty::new(Arc::clone(&sample.store), requests, Vec::new()));
        faulty.set_active(false);
        let target = RepositoryTarget { store: faulty.clone() as Arc<dyn Store>, unlock: sample.target.unlock.clone() };
        let repository = Repository::open(&target).await.unwrap();
        faulty.crash_after(requests);
        faulty.set_active(true);
        if sample.restore_with(&repository, &sample.options()).await.is_ok() {
            completed += 1;
            assert!(requests > 10);
        } else {
            sample.check_interrupted();
            sample.restore().await.unwrap();
        }
        sample.check();
        fs::remove_dir_all(sample.pgdata()).unwrap();
        fs::remove_dir_all(sample.fast()).unwrap();
        if completed > 0 {
            break;
        }
    }
}

/// Reads come back short or with a flipped bit, again and again, and no wrong byte remains.
#[tokio::test]
async fn wrong_answers_are_noticed_and_resumed() {
    let sample = Sample::new(false).await;
    for seed in 0..40 {
        let fault = if seed % 2 == 0 { Fault::FlipBit } else { Fault::Truncate };
        let rule = FaultRule::new(&[Operation::GetRange], 0.1, fault).on("main/packs/");
        let faulty = Arc::new(Faulty::new(Arc::clone(&sample.store), seed, vec![rule]));
        let target = RepositoryTarget { store: faulty.clone() as Arc<dyn Store>, unlock: sample.target.unlock.clone() };
        let repository = Repository::open(&target).await.unwrap();
        let mut runs = 0;
        loop {
            runs += 1;
            let injected = faulty.injected();
            match sample.restore_with(&repository, &sample.options()).await {
                Ok(_) => break,
                Err(error) => {
                    assert!(faulty.injected() > injected, "seed {seed}: {error}");
                    assert!(matches!(*error.what, Cause::Format(_)), "seed {seed}: {error}");
                    sample.check_interrupted();
                }
            }
            assert!(runs < 200, "seed {seed} does not end");
        }
        sample.check();
        fs::remove_dir_all(sample.pgdata()).unwrap();
        fs::remove_dir_all(sample.fast()).unwrap();
    }
}

#[tokio::test]
async fn damaged_packs_fail_with_pack_and_file_and_are_resumable() {
    for encrypted in [false, true] {
        let sample = Sample::new(encrypted).await;
        let (first, second) = (sample.packs[0].name.clone(), sample.packs[1].name.clone());
        let good = sample.store.get(&first.parse().unwrap()).await.unwrap();
        sample
            .replace(&first, |mut bytes| {
                bytes[200_000] ^= 1;
                bytes
            })
            .await;
        let error = sample.restore().await.unwrap_err();
        assert!(matches!(&*error.what, Cause::Format(e) if e.to_string().contains(&first)), "{error}");
        assert!(error.doing.iter().any(|phrase| phrase.starts_with("restoring base/5/")), "{error}");
        sample.check_interrupted();
        // After the repair the same command continues.
        sample.replace(&first, |_| good.to_vec()).await;
        let report = sample.restore().await.unwrap();
        assert_eq!(report.target_state, TargetState::Resumed);
        sample.check();
        fs::remove_dir_all(sample.pgdata()).unwrap();
        fs::remove_dir_all(sample.fast()).unwrap();

        // Another pack's bytes under this name, cut or padded to its size.
        let other = sample.store.get(&second.parse().unwrap()).await.unwrap();
        sample
            .replace(&first, |bytes| {
                let mut swapped = other.to_vec();
                swapped.resize(bytes.len(), 0);
                swapped
            })
            .await;
        let error = sample.restore().await.unwrap_err();
        assert!(matches!(&*error.what, Cause::Format(e) if e.to_string().contains(&first)), "{error}");
        assert!(!sample.pgdata().join("global/pg_control").exists());
    }
}

#[tokio::test]
async fn packs_that_are_missing_or_short_are_refused_before_anything_is_written() {
    let sample = Sample::new(false).await;
    // A backup that has no start record either was left by a run that was taken for dead.
    let start = name::backup_start(&sample.backup.cluster, &sample.backup.backup_id).parse().unwrap();
    sample.store.put(&start, "{}".into(), PutMode::Create).await.unwrap();
    let name = sample.packs[1].name.clone();
    sample
        .replace(&name, |mut bytes| {
            bytes.pop();
            bytes
        })
        .await;
    let error = sample.restore().await.unwrap_err();
    let size_bytes = sample.packs[1].size_bytes;
    assert_eq!(
        error.what.to_string(),
        format!(
            "object {name} in {} is shorter than expected: it has {} bytes, the manifest says {size_bytes}",
            sample.repository.describe(),
            size_bytes - 1
        )
    );
    sample.store.delete(&[name.parse().unwrap()]).await.unwrap();
    let error = sample.restore().await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(!sample.pgdata().exists());
}

#[tokio::test]
async fn another_manifest_than_the_summary_names_is_refused() {
    let sample = Sample::new(false).await;
    let name = sample.backup.manifest.name.clone();
    sample
        .replace(&name, |mut bytes| {
            bytes.push(0);
            bytes
        })
        .await;
    let error = sample.restore().await.unwrap_err();
    assert!(matches!(*error.what, Cause::NotReadable { .. }), "{error}");
    assert!(!sample.pgdata().exists());
}

#[tokio::test]
async fn missing_wal_is_refused_with_the_first_missing_segment() {
    let sample = Sample::new(false).await;
    let wal = sample.store.list("main/wal/", None).await.unwrap();
    let second = wal.iter().find(|object| object.name.as_ref().contains("000000010000000000000009")).unwrap();
    sample.store.delete(std::slice::from_ref(&second.name)).await.unwrap();
    let error = sample.restore().await.unwrap_err();
    assert!(matches!(*error.what, Cause::Unreachable(_)), "{error}");
    assert!(error.what.to_string().contains("000000010000000000000009"), "{error}");
    assert!(!sample.pgdata().exists());
}

#[tokio::test]
async fn targets_that_cannot_be_reached_are_refused() {
    let sample = Sample::new(false).await;
    let request = |target| RecoveryRequest { target, inclusive: true, timeline: TargetTimeline::Latest, backup: None };
    for target in [
        RecoveryTarget::Lsn("0/1".parse().unwrap()),
        RecoveryTarget::Xid(776),
        RecoveryTarget::Lsn("9/0".parse().unwrap()),
        RecoveryTarget::Time("2020-01-01T00:00:00Z".parse().unwrap()),
        RecoveryTarget::Time("2030-01-01T00:00:00Z".parse().unwrap()),
        RecoveryTarget::Xid(4711),
        RecoveryTarget::Name("nowhere".to_owned()),
    ] {
        let options = RestoreOptions { request: request(target), ..sample.options() };
        let error = sample.restore_with(&sample.repository, &options).await.unwrap_err();
        assert!(matches!(*error.what, Cause::Unreachable(_)), "{error}");
        assert!(!sample.pgdata().exists());
    }
}

/// The places where recovery stops, from the records of the segment in `pg_waldump`.
#[tokio::test]
async fn targets_are_found_in_the_archived_wal() {
    let sample = Sample::new(true).await;
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let time = |text: &str| RecoveryTarget::Time(format!("2026-11-22T08:45:{text}Z").parse().unwrap());
    for facts in [None, Some(serde_json::json!({ "note": "not looked at" }))] {
        if facts.is_some() {
            sample.put_segment(0xA, SEGMENT, facts).await;
        }
        for (target, inclusive, lsn) in [
            (time("27.430851"), true, "0/A01660"),
            (time("27.430851"), false, "0/A001F0"),
            (time("27"), true, "0/A00070"),
            (time("27.476188"), true, "0/A04668"),
            (RecoveryTarget::Xid(775), true, "0/A01660"),
            (RecoveryTarget::Xid((7 << 32) + 774), true, "0/A001F0"),
            (RecoveryTarget::Name("before drop".to_owned()), true, "0/A00098"),
            (RecoveryTarget::Name("after drop".to_owned()), true, "0/A044F0"),
        ] {
            let request = RecoveryRequest { target, inclusive, timeline: TargetTimeline::Latest, backup: None };
            let options = RestoreOptions { request, ..sample.options() };
            let planned = plan(&sample.repository, &options, &progress, &CancellationToken::new()).await;
            let planned = planned.unwrap_or_else(|e| panic!("{:?}: {e}", options.request.target));
            assert_eq!(planned.recovery.target_lsn, Some(lsn.parse().unwrap()), "{:?}", options.request);
        }
        let request = RecoveryRequest { target: time("27.476189"), ..RecoveryRequest::default() };
        let options = RestoreOptions { request, ..sample.options() };
        let error = plan(&sample.repository, &options, &progress, &CancellationToken::new()).await.unwrap_err();
        assert_eq!(
            error.what.to_string(),
            "time 2026-11-22T08:45:27.476189Z is beyond the archived WAL, which ends at 0/C00000"
        );
        let Cause::Unreachable(unreachable) = &*error.what else { panic!("{error}") };
        let windows: Vec<String> = unreachable.windows().iter().map(ToString::to_string).collect();
        assert_eq!(
            windows,
            ["0/900100 (2026-08-22T10:16:00Z) to 0/C00000 (2026-11-22T08:45:27.476189Z) on timeline 1"]
        );
    }
}

/// If the facts are damaged on the way, or longer than a reader accepts, the segment itself is read.
#[tokio::test]
async fn facts_that_cannot_be_used_are_read_from_the_segment() {
    let sample = Sample::new(true).await;
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let request = RecoveryRequest {
        target: RecoveryTarget::Name("after drop".to_owned()),
        inclusive: true,
        timeline: TargetTimeline::Latest,
        backup: None,
    };
    let options = RestoreOptions { request, ..sample.options() };
    let found = async |repository: &Repository| {
        let planned = plan(repository, &options, &progress, &CancellationToken::new()).await;
        planned.unwrap_or_else(|e| panic!("{e}")).recovery.target_lsn
    };
    let flipped = FaultRule::new(&[Operation::GetTail], 1.0, Fault::FlipBit);
    let faulty = Faulty::new(Arc::clone(&sample.store), 3, vec![flipped]);
    let target = RepositoryTarget { store: Arc::new(faulty.clone()), ..sample.target.clone() };
    assert_eq!(found(&Repository::open(&target).await.unwrap()).await, Some("0/A044F0".parse().unwrap()));
    assert!(faulty.injected() > 0);
    let many = vec!["x".repeat(60); 40_000];
    sample.put_segment(0xA, SEGMENT, Some(serde_json::json!({ "restore_points": many }))).await;
    assert_eq!(found(&sample.repository).await, Some("0/A044F0".parse().unwrap()));
}

/// Puts a second backup beside the first, with a record that is damaged or whole.
async fn second_backup(sample: &Sample, id: &str, whole: bool) {
    let record = BackupRecord { backup_id: id.parse().unwrap(), ..sample.backup.clone() };
    let name = name::backup_summary(&record.cluster, &record.backup_id);
    sample.repository.create_record(&name, &record).await.unwrap();
    if !whole {
        sample.replace(&name, |bytes| bytes[..bytes.len() / 2].to_vec()).await;
    }
}

#[tokio::test]
async fn a_damaged_summary_loses_only_its_own_backup() {
    for encrypted in [false, true] {
        let sample = Sample::new(encrypted).await;
        second_backup(&sample, "20260821T101500Z", false).await;
        second_backup(&sample, "20260823T101500Z", false).await;
        let report = sample.restore().await.unwrap();
        sample.check();
        assert_eq!(report.backup, sample.backup.backup_id);
        let notes = report.notes.join("\n");
        for id in ["20260821T101500Z", "20260823T101500Z"] {
            assert!(notes.contains(&format!("backup {id} was left out, because it cannot be read: ")), "{notes}");
        }
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        let named = async |id: &str| {
            let mut options = sample.options();
            options.request.backup = Some(id.parse().unwrap());
            options.pgdata = sample.directory.path().join("named");
            options.tablespaces[0].directory = sample.directory.path().join("named-fast");
            plan(&sample.repository, &options, &progress, &CancellationToken::new()).await
        };
        assert_eq!(named("20260822T101500Z").await.unwrap().recovery.backup, sample.backup.backup_id);
        let error = named("20260823T101500Z").await.unwrap_err();
        assert!(matches!(*error.what, Cause::Record(_)), "{error}");
        let error = named("20260824T101500Z").await.unwrap_err();
        assert!(matches!(*error.what, Cause::NoSuchBackup { .. }), "{error}");
        assert!(
            error.doing[0].ends_with("without the backups that cannot be read: 20260821T101500Z, 20260823T101500Z"),
            "{error}"
        );
        // No backup is left.
        let summary = name::backup_summary(&sample.backup.cluster, &sample.backup.backup_id);
        sample.replace(&summary, |bytes| bytes[..10].to_vec()).await;
        let error = sample.restore().await.unwrap_err();
        assert!(matches!(*error.what, Cause::Record(_)), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_history_prevents_only_recoveries_that_need_it() {
    let sample = Sample::new(true).await;
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let history = |timeline: u32| {
        let file = WalFileName::History(TimelineId::new(timeline).unwrap());
        let claim = sample.backup.claim;
        name::wal_file(&sample.backup.cluster, claim, &file, holdfast_repo::codec::Codec::Zstd, true)
    };
    let put = async |timeline: u32, text: &str| {
        let (name, file) = (history(timeline), format!("{timeline:08X}.history"));
        let (id, key) = (sample.repository.id(), sample.repository.key());
        let compression = holdfast_repo::Compression::of(holdfast_repo::codec::Codec::Zstd);
        let facts = serde_json::json!({});
        let object = wal_object::encode(&name, &file, text.as_bytes(), compression, id, key, facts).unwrap();
        sample.store.put(&name.parse().unwrap(), object, PutMode::Overwrite).await.unwrap();
    };
    let planned = async |timeline: TargetTimeline| {
        let mut options = sample.options();
        options.request.timeline = timeline;
        plan(&sample.repository, &options, &progress, &CancellationToken::new()).await
    };
    let number = |timeline: u32| TargetTimeline::Number(TimelineId::new(timeline).unwrap());
    // Timeline 3 branched off timeline 1 at the end of its WAL, and so did 2.
    put(2, "1\t0/C00000\tno recovery target specified\n").await;
    put(3, "1\t0/C00000\tno recovery target specified\n").await;
    assert_eq!(planned(TargetTimeline::Latest).await.unwrap().recovery.timeline.get(), 3);

    // An older timeline that nobody follows.
    sample.replace(&history(2), |bytes| bytes[..bytes.len() - 10].to_vec()).await;
    let plan_of_3 = planned(TargetTimeline::Latest).await.unwrap();
    assert_eq!(plan_of_3.recovery.timeline.get(), 3);
    assert!(plan_of_3.notes.iter().any(|note| note.contains("the history of timeline 2 cannot be read")));
    let error = planned(number(2)).await.unwrap_err();
    assert!(matches!(*error.what, Cause::UnreadableHistory { named: true, newer: false, .. }), "{error}");

    // The newest timeline: "latest" means this one, and no other one is taken silently.
    sample.replace(&history(3), |bytes| bytes[..bytes.len() - 10].to_vec()).await;
    let error = planned(TargetTimeline::Latest).await.unwrap_err();
    assert!(matches!(*error.what, Cause::UnreadableHistory { named: false, .. }), "{error}");
    assert_eq!(planned(TargetTimeline::Current).await.unwrap().recovery.timeline.get(), 1);
    assert_eq!(planned(number(1)).await.unwrap().recovery.timeline.get(), 1);

    // `info` names the unreadable timelines and shows the other.
    let claim = sample.repository.current_claim(&sample.backup.cluster).await.unwrap();
    let crew = crate::pipeline::crew::Crew::new(1);
    let beginnings = [holdfast_repo::recovery::Beginning::from(&sample.backup)];
    let wal = crate::archive::WalFolders::read_and_list(&sample.repository, &claim, crate::archive::WalScope::All)
        .await
        .unwrap();
    let found = reach(&sample.repository, &claim, &wal, &beginnings, &crew, &CancellationToken::new()).await.unwrap();
    let shown: Vec<(u32, usize, bool)> = found
        .timelines
        .iter()
        .map(|reach| (reach.timeline.get(), reach.windows.len(), reach.unreadable.is_some()))
        .collect();
    assert_eq!(shown, [(1, 1, false), (2, 0, true), (3, 0, true)]);
}

#[tokio::test]
async fn backups_whose_wal_was_not_listed_are_only_counted() {
    use crate::archive::{WalFolders, WalScope};
    let sample = Sample::new(false).await;
    let claim = sample.repository.current_claim(&sample.backup.cluster).await.unwrap();
    let crew = crate::pipeline::crew::Crew::new(1);
    let beginnings = [holdfast_repo::recovery::Beginning::from(&sample.backup)];
    let reached = async |wanted| {
        let wal = WalFolders::read_and_list(&sample.repository, &claim, wanted).await.unwrap();
        reach(&sample.repository, &claim, &wal, &beginnings, &crew, &CancellationToken::new()).await.unwrap()
    };
    let whole = reached(WalScope::All).await;
    assert_eq!((whole.not_looked_at, whole.timelines.len(), whole.timelines[0].windows.len()), (0, 1, 1));
    let later = reached(WalScope::From(holdfast_pgtypes::Lsn::new(1 << 32))).await;
    assert_eq!((later.not_looked_at, later.timelines.len()), (1, 0));
    assert_eq!(later.followed, whole.followed);
}

/// The last write of a killed run may arrive after its remains were removed, with `start.json` first.
#[tokio::test]
async fn a_summary_without_a_manifest_is_not_a_complete_backup() {
    let sample = Sample::new(false).await;
    let cluster = &sample.backup.cluster;
    let manifest = name::manifest(cluster, &sample.backup.backup_id).parse().unwrap();
    sample.store.delete(&[manifest]).await.unwrap();
    let listed = sample.repository.backups(cluster).await.unwrap();
    assert_eq!((listed.records.len(), listed.unreadable.len()), (0, 1));
    let error = sample.restore().await.unwrap_err();
    assert!(matches!(*error.what, Cause::Remnant { .. }), "{error}");
    assert!(!sample.pgdata().exists());
}

#[tokio::test]
async fn a_cancelled_restore_is_resumed() {
    let sample = Sample::new(false).await;
    let rule = FaultRule::new(&[Operation::GetRange], 1.0, Fault::Delay(Duration::from_millis(30))).on("main/packs/");
    let slow = Arc::new(Faulty::new(Arc::clone(&sample.store), 1, vec![rule]));
    let target = RepositoryTarget { store: slow, unlock: sample.target.unlock.clone() };
    let repository = Repository::open(&target).await.unwrap();
    for milliseconds in [1, 50, 150, 200, 250] {
        let cancel = CancellationToken::new();
        let later = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            later.cancel();
        });
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        match restore(&repository, &sample.options(), &progress, &cancel).await {
            Ok(_) => break,
            Err(error) => {
                assert!(matches!(*error.what, Cause::Cancelled), "{error}");
                sample.check_interrupted();
            }
        }
    }
    if sample.pgdata().join(RESUME_POINT).exists() || !sample.pgdata().exists() {
        sample.restore().await.unwrap();
    }
    sample.check();
}

/// A path where no file can be made simulates a full disk: the error names the file, the directory cannot start, and
/// the restore continues when there is space.
#[tokio::test]
async fn a_file_that_cannot_be_written_fails_the_restore_and_is_resumed() {
    let sample = Sample::new(false).await;
    // A directory that is not empty is in the place of a file; only a resume removes it.
    let options = sample.options();
    fs::create_dir(sample.pgdata()).unwrap();
    let found = {
        let crew = Crew::new(1);
        preflight::preflight(&sample.repository, &options, &crew, &Silent, &CancellationToken::new()).await.unwrap()
    };
    let prepare::Taken { lock, roots, state } = prepare::acquire(&found.layout, &found.wanted(&options)).unwrap();
    drop(lock);
    fs::create_dir_all(sample.pgdata().join("base/5/1259/in-the-way")).unwrap();
    let found = Arc::new(found);
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let crew = Crew::new(1);
    let cancel = CancellationToken::new();
    assert!(!state.reuses());
    let into = Target { state, roots: Arc::new(roots) };
    let moved = move_data(&sample.repository, &options, &found, into, &crew, &progress, &cancel).await;
    let error = moved.unwrap_err();
    let path = sample.pgdata().join("base/5/1259");
    assert!(matches!(&*error.what, Cause::File { operation: "create", path: p, .. } if *p == path), "{error}");
    sample.check_interrupted();
    sample.restore().await.unwrap();
    sample.check();
}

#[tokio::test]
async fn a_crash_between_control_file_and_resume_point_is_resumed() {
    let sample = Sample::new(false).await;
    sample.restore().await.unwrap();
    let options = sample.options();
    let crew = Crew::new(1);
    let empty =
        RestoreOptions { pgdata: sample.directory.path().join("new"), tablespaces: Vec::new(), ..options.clone() };
    let found =
        preflight::preflight(&sample.repository, &empty, &crew, &Silent, &CancellationToken::new()).await.unwrap();
    let layout = layout::Layout::new(&sample.pgdata(), &sample.backup.tablespaces, &options.tablespaces).unwrap();
    let point = ResumePoint { tablespaces: layout.tablespaces().to_vec(), ..found.point.clone() };
    ResumeLock::acquire(&sample.pgdata()).unwrap().record(&point).unwrap();
    assert_eq!(fs::read(sample.pgdata().join("global/pg_control")).unwrap(), CONTROL);
    let report = sample.restore().await.unwrap();
    assert_eq!((report.target_state, report.fetched_bytes), (TargetState::Resumed, 0));
    sample.check();
}

#[test]
fn the_noise_of_the_sample_does_not_repeat() {
    assert_ne!(noise(1, 100), noise(2, 100));
}
