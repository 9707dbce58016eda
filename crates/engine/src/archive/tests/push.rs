//! What `push` acknowledges, and what it refuses.

use holdfast_repo::name::ObjectPath;
use holdfast_repo::record::{LedgerEntry, LedgerRecord};
use holdfast_store::{Fault, FaultRule, ObjectName, Operation, PutMode, Store, StoreErrorKind};
use tokio_util::sync::CancellationToken;

use super::{Bench, SIZE, SYSTEM, header, kind, name, segment, segment_of};
use crate::archive::stored;
use crate::archive::{PushOutcome, PushReport, Stored, archive_file, missing_segments};
use crate::error::Cause;
use crate::progress::Silent;
use crate::repository::confirm::{Sent, confirm};

fn stored_as(report: &PushReport) -> Vec<Stored> {
    match &report.outcome {
        PushOutcome::Marked | PushOutcome::AfterFork(_) => Vec::new(),
        PushOutcome::Archived(archived) => archived.repositories.iter().map(|found| found.stored).collect(),
    }
}

#[tokio::test]
async fn a_segment_is_in_every_repository_and_reads_back() {
    let bench = Bench::new(2).await;
    let path = bench.segments(1, 1).remove(0);
    let report = bench.push(&path).await.unwrap();
    assert_eq!(stored_as(&report), [Stored::Created, Stored::Created]);
    for number in 0..2 {
        let objects = bench.objects(number, "main/wal/").await;
        assert_eq!(objects, [format!("main/wal/1/00000001/0000000100000000/{}.zst", name(1))]);
        let repository = bench.open(number).await;
        let claim = repository.current_claim(&bench.cluster).await.unwrap();
        let (raw, facts) = stored::read(&repository, &claim, &objects[0], &bench.crew).await.unwrap();
        assert_eq!(raw, segment(1, 1));
        assert_eq!(facts.raw_len, u64::from(SIZE));
        assert_eq!(repository.current_claim(&bench.cluster).await.unwrap().pg_major, 18);
    }
    let again = bench.push(&path).await.unwrap();
    assert_eq!(stored_as(&again), [Stored::AlreadyThere, Stored::AlreadyThere]);
}

#[tokio::test]
async fn an_encrypted_repository_takes_the_same_file_twice() {
    let bench = Bench::encrypted().await;
    let path = bench.segments(1, 1).remove(0);
    assert_eq!(stored_as(&bench.push(&path).await.unwrap()), [Stored::Created]);
    assert_eq!(stored_as(&bench.push(&path).await.unwrap()), [Stored::AlreadyThere]);
    assert!(bench.objects(0, "main/wal/").await[0].ends_with(".zst.enc"));
    bench.get(&name(1)).await.unwrap();
    assert_eq!(std::fs::read(bench.destination()).unwrap(), segment(1, 1));
}

#[tokio::test]
async fn other_content_under_the_same_name_stops_hard_and_is_recorded_once() {
    let bench = Bench::new(1).await;
    let path = bench.segments(1, 1).remove(0);
    bench.push(&path).await.unwrap();
    bench.wal(&name(1), &segment(1, 2));
    for _ in 0..2 {
        let error = bench.push(&path).await.unwrap_err();
        assert!(matches!(&*error.what, Cause::Divergence { stored, here, .. } if stored != here), "{error}");
    }
    let ledger = bench.objects(0, "main/ledger/").await;
    assert_eq!(ledger, ["main/ledger/20260822T101500.000000Z-divergence.json"]);
    let record: LedgerRecord = bench.open(0).await.read_record(&ledger[0]).await.unwrap();
    let LedgerEntry::Divergence { file, stored_sha256, offered_sha256, .. } = record.entry else {
        panic!("another kind of entry")
    };
    assert_eq!(file.to_string(), name(1));
    assert_eq!(stored_sha256, holdfast_repo::record::sha256_hex(&segment(1, 1)));
    assert_eq!(offered_sha256, holdfast_repo::record::sha256_hex(&segment(1, 2)));
    // The content that was stored first stays.
    bench.get(&name(1)).await.unwrap();
    assert_eq!(std::fs::read(bench.destination()).unwrap(), segment(1, 1));
}

/// The neighbours may be of the other history too. They are not sent while the requested file is being compared.
#[tokio::test]
async fn nothing_is_sent_after_a_file_of_another_history() {
    let mut bench = Bench::new(1).await;
    let path = bench.segments(1, 1).remove(0);
    bench.push(&path).await.unwrap();
    bench.wal(&name(1), &segment(1, 2));
    bench.segments(2, 4);
    let slow = Fault::Delay(std::time::Duration::from_secs(3));
    let reading = [Operation::Get, Operation::GetRange];
    bench.faulty(0, vec![FaultRule::new(&reading, 1.0, slow).on("main/wal/")]);
    let mut options = bench.push_options(&path);
    options.push_ahead = 3;
    assert_eq!(kind(&bench.push_with(&options).await.unwrap_err()), "Divergence");
    assert_eq!(bench.objects(0, "main/wal/").await.len(), 1);
}

