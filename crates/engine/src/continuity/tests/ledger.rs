//! What is recorded, and the state that `check` reports.

use super::*;

#[tokio::test]
async fn a_gap_is_recorded_once_and_closed_when_it_is_over() {
    let bench = Bench::new().await;
    bench.lose([7, 8]).await;
    let found = bench.verify(Level::Shallow).await;
    let recorded = found.findings[0].recorded.unwrap();
    let gap = format!("gap {} {} 2 found by `wal verify`", named(1, 7), named(1, 8));
    assert_eq!(bench.ledger().await, std::slice::from_ref(&gap));
    let again = bench.verify(Level::Shallow).await;
    assert_eq!(bench.ledger().await, std::slice::from_ref(&gap));
    assert!((again.findings[0].recorded.unwrap() - recorded).abs() < TimeDelta::milliseconds(1));

    // One of the two comes back.
    bench.archive(&bench.server, 8).await;
    bench.verify(Level::Shallow).await;
    let back = format!("closed {0} {0} 1 CameBack", named(1, 8));
    assert_eq!(bench.ledger().await, [gap.clone(), back.clone()]);
    // Nothing needs the other one: the backup before it is gone, and there is a later one.
    bench.backup("20260802T000000Z".parse().unwrap(), 9, 10).await;
    bench.remove(&name::backup_summary(&bench.claim.cluster, &bench.first)).await;
    // With one timeline only, that is not known.
    let one = WalVerifyOptions { timeline: Some("1".parse().unwrap()), ..bench.options() };
    bench.verify_with(&one).await.unwrap();
    assert_eq!(bench.ledger().await, [gap.clone(), back.clone()]);
    assert_eq!(lines(&bench.verify(Level::Shallow).await), [""; 0]);
    let not_needed = format!("closed {0} {0} 1 NotNeeded", named(1, 7));
    assert_eq!(bench.ledger().await, [gap.clone(), back.clone(), not_needed.clone()]);
    bench.verify(Level::Shallow).await;
    assert_eq!(bench.ledger().await, [gap, back, not_needed]);
}

#[tokio::test]
async fn nothing_is_recorded_if_that_is_not_wanted() {
    let bench = Bench::new().await;
    bench.lose([7]).await;
    let found = bench.verify_with(&WalVerifyOptions { remember: false, ..bench.options() }).await.unwrap();
    assert_eq!((found.findings.len(), found.findings[0].recorded), (1, None));
    assert_eq!(bench.ledger().await, [""; 0]);
}

async fn state_of(bench: &Bench, timeline: u32) -> State {
    let (crew, cancel) = (crate::pipeline::crew::Crew::new(1), CancellationToken::new());
    let timeline = timeline.to_string().parse().unwrap();
    state(&bench.repository, &bench.claim, timeline, now(), &crew, &cancel).await.unwrap()
}

#[tokio::test]
async fn the_state_says_since_when_nothing_can_be_restored() {
    let mut bench = Bench::new().await;
    let since = |minute: u32, id: &str| format!("2026-08-01T00:{minute:02}:00Z, the end of backup {id}");
    let unbroken = |since, gaps| State::Unbroken { since, gaps, damaged: Vec::new() };
    assert_eq!(state_of(&bench, 1).await, unbroken(since(4, "20260801T000000Z"), Vec::new()));
    assert_eq!(
        state_of(&bench, 7).await,
        State::Broken(
            "no backup leads to timeline 7, on which this server is: nothing that happens can be restored".to_owned()
        )
    );

    bench.lose([7, 8]).await;
    let State::Broken(reason) = state_of(&bench, 1).await else { panic!("a gap after the newest backup") };
    let missing = format!("2 WAL segments from {} on are missing: no moment after 2026-08-01T00:", named(1, 7));
    assert!(reason.starts_with(&missing) && reason.ends_with(" (0/700000) can be restored"), "{reason}");

    // A backup ends the alarm, and the gap is still reported.
    bench.backup("20260802T000000Z".parse().unwrap(), 10, 10).await;
    let State::Unbroken { since: reported, gaps, .. } = state_of(&bench, 1).await else {
        panic!("a backup after the gap")
    };
    assert_eq!(reported, since(10, "20260802T000000Z"));
    assert!(gaps[0].starts_with(&missing), "{gaps:?}");
    assert!(gaps[0].ends_with(" and before 2026-08-01T00:10:00Z can be restored"), "{gaps:?}");
    assert_eq!(gaps.len(), 1);

    bench.archive(&bench.server, 7).await;
    bench.archive(&bench.server, 8).await;
    bench.promote().await;
    assert_eq!(state_of(&bench, 2).await, unbroken(since(4, "20260801T000000Z"), Vec::new()));
    bench.lose([4]).await;
    bench.remove(&name::backup_summary(&bench.claim.cluster, &"20260802T000000Z".parse().unwrap())).await;
    assert_eq!(
        state_of(&bench, 2).await,
        State::Broken(format!(
            "no backup that leads to timeline 2 has its own WAL: WAL segment {} is missing: nothing that happens can be \
             restored",
            named(1, 4)
        ))
    );
    bench.remove(&name::backup_summary(&bench.claim.cluster, &bench.first)).await;
    assert_eq!(state_of(&bench, 2).await, State::NoBackup);
}

