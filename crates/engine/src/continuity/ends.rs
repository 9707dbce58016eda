//! The two ends of a segment, and whether two neighbours are of one history.
//!
//! A record that begins in one segment and ends in the next shows in both. The archiver stored what it saw of such a
//! record with each segment, so two small requests are enough to compare most neighbours. With the bytes of both, the
//! link from the first record of a segment to the last one of the segment before is compared too: every record names
//! the place of its predecessor.
//!
//! One thing looks like another history and is not: after a crash the server may have lost the end of a record, and
//! marks the page on which it continued (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`). Only the bytes show that mark.

use holdfast_pgtypes::wal::join::{HeadContinuation, TailFragment};
use holdfast_pgtypes::wal::page::{LONG_HEADER_SIZE, SHORT_HEADER_SIZE, WalPageHeader};
use holdfast_pgtypes::wal::reader::{ReadEnd, WalSegment};
use holdfast_pgtypes::wal::record::{RECORD_HEADER_SIZE, RecordHeader, crc_holds};
use holdfast_pgtypes::wal::scan::SegmentFacts;
use holdfast_pgtypes::{Lsn, SegmentName, WalSegmentSize};

/// The sizes of a WAL page that PostgreSQL can be built with, in bytes.
const BLOCK_SIZES: [u64; 7] = [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

/// What is known about the two ends of a segment.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    pub(super) name: SegmentName,
    head: Option<HeadContinuation>,
    tail: Option<TailFragment>,
    has_record: bool,
    last_end: Option<Lsn>,
    is_switched: bool,
    is_unfinished: bool,
    /// Known if the bytes were read.
    links: Option<Links>,
}

/// What only the bytes show.
#[derive(Debug, Clone, Default)]
struct Links {
    /// Bytes of a record that the first page continues.
    remaining: Option<u32>,
    /// Whether the first page replaces the end of a record that was lost in a crash.
    overwrites: bool,
    /// The place that the first whole record names as that of its predecessor.
    first_previous: Option<Lsn>,
    /// Where the last record begins, even if it ends in the next segment.
    last_start: Option<Lsn>,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Joint {
    /// Nothing speaks against one history.
    Joined,
    /// The first of the two cannot be read to its end.
    Unfinished,
    /// They are of different histories, with the reason.
    Other(String),
    /// Only the bytes of the second one show it.
    NeedsBytes,
    /// The archiver did not describe one of them.
    Unknown,
}

impl Ends {
    /// From the facts that the archiver stored; `None` if it did not read the records.
    pub(super) fn of_facts(name: SegmentName, facts: &SegmentFacts) -> Option<Self> {
        let SegmentFacts { head_continuation: head, tail_fragment: tail, .. } = facts;
        if facts.first_record_lsn.is_none() && facts.last_record_end.is_none() && head.is_none() && tail.is_none() {
            return None;
        }
        Some(Self {
            name,
            head: head.clone(),
            tail: tail.clone(),
            has_record: facts.first_record_lsn.is_some(),
            last_end: facts.last_record_end,
            is_switched: facts.ends_with_switch,
            is_unfinished: facts.is_incomplete,
            links: None,
        })
    }

    /// From the bytes of the segment.
    pub(super) fn scan(segment: WalSegment<'_>) -> Self {
        let mut records = segment.records();
        let (mut first, mut last_start, mut last_end) = (None, None, None);
        for record in records.by_ref() {
            first.get_or_insert(record.lsn);
            (last_start, last_end) = (Some(record.lsn), Some(record.end_lsn));
        }
        let head = records.head().cloned();
        let last_end = last_end.or_else(|| head.as_ref().and_then(|head| head.end_lsn));
        let end = records.end();
        let mut ends = Self {
            name: segment.name,
            tail: records.tail().cloned(),
            has_record: first.is_some(),
            last_end,
            is_switched: end == Some(ReadEnd::Switch),
            is_unfinished: end == Some(ReadEnd::Stopped),
            links: None,
            head,
        };
        let page = WalPageHeader::parse(segment.bytes);
        let block = page.and_then(|page| page.long).map(|long| long.block_size as usize).filter(|block| *block > 0);
        let (Some(page), Some(block)) = (page, block) else { return ends };
        if ends.leaves_a_record(segment.size) == Some(true) {
            last_start = crossing_start(&ends, segment.size, block);
        }
        let start = segment.name.start_lsn(segment.size);
        let previous = |lsn: Lsn| {
            let at = usize::try_from(lsn.as_u64().checked_sub(start.as_u64())?).ok()?;
            let is_on_one_page = at % block + RECORD_HEADER_SIZE <= block;
            let header = segment.bytes.get(at..).filter(|_| is_on_one_page)?;
            RecordHeader::parse(header).map(|header| header.previous)
        };
        ends.links = Some(Links {
            remaining: page.is_continuation().then_some(page.remaining),
            overwrites: page.is_overwrite() && !page.is_continuation(),
            first_previous: first.and_then(previous),
            last_start,
        });
        ends
    }

