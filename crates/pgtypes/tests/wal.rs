//! Scans of WAL: two real segments compared with `pg_waldump`, and synthetic ones for every way in which a record can
//! cross a boundary or a segment can end.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write;

use chrono::{DateTime, Utc};
use holdfast_pgtypes::wal::ddl::{DdlChange, DdlFacts, DdlKind, DdlTracker};
use holdfast_pgtypes::wal::ddl_record::DdlRecord;
use holdfast_pgtypes::wal::join::{CrossingRecord, HeadContinuation, TailFragment, join};
use holdfast_pgtypes::wal::reader::{ReadEnd, WalSegment};
use holdfast_pgtypes::wal::record::{Event, XactEndKind};
use holdfast_pgtypes::wal::record_part::parts_make_a_record;
use holdfast_pgtypes::wal::scan::{SegmentFacts, TimeBound, find_first_after, find_xact_end, xid_precedes};
use holdfast_pgtypes::{Lsn, PgVersion, SegmentName, TimelineId, WalSegmentSize};
use proptest::prelude::*;

const SEGMENT_15: &[u8] = include_bytes!("fixtures/segment-0A.15");
const SEGMENT_18: &[u8] = include_bytes!("fixtures/segment-0A.18");

fn megabyte() -> WalSegmentSize {
    WalSegmentSize::new(1 << 20).unwrap()
}

fn segment(bytes: &[u8], version: PgVersion) -> WalSegment<'_> {
    WalSegment { bytes, name: "00000001000000000000000A".parse().unwrap(), size: megabyte(), version }
}

/// One line for each reported record; the expected lines come from the output of `pg_waldump`.
fn lines(segment: WalSegment<'_>) -> String {
    let mut out = String::new();
    for event in segment.records().filter_map(|record| record.event) {
        match event {
            Event::XactEnd(end) => {
                let time = end.time.format("%H:%M:%S%.6f");
                writeln!(out, "{} {:?} {} {time}", end.lsn, end.kind, end.xid.unwrap_or(0))
            }
            Event::RestorePoint(point) => {
                writeln!(out, "{} restore point {} ends {}", point.lsn, point.name, point.end_lsn)
            }
            Event::Checkpoint(checkpoint) => {
                writeln!(out, "{} {:?} redo {}", checkpoint.lsn, checkpoint.kind, checkpoint.redo)
            }
            Event::Switch { lsn } => writeln!(out, "{lsn} switch"),
        }
        .unwrap();
    }
    out
}

#[test]
fn a_segment_of_15_reads_as_pg_waldump_reads_it() {
    assert_eq!(
        lines(segment(SEGMENT_15, PgVersion::V15)),
        "\
0/A00070 Commit 743 08:45:26.525487
0/A00098 restore point before drop ends 0/A00100
0/A00180 Commit 744 08:45:26.545423
0/A001F0 Abort 746 08:45:26.554961
0/A016E0 CommitPrepared 747 08:45:26.582695
0/A01888 AbortPrepared 749 08:45:26.592459
0/A02478 CommitPrepared 750 08:45:26.612152
0/A044F8 Commit 751 08:45:26.625556
0/A04520 restore point after drop ends 0/A04588
0/A045C0 Online redo 0/A04588
0/A04678 Commit 752 08:45:26.658997
0/A046A0 switch
"
    );
}

#[test]
fn a_segment_of_18_reads_as_pg_waldump_reads_it() {
    assert_eq!(
        lines(segment(SEGMENT_18, PgVersion::V18)),
        "\
0/A00070 Commit 771 08:45:27.418725
0/A00098 restore point before drop ends 0/A00100
0/A00180 Commit 772 08:45:27.427161
0/A001F0 Abort 774 08:45:27.430851
0/A01660 CommitPrepared 775 08:45:27.443445
0/A01808 AbortPrepared 777 08:45:27.447234
0/A02440 CommitPrepared 778 08:45:27.455562
0/A044C8 Commit 779 08:45:27.460672
0/A044F0 restore point after drop ends 0/A04558
0/A045B0 Online redo 0/A04558
0/A04668 Commit 780 08:45:27.476189
0/A04690 switch
"
    );
}