#[tokio::test]
async fn a_divergence_is_reported_when_the_ledger_cannot_be_written() {
    let mut bench = Bench::new(1).await;
    let path = bench.segments(1, 1).remove(0);
    bench.push(&path).await.unwrap();
    bench.wal(&name(1), &segment(1, 2));
    let refuse = FaultRule::new(&[Operation::Put], 1.0, Fault::Refuse(StoreErrorKind::PermissionDenied));
    bench.faulty(0, vec![refuse.on("main/ledger/")]);
    assert_eq!(kind(&bench.push(&path).await.unwrap_err()), "Divergence");
}

#[tokio::test]
async fn a_damaged_object_under_the_name_is_not_a_success() {
    let bench = Bench::new(1).await;
    let path = bench.segments(1, 1).remove(0);
    bench.push(&path).await.unwrap();
    let object: ObjectName = bench.objects(0, "main/wal/").await[0].parse().unwrap();
    let mut bytes = bench.stores[0].get(&object).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bench.stores[0].put(&object, bytes.into(), PutMode::Overwrite).await.unwrap();
    assert_eq!(kind(&bench.push(&path).await.unwrap_err()), "Format");
}

#[tokio::test]
async fn nothing_is_acknowledged_while_one_repository_fails() {
    for (operation, fault) in [
        (Operation::Put, Fault::Refuse(StoreErrorKind::Unreachable)),
        (Operation::Put, Fault::LostAnswer),
        (Operation::Put, Fault::Refuse(StoreErrorKind::NoSpace)),
        (Operation::Head, Fault::Refuse(StoreErrorKind::Timeout)),
    ] {
        let mut bench = Bench::new(2).await;
        let path = bench.segments(1, 1).remove(0);
        let faulty = bench.faulty(1, vec![FaultRule::new(&[operation], 1.0, fault.clone()).on("main/wal/")]);
        assert_eq!(kind(&bench.push(&path).await.unwrap_err()), "Store", "{operation} {fault:?}");
        assert!(faulty.injected() > 0);
        // The first repository has it all the same, and the next attempt finds it there.
        faulty.set_active(false);
        let report = bench.push(&path).await.unwrap();
        assert_eq!(stored_as(&report)[0], Stored::AlreadyThere);
        assert!(bench.spooled().is_empty(), "the note of the failed attempt is used up");
    }
}

#[tokio::test]
async fn what_does_not_read_back_as_sent_is_an_error() {
    let bench = Bench::new(1).await;
    let path = bench.segments(1, 1).remove(0);
    bench.push(&path).await.unwrap();
    let object = bench.objects(0, "main/wal/").await.remove(0);
    let repository = bench.open(0).await;
    let bytes = bench.stores[0].get(&object.parse().unwrap()).await.unwrap();
    let sent = Sent { size_bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) };
    confirm(&repository, &object, sent).await.unwrap();
    for wrong in [Sent { size_bytes: sent.size_bytes + 1, ..sent }, Sent { crc32c: !sent.crc32c, ..sent }] {
        assert_eq!(kind(&confirm(&repository, &object, wrong).await.unwrap_err()), "NotReadable");
    }
    assert_eq!(kind(&confirm(&repository, "main/nothing", sent).await.unwrap_err()), "NotReadable");
}

#[tokio::test]
async fn another_clusters_segment_is_refused_before_anything_is_written() {
    let bench = Bench::new(1).await;
    let path = bench.segments(1, 1).remove(0);
    bench.push(&path).await.unwrap();
    let foreign = bench.wal(&name(2), &segment_of(42, 2, 1, SIZE));
    let error = bench.push(&foreign).await.unwrap_err();
    assert!(
        matches!(&*error.what, Cause::WrongCluster { claimed, found, .. }
            if claimed.as_u64() == SYSTEM && found.as_u64() == 42),
        "{error}"
    );
    assert_eq!(bench.objects(0, "main/wal/").await.len(), 1);
}