    /// Whether PostgreSQL cannot read it to its end.
    pub(super) fn is_unfinished(&self) -> bool {
        self.is_unfinished
    }

    /// Whether the last record ends in the next segment; `None` if that is not known.
    pub(super) fn leaves_a_record(&self, size: WalSegmentSize) -> Option<bool> {
        if self.is_switched || self.is_unfinished {
            return Some(false);
        }
        if self.tail.is_some() {
            return Some(true);
        }
        match (&self.head, self.last_end) {
            (_, Some(end)) => Some(end < self.name.end_lsn(size)),
            // One record that is longer than the segment.
            (Some(head), None) if head.end_lsn.is_none() => Some(true),
            _ => None,
        }
    }

    /// The bytes of a record that it continues; `None` if it begins with a record of its own.
    fn remaining(&self) -> Option<u32> {
        let of_page = self.links.as_ref().and_then(|links| links.remaining);
        of_page.or_else(|| self.head.as_ref().map(|head| head.remaining))
    }
}

/// Where the record begins that crosses the end of the segment.
fn crossing_start(ends: &Ends, size: WalSegmentSize, block: usize) -> Option<Lsn> {
    if let Some(tail) = &ends.tail {
        return Some(tail.lsn);
    }
    if ends.head.as_ref().is_some_and(|head| head.end_lsn.is_none()) {
        return None;
    }
    let start = ends.name.start_lsn(size);
    let at = ends.last_end.unwrap_or(start);
    let offset = at.as_u64() - start.as_u64();
    Some(match offset {
        0 => at.saturating_add(LONG_HEADER_SIZE as u64),
        offset if offset.is_multiple_of(block as u64) => at.saturating_add(SHORT_HEADER_SIZE as u64),
        _ => at,
    })
}

/// Compares a segment with the one after it on the same path.
pub(super) fn joint(before: &Ends, after: &Ends, size: WalSegmentSize) -> Joint {
    if before.is_unfinished {
        return Joint::Unfinished;
    }
    let Some(leaves) = before.leaves_a_record(size) else { return Joint::Unknown };
    let overwrites = after.links.as_ref().is_some_and(|links| links.overwrites);
    match (leaves, after.remaining()) {
        (false, Some(_)) => {
            return Joint::Other("it begins inside a record, and the segment before it ends between two".to_owned());
        }
        (true, None) if overwrites => return Joint::Joined,
        (true, None) if after.links.is_none() => return Joint::NeedsBytes,
        (true, None) => {
            return Joint::Other("it begins with a record, and the segment before it ends inside of one".to_owned());
        }
        (true, Some(remaining)) => {
            if let Some(reason) = other_record(before, after, remaining, size) {
                return Joint::Other(reason);
            }
        }
        (false, None) => {}
    }
    let links = before.links.as_ref().zip(after.links.as_ref());
    let Some((left, entered)) = links.filter(|_| after.head.is_some() || after.remaining().is_none()) else {
        return Joint::Joined;
    };
    match (left.last_start, entered.first_previous) {
        (Some(last), Some(previous)) if last != previous && !overwrites => Joint::Other(format!(
            "its first record follows a record at {previous}, and the last record of the segment before it begins at {last}"
        )),
        _ => Joint::Joined,
    }
}

/// Why the two parts of the record that crosses do not belong together.
fn other_record(before: &Ends, after: &Ends, remaining: u32, size: WalSegmentSize) -> Option<String> {
    let Some(tail) = &before.tail else {
        // Inside a record that is longer than the segment, each page takes its share of it.
        let head = before.head.as_ref().filter(|head| head.end_lsn.is_none() && !before.has_record)?;
        let taken = u64::from(head.remaining.checked_sub(remaining)?);
        let pages = |block: u64| size.as_u64() / block;
        let headers = |block: u64| LONG_HEADER_SIZE as u64 + (pages(block) - 1) * SHORT_HEADER_SIZE as u64;
        let fits = BLOCK_SIZES.iter().any(|block| size.as_u64() - headers(*block) == taken);
        return (!fits).then(|| "the record that comes from the segment before it continues in another way".to_owned());
    };
    if tail.in_segment.checked_add(remaining) != Some(tail.total_length) {
        return Some(format!(
            "it continues a record with {remaining} bytes, and the segment before it leaves {} of one",
            tail.total_length.saturating_sub(tail.in_segment)
        ));
    }
    let head = after.head.as_ref()?;
    let is_whole = tail.bytes.len() == tail.in_segment as usize && head.bytes.len() == remaining as usize;
    let record = [tail.bytes.as_slice(), head.bytes.as_slice()].concat();
    (is_whole && !crc_holds(&record)).then(|| "the record that crosses into it fails its checksum".to_owned())
}