#[test]
fn facts_sum_up_the_segment() {
    let facts = SegmentFacts::scan(segment(SEGMENT_15, PgVersion::V15));
    assert_eq!((facts.commits, facts.aborts), (6, 2));
    assert_eq!((facts.oldest_xid, facts.newest_xid), (Some(743), Some(752)));
    assert_eq!(facts.first_xact_end.unwrap().lsn.to_string(), "0/A00070");
    assert_eq!(facts.last_xact_end.unwrap().end_lsn.to_string(), "0/A046A0");
    assert_eq!(facts.earliest_time, facts.first_xact_end.map(|end| end.time));
    assert_eq!(facts.latest_time, facts.last_xact_end.map(|end| end.time));
    assert_eq!(facts.restore_points.len(), 2);
    assert_eq!(facts.checkpoints.len(), 1);
    assert_eq!(facts.first_record_lsn.unwrap().to_string(), "0/A00028");
    assert_eq!(facts.last_record_end.unwrap().to_string(), "0/A046B8");
    assert!(facts.ends_with_switch && !facts.is_incomplete);
    assert_eq!((facts.head_continuation.as_ref(), facts.tail_fragment.as_ref()), (None, None));
    assert!(facts.may_end_xid(743) && facts.may_end_xid(748) && !facts.may_end_xid(753) && !facts.may_end_xid(742));

    let json = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<SegmentFacts>(&json).unwrap(), facts);
    assert_eq!(serde_json::to_string(&SegmentFacts::default()).unwrap(), "{}");
    assert_eq!(serde_json::from_str::<SegmentFacts>("{\"of_a_later_version\":1}").unwrap(), SegmentFacts::default());
}

/// The form in which archives have it for ever. `pg_waldump` shows the prepared transaction with these files and OIDs.
#[test]
fn a_drop_is_in_the_facts() {
    let json = "{\"events\":[{\"lsn\":\"0/A02440\",\"end_lsn\":\"0/A027C0\",\
                \"time\":\"2026-11-22T08:45:27.455562Z\",\"xid\":778,\"change\":{\"relations\":{\
                \"dropped\":{\"first\":[\"1663/5/16395\",\"1663/5/16398\"]},\
                \"relations\":{\"first\":[16395,16398]},\"names\":{\"first\":[2286520244,2403931464]},\
                \"row_types\":{\"first\":[2286520244,2403931464]}}}}]}";
    let facts = SegmentFacts::scan(segment(SEGMENT_18, PgVersion::V18)).ddl.unwrap();
    assert_eq!(serde_json::to_string(&facts).unwrap(), json);
    assert_eq!(serde_json::from_str::<DdlFacts>(json).unwrap(), facts);
}

/// Every field that facts about changes can have.
#[test]
fn facts_about_changes_stay_readable() {
    let text = include_str!("fixtures/ddl-facts.json");
    let facts: DdlFacts = serde_json::from_str(text).unwrap();
    let again: serde_json::Value = serde_json::to_value(&facts).unwrap();
    assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
    let kinds: Vec<DdlKind> = facts.events.iter().map(holdfast_pgtypes::wal::ddl::DdlEvent::kind).collect();
    assert_eq!(kinds, [DdlKind::Truncate, DdlKind::DropDatabase, DdlKind::MoveDatabase, DdlKind::DropTablespace]);
}

#[test]
fn targets_are_found_as_recovery_finds_them() {
    let segment = segment(SEGMENT_15, PgVersion::V15);
    assert_eq!(find_xact_end(segment, 744).unwrap().lsn.to_string(), "0/A00180");
    // A subtransaction is not a target; a prepared transaction is one, by its own id.
    assert_eq!(find_xact_end(segment, 745), None);
    assert_eq!(find_xact_end(segment, 747).unwrap().kind, XactEndKind::CommitPrepared);
    assert_eq!(find_xact_end(segment, 746).unwrap().kind, XactEndKind::Abort);

    let time: DateTime<Utc> = "2026-11-22T08:45:26.545423Z".parse().unwrap();
    let xid = |bound| find_first_after(segment, time, bound).unwrap().xid;
    assert_eq!(xid(TimeBound::AtOrAfter), Some(744));
    assert_eq!(xid(TimeBound::After), Some(746));
    let late = "2026-11-22T08:45:27Z".parse().unwrap();
    assert_eq!(find_first_after(segment, late, TimeBound::After), None);
}