#[tokio::test]
async fn files_that_are_not_what_their_name_says_claim_nothing() {
    let bench = Bench::new(1).await;
    let whole = segment(1, 1);
    for (content, expected) in [
        (whole[..whole.len() - 1].to_vec(), "SegmentSize"),
        (whole[..8192].to_vec(), "SegmentSize"),
        (whole[..20].to_vec(), "Malformed"),
        (Vec::new(), "Malformed"),
        (vec![0; SIZE as usize], "Malformed"),
        (segment(2, 1), "SegmentMismatch"),
        ([whole.clone(), vec![0]].concat(), "SegmentSize"),
    ] {
        let path = bench.wal(&name(1), &content);
        assert_eq!(kind(&bench.push(&path).await.unwrap_err()), expected);
    }
    let other = bench.pgdata().join("pg_wal/xlogtemp.1");
    std::fs::write(&other, &whole).unwrap();
    assert_eq!(kind(&bench.push(&other).await.unwrap_err()), "Refused");
    let absent = bench.pgdata().join("pg_wal").join(name(9));
    assert_eq!(kind(&bench.push(&absent).await.unwrap_err()), "File");
    assert!(bench.objects(0, "main/").await.is_empty());
}

#[tokio::test]
async fn history_files_belong_to_the_cluster_around_them() {
    let bench = Bench::new(1).await;
    let path = bench.wal("00000002.history", b"1\t0/3000000\tno recovery target specified\n");
    // Neither a control file nor a claim names its cluster.
    assert_eq!(kind(&bench.push(&path).await.unwrap_err()), "NoClaim");
    std::fs::create_dir_all(bench.pgdata().join("global")).unwrap();
    let control = include_bytes!("../../../../pgtypes/tests/fixtures/pg_control.18");
    std::fs::write(bench.pgdata().join("global/pg_control"), control).unwrap();
    bench.push(&path).await.unwrap();
    assert_eq!(bench.objects(0, "main/wal/").await, ["main/wal/1/00000002/00000002.history.zst"]);
    // From now on the archive belongs to that cluster.
    let segment = bench.wal(&name(1), &segment_of(42, 1, 1, SIZE));
    assert_eq!(kind(&bench.push(&segment).await.unwrap_err()), "WrongCluster");
    let empty = bench.wal("00000003.history", b"");
    assert_eq!(kind(&bench.push(&empty).await.unwrap_err()), "Malformed");
}

#[tokio::test]
async fn partial_and_backup_history_files_have_names_of_their_own() {
    let bench = Bench::new(1).await;
    let path = bench.segments(1, 1).remove(0);
    bench.push(&path).await.unwrap();
    let partial = bench.wal(&format!("{}.partial", name(1)), &segment(1, 5));
    bench.push(&partial).await.unwrap();
    let backup = bench.wal(&format!("{}.00000028.backup", name(1)), b"START WAL LOCATION: 0/100028\n");
    bench.push(&backup).await.unwrap();
    assert_eq!(bench.objects(0, "main/wal/").await.len(), 3);
    for (file, content) in [
        (name(1), segment(1, 1)),
        (format!("{}.partial", name(1)), segment(1, 5)),
        (format!("{}.00000028.backup", name(1)), b"START WAL LOCATION: 0/100028\n".to_vec()),
    ] {
        bench.get(&file).await.unwrap();
        assert_eq!(std::fs::read(bench.destination()).unwrap(), content, "{file}");
    }
}

#[tokio::test]
async fn the_claims_codec_is_kept() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(1, 2);
    let mut options = bench.push_options(&paths[0]);
    options.compression = "lz4".parse().unwrap();
    bench.push_with(&options).await.unwrap();
    bench.push(&paths[1]).await.unwrap();
    assert!(bench.objects(0, "main/wal/").await.iter().all(|object| object.strip_suffix(".lz4").is_some()));
    assert_eq!(stored_as(&bench.push(&paths[0]).await.unwrap()), [Stored::AlreadyThere]);
}

#[tokio::test]
async fn a_failed_neighbour_does_not_fail_the_requested_file() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(1, 3);
    bench.wal(&name(2), &segment(2, 1)[..100]);
    let mut options = bench.push_options(&paths[0]);
    options.push_ahead = 8;
    let report = bench.push_with(&options).await.unwrap();
    assert_eq!(report.neighbours.iter().map(|done| done.file.to_string()).collect::<Vec<_>>(), [name(3)]);
    assert_eq!(report.failed_neighbours.len(), 1);
    let spooled = bench.spooled();
    assert!(spooled.contains(&format!("{}.durable", name(3))), "{spooled:?}");
    assert!(!spooled.contains(&format!("{}.durable", name(2))), "{spooled:?}");
}

#[tokio::test]
async fn a_cancelled_push_acknowledges_nothing() {
    let mut bench = Bench::new(1).await;
    let paths = bench.segments(1, 4);
    let slow = Fault::Delay(std::time::Duration::from_mins(1));
    bench.faulty(0, vec![FaultRule::new(&[Operation::Put], 1.0, slow).on("main/wal/")]);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stop.cancel();
    });
    let mut options = bench.push_options(&paths[0]);
    options.push_ahead = 3;
    let error = crate::archive::push(&bench.targets, &options, &Silent, &cancel).await.unwrap_err();
    assert_eq!(kind(&error), "Cancelled");
    assert!(bench.spooled().iter().all(|file| !file.ends_with(".durable")));
}