/// An empty or damaged object with the name of a segment is not a segment.
#[tokio::test]
async fn a_segment_that_cannot_be_read_is_not_there() {
    let bench = Bench::new().await;
    let object = bench.segment_object(7);
    let whole = bench.store.get(&object_name(&object).unwrap()).await.unwrap();
    bench.lose([7]).await;
    bench.verify(Level::Shallow).await;
    let gap = format!("gap {0} {0} 1 found by `wal verify`", named(1, 7));
    assert_eq!(bench.ledger().await, std::slice::from_ref(&gap));
    let mut damaged = whole.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for (what, bytes) in [("empty", Vec::new()), ("too small", vec![1; 10]), ("damaged", damaged)] {
        bench.put(&object, bytes).await;
        let found = bench.verify(Level::Shallow).await;
        assert_eq!(found.findings[0].kind, WalFindingKind::Damaged, "{what}: {:?}", lines(&found));
        assert_eq!(bench.ledger().await, std::slice::from_ref(&gap), "{what}");
    }
    bench.put(&object, whole).await;
    assert_eq!(lines(&bench.verify(Level::Shallow).await), [""; 0]);
    let back = format!("closed {0} {0} 1 CameBack", named(1, 7));
    assert_eq!(bench.ledger().await, [gap, back]);
}

#[tokio::test]
async fn the_state_counts_no_segment_that_cannot_be_read() {
    let bench = Bench::new().await;
    for (what, bytes) in [("empty", Vec::new()), ("nonsense", vec![b'x'; 5000])] {
        // The newest segment tells when the last transaction was, so it is read.
        bench.archive(&bench.server, 7).await;
        bench.put(&bench.segment_object(12), bytes.clone()).await;
        let State::Unbroken { damaged, .. } = state_of(&bench, 1).await else { panic!("{what}: no WAL is after it") };
        let is_named = format!("{} is there and cannot be read: ", named(1, 12));
        assert!(damaged.len() == 1 && damaged[0].starts_with(&is_named), "{what}: {damaged:?}");
        bench.archive(&bench.server, 12).await;
    }
    bench.put(&bench.segment_object(7), Vec::new()).await;
    let State::Broken(reason) = state_of(&bench, 1).await else { panic!("an empty segment is no WAL") };
    let is_named = format!("{} is there and cannot be read: it has 0 bytes", named(1, 7));
    assert!(reason.contains(&is_named) && reason.contains(": no moment after 2026-08-01T00:"), "{reason}");
}

#[tokio::test]
async fn the_state_begins_with_a_snapshot_too() {
    let bench = Bench::new().await;
    bench.remove(&name::backup_summary(&bench.claim.cluster, &bench.first)).await;
    assert_eq!(state_of(&bench, 1).await, State::NoBackup);
    bench.snapshot("20260801T120000Z".parse().unwrap(), 5, 5).await;
    let State::Unbroken { since, gaps, .. } = state_of(&bench, 1).await else { panic!("the snapshot has its WAL") };
    assert!(since.ends_with(", the end of snapshot 20260801T120000Z") && gaps.is_empty(), "{since} {gaps:?}");
    bench.lose([8]).await;
    assert!(matches!(state_of(&bench, 1).await, State::Broken(_)));
}

