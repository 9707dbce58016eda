//! Each kind of finding, with its words and what it costs.

use holdfast_repo::name::LedgerKind;
use holdfast_repo::record::DecidedWal;

use super::*;

#[tokio::test]
async fn a_gap_costs_what_is_after_it_until_the_next_backup() {
    let bench = Bench::new().await;
    bench.lose([7, 8]).await;
    let found = bench.verify(Level::Shallow).await;
    let gap = format!("loss gap: {} (2): there is WAL after it", named(1, 7));
    assert_eq!(lines(&found), std::slice::from_ref(&gap));
    let from = "from 0/700000 (after 2026-08-01T00:";
    let reported = lost(&found.findings[0]);
    assert!(
        reported[0].starts_with(from) && reported[0].ends_with(") on, until the next backup, on timeline 1"),
        "{reported:?}"
    );
    assert!(found.findings[0].advice.starts_with("take a backup now, "), "{}", found.findings[0].advice);
    assert_eq!((found.findings[0].backups.clone(), found.findings[0].last), (Vec::new(), Some(named(1, 8))));

    // With a later backup, the moments after it can be restored again.
    bench.backup("20260802T000000Z".parse().unwrap(), 10, 10).await;
    let found = bench.verify(Level::Shallow).await;
    assert_eq!(lines(&found), [gap]);
    let reported = lost(&found.findings[0]);
    let until = ") to 0/A01000 (2026-08-01T00:10:00Z), the end of backup 20260802T000000Z, on timeline 1";
    assert!(reported[0].starts_with(from) && reported[0].ends_with(until), "{reported:?}");
    assert!(found.findings[0].advice.starts_with("if a server, "), "{}", found.findings[0].advice);
    assert_eq!(found.claims[0].timelines[0].windows.len(), 2);
}

#[tokio::test]
async fn a_gap_inside_of_a_backup_harms_the_backup() {
    let bench = Bench::new().await;
    bench.lose([4]).await;
    let found = bench.verify(Level::Shallow).await;
    assert_eq!(lines(&found), [format!("loss gap: {} (1): a backup needs it to become consistent", named(1, 4))]);
    assert_eq!((&found.findings[0].backups, &found.findings[0].snapshots), (&vec![bench.first], &Vec::new()));
    assert_eq!(found.claims[0].timelines[0].windows, []);
}

#[tokio::test]
async fn what_no_backup_needs_is_no_gap() {
    let bench = Bench::new().await;
    bench.lose([1, 2]).await;
    assert_eq!(lines(&bench.verify(Level::Deep).await), [""; 0]);
    // The end of the archive is not a gap, nor is a hole in a timeline after another one left it.
    bench.lose([12]).await;
    assert_eq!(lines(&bench.verify(Level::Deep).await), [""; 0]);
}

#[tokio::test]
async fn a_gap_before_a_promotion_is_missed_on_both_timelines_and_reported_once() {
    let mut bench = Bench::new().await;
    bench.promote().await;
    bench.lose([7]).await;
    let found = bench.verify(Level::Shallow).await;
    assert_eq!(lines(&found), [format!("loss gap: {} (1): there is WAL after it", named(1, 7))]);
    let reported = lost(&found.findings[0]);
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert!(reported[0].ends_with("on timeline 1") && reported[1].ends_with("on timeline 2"), "{reported:?}");
    // The first segment of timeline 2 is needed under its own name.
    bench.archive(&bench.server, 7).await;
    bench.remove(&bench.object(WalFileName::Segment(named(2, 9)))).await;
    let found = bench.verify(Level::Shallow).await;
    assert_eq!(lines(&found), [format!("loss gap: {} (1): there is WAL after it", named(2, 9))]);
    // One timeline only.
    let options = WalVerifyOptions { timeline: Some("1".parse().unwrap()), ..bench.options() };
    assert_eq!(lines(&bench.verify_with(&options).await.unwrap()), [""; 0]);
}

