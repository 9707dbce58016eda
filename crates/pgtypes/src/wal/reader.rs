//! `RecordReader`: follows the records of one segment over its pages.
//!
//! A record begins at a multiple of eight bytes, anywhere on a page. If it does not fit, it continues after the header
//! of the next page, and that header contains how many bytes are still to come (`xlogreader.c` is the model). The
//! reader begins after the rest of the record that the segment before left unfinished. It ends at the first thing that
//! does not fit: a page that is zero or has another address (the old contents of a recycled segment), a length below a
//! header's, a link to another previous record, a wrong CRC. The unused end of a segment looks like that, so it is no
//! error.
//!
//! Records that no caller needs are skipped by their length. The reader looks at the bytes and the CRC only of the
//! records that `RecordHeader::is_of_interest` and `RecordHeader::may_tell_of_ddl` select. With
//! [`WalSegment::records_with_every_crc`] it checks the CRC of every record, as PostgreSQL does when it replays.

use crate::bytes::u32_at;
use crate::lsn::Lsn;
use crate::segment::{SegmentName, WalSegmentSize};
use crate::version::PgVersion;
use crate::wal::ddl_record::DdlRecord;
use crate::wal::join::{HeadContinuation, JOIN_BYTES, TailFragment};
use crate::wal::page::WalPageHeader;
use crate::wal::record::{Event, RECORD_HEADER_SIZE, RecordHeader, TimelineStart, crc_holds};
use crate::wal::record_part::RecordPart;

/// The bytes of a WAL segment and their expected identity. The bytes may be fewer than the segment's size.
#[derive(Debug, Clone, Copy)]
pub struct WalSegment<'a> {
    /// The file's contents.
    pub bytes: &'a [u8],
    /// The file's name.
    pub name: SegmentName,
    /// The cluster's segment size.
    pub size: WalSegmentSize,
    /// The cluster's major.
    pub version: PgVersion,
}

impl<'a> WalSegment<'a> {
    /// Begins to read the segment's records.
    pub fn records(self) -> RecordReader<'a> {
        RecordReader::new(self, JOIN_BYTES, Checked::Reported)
    }

    /// The same, but the CRC of every record is checked, and the parts of records that cross a boundary of the segment
    /// are known by their CRCs.
    pub fn records_with_every_crc(self) -> RecordReader<'a> {
        RecordReader::new(self, JOIN_BYTES, Checked::Every)
    }

    /// The same, but the records at the segment's boundaries are kept whole. They can have 1 GiB each.
    pub fn records_with_whole_ends(self) -> RecordReader<'a> {
        RecordReader::new(self, usize::MAX, Checked::Reported)
    }

    /// The header of the page at this offset, if the page belongs to this segment.
    fn page(&self, offset: usize) -> Option<WalPageHeader> {
        let header = WalPageHeader::parse(self.bytes.get(offset..)?)?;
        let valid = header.magic == self.version.wal_page_magic()
            && header.has_known_flags()
            && header.long.is_some() == (offset == 0)
            && header.page_lsn == self.lsn(offset)
            && header.timeline != 0
            && header.timeline <= self.name.timeline().get();
        valid.then_some(header)
    }

    fn lsn(&self, offset: usize) -> Lsn {
        self.name.start_lsn(self.size).saturating_add(offset as u64)
    }
}

/// The records whose bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    /// Those that are reported.
    Reported,
    Every,
}

/// Why a reader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadEnd {
    /// The records fill the segment.
    Whole,
    /// The segment was ended early; everything after that is unused.
    Switch,
    /// The next bytes are not WAL, or the bytes end.
    Stopped,
}

/// A record that the reader has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedRecord {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where the next record begins, or the page on which it begins.
    pub end_lsn: Lsn,
    /// The content of the record, if it is one that is reported.
    pub event: Option<Event>,
    /// What the record tells about DDL. The end of a transaction is an event as well.
    pub ddl: Option<DdlRecord>,
    /// Where the record before it begins, as it says.
    pub previous: Lsn,
    /// The timelines that it names, if it may begin one. Known only if the CRC of every record is checked.
    pub timeline_start: Option<TimelineStart>,
}

/// Reads the records of a segment, first to last.
#[derive(Debug, Clone)]
pub struct RecordReader<'a> {
    segment: WalSegment<'a>,
    block_size: usize,
    /// The number of bytes that are kept of a record on each side of a segment boundary.
    keep: usize,
    checked: Checked,
    /// Offset of the next record, or of the page it is on.
    at: usize,
    /// Where the last record began.
    previous: Option<Lsn>,
    head: Option<HeadContinuation>,
    tail: Option<TailFragment>,
    head_part: Option<RecordPart>,
    tail_part: Option<RecordPart>,
    end: Option<ReadEnd>,
}