/// A crash lost the rest of a record. The server marks the page on which it continues, and 19 has another mark.
#[test]
fn reading_continues_on_the_page_after_a_crash() {
    for (version, mark, other) in [(PgVersion::V15, 8, 4), (PgVersion::V18, 8, 4), (PgVersion::V19, 4, 8)] {
        for (flag, expected) in [(mark, &[1, 3][..]), (other, &[1]), (0, &[1])] {
            let mut writer = Writer { version, ..Writer::new(10) };
            writer.commit(1, 0);
            let lost = writer.wal.len();
            writer.record(2, 0, 1, &[0; 12_000]);
            writer.wal.truncate(lost.next_multiple_of(Writer::PAGE));
            writer.page_header(0, flag);
            writer.commit(3, 0);
            let records = segment(&writer.wal, version).records();
            let found = records.filter_map(|record| match record.event {
                Some(Event::XactEnd(end)) => end.xid,
                _ => None,
            });
            assert_eq!(found.collect::<Vec<_>>(), expected, "PostgreSQL {version}, flag {flag}");
        }
    }
}

#[test]
fn a_real_commit_between_two_segments_is_joined() {
    // The facts of two neighbouring segments of a PostgreSQL 15; `pg_waldump` shows the commit of 20812 if it gets
    // both.
    let text = include_str!("fixtures/neighbours.15.json");
    let facts: std::collections::BTreeMap<String, SegmentFacts> = serde_json::from_str(text).unwrap();
    let tail = facts.get("before").unwrap().tail_fragment.as_ref().unwrap();
    let head = facts.get("after").unwrap().head_continuation.as_ref().unwrap();
    let joined = SegmentFacts::join(tail, head, PgVersion::V15);
    let end = joined.first_xact_end.unwrap();
    assert_eq!((end.lsn.to_string().as_str(), end.xid, end.kind), ("0/FFFD10", Some(20812), XactEndKind::Commit));
    assert_eq!(end.time, "2026-11-22T08:45:26.889791Z".parse::<DateTime<Utc>>().unwrap());
    assert_eq!((joined.commits, joined.aborts), (1, 0));

    let mut damaged = tail.clone();
    *damaged.bytes.last_mut().unwrap() ^= 1;
    assert_eq!(SegmentFacts::join(&damaged, head, PgVersion::V15), SegmentFacts::default());
    let other = HeadContinuation { remaining: head.remaining + 8, ..head.clone() };
    assert_eq!(join(tail, &other, PgVersion::V15), None);
    let overflow = TailFragment { in_segment: u32::MAX, ..tail.clone() };
    assert_eq!(join(&overflow, head, PgVersion::V15), None);
}

/// Writes records over pages as PostgreSQL does, from the beginning of a segment on.
struct Writer {
    version: PgVersion,
    wal: Vec<u8>,
    start: u64,
    previous: u64,
}

impl Writer {
    const PAGE: usize = 8192;

    fn new(segment_number: u64) -> Self {
        let start = segment_number << 20;
        Self { version: PgVersion::V15, wal: Vec::new(), start, previous: start - 8 }
    }

    fn page_header(&mut self, remaining: usize, flags: u16) {
        let first = self.wal.len().is_multiple_of(1 << 20);
        let info = flags | u16::from(first) << 1 | u16::from(remaining > 0);
        let lsn = self.start + self.wal.len() as u64;
        self.wal.extend(self.version.wal_page_magic().to_le_bytes());
        self.wal.extend(info.to_le_bytes());
        self.wal.extend(1_u32.to_le_bytes());
        self.wal.extend(lsn.to_le_bytes());
        self.wal.extend((remaining as u64).to_le_bytes());
        if first {
            self.wal.extend(7_u64.to_le_bytes());
            self.wal.extend((1_u32 << 20).to_le_bytes());
            self.wal.extend(8192_u32.to_le_bytes());
        }
    }

    fn raw(&mut self, record: &[u8]) -> Lsn {
        if self.wal.len().is_multiple_of(Self::PAGE) {
            self.page_header(0, 0);
        }
        let lsn = self.start + self.wal.len() as u64;
        self.previous = lsn;
        let mut rest = record;
        loop {
            let room = Self::PAGE - self.wal.len() % Self::PAGE;
            let (now, later) = rest.split_at(rest.len().min(room));
            self.wal.extend_from_slice(now);
            rest = later;
            if rest.is_empty() {
                break;
            }
            self.page_header(rest.len(), 0);
        }
        self.wal.resize(self.wal.len().next_multiple_of(8), 0);
        Lsn::new(lsn)
    }