#[tokio::test]
async fn a_segment_of_another_history_is_found() {
    for (level, switched) in [(Level::Deep, false), (Level::Shallow, true), (Level::Deep, true)] {
        let bench = Bench::new().await;
        // A copy of the server, started without a recovery from what it was in segment 6.
        let mut other = Writer::new(1, size(), bench.claim.system_identifier);
        other.write_into(6);
        other.diverge(5);
        other.write_into(13);
        if switched {
            // The server ended segment 8 early, and segment 9 of the copy begins inside a record.
            let mut own = Writer::new(1, size(), bench.claim.system_identifier);
            own.write_half_of(8);
            own.switch();
            bench.archive(&own, 8).await;
        }
        for number in 9..=12 {
            bench.archive(&other, number).await;
        }
        let found = bench.verify(level).await;
        let [finding] = found.findings.as_slice() else { panic!("{level}: {:?}", lines(&found)) };
        assert_eq!((finding.kind, finding.weight), (WalFindingKind::OtherHistory, WalFindingWeight::Loss));
        assert_eq!(finding.file, WalFileName::Segment(named(1, 9)));
        let does_not = format!("it does not continue {}: ", named(1, 8));
        assert!(finding.problem.starts_with(&does_not), "{}", finding.problem);
        let reported = lost(finding);
        assert!(reported[0].starts_with("from 0/900000 (after 2026-08-01T0"), "{reported:?}");
        assert_eq!(bench.ledger().await, [""; 0], "it is no gap");
    }
}

#[tokio::test]
async fn a_bit_in_a_segment_is_found_by_reading() {
    let bench = Bench::new().await;
    let object = bench.segment_object(7);
    let mut bytes = bench.store.get(&object_name(&object).unwrap()).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    bench.put(&object, bytes).await;
    assert_eq!(lines(&bench.verify(Level::Shallow).await), [""; 0]);
    let found = bench.verify(Level::Deep).await;
    let [finding] = found.findings.as_slice() else { panic!("{:?}", lines(&found)) };
    let damaged = format!("loss damaged: {} (1): does not match its checksum: the body of frame ", named(1, 7));
    assert!(line(finding).starts_with(&damaged), "{}", line(finding));
    assert!(lost(finding)[0].starts_with("from 0/700000 (after 2026-08-01T00:"), "{:?}", lost(finding));
    // A sample reads only its part of the segments, and says which.
    let sample = Some(Sample { percent: 1, seed: 3 });
    let options = WalVerifyOptions { level: Level::Deep, sample, ..bench.options() };
    let found = bench.verify_with(&options).await.unwrap();
    assert!(found.read_bytes < 3 << 20, "{}", found.read_bytes);
}

#[tokio::test]
async fn objects_that_are_too_small_are_one_finding() {
    let bench = Bench::new().await;
    for number in [6, 7] {
        bench.put(&bench.segment_object(number), "x").await;
    }
    for level in [Level::Shallow, Level::Deep] {
        let found = bench.verify(level).await;
        let damaged = format!("loss damaged: {} (2): it has 1 bytes, less than the head of an object", named(1, 6));
        assert_eq!(lines(&found), [damaged]);
        assert!(lost(&found.findings[0])[0].starts_with("from 0/600000 (after "), "{:?}", lost(&found.findings[0]));
    }
}

#[tokio::test]
async fn a_segment_that_ends_early_is_found() {
    let bench = Bench::new().await;
    // Received in part: the rest is zero, and later segments are there.
    let mut part = bench.server.segment(7);
    part[500_000..].fill(0);
    bench.store_file(WalFileName::Segment(named(1, 7)), &part).await;
    for level in [Level::Shallow, Level::Deep] {
        let found = bench.verify(level).await;
        let problem = "PostgreSQL cannot read it to its end, although there is WAL after it";
        assert_eq!(lines(&found), [format!("loss unfinished: {} (1): {problem}", named(1, 7))]);
        assert!(lost(&found.findings[0])[0].starts_with("from 0/800000 "), "{:?}", lost(&found.findings[0]));
    }
}

