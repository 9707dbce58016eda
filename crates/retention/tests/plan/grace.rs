//! The two steps: a removal is decided, and carried out after the grace time if it is still right.

use crate::archive::{Archive, day, id, pack};
use chrono::Duration;
use holdfast_retention::*;

const GRACE: Duration = Duration::days(2);

fn removal(archive: &Archive, decided: &[Decision]) -> Removal {
    carry_out(decided, &archive.catalog, &archive.manifests, &archive.policy, day(archive.today), GRACE).unwrap()
}

fn decided() -> (Archive, Vec<Decision>) {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    archive.backup_of(30, &[pack(20, 1)]);
    let decision = archive.plan().to_decide(&[]);
    assert_eq!(decision.backups.len(), 2);
    (archive, vec![decision])
}

#[test]
fn nothing_is_removed_before_the_grace_time_is_over() {
    let (mut archive, decided) = decided();
    for (today, count) in [(31, 0), (32, 0), (33, 2), (50, 2)] {
        archive.today = today;
        let removal = removal(&archive, &decided);
        assert_eq!((removal.backups.len(), removal.packs.len()), (count, count), "day {today}");
        assert_eq!(removal.wal.iter().map(|range| range.last).max(), (count > 0).then_some(199), "day {today}");
        assert!(archive.plan().taken_back(&decided).is_empty());
    }
}

/// What becomes useless after the decision waits for its own decision.
#[test]
fn only_what_was_decided_is_removed() {
    let (mut archive, mut decided) = decided();
    archive.today = 60;
    assert_eq!(archive.going(), [1, 10, 20, 29]);
    assert_eq!(removal(&archive, &decided).backups.into_iter().collect::<Vec<_>>(), [id(1), id(10)]);
    let second = archive.plan().to_decide(&decided);
    assert_eq!(second.backups.iter().copied().collect::<Vec<_>>(), [id(20), id(29)]);
    assert_eq!(second.wal.iter().map(|range| (range.first, range.last)).collect::<Vec<_>>(), [(200, 299)]);
    decided.push(second);
    assert!(archive.plan().to_decide(&decided).is_empty());
}

/// A waiting backup stays restorable: everything that it needs waits with it, even if that was decided long ago.
#[test]
fn what_a_waiting_backup_needs_waits_too() {
    let (mut archive, mut decided) = decided();
    // An old decision removes the pack and the WAL of day 20. After it, they were needed again.
    decided.push(Decision {
        at: day(5),
        backups: [].into(),
        packs: [pack(20, 1), pack(29, 1)].into(),
        wal: vec![WalRange { claim: ClaimNumber::FIRST, timeline: crate::archive::timeline(1), first: 1, last: 299 }],
    });
    archive.today = 60;
    let removal = removal(&archive, &decided);
    assert_eq!(removal.packs.into_iter().collect::<Vec<_>>(), [pack(1, 1), pack(10, 1)]);
    assert_eq!(removal.waiting.into_iter().collect::<Vec<_>>(), [id(20), id(29)]);
    let gone: Vec<_> = removal.wal.iter().map(|range| (range.first, range.last)).collect();
    assert_eq!(gone, [(1, 199), (202, 289), (292, 299)]);
}

/// An old release, or another host, took a backup in between. It names a pack of a backup that is to be removed.
#[test]
fn a_new_backup_takes_a_pack_back() {
    let (mut archive, decided) = decided();
    archive.today = 35;
    archive.backup_of(34, &[pack(10, 1)]);
    let removal = removal(&archive, &decided);
    assert_eq!(removal.packs.into_iter().collect::<Vec<_>>(), [pack(1, 1)]);
    assert_eq!(archive.plan().taken_back(&decided).packs.into_iter().collect::<Vec<_>>(), [pack(10, 1)]);
    assert_eq!(removal.backups.into_iter().collect::<Vec<_>>(), [id(1), id(10)]);
}