    fn record(&mut self, xid: u32, info: u8, manager: u8, main_data: &[u8]) -> Lsn {
        let mut body = vec![254];
        body.extend((main_data.len() as u32).to_le_bytes());
        body.extend_from_slice(main_data);
        let mut head = Vec::new();
        head.extend((24 + body.len() as u32).to_le_bytes());
        head.extend(xid.to_le_bytes());
        head.extend(self.previous.to_le_bytes());
        head.extend([info, manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&body), &head);
        head.extend(crc.to_le_bytes());
        head.extend(body);
        self.raw(&head)
    }

    /// A commit with `more` bytes after its time.
    fn commit(&mut self, xid: u32, more: usize) -> Lsn {
        let mut data = (i64::from(xid) * 1_000_000).to_le_bytes().to_vec();
        data.resize(8 + more, 0);
        self.record(xid, 0, 1, &data)
    }

    /// Records that are not reported, one for each page, until `left` bytes of the segment are left.
    fn fill(&mut self, left: usize) {
        let target = (1 << 20) - left;
        while self.wal.len() < target {
            if self.wal.len().is_multiple_of(Self::PAGE) {
                self.page_header(0, 0);
            }
            let on_page = Self::PAGE - self.wal.len() % Self::PAGE;
            let size = on_page.min(target - self.wal.len());
            // A record cannot be this short, so it continues a little into the next page.
            let size = if size < 32 { size + 64 } else { size };
            self.record(0, 0, 10, &vec![0; size - 29]);
        }
        assert_eq!(self.wal.len(), target);
    }

    fn segment(&self, number: u64, index: usize) -> (SegmentName, &[u8]) {
        let name = SegmentName::from_number(number + index as u64, TimelineId::FIRST, megabyte()).unwrap();
        (name, self.wal.chunks(1 << 20).nth(index).unwrap())
    }

    fn facts(&self, number: u64, index: usize) -> SegmentFacts {
        let (name, bytes) = self.segment(number, index);
        SegmentFacts::scan(WalSegment { bytes, name, size: megabyte(), version: PgVersion::V15 })
    }
}

fn microseconds(xid: u32) -> DateTime<Utc> {
    DateTime::from_timestamp(946_684_800 + i64::from(xid), 0).unwrap()
}

#[test]
fn a_record_may_cross_the_boundary_at_every_place() {
    // From only the length on this side of the boundary, to all but the last word of the record.
    for left in (8..=64).step_by(8).chain([1000, 1024, 1032, 2000, 2992]) {
        for more in [0, 3000] {
            let mut writer = Writer::new(3);
            writer.commit(10, 0);
            writer.fill(left);
            let lsn = writer.commit(11, more);
            writer.commit(12, 0);
            // This always reaches the second segment.
            writer.record(0, 0, 10, &[0; 4000]);
            let (first, second) = (writer.facts(3, 0), writer.facts(3, 1));
            let case = format!("{left} bytes left, {more} more");
            assert_eq!(first.first_xact_end.unwrap().xid, Some(10), "{case}");
            assert!(!first.is_incomplete, "{case}");
            let crosses = left < 24 + 5 + 8 + more;
            let joined = match (&first.tail_fragment, &second.head_continuation) {
                (Some(tail), Some(head)) => SegmentFacts::join(tail, head, PgVersion::V15),
                _ => SegmentFacts::default(),
            };
            assert_eq!(first.commits + joined.commits + second.commits, 3, "{case}");
            if crosses {
                let end = joined.first_xact_end.unwrap();
                assert_eq!((end.lsn, end.xid, end.time), (lsn, Some(11), microseconds(11)), "{case}");
                assert_eq!(Some(end.end_lsn), second.head_continuation.unwrap().end_lsn, "{case}");
            } else if let Some(end) = joined.first_xact_end {
                assert_eq!(end.xid, Some(12), "{case}");
            }
        }
    }
}