#[tokio::test]
async fn a_backup_finds_missing_segments_and_sends_them() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(4094, 4099);
    for present in [0, 1, 3] {
        bench.push(&paths[present]).await.unwrap();
    }
    let repository = bench.open(0).await;
    let claim = repository.current_claim(&bench.cluster).await.unwrap();
    let (first, last) = (name(4094).parse().unwrap(), name(4099).parse().unwrap());
    let missing = async || {
        let missing = missing_segments(&repository, &bench.cluster, &claim, first, last).await.unwrap();
        missing.into_iter().map(|segment| segment.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(missing().await, [name(4096), name(4098), name(4099)]);
    let never = CancellationToken::new();
    let compression = "zstd:1".parse().unwrap();
    archive_file(&repository, &bench.cluster, &claim, &paths[2], compression, &bench.crew, &never).await.unwrap();
    assert_eq!(missing().await, [name(4098), name(4099)]);
    for object in bench.objects(0, "main/wal/").await {
        assert!(object.parse::<ObjectPath>().is_ok(), "{object}");
    }
}

#[tokio::test]
async fn a_very_large_segment_is_streamed() {
    let bench = Bench::new(1).await;
    let size = 512 << 20;
    let path = bench.pgdata().join("pg_wal/000000010000000000000001");
    std::fs::write(&path, header(SYSTEM, 1, size)).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(u64::from(size)).unwrap();
    bench.push(&path).await.unwrap();
    let object = bench.objects(0, "main/wal/").await.remove(0);
    let repository = bench.open(0).await;
    let claim = repository.current_claim(&bench.cluster).await.unwrap();
    let (raw, facts) = stored::read(&repository, &claim, &object, &bench.crew).await.unwrap();
    assert_eq!(raw.len(), size as usize);
    assert_eq!(raw[..40], header(SYSTEM, 1, size));
    assert!(facts.facts.get("note").is_some());
}

#[tokio::test]
async fn neighbours_are_not_begun_before_the_requested_file_is_out() {
    let mut bench = Bench::new(1).await;
    let paths = bench.segments(1, 4);
    let requested = format!("main/wal/1/00000001/0000000100000000/{}", name(1));
    let fail = Fault::Refuse(StoreErrorKind::Timeout);
    let late = Fault::Delay(std::time::Duration::from_millis(300));
    let on = |fault: &Fault| FaultRule::new(&[Operation::Put], 1.0, fault.clone()).on(&requested);
    let faulty = bench.faulty(0, vec![on(&late), on(&fail)]);
    let mut options = bench.push_options(&paths[0]);
    options.push_ahead = 3;
    assert_eq!(kind(&bench.push_with(&options).await.unwrap_err()), "Store");
    assert!(bench.objects(0, "main/wal/").await.is_empty(), "neighbours shared the line with the requested file");

    // The failed file goes alone the next time, and the one after it again takes its neighbours along.
    faulty.set_active(false);
    let report = bench.push_with(&options).await.unwrap();
    assert_eq!((stored_as(&report), report.neighbours.len()), (vec![Stored::Created], 0));
    assert_eq!(bench.objects(0, "main/wal/").await.len(), 1);
    let mut options = bench.push_options(&paths[1]);
    options.push_ahead = 3;
    assert_eq!(bench.push_with(&options).await.unwrap().neighbours.len(), 2);
    assert_eq!(bench.objects(0, "main/wal/").await.len(), 4);
}

#[tokio::test]
async fn a_partial_segment_after_a_fork_gives_way_to_the_one_that_came_first() {
    let bench = Bench::new(1).await;
    let partial = format!("{}.partial", name(3));
    let path = bench.wal(&partial, &segment(3, 1));
    bench.push(&path).await.unwrap();
    bench.wal(&partial, &segment(3, 2));
    // Nothing shows that this server has left the timeline, so the push fails.
    assert_eq!(kind(&bench.push(&path).await.unwrap_err()), "Divergence");
    std::fs::write(bench.pgdata().join("pg_wal/00000003.history"), "1\t0/300100\tno recovery target specified\n")
        .unwrap();
    // A standby keeps the histories of promoted copies that it has read and not followed.
    bench.on_timeline(1);
    assert_eq!(kind(&bench.push(&path).await.unwrap_err()), "Divergence");
    bench.on_timeline(3);
    let report = bench.push(&path).await.unwrap();
    assert!(matches!(report.outcome, PushOutcome::AfterFork(_)), "{report:?}");
    assert_eq!(bench.objects(0, "main/ledger/").await.len(), 1);
    bench.get(&partial).await.unwrap();
    assert_eq!(std::fs::read(bench.destination()).unwrap(), segment(3, 1));
}