#[test]
fn a_hold_a_restore_and_a_changed_policy_take_a_decision_back() {
    type Change = fn(&mut Archive);
    let changes: [(&str, Change); 4] = [
        ("hold", |archive| archive.find(1).hold = Some(Hold { until: None })),
        ("restore", |archive| {
            archive.catalog.restores.push(RunningRestore { backup: Some(id(1)), lease_until: day(36) });
        }),
        ("running", |archive| archive.unfinished(35).parent = Parent::Backup(id(1))),
        ("policy", |archive| archive.policy.window = Some(Duration::days(40))),
    ];
    for (name, change) in changes {
        let (mut archive, decided) = decided();
        archive.today = 35;
        change(&mut archive);
        let removal = removal(&archive, &decided);
        assert!(!removal.backups.contains(&id(1)), "{name}");
        assert!(archive.plan().taken_back(&decided).backups.contains(&id(1)), "{name}");
        assert!(!removal.packs.contains(&pack(1, 1)), "{name}");
        assert!(removal.wal.iter().all(|range| range.last < 10 || range.first > 11), "{name}: {:?}", removal.wal);
    }
}

/// A backup from a lagging standby was taken in between. It needs WAL whose removal is decided.
#[test]
fn a_backup_with_an_old_start_takes_wal_back() {
    let (mut archive, decided) = decided();
    archive.today = 35;
    let backup = archive.backup(34);
    (backup.start_lsn, backup.stop_lsn) = (crate::archive::lsn(150), crate::archive::lsn(160));
    let removal = removal(&archive, &decided);
    assert_eq!(removal.wal.iter().map(|range| range.last).max(), Some(149));
    let back: Vec<_> = archive.plan().taken_back(&decided).wal.iter().map(|range| (range.first, range.last)).collect();
    assert_eq!(back, [(150, 199)]);
}

/// A decision by a clock that was ahead is not ripe before its time and the grace time.
#[test]
fn a_decision_from_the_future_waits() {
    let (mut archive, mut decided) = decided();
    decided[0].at = day(100);
    archive.today = 60;
    assert!(removal(&archive, &decided).backups.is_empty());
    archive.today = 102;
    assert_eq!(removal(&archive, &decided).backups.len(), 2);
}

/// An interrupted removal is finished by the next one, which removes nothing twice.
#[test]
fn a_removal_that_was_interrupted_is_finished() {
    let (mut archive, decided) = decided();
    archive.today = 34;
    let removal = removal(&archive, &decided);
    archive.catalog.backups.retain(|backup| !removal.backups.contains(&backup.id));
    archive.catalog.half_removed.insert(id(10));
    assert!(self::removal(&archive, &[]).backups.is_empty(), "nobody decided it");
    let again = self::removal(&archive, &decided);
    assert_eq!(again.backups.into_iter().collect::<Vec<_>>(), [id(10)]);
    assert_eq!(again.packs, removal.packs);
    assert_eq!(again.wal, removal.wal);
}

/// A backup began between the listing of backups and that of packs. No manifest names its first pack, and its WAL is
/// not known to be needed. The grace time protects both.
#[test]
fn a_backup_that_began_between_two_listings_loses_nothing() {
    let (mut archive, decided) = decided();
    archive.today = 35;
    archive.catalog.packs.push(Pack { id: pack(35, 1), size_bytes: 1 });
    archive.wal(1, 7, 3, 4);
    archive.branch(7, 1, 3, 4);
    assert!(archive.going_packs().contains(&pack(35, 1)));
    assert!(archive.going_wal().contains(&(7, 3, 4)));
    let removal = removal(&archive, &decided);
    assert_eq!(removal.packs.into_iter().collect::<Vec<_>>(), [pack(1, 1), pack(10, 1)]);
    assert!(removal.wal.iter().all(|range| range.timeline.get() == 1), "{:?}", removal.wal);
}