#[test]
fn long_records_are_followed_over_pages_and_segments() {
    let mut writer = Writer::new(3);
    writer.commit(10, 30_000);
    writer.record(0, 0, 10, &vec![7; 3 << 20]);
    writer.commit(11, 0);
    let first = writer.facts(3, 0);
    assert_eq!(first.commits, 1);
    assert_eq!(first.tail_fragment, None, "this record is not reported");
    let middle = writer.facts(3, 1);
    assert_eq!((middle.first_record_lsn, middle.is_incomplete), (None, false));
    assert_eq!(middle.head_continuation.unwrap().end_lsn, None);
    let last = writer.facts(3, 3);
    assert_eq!((last.commits, last.is_incomplete), (1, true));
}

#[test]
fn every_crc_is_checked_if_that_is_asked_for() {
    for (bytes, version) in [(SEGMENT_15, PgVersion::V15), (SEGMENT_18, PgVersion::V18)] {
        let whole = segment(bytes, version);
        let places = |records: &mut dyn Iterator<Item = holdfast_pgtypes::wal::reader::PassedRecord>| {
            records.map(|record| (record.lsn, record.end_lsn, record.previous)).collect::<Vec<_>>()
        };
        let found = places(&mut whole.records_with_every_crc());
        assert_eq!(found, places(&mut whole.records()));
        // A bit of a record that nobody reports.
        let quiet = whole.records().skip(1).find(|record| record.event.is_none() && record.ddl.is_none()).unwrap();
        let at = usize::try_from(quiet.lsn.as_u64() - whole.name.start_lsn(megabyte()).as_u64()).unwrap() + 26;
        let mut changed = bytes.to_vec();
        *changed.get_mut(at).unwrap() ^= 1;
        let changed = segment(&changed, version);
        assert_eq!(changed.records().count(), found.len());
        let mut records = changed.records_with_every_crc();
        // The reader ends before the record.
        let passed = records.by_ref().count();
        assert_eq!(found.get(passed).unwrap().0, quiet.lsn);
        assert_eq!(records.end(), Some(ReadEnd::Stopped));
    }
}

#[test]
fn the_parts_of_a_record_in_four_segments_have_its_crc() {
    let mut writer = Writer::new(3);
    writer.commit(10, 30_000);
    writer.record(0, 0, 10, &vec![7; 3 << 20]);
    writer.commit(11, 0);
    let parts = |writer: &Writer| {
        let part = |index| {
            let (name, bytes) = writer.segment(3, index);
            let segment = WalSegment { bytes, name, size: megabyte(), version: PgVersion::V15 };
            let mut records = segment.records_with_every_crc();
            records.by_ref().for_each(drop);
            records.tail_part().or(records.head_part()).unwrap().clone()
        };
        (0..4).map(part).collect::<Vec<_>>()
    };
    let found = parts(&writer);
    assert!(parts_make_a_record(&found));
    assert!(!parts_make_a_record(found.get(1..).unwrap()) && !parts_make_a_record(found.get(..3).unwrap()));
    *writer.wal.get_mut((2 << 20) + 5000).unwrap() ^= 1;
    assert!(!parts_make_a_record(&parts(&writer)));
}

#[test]
fn the_record_that_begins_a_timeline_names_both() {
    for (info, expected) in [(0x00, Some((2, 1))), (0x90, Some((2, 1))), (0x10, None), (0x80, None)] {
        let mut writer = Writer::new(3);
        let mut data = 5_u64.to_le_bytes().to_vec();
        data.extend([2_u32, 1, 0, 0].into_iter().flat_map(u32::to_le_bytes));
        writer.record(0, info, 0, &data);
        let (name, bytes) = writer.segment(3, 0);
        let segment = WalSegment { bytes, name, size: megabyte(), version: PgVersion::V15 };
        let found = segment.records_with_every_crc().next().unwrap().timeline_start;
        assert_eq!(found.map(|start| (start.timeline, start.previous)), expected, "{info:02X}");
    }
}

/// The main data of a commit that drops files with these numbers, each of a relation whose definition changed.
fn dropping(numbers: std::ops::Range<u32>) -> Vec<u8> {
    let mut data = 1_000_000_i64.to_le_bytes().to_vec();
    // XACT_XINFO_HAS_RELFILELOCATORS and XACT_XINFO_HAS_INVALS
    data.extend(0b1100_u32.to_le_bytes());
    data.extend((numbers.len() as u32).to_le_bytes());
    for number in numbers.clone() {
        data.extend([1663, 5, number].into_iter().flat_map(u32::to_le_bytes));
    }
    data.extend((numbers.len() as u32).to_le_bytes());
    for number in numbers {
        // SHAREDINVALRELCACHE_ID
        data.extend([0xFE, 0, 0, 0, 5, 0, 0, 0]);
        data.extend(number.to_le_bytes());
        data.extend([0; 4]);
    }
    data
}

