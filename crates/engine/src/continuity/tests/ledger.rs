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
    let unbroken = |since, gaps| State::Unbroken { since, gaps };
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
    let State::Unbroken { since: told, gaps } = state_of(&bench, 1).await else { panic!("a backup after the gap") };
    assert_eq!(told, since(10, "20260802T000000Z"));
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
