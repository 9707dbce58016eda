//! Invented WAL that PostgreSQL's rules accept: pages, records that cross them, links and checksums.

use holdfast_pgtypes::{Lsn, PgVersion, SegmentName, SystemIdentifier, TimelineId, WalSegmentSize};

const PAGE: u64 = 8192;

/// 2000-01-01 in microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;

/// A server's WAL, written record by record.
#[derive(Clone)]
pub(super) struct Writer {
    size: WalSegmentSize,
    system: SystemIdentifier,
    timeline: TimelineId,
    /// The LSN of the first byte in `bytes`.
    start: u64,
    bytes: Vec<u8>,
    previous: u64,
    /// Makes the records of two servers different.
    salt: u64,
    records: u64,
}

impl Writer {
    /// Begins with the segment of this number, on timeline 1.
    pub(super) fn new(first: u64, size: WalSegmentSize, system: SystemIdentifier) -> Self {
        let start = first * size.as_u64();
        let (timeline, bytes) = (TimelineId::FIRST, Vec::new());
        Self { size, system, timeline, start, bytes, previous: start - 8, salt: 0, records: 0 }
    }

    /// Continues with other records.
    pub(super) fn diverge(&mut self, salt: u64) {
        self.salt = salt;
    }

    /// Continues on another timeline.
    pub(super) fn promote(&mut self, timeline: u32) {
        let parent = self.timeline.get();
        self.timeline = TimelineId::new(timeline).unwrap();
        self.salt = u64::from(timeline);
        // XLOG_END_OF_RECOVERY: a time, and both timelines.
        self.page_header_if_due(0);
        let lsn = self.lsn().as_u64();
        let data = [&[255, 16][..], &[0; 8], &timeline.to_le_bytes(), &parent.to_le_bytes()].concat();
        self.write(0, 0x90, &data);
        self.previous = lsn;
    }

    /// Where the next record begins, or the page that it is on.
    pub(super) fn lsn(&self) -> Lsn {
        Lsn::new(self.start + self.bytes.len() as u64)
    }

    /// Writes records until the WAL is past this segment's middle.
    pub(super) fn write_half_of(&mut self, number: u64) {
        while self.lsn().as_u64() <= number * self.size.as_u64() + self.size.as_u64() / 2 {
            self.record();
        }
    }

    /// Writes records until the WAL is past the beginning of the segment of this number.
    pub(super) fn write_into(&mut self, number: u64) {
        while self.lsn().as_u64() <= number * self.size.as_u64() + 3 * PAGE {
            self.record();
        }
    }

    /// The segment of this number: zeros where nothing is written yet.
    pub(super) fn segment(&self, number: u64) -> Vec<u8> {
        let from = usize::try_from(number * self.size.as_u64() - self.start).unwrap();
        let mut bytes = self.bytes.get(from..).unwrap_or_default().to_vec();
        bytes.resize(self.size.bytes() as usize, 0);
        bytes
    }

    /// The name of a segment on the present timeline.
    pub(super) fn name(&self, number: u64) -> SegmentName {
        SegmentName::from_number(number, self.timeline, self.size).unwrap()
    }

    /// Ends the segment early, as `pg_switch_wal` does.
    pub(super) fn switch(&mut self) {
        self.page_header_if_due(0);
        let lsn = self.lsn().as_u64();
        self.write(0, 0x40, &[]);
        self.previous = lsn;
        let size = usize::try_from(self.size.as_u64()).unwrap();
        let end = self.bytes.len().next_multiple_of(size);
        self.bytes.resize(end, 0);
    }

    /// Writes a commit that begins before the segment of this number and ends in it.
    pub(super) fn commit_into(&mut self, number: u64) {
        let boundary = number * self.size.as_u64();
        while self.lsn().as_u64() + 2 * PAGE < boundary {
            self.record();
        }
        let of_length = |length: usize| {
            let mut tried = self.clone();
            tried.page_header_if_due(0);
            let lsn = tried.lsn().as_u64();
            tried.write(10, 0, &vec![0; length]);
            tried.previous = lsn;
            (tried.lsn().as_u64() == boundary - 16).then_some(tried)
        };
        *self = (0..3 * 8192).step_by(2).find_map(of_length).unwrap();
        self.records = self.records.next_multiple_of(7) - 1;
        self.record();
    }

    /// Writes a record of no interest with `size_bytes` bytes.
    pub(super) fn long_record(&mut self, size_bytes: usize) {
        self.page_header_if_due(0);
        let lsn = self.lsn().as_u64();
        self.write(10, 0, &vec![7; size_bytes]);
        self.previous = lsn;
    }

    /// A commit, or a record of no interest.
    fn record(&mut self) {
        self.records += 1;
        let is_commit = self.records.is_multiple_of(7);
        let (manager, data) = if is_commit {
            // 2026-08-01, and a second more for each record.
            let time = 1_785_542_400_000_000 - EPOCH + i64::try_from(self.records).unwrap() * 1_000_000;
            (1_u8, [&[255, 8][..], &time.to_le_bytes()].concat())
        } else {
            let length = 900 + (self.records * 37 + self.salt * 411) % 3000;
            (10, vec![self.salt as u8; length as usize])
        };
        self.page_header_if_due(0);
        let lsn = self.lsn().as_u64();
        self.write(manager, 0, &data);
        self.previous = lsn;
    }

    fn write(&mut self, manager: u8, info: u8, data: &[u8]) {
        let mut header = Vec::new();
        header.extend((24 + data.len() as u32).to_le_bytes());
        header.extend((1000 + self.records as u32).to_le_bytes());
        header.extend(self.previous.to_le_bytes());
        header.extend([info, manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(data), &header);
        header.extend(crc.to_le_bytes());
        self.put(&[&header, data].concat());
        while !self.bytes.len().is_multiple_of(8) {
            self.bytes.push(0);
        }
    }

    /// Writes the bytes of a record over as many pages as it needs.
    fn put(&mut self, record: &[u8]) {
        let mut rest = record;
        while !rest.is_empty() {
            self.page_header_if_due(if rest.len() == record.len() { 0 } else { rest.len() as u32 });
            let room = PAGE - self.bytes.len() as u64 % PAGE;
            let (now, later) = rest.split_at(rest.len().min(room as usize));
            self.bytes.extend(now);
            rest = later;
        }
    }

    fn page_header_if_due(&mut self, remaining: u32) {
        let lsn = self.lsn().as_u64();
        if !lsn.is_multiple_of(PAGE) {
            return;
        }
        let is_first = lsn.is_multiple_of(self.size.as_u64());
        let info = u16::from(remaining > 0) | if is_first { 2 } else { 0 };
        self.bytes.extend(PgVersion::V18.wal_page_magic().to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(self.timeline.get().to_le_bytes());
        self.bytes.extend(lsn.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if is_first {
            self.bytes.extend(self.system.as_u64().to_le_bytes());
            self.bytes.extend(self.size.bytes().to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }
}