#[tokio::test]
async fn histories_that_are_missing_or_contradict_each_other_are_found() {
    let mut bench = Bench::new().await;
    let second = bench.promote().await;
    bench.remove(&bench.object(WalFileName::History("2".parse().unwrap()))).await;
    let found = bench.verify(Level::Shallow).await;
    let missing = "loss history missing: 00000002.history (1): timeline 2 has WAL or backups, and only this file says \
                   where it begins";
    assert_eq!(lines(&found), [missing]);

    bench.history(2, "1\t0/900100\twhy\n").await;
    bench.history(3, "1\t0/900200\twhy\n\n2\t0/B00000\twhy\n").await;
    let found = bench.verify(Level::Shallow).await;
    let contradicts = "loss history contradicts: 00000003.history (1): it says that timeline 2 left timeline 1 at \
                       0/900200, and the history of timeline 2 says that it left timeline 1 at 0/900100";
    assert_eq!(lines(&found), [contradicts]);

    bench.history(3, "1\t0/900100\twhy\n\n2\t0/900080\twhy\n").await;
    let back = "loss history contradicts: 00000003.history (1): it says that timeline 2 ended at 0/900080, before \
                timeline 1, which ended at 0/900100";
    assert_eq!(lines(&bench.verify(Level::Shallow).await), [back]);

    bench.remove(&bench.object(WalFileName::History("3".parse().unwrap()))).await;
    bench.archive(&second, 8).await;
    let before = format!(
        "loss history contradicts: 00000002.history (1): it says that timeline 2 begins at 0/900100, but {} is there, \
         which is before that",
        named(2, 8)
    );
    assert_eq!(lines(&bench.verify(Level::Shallow).await), [before]);

    bench.put(&bench.object(WalFileName::History("2".parse().unwrap())), "not an object").await;
    let found = bench.verify(Level::Shallow).await;
    assert_eq!(found.findings[0].kind, WalFindingKind::HistoryDamaged, "{:?}", lines(&found));
}

#[tokio::test]
async fn partial_segments_are_remarks() {
    let mut bench = Bench::new().await;
    bench.promote().await;
    let partial = |number| WalFileName::Partial(named(1, number));
    bench.store_file(partial(9), &bench.server.segment(9)).await;
    bench.remove(&bench.segment_object(9)).await;
    bench.store_file(partial(5), &bench.server.segment(5)).await;
    bench.store_file(partial(11), &bench.server.segment(11)).await;
    let found = bench.verify(Level::Shallow).await;
    assert_eq!(
        lines(&found),
        [
            format!("remark partial: {} (1): the whole segment is there too, so nothing needs it", partial(5)),
            format!(
                "remark partial: {} (1): timeline 1 ended in it; recovery along timeline 2 reads that timeline's own \
                 segment",
                partial(9)
            ),
            format!(
                "remark partial: {} (1): timeline 1 ends in it, and PostgreSQL never replays a partial segment: its \
                 transactions after the segment before are in no restore",
                partial(11)
            ),
        ]
    );
}

#[tokio::test]
async fn other_content_that_was_offered_is_a_remark() {
    let bench = Bench::new().await;
    let entry = LedgerEntry::Divergence {
        claim: bench.claim.number,
        file: WalFileName::Segment(named(1, 8)),
        stored_sha256: "0".repeat(64),
        offered_sha256: "1".repeat(64),
    };
    for _ in 0..2 {
        bench.repository.write_ledger(&bench.claim.cluster, "db2", now(), entry.clone()).await.unwrap();
    }
    assert_eq!(bench.repository.ledger_names(&bench.claim.cluster, LedgerKind::Divergence).await.unwrap().len(), 2);
    let found = bench.verify(Level::Shallow).await;
    assert_eq!(
        lines(&found),
        [format!(
            "remark divergence: {} (1): the archive was offered other content for it, 2 times, the last time at \
             2020-08-22 10:15:00 UTC by host db2; what it has was kept",
            named(1, 8)
        )]
    );
}