/// How following a record's bytes ended.
enum Walk {
    /// All bytes exist; the next record is at this offset.
    Complete { next: usize },
    /// The segment ends after this many of the bytes.
    SegmentEnd { taken: usize },
    /// A crash lost the rest; the WAL continues at this offset with other records.
    Overwritten { next: usize },
    /// The next bytes are not the rest of the record.
    Broken,
}

impl<'a> RecordReader<'a> {
    fn new(segment: WalSegment<'a>, keep: usize, checked: Checked) -> Self {
        let mut reader = Self {
            segment,
            block_size: 0,
            keep,
            checked,
            at: 0,
            previous: None,
            head: None,
            tail: None,
            head_part: None,
            tail_part: None,
            end: None,
        };
        if reader.open().is_none() {
            reader.end = Some(ReadEnd::Stopped);
        }
        reader
    }

    /// Reads the first page's header and skips the rest of the record from the segment before.
    fn open(&mut self) -> Option<()> {
        let first = self.segment.page(0)?;
        let block_size = first.long?.block_size;
        // XLOG_BLCKSZ can be 1 to 64 kB.
        if !block_size.is_power_of_two() || !(1 << 10..=1 << 16).contains(&block_size) {
            return None;
        }
        self.block_size = block_size as usize;
        if !first.is_continuation() {
            return Some(());
        }
        let remaining = Some(first.remaining).filter(|remaining| *remaining != 0)?;
        let mut bytes = Vec::new();
        let keep = if self.checked == Checked::Every { usize::MAX } else { self.keep };
        let walked = self.walk(first.size(), remaining as usize, &mut bytes, keep);
        if self.checked == Checked::Every && matches!(walked, Walk::Complete { .. } | Walk::SegmentEnd { .. }) {
            self.head_part = Some(RecordPart::of(&bytes));
            bytes.truncate(self.keep);
        }
        match walked {
            Walk::Complete { next } => {
                self.at = next;
                self.head = Some(HeadContinuation { remaining, end_lsn: Some(self.segment.lsn(next)), bytes });
            }
            Walk::SegmentEnd { .. } => {
                self.end = Some(ReadEnd::Whole);
                self.head = Some(HeadContinuation { remaining, end_lsn: None, bytes });
            }
            Walk::Overwritten { next } => self.at = next,
            Walk::Broken => return None,
        }
        Some(())
    }

    /// The rest of the record that the segment before began.
    pub const fn head(&self) -> Option<&HeadContinuation> {
        self.head.as_ref()
    }

    /// The beginning of the record that ends in the segment after this one. Known once the reader has ended, and kept
    /// only if the record may be one that is reported.
    pub const fn tail(&self) -> Option<&TailFragment> {
        self.tail.as_ref()
    }

    /// The same bytes as [`Self::head`], for the CRC of the record. Known only if the CRC of every record is checked.
    pub const fn head_part(&self) -> Option<&RecordPart> {
        self.head_part.as_ref()
    }

    /// The same bytes as [`Self::tail`], for the CRC of the record. Known once the reader has ended, and only if the
    /// CRC of every record is checked.
    pub const fn tail_part(&self) -> Option<&RecordPart> {
        self.tail_part.as_ref()
    }

    /// Why the reader ended; `None` before it has.
    pub const fn end(&self) -> Option<ReadEnd> {
        self.end
    }

    fn segment_bytes(&self) -> usize {
        self.segment.size.bytes() as usize
    }

    /// Follows `length` bytes of a record from the offset `at`, keeping up to `keep` of them.
    fn walk(&self, mut at: usize, length: usize, kept: &mut Vec<u8>, keep: usize) -> Walk {
        let mut remaining = length;
        loop {
            let page_end = (at / self.block_size + 1) * self.block_size;
            let take = remaining.min(page_end - at);
            let Some(bytes) = self.segment.bytes.get(at..at + take) else {
                return Walk::Broken;
            };
            let missing = keep.saturating_sub(kept.len());
            kept.extend_from_slice(bytes.get(..missing).unwrap_or(bytes));
            remaining -= take;
            at += take;
            if remaining == 0 {
                return Walk::Complete { next: at.next_multiple_of(8) };
            }
            if at >= self.segment_bytes() {
                return Walk::SegmentEnd { taken: length - remaining };
            }
            let Some(page) = self.segment.page(at) else {
                return Walk::Broken;
            };
            if page.is_overwrite() && !page.is_continuation() {
                return Walk::Overwritten { next: at };
            }
            if !page.is_continuation() || page.remaining as usize != remaining {
                return Walk::Broken;
            }
            at += page.size();
        }
    }