/// `XLOG_XACT_COMMIT` with `XLOG_XACT_HAS_INFO`
const COMMIT_WITH_INFO: u8 = 0x80;

#[test]
fn a_commit_that_drops_a_hundred_thousand_files_has_short_facts() {
    let mut writer = Writer::new(3);
    let lsn = writer.record(10, COMMIT_WITH_INFO, 1, &dropping(20_000..120_000));
    writer.commit(11, 0);
    // It fills two segments and ends in the third.
    let facts: Vec<SegmentFacts> = (0..3).map(|index| writer.facts(3, index)).collect();
    assert!(facts.iter().all(|facts| facts.ddl.as_ref().unwrap().events.is_empty()));
    let heads = facts.iter().skip(1).map(|facts| facts.head_continuation.as_ref().unwrap());
    let begun = CrossingRecord::begin(facts[0].tail_fragment.as_ref().unwrap());
    let cut = heads.fold(begun, |record, head| record.continue_with(head).unwrap());
    assert!(cut.has_ended() && !cut.is_whole());
    let Some((DdlRecord::XactEnd(effects), _)) = cut.ddl(PgVersion::V15) else { panic!("{cut:?}") };
    assert!(effects.is_cut && effects.dropped_count == 100_000 && effects.dropped.len() < 100);

    let whole: Vec<SegmentFacts> = (0..3)
        .map(|index| {
            let (name, bytes) = writer.segment(3, index);
            let segment = WalSegment { bytes, name, size: megabyte(), version: PgVersion::V15 };
            SegmentFacts::scan_whole(segment, Lsn::MAX)
        })
        .collect();
    let begun = CrossingRecord::begin(whole[0].tail_fragment.as_ref().unwrap());
    let heads = whole.iter().skip(1).map(|facts| facts.head_continuation.as_ref().unwrap());
    let record = heads.fold(begun, |record, head| record.continue_with(head).unwrap());
    assert!(record.is_whole());
    let (ddl, end_lsn) = record.ddl(PgVersion::V15).unwrap();
    let mut events = Vec::new();
    DdlTracker::default().add(lsn, end_lsn, ddl, &mut events);
    let facts = DdlTracker::default().into_facts(events);
    let DdlChange::Relations(changes) = &facts.events[0].change else { panic!("{facts:?}") };
    assert_eq!((changes.dropped.count(), changes.relations.count()), (100_000, 100_000));
    assert_eq!((facts.events[0].lsn, facts.events[0].kind(), changes.is_partial()), (lsn, DdlKind::Drop, false));
    let facts = facts.bounded();
    let DdlChange::Relations(changes) = &facts.events[0].change else { panic!("{facts:?}") };
    assert_eq!((changes.dropped.count(), changes.dropped.first.len(), changes.is_partial()), (100_000, 32, true));
    assert!(serde_json::to_string(&facts).unwrap().len() < 4096);
}

#[test]
fn facts_of_a_segment_full_of_drops_stay_short() {
    let mut writer = Writer::new(3);
    let mut xid = 10;
    while writer.wal.len() < (1 << 20) - 8192 {
        writer.record(xid, COMMIT_WITH_INFO, 1, &dropping(20_000..20_040));
        // Files of transactions that do not end here.
        writer.record(1_000_000 + xid, 0x10, 2, &[1; 16]);
        xid += 1;
    }
    let facts = writer.facts(3, 0).ddl.unwrap();
    assert_eq!((facts.events.len(), facts.open.len()), (128, 128));
    assert_eq!(facts.left_out, 2 * u64::from(xid - 10 - 128));
    assert!(serde_json::to_string(&facts).unwrap().len() < 512 << 10);
}

#[test]
fn a_lost_rest_of_a_record_is_passed() {
    let mut writer = Writer::new(3);
    writer.commit(10, 0);
    // A record whose second page was never written: the server puts XLOG_OVERWRITE_CONTRECORD there after the crash.
    writer.record(0, 0, 10, &vec![0; 10_000]);
    writer.wal.truncate(Writer::PAGE);
    writer.page_header(0, 8);
    writer.record(0, 0xD0, 0, &[0; 16]);
    writer.commit(11, 0);
    let facts = writer.facts(3, 0);
    assert_eq!((facts.commits, facts.newest_xid), (2, Some(11)));
}

