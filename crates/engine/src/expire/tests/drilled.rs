//! What drills and verifications say about a backup, and which of them count.

use super::bench::{Bench, first_segment};
use crate::expire::{ExpireOptions, Keep, Policy};
use crate::repository::verified::{ToRemember, remember};
use chrono::TimeDelta;
use holdfast_contract::report::verify::{Damage, DamageKind, ObjectClass};
use holdfast_repo::name::{self, ClaimNumber, LedgerTime};
use holdfast_repo::record::{BackupRecord, DrillFound, LedgerEntry};

/// Records a drill that ran this many hours ago.
async fn drilled(bench: &Bench, day: u64, hours: i64, found: Option<&[DrillFound]>) {
    drilled_of(bench, day, hours, found, bench.claim.number).await;
}

async fn drilled_of(bench: &Bench, day: u64, hours: i64, found: Option<&[DrillFound]>, claim: ClaimNumber) {
    let entry = LedgerEntry::Drill {
        backup: bench.id(day),
        claim,
        timeline: holdfast_pgtypes::TimelineId::FIRST,
        restored_time: None,
        restored_lsn: None,
        size_bytes: 1,
        wal_bytes: 1,
        restore_milliseconds: 1,
        replay_milliseconds: 1,
        page_count: 1,
        amcheck: false,
        probe_count: 0,
        problems: found.map(|_| "it does not start".to_owned()).into_iter().collect(),
        found: found.unwrap_or_default().to_vec(),
        objects: Vec::new(),
    };
    let time = bench.now - TimeDelta::hours(hours);
    bench.repository.write_ledger(&bench.cluster, "db2", time, entry).await.unwrap();
}

/// Records a shallow verification that found nothing.
async fn looked_at(bench: &Bench, day: u64, hours: i64) {
    let result = ToRemember {
        backup: bench.id(day),
        deep: false,
        sample_percent: None,
        passed_over_count: 0,
        object_count: 1,
        size_bytes: 0,
        damage: Vec::new(),
        host: "db2",
        time: bench.now - TimeDelta::hours(hours),
    };
    remember(&bench.repository, &bench.cluster, &result).await.unwrap();
}

/// The newest of three backups cannot be restored. Even if a listing has all its objects, the backup before it is the
/// last.
#[tokio::test]
async fn a_backup_whose_drill_failed_takes_no_place() {
    use DrillFound::{Amcheck, Host, Object, Page, Probe, Server, Time};
    for (found, counts) in [
        (&[][..], true),
        (&[Object][..], true),
        (&[Page], true),
        (&[Amcheck], true),
        (&[Probe, Server], true),
        (&[Probe], false),
        (&[Time, Host], false),
    ] {
        let bench = Bench::with_days(true, 3).await;
        drilled(&bench, 2, 3, Some(found)).await;
        looked_at(&bench, 2, 2).await;
        let report = bench.expire(&bench.last(1)).await.unwrap();
        let kept: Vec<bool> = report.backups.iter().map(|backup| backup.kept).collect();
        assert_eq!(kept, [false, counts, true], "{found:?}");
        let said = report.warnings.iter().any(|warning| warning.contains("its last drill failed: it does not start"));
        assert_eq!(said, counts, "{found:?}: {:?}", report.warnings);
    }
}

#[tokio::test]
async fn the_newest_drill_that_says_something_of_the_backup_counts() {
    let failed = Some(&[DrillFound::Server][..]);
    let nothing = Some(&[DrillFound::Time][..]);
    for (what, drills, proven) in [
        ("a later proof", &[failed, None][..], true),
        ("a later failure", &[None, failed], false),
        ("a later one that says nothing", &[None, nothing], true),
        ("the same after a failure", &[failed, nothing, nothing], false),
    ] {
        let bench = Bench::with_days(false, 3).await;
        for (index, found) in (1..).zip(drills) {
            drilled(&bench, 1, 10 - index, *found).await;
        }
        let keep = Keep { verified: 1, ..Keep::default() };
        let options = ExpireOptions { policy: Policy { keep, ..Policy::default() }, ..bench.last(0) };
        let report = bench.expire(&options).await.unwrap();
        assert_eq!(report.backups[1].why.contains(&"verified".to_owned()), proven, "{what}: {:?}", report.backups);
    }
}

/// An unreadable failure counts. A proof does not count if it is unreadable, of another claim, or later than now.
#[tokio::test]
async fn what_cannot_be_believed_keeps_the_more() {
    let bench = Bench::with_days(true, 4).await;
    let time = |hours| LedgerTime::new(bench.now - TimeDelta::hours(hours)).unwrap();
    bench.put(&name::drill(&bench.cluster, time(1), &bench.id(3), false)).await;
    drilled(&bench, 2, 5, Some(&[DrillFound::Page])).await;
    bench.put(&name::drill(&bench.cluster, time(4), &bench.id(2), true)).await;
    drilled(&bench, 2, -24 * 365, None).await;
    drilled_of(&bench, 2, 3, None, ClaimNumber::new(7).unwrap()).await;
    let report = bench.expire(&bench.last(1)).await.unwrap();
    let kept: Vec<bool> = report.backups.iter().map(|backup| backup.kept).collect();
    // The newest stays as if it were sound, but takes no place.
    assert_eq!(kept, [false, true, false, true], "{:?}", report.warnings);
    for words in ["counts as a failed drill", "so it is ignored", "has a time in the future", "it is of claim 7"] {
        assert!(report.warnings.iter().any(|warning| warning.contains(words)), "{words}: {:?}", report.warnings);
    }
}

