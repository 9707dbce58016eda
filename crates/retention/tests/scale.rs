//! Large archives: a thousand backups, 80,000 packs, a million segments. The tests check no times; run them with
//! `--nocapture` to see the times.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use chrono::{DateTime, Duration, Utc};
use holdfast_pgtypes::{Lsn, TimelineId, WalSegmentSize};
use holdfast_retention::*;
use std::time::Instant;

const BACKUPS: u32 = 1000;
const SEGMENTS: u64 = 1_000_000;
const PACKS_EACH: u32 = 80;

fn archive(segments: NumberRanges) -> Catalog {
    let hour =
        |hours: u32| "2020-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + Duration::hours(i64::from(hours) * 24);
    let mut wal = WalArchive::new(WalSegmentSize::DEFAULT);
    wal.segments.insert(TimelineId::FIRST, segments);
    wal.last_stored.insert(TimelineId::FIRST, hour(BACKUPS));
    let mut catalog = Catalog::default();
    catalog.claims.insert(ClaimNumber::FIRST, Claim { since: Some(hour(0)), wal });
    for number in 0..BACKUPS {
        let id = BackupId::new(hour(number)).unwrap();
        let lsn = Lsn::new((u64::from(number) * (SEGMENTS / u64::from(BACKUPS)) + 2) << 24);
        catalog.backups.push(Backup {
            id,
            claim: ClaimNumber::FIRST,
            timeline: TimelineId::FIRST,
            start_lsn: lsn.saturating_add(0x100),
            stop_timeline: TimelineId::FIRST,
            stop_lsn: lsn.saturating_add(0x200),
            start_time: hour(number),
            stop_time: hour(number),
            place: Place::Packs,
            hold: None,
            hold_with_wal: None,
            verified: Verified::Never,
        });
        catalog
            .packs
            .extend((1..=PACKS_EACH).map(|pack| Pack { id: PackId { backup: id, number: pack }, size_bytes: 1 << 27 }));
    }
    catalog
}

/// Counts every manifest as it is read: each names every second pack of all backups before it.
fn plan(name: &str, catalog: &Catalog, policy: &Policy) -> Plan {
    let now = "2022-09-27T00:00:00Z".parse().unwrap();
    let started = Instant::now();
    let mut outline = Outline::new(catalog, policy, now);
    let outlined = started.elapsed();
    let to_read: Vec<BackupId> = outline.packs.to_read().collect();
    let count = to_read.len();
    for backup in to_read {
        let end = catalog.packs.partition_point(|pack| pack.id.backup <= backup);
        let older = catalog.packs[..end].iter().skip(1).step_by(2);
        outline.packs.manifest(
            backup,
            older.map(|pack| PackUse { pack: pack.id, live_bytes: 1 << 20, size_bytes: None }),
            [],
        );
    }
    let plan = outline.finish().unwrap();
    let peak = std::fs::read_to_string("/proc/self/status").ok();
    let peak = peak.as_deref().and_then(|text| text.lines().find(|line| line.starts_with("VmHWM"))).unwrap_or("");
    eprintln!("{name}: backups and WAL {outlined:?}, with {count} manifests {:?}, {peak}", started.elapsed());
    plan
}

#[test]
fn a_thousand_backups_and_a_million_segments_are_planned() {
    let keep = Keep { daily: 700, monthly: 36, ..Keep::default() };
    let policy = Policy { window: Some(Duration::days(90)), keep, ..Policy::default() };
    let whole = archive(NumberRanges::of(1, SEGMENTS));
    let plan_whole = plan("one range", &whole, &policy);
    // Every second number is there: a million ranges of one segment.
    let lone = archive((1..=SEGMENTS * 2).filter(|number| number % 2 == 0).map(|number| (number, number)).collect());
    let plan_lone = plan("a million ranges", &lone, &policy);
    for plan in [&plan_whole, &plan_lone] {
        assert!(plan.going().backups.len() > 250, "{}", plan.going().backups.len());
        assert!(plan.going().packs.len() > 40_000 / 2);
    }
    let wal = |plan: &Plan| plan.wal.iter().map(|(range, _)| range.count()).sum::<u64>();
    assert_eq!((wal(&plan_whole), wal(&plan_lone)), (SEGMENTS, SEGMENTS));
    let decided = plan_lone.to_decide(&[]);
    assert!(decided.wal.len() > 400_000, "{}", decided.wal.len());
    let started = Instant::now();
    assert!(plan_lone.to_decide(&[decided]).is_empty());
    eprintln!("compared with the ledger in {:?}", started.elapsed());
}