#[test]
fn reading_ends_quietly_where_the_wal_ends() {
    let ends = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut writer = Writer::new(3);
        writer.commit(10, 0);
        writer.commit(11, 9000);
        writer.commit(12, 0);
        writer.wal.resize(1 << 20, 0);
        change(&mut writer.wal);
        let facts = writer.facts(3, 0);
        (facts.commits, facts.is_incomplete)
    };
    let set = |offset: usize, byte: u8| move |wal: &mut Vec<u8>| *wal.get_mut(offset).unwrap() = byte;
    assert_eq!(ends(&|_| ()), (3, true), "zeros after the records");
    assert_eq!(ends(&|wal| wal.truncate(9000)), (1, true), "cut");
    assert_eq!(ends(&set(0, 0)), (0, true), "no magic");
    assert_eq!(ends(&set(36, 1)), (0, true), "no block size");
    assert_eq!(ends(&set(8192 + 12, 9)), (1, true), "the second page is of a recycled segment");
    assert_eq!(ends(&set(8192 + 16, 1)), (1, true), "another length is still to come");
    assert_eq!(ends(&set(40 + 24 + 6, 1)), (0, true), "the first record's CRC does not hold");
    assert_eq!(ends(&set(80 + 8, 1)), (1, true), "the second record follows another one");
    assert_eq!(ends(&set(80, 23)), (1, true), "a record shorter than its header");
}

#[test]
fn a_reader_says_why_it_ended() {
    let mut records = segment(SEGMENT_15, PgVersion::V15).records();
    assert_eq!(records.end(), None);
    records.by_ref().for_each(drop);
    assert_eq!(records.end(), Some(ReadEnd::Switch));
    let mut records = segment(SEGMENT_15, PgVersion::V14).records();
    assert_eq!((records.next(), records.end()), (None, Some(ReadEnd::Stopped)));
}

#[test]
fn transaction_ids_wrap_around() {
    assert!(xid_precedes(1, 2) && !xid_precedes(2, 1) && !xid_precedes(2, 2));
    assert!(xid_precedes(u32::MAX, 3));
    let mut writer = Writer::new(3);
    writer.commit(u32::MAX - 1, 0);
    writer.commit(5, 0);
    let facts = writer.facts(3, 0);
    assert_eq!((facts.oldest_xid, facts.newest_xid), (Some(u32::MAX - 1), Some(5)));
    assert!(facts.may_end_xid(u32::MAX) && facts.may_end_xid(4) && !facts.may_end_xid(6));
}

proptest! {
    #[test]
    fn damaged_segments_never_panic(changes in proptest::collection::vec((0..24_576_usize, any::<u8>()), 1..40), cut in 0..24_576_usize) {
        for (bytes, version) in [(SEGMENT_15, PgVersion::V15), (SEGMENT_18, PgVersion::V18)] {
            let mut bytes = bytes.to_vec();
            for (offset, byte) in &changes {
                *bytes.get_mut(*offset).unwrap() = *byte;
            }
            let _ = SegmentFacts::scan(segment(&bytes, version));
            bytes.truncate(cut);
            let facts = SegmentFacts::scan(segment(&bytes, version));
            prop_assert!(facts.commits <= 6);
        }
    }

    #[test]
    fn sealed_nonsense_never_panics(
        info: u8, manager in 0_u8..12, xid: u32, data in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut writer = Writer::new(3);
        writer.record(xid, info, manager, &data);
        writer.commit(11, 0);
        let _ = writer.facts(3, 0);
    }

    #[test]
    fn any_pieces_join_without_panic(
        lsn: u64, total_length: u32, in_segment: u32, remaining: u32,
        bytes in proptest::collection::vec(any::<u8>(), 0..100), rest in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let tail = TailFragment { lsn: Lsn::new(lsn), total_length, in_segment, bytes };
        let head = HeadContinuation { remaining, end_lsn: Some(Lsn::MAX), bytes: rest };
        let _ = SegmentFacts::join(&tail, &head, PgVersion::V16);
        let head = HeadContinuation { remaining: total_length.saturating_sub(in_segment), ..head };
        let _ = SegmentFacts::join(&tail, &head, PgVersion::V18);
    }
}