    /// The next record; `None` if there is no other, and `end` then has the reason.
    fn advance(&mut self) -> Option<PassedRecord> {
        loop {
            if self.end.is_some() {
                return None;
            }
            if self.at >= self.segment_bytes() {
                self.end = Some(ReadEnd::Whole);
                return None;
            }
            match self.read_one() {
                Some(Ok(record)) => return Some(record),
                Some(Err(Interrupted)) => {}
                None => self.end = Some(self.end.unwrap_or(ReadEnd::Stopped)),
            }
        }
    }

    /// Reads the record at `at` and moves past it. `None` if there is none.
    fn read_one(&mut self) -> Option<Result<PassedRecord, Interrupted>> {
        let mut at = self.at;
        if at.is_multiple_of(self.block_size) {
            let page = self.segment.page(at)?;
            // At the segment's beginning `open` has skipped the continuation.
            if page.is_continuation() {
                return None;
            }
            at += page.size();
        }
        let lsn = self.segment.lsn(at);
        // Records begin at multiples of eight bytes, so the length field is never split over pages.
        let total_length = u32_at(self.segment.bytes, at)?;
        let length = total_length as usize;
        if length < RECORD_HEADER_SIZE {
            return None;
        }

        let page_end = (at / self.block_size + 1) * self.block_size;
        if at + RECORD_HEADER_SIZE <= page_end {
            let header = RecordHeader::parse(self.segment.bytes.get(at..)?)?;
            if !self.follows(&header, lsn) {
                return None;
            }
            // The common case: a whole record on one page, or one that is only skipped.
            if at + length <= page_end {
                let bytes = self.segment.bytes.get(at..at + length)?;
                let next = (at + length).next_multiple_of(8);
                return self.passed(lsn, &header, bytes, next).map(Ok);
            }
        }

        let mut kept = Vec::new();
        let keep = match RecordHeader::parse(self.segment.bytes.get(at..page_end).unwrap_or_default()) {
            Some(header) if !self.is_read(&header) => RECORD_HEADER_SIZE,
            _ => length,
        };
        match self.walk(at, length, &mut kept, keep) {
            Walk::Complete { next } => {
                let header = RecordHeader::parse(&kept)?;
                if !self.follows(&header, lsn) {
                    return None;
                }
                self.passed(lsn, &header, &kept, next).map(Ok)
            }
            Walk::SegmentEnd { taken } => {
                self.end = Some(ReadEnd::Whole);
                if self.checked == Checked::Every {
                    self.tail_part = Some(RecordPart::of(&kept));
                }
                kept.truncate(self.keep);
                if RecordHeader::parse(&kept).is_none_or(|header| self.is_read(&header)) {
                    self.tail = Some(TailFragment { lsn, total_length, in_segment: taken as u32, bytes: kept });
                }
                None
            }
            Walk::Overwritten { next } => {
                self.at = next;
                self.previous = None;
                Some(Err(Interrupted))
            }
            Walk::Broken => None,
        }
    }

    /// Whether the bytes of a record are needed, and not only its length.
    fn is_read(&self, header: &RecordHeader) -> bool {
        self.checked == Checked::Every || is_reported(header)
    }

    /// Whether the header of the record at `lsn` links to the record before.
    fn follows(&self, header: &RecordHeader, lsn: Lsn) -> bool {
        self.previous.map_or(header.previous < lsn, |previous| header.previous == previous)
    }

    fn passed(&mut self, lsn: Lsn, header: &RecordHeader, bytes: &[u8], next: usize) -> Option<PassedRecord> {
        let end_lsn = self.segment.lsn(next);
        let (mut event, mut ddl) = (None, None);
        if self.is_read(header) && !crc_holds(bytes) {
            return None;
        }
        if is_reported(header) {
            event = Event::read(bytes, lsn, end_lsn, self.segment.version);
            ddl = DdlRecord::read(bytes, self.segment.version);
        }
        let timeline_start = if self.checked == Checked::Every { TimelineStart::read(bytes) } else { None };
        self.at = next;
        self.previous = Some(lsn);
        if header.is_switch() {
            self.end = Some(ReadEnd::Switch);
        }
        Some(PassedRecord { lsn, end_lsn, event, ddl, previous: header.previous, timeline_start })
    }
}

/// Whether a record may be one whose content is reported.
const fn is_reported(header: &RecordHeader) -> bool {
    header.is_of_interest() || header.may_tell_of_ddl()
}

/// A record was lost in a crash; reading continues after it.
struct Interrupted;

impl Iterator for RecordReader<'_> {
    type Item = PassedRecord;

    fn next(&mut self) -> Option<PassedRecord> {
        self.advance()
    }
}
