//! Tables: one answer of `info`, and one change.

#![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
use super::*;
use holdfast_contract::report::PerRepository;
use holdfast_contract::report::info::{RepositoryInfo, WalEnd, Window};
use holdfast_pgtypes::TimelineId;
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::recovery::{Hole, Rejection};

const NOW: &str = "2026-11-22T12:00:00Z";

#[expect(clippy::unnecessary_wraps, reason = "as the fields that it is compared with")]
fn moment(text: &str) -> Option<DateTime<Utc>> {
    Some(text.parse().unwrap())
}

/// A time of the day of [`NOW`].
fn at(time: &str) -> DateTime<Utc> {
    format!("2026-11-22T{time}Z").parse().unwrap()
}

fn sample() -> InfoReport {
    serde_json::from_str(include_str!("../../../../contract/tests/samples/info.json")).unwrap()
}

/// The frozen sample of the contract has every field; here it is reduced to one readable repository with one claim.
fn repository(info: &mut InfoReport) -> &mut RepositoryInfo {
    match info.repositories.first_mut() {
        Some(PerRepository::Read(repository)) => repository,
        other => unreachable!("{other:?}"),
    }
}

fn change(mut info: InfoReport, change: impl FnOnce(&mut ClaimInfo)) -> InfoReport {
    change(&mut repository(&mut info).claims[0]);
    info
}

fn stretch(from: (&str, &str), to: (&str, Option<&str>)) -> Window {
    let window = ReachableWindow {
        timeline: TimelineId::FIRST,
        first_backup: "20261122T085900Z".parse().unwrap(),
        from_lsn: from.0.parse().unwrap(),
        from_time: at(from.1),
        to_lsn: to.0.parse().unwrap(),
        to_time: to.1.map(at),
    };
    Window { window, to_stored: Some(at("11:00:00")) }
}

fn reach(windows: Vec<Window>) -> Vec<Reach> {
    vec![Reach { timeline: TimelineId::FIRST, windows, unusable: Vec::new(), unreadable: None }]
}

/// One backup of 09:00, and WAL up to 0/9000000 with its last transaction at 09:30.
fn info() -> InfoReport {
    change(sample(), |claim| {
        let last = claim.backups.last.as_mut().unwrap();
        (last.backup_id, last.stop_time, last.stored_bytes) = ("20261122T085900Z".to_owned(), at("09:00:00"), 7);
        claim.wal.as_mut().unwrap().timelines[0].gaps.clear();
        claim.wal_end = Some(WalEnd {
            timeline: TimelineId::FIRST,
            segment: "000000010000000000000008".parse().unwrap(),
            end_lsn: "0/9000000".parse().unwrap(),
        });
        claim.reach = reach(vec![stretch(("0/3000100", "09:00:00"), ("0/9000000", Some("09:30:00")))]);
        claim.snapshots = holdfast_contract::report::info::Snapshots::default();
    })
}

/// The same with another time of the last transaction.
fn until_time(to: Option<&str>) -> InfoReport {
    change(info(), |claim| claim.reach[0].windows[0].window.to_time = to.map(at))
}

fn gap(first: &str, last: &str, count: u64) -> SegmentRange {
    SegmentRange { timeline: TimelineId::FIRST, first: first.parse().unwrap(), last: last.parse().unwrap(), count }
}

/// `from`, `to` and `latest`, each as a time of the day.
fn said(found: &Recoverability) -> String {
    let one = |time: Option<DateTime<Utc>>| time.map_or("-".to_owned(), |time| time.format("%H:%M:%S%.6f").to_string());
    format!("{} {} {}", one(found.from), one(found.to), one(found.latest))
}