/// A host whose clock was years ahead recorded "sound". That does not hide the result of a later verification.
#[tokio::test]
async fn a_verification_of_the_future_hides_nothing() {
    let bench = Bench::with_days(false, 3).await;
    looked_at(&bench, 1, -24 * 365).await;
    let keep = Keep { verified: 1, ..Keep::default() };
    let options = ExpireOptions { policy: Policy { keep, ..Policy::default() }, ..bench.last(0) };
    let report = bench.expire(&options).await.unwrap();
    assert!(!report.backups[1].kept, "{:?}", report.backups);
    assert!(report.warnings.iter().any(|warning| warning.contains("later than now")), "{:?}", report.warnings);
}

/// A backup is built on the bad pages of its parent until a drill of its own proves it.
#[tokio::test]
async fn a_failed_drill_counts_for_the_backups_that_are_built_on_it() {
    for (found, proven, counts) in [
        (DrillFound::Page, false, true),
        (DrillFound::Server, false, true),
        (DrillFound::Page, true, false),
        (DrillFound::Time, false, false),
    ] {
        let bench = Bench::with_days(false, 2).await;
        bench.backup(2, &[(1, 1)]).await;
        archive_to(&bench, 3).await;
        let summary = name::backup_summary(&bench.cluster, &bench.id(2));
        let child = BackupRecord { parent: Some(bench.id(1)), ..bench.record(2) };
        bench.repository.replace_record(&summary, &child).await.unwrap();
        drilled(&bench, 1, 3, Some(&[found])).await;
        if proven {
            drilled(&bench, 2, 2, None).await;
        }
        let report = bench.expire(&bench.last(1)).await.unwrap();
        // The newest is never removed. What counts as restorable takes the only place.
        assert_eq!(report.backups[0].kept, counts, "{found:?}, proven: {proven}: {:?}", report.backups);
    }
}

/// A pack that rotted harms each backup that names it, whatever an earlier verification of that backup found.
#[tokio::test]
async fn a_rotten_pack_counts_for_each_backup_that_names_it() {
    for (read_again, names_it) in [(false, true), (true, true), (false, false)] {
        let bench = Bench::with_days(true, 2).await;
        let shared = if names_it { (1, 1) } else { (1, 2) };
        bench.backup(2, &[shared]).await;
        bench.backup(3, &[(1, 1)]).await;
        archive_to(&bench, 4).await;
        for day in 1..=2 {
            looked_at(&bench, day, 30).await;
            verified_deep(&bench, day, 29, None).await;
        }
        let rotten = name::pack(&bench.cluster, &bench.id(1), 1);
        verified_deep(&bench, 3, 20, Some(&rotten)).await;
        if read_again {
            for day in 1..=3 {
                verified_deep(&bench, day, 10, None).await;
            }
        }
        let report = bench.expire(&bench.last(1)).await.unwrap();
        let kept: Vec<bool> = report.backups.iter().map(|backup| backup.kept).collect();
        let expected = match (read_again, names_it) {
            (true, _) => [false, false, false, true],
            (false, true) => [true, false, false, true],
            (false, false) => [false, false, true, true],
        };
        assert_eq!(kept, expected, "read again: {read_again}, names it: {names_it}: {:?}", report.backups);
    }
}

/// Archives the WAL up to the start of the backup of this day.
async fn archive_to(bench: &Bench, day: u64) {
    for number in 1..first_segment(day) {
        bench.segment(number).await;
    }
}

/// Records a deep verification that found this object damaged, or nothing.
async fn verified_deep(bench: &Bench, day: u64, hours: i64, damaged: Option<&str>) {
    let damage: Vec<Damage> = damaged
        .into_iter()
        .map(|object| Damage {
            kind: DamageKind::WrongChecksum,
            class: ObjectClass::Pack,
            object: object.to_owned(),
            count: 1,
            problem: "the body of frame 7 fails its checksum".to_owned(),
            backups: vec![bench.id(day)],
            windows: Vec::new(),
        })
        .collect();
    let result = ToRemember {
        backup: bench.id(day),
        deep: true,
        sample_percent: None,
        passed_over_count: 0,
        object_count: 1,
        size_bytes: 0,
        damage: damage.iter().collect(),
        host: "db2",
        time: bench.now - TimeDelta::hours(hours),
    };
    remember(&bench.repository, &bench.cluster, &result).await.unwrap();
}

/// What is left of a backup that lost its `backup.json` stays, because that object may be brought back.
#[tokio::test]
async fn what_is_left_of_a_lost_backup_stays() {
    for with_start in [true, false] {
        let bench = Bench::with_days(true, 3).await;
        looked_at(&bench, 1, 30).await;
        bench.remove(&name::backup_summary(&bench.cluster, &bench.id(1))).await;
        if !with_start {
            bench.remove(&name::backup_start(&bench.cluster, &bench.id(1))).await;
        }
        let (lost, report) = (bench.id(1).to_string(), bench.expire(&bench.last(1)).await.unwrap());
        assert!(report.warnings.iter().any(|warning| warning.contains(&lost)), "{:?}", report.warnings);
        let packs = bench.store.list(&name::packs_folder(&bench.cluster, &bench.id(1)), None).await.unwrap();
        assert_eq!(packs.len(), 2, "start record: {with_start}");
    }
}