/// What is not known to be needed may be needed.
#[tokio::test]
async fn a_gap_is_closed_as_not_needed_only_after_a_complete_look() {
    let bench = Bench::new().await;
    let (cluster, second) = (bench.claim.cluster.clone(), "20260802T000000Z".parse().unwrap());
    bench.lose([7]).await;
    bench.backup(second, 9, 10).await;
    bench.verify(Level::Shallow).await;
    let gap = format!("gap {0} {0} 1 found by `wal verify`", named(1, 7));
    let recorded = [gap.clone()];
    // The backup that needs it cannot be read.
    let summary = name::backup_summary(&cluster, &bench.first);
    bench.put(&summary, "nonsense").await;
    assert_eq!(lines(&bench.verify(Level::Shallow).await), [""; 0]);
    assert_eq!(bench.ledger().await, recorded);
    // A snapshot that may need it cannot be read.
    bench.remove(&summary).await;
    let snapshot = name::snapshot(&cluster, &"20260731T000000Z".parse().unwrap());
    bench.put(&snapshot, "nonsense").await;
    bench.verify(Level::Shallow).await;
    assert_eq!(bench.ledger().await, recorded);
    // The history of a timeline is missing, so nobody knows what that timeline needs.
    bench.remove(&snapshot).await;
    bench.store_file(WalFileName::Segment(named(2, 11)), &bench.server.segment(11)).await;
    let found = bench.verify(Level::Shallow).await;
    assert_eq!(found.findings[0].kind, WalFindingKind::HistoryMissing, "{:?}", lines(&found));
    assert_eq!(bench.ledger().await, recorded);
    // Everything can be read, and nothing needs it.
    bench.remove(&bench.object(WalFileName::Segment(named(2, 11)))).await;
    bench.verify(Level::Shallow).await;
    assert_eq!(bench.ledger().await, [gap, format!("closed {0} {0} 1 NotNeeded", named(1, 7))]);
}

/// More gaps than findings: the ledger has all of them, and none is closed because its finding was left out.
#[tokio::test]
async fn every_gap_is_recorded_however_many_there_are() {
    let bench = Bench::new().await;
    for number in (14..2100).step_by(2) {
        let name = named(1, number);
        let facts =
            serde_json::json!({ "first_record_lsn": name.start_lsn(size()), "last_record_end": name.end_lsn(size()) });
        bench.store_with(WalFileName::Segment(name), b"x", facts).await;
    }
    let found = bench.verify(Level::Shallow).await;
    assert_eq!(found.findings.len(), 1000);
    assert_eq!(bench.ledger().await.len(), 1043);
    bench.verify(Level::Shallow).await;
    assert_eq!(bench.ledger().await.len(), 1043);
}

/// "No gap" and "never looked" are not the same.
#[tokio::test]
async fn a_complete_look_is_recorded() {
    let bench = Bench::new().await;
    let cluster = &bench.claim.cluster;
    let last = || last_verified(&bench.repository, cluster);
    assert_eq!(last().await.unwrap(), None);
    let quiet = WalVerifyOptions { remember: false, ..bench.options() };
    bench.verify_with(&quiet).await.unwrap();
    let part = WalVerifyOptions { timeline: Some(TimelineId::FIRST), ..bench.options() };
    bench.verify_with(&part).await.unwrap();
    assert_eq!(last().await.unwrap(), None, "nothing was looked at in whole and recorded");
    bench.verify_with(&bench.options()).await.unwrap();
    let first = last().await.unwrap().unwrap();
    let later = WalVerifyOptions { now: bench.options().now + chrono::TimeDelta::days(1), ..bench.options() };
    bench.verify_with(&later).await.unwrap();
    assert!(last().await.unwrap().unwrap() >= first + chrono::TimeDelta::hours(23));
}