#[test]
fn what_the_archive_alone_can_restore() {
    let gap = change(info(), |claim| {
        claim.wal.as_mut().unwrap().timelines[0].gaps =
            vec![gap("000000010000000000000009", "00000001000000000000000A", 2)];
        claim.wal_end.as_mut().unwrap().end_lsn = "0/C000000".parse().unwrap();
    });
    let two = change(info(), |claim| {
        let earlier = stretch(("0/1000100", "07:00:00"), ("0/2000000", Some("07:30:00")));
        claim.reach[0].windows.insert(0, earlier);
    });
    let mut nothing = info();
    nothing.repositories.clear();
    for (name, info, archived, expected) in [
        (
            "a transaction that ended later is needed to stop: the last one itself is not a target",
            info(),
            Some(NOW),
            "09:00:00.000000 09:29:59.999999 12:00:00.000000",
        ),
        ("not known the archiver's position", info(), None, "09:00:00.000000 09:29:59.999999 -"),
        (
            "idle since the backup: no time can be a target, but the end can",
            until_time(None),
            Some(NOW),
            "09:00:00.000000 - 12:00:00.000000",
        ),
        (
            "the last transaction ended with the backup",
            until_time(Some("09:00:00")),
            Some(NOW),
            "09:00:00.000000 - 12:00:00.000000",
        ),
        (
            "one that ended just after it",
            until_time(Some("09:00:00.000001")),
            Some(NOW),
            "09:00:00.000000 09:00:00.000000 12:00:00.000000",
        ),
        ("a gap before the end: the end cannot be restored", gap, Some(NOW), "09:00:00.000000 09:29:59.999999 -"),
        ("two windows", two, Some(NOW), "07:00:00.000000 09:29:59.999999 12:00:00.000000"),
        ("no backup", change(info(), |claim| claim.reach.clear()), Some(NOW), "- - -"),
        ("nothing", nothing, None, "- - -"),
    ] {
        let found = of_info(&info, archived.and_then(moment));
        assert_eq!(said(&found), expected, "{name}");
    }
    let found = of_info(&info(), None);
    assert_eq!(found.last_backup.unwrap().id, "20261122T085900Z");
}

#[test]
fn gaps_are_named() {
    let info = change(info(), |claim| {
        claim.wal.as_mut().unwrap().timelines[0].gaps =
            vec![gap("000000010000000000000003", "000000010000000000000004", 2)];
    });
    let found = of_info(&info, None);
    assert_eq!((found.gaps.len(), found.gaps[0].first_segment.as_str()), (1, "000000010000000000000003"));
}

/// The snapshots of 08:00 and 10:00; the window of the first ends at a gap.
fn with_snapshots() -> InfoReport {
    change(info(), |claim| {
        claim.snapshots.recorded = 2;
        claim.snapshots.reach = reach(vec![
            stretch(("0/2000100", "08:00:00"), ("0/3000000", Some("08:30:00"))),
            stretch(("0/5000100", "10:00:00"), ("0/9000000", Some("09:30:00"))),
        ]);
    })
}

fn records() -> SnapshotListReport {
    let text = include_str!("../../../../contract/tests/samples/snapshot-list.json");
    let mut listed: SnapshotListReport = serde_json::from_str(text).unwrap();
    let Some(PerRepository::Read(repository)) = listed.repositories.first_mut() else { unreachable!("it is read") };
    for (record, (id, lsn, time)) in
        repository.snapshots.iter_mut().zip([(FIRST, "0/2000100", "08:00:00"), (SECOND, "0/5000100", "10:00:00")])
    {
        record.snapshot_id = id.parse().unwrap();
        (record.stop_lsn, record.stop_time) = (lsn.parse().unwrap(), at(time));
    }
    listed
}

const FIRST: &str = "20261122T080000Z";
const SECOND: &str = "20261122T100000Z";

#[test]
fn what_snapshots_can_restore() {
    let words = |info: &InfoReport| {
        let starts = snapshot_starts(info, &records(), moment(NOW));
        starts
            .iter()
            .map(|start| {
                let found = Recoverability {
                    from: Some(start.from),
                    to: start.to,
                    latest: start.latest,
                    ..Recoverability::default()
                };
                format!("{} {} {}", start.id, start.volumes.join("+"), said(&found))
            })
            .collect::<Vec<_>>()
    };
    let first = format!("{FIRST} PG_DATA+PG_WAL 08:00:00.000000 08:29:59.999999 -");
    // Nothing was committed after the second one.
    let second = format!("{SECOND} PG_DATA+PG_WAL 10:00:00.000000 - 12:00:00.000000");
    assert_eq!(words(&with_snapshots()), [first, second.clone()]);
    let info = change(with_snapshots(), |claim| {
        let hole =
            Hole { timeline: TimelineId::FIRST, first_missing: "000000010000000000000002".parse().unwrap(), count: 1 };
        claim.snapshots.reach[0].unusable.push(Rejection { backup: FIRST.parse().unwrap(), hole });
    });
    assert_eq!(words(&info), [second], "one whose own WAL is incomplete");
    assert_eq!(words(&super::tests::info()), Vec::<String>::new(), "no window contains them");
    assert_eq!(said(&of_info(&with_snapshots(), moment(NOW))), said(&of_info(&super::tests::info(), moment(NOW))));
}