#[tokio::test]
async fn only_wal_that_expire_names_as_removed_is_no_gap() {
    for is_over in [true, false] {
        let bench = Bench::new().await;
        bench.backup("20260802T000000Z".parse().unwrap(), 9, 10).await;
        bench.lose(5..=8).await;
        let gap = |first: u64, count| format!("loss gap: {} ({count}): there is WAL after it", named(1, first));
        assert_eq!(lines(&bench.verify(Level::Shallow).await), [gap(5, 4)]);
        // `expire` ran, and removed other WAL.
        bench.record_removal(is_over, 1, 2).await;
        assert_eq!(lines(&bench.verify(Level::Shallow).await), [gap(5, 4)]);
        bench.record_removal(is_over, 5, 7).await;
        let found = bench.verify(Level::Shallow).await;
        assert_eq!(lines(&found), [gap(8, 1)], "segment 8 was lost");
        let note = format!("{}..{} (3) of claim 1 are not missed: `expire` removed them", named(1, 5), named(1, 7));
        assert_eq!(found.notes, [note]);
        bench.record_removal(is_over, 8, 8).await;
        assert_eq!(lines(&bench.verify(Level::Shallow).await), [""; 0]);
        let ledger = bench.ledger().await;
        let closed = [(5, 7, 3), (8, 8, 1)]
            .map(|(first, last, count)| format!("closed {} {} {count} NotNeeded", named(1, first), named(1, last)));
        assert_eq!(ledger[1..], closed, "{ledger:?}");
    }
}

impl Bench {
    async fn record_removal(&self, is_over: bool, first: u64, last: u64) {
        let wal = vec![DecidedWal { claim: self.claim.number, first: named(1, first), last: named(1, last) }];
        let run = "4c1f6a52".parse().unwrap();
        let entry = if is_over {
            LedgerEntry::Removal {
                backups: Vec::new(),
                pack_count: 0,
                wal_file_count: 4,
                size_bytes: 1,
                run: Some(run),
                found_later: false,
                wal,
            }
        } else {
            LedgerEntry::Removing { run, backups: Vec::new(), packs: Vec::new(), wal, pack_bytes: 0 }
        };
        self.repository.write_ledger(&self.claim.cluster, "db1", now(), entry).await.unwrap();
    }
}

/// A snapshot needs WAL as a backup does, whether there are backups or not.
#[tokio::test]
async fn a_snapshot_is_a_beginning() {
    let bench = Bench::new().await;
    let (early, late) = ("20260731T000000Z".parse().unwrap(), "20260803T000000Z".parse().unwrap());
    bench.remove(&name::backup_summary(&bench.claim.cluster, &bench.first)).await;
    bench.snapshot(early, 5, 5).await;
    // Before the oldest beginning nothing is needed.
    bench.lose([4, 8]).await;
    let found = bench.verify(Level::Shallow).await;
    let gap = format!("loss gap: {} (1): there is WAL after it", named(1, 8));
    assert_eq!((lines(&found), &found.notes), (vec![gap], &Vec::new()));
    assert!(lost(&found.findings[0])[0].ends_with(" on, until the next backup, on timeline 1"));
    bench.snapshot(late, 10, 10).await;
    let found = bench.verify(Level::Shallow).await;
    let reported = lost(&found.findings[0]);
    assert!(reported[0].ends_with("the end of snapshot 20260803T000000Z, on timeline 1"), "{reported:?}");
    // Its own WAL.
    bench.lose([5]).await;
    let found = bench.verify(Level::Shallow).await;
    let harmed = found.findings.iter().find(|found| found.file == WalFileName::Segment(named(1, 5))).unwrap();
    assert_eq!((&harmed.backups, &harmed.snapshots), (&Vec::new(), &vec![early]));
}

#[tokio::test]
async fn an_archive_without_backups_needs_no_wal() {
    let bench = Bench::new().await;
    let cluster = &bench.claim.cluster;
    bench.remove(&name::backup_summary(cluster, &bench.first)).await;
    bench.lose([7]).await;
    let found = bench.verify(Level::Deep).await;
    assert_eq!(lines(&found), [""; 0]);
    assert_eq!(found.notes, ["claim 1 has neither a complete backup nor a snapshot, so nothing needs its WAL"]);
}
