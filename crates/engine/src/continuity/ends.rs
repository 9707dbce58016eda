//! The two ends of a segment, and whether two neighbours are of one history.
//!
//! A record that begins in one segment and ends in the next shows in both. The archiver stored what it saw of such a
//! record with each segment, so two small requests are enough to compare most neighbours. With the bytes of both, the
//! CRC of the record that crosses is compared, however long it is, and so is the link from the first record of a
//! segment to the last one of the segment before: every record names the place of its predecessor.
//!
//! That nothing speaks against two neighbours is not yet a proof: [`Proof`] says what was compared.
//!
//! One thing looks like another history and is not: after a crash the server may have lost the end of a record, and
//! marks the page on which it continued (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`). Only the bytes show that mark. The first
//! record of that page follows the last one that was whole.

use holdfast_pgtypes::wal::join::{HeadContinuation, TailFragment};
use holdfast_pgtypes::wal::page::{LONG_HEADER_SIZE, SHORT_HEADER_SIZE, WalPageHeader};
use holdfast_pgtypes::wal::reader::{ReadEnd, WalSegment};
use holdfast_pgtypes::wal::record::crc_holds;
use holdfast_pgtypes::wal::record_part::{RecordPart, parts_make_a_record};
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
    /// Where the last record begins that ends in the segment.
    last_whole: Option<Lsn>,
    /// The end of the record that the segment before began.
    head_part: Option<RecordPart>,
    /// The beginning of the record that ends in the next segment.
    tail_part: Option<RecordPart>,
    /// If the whole segment is inside of one record: the parts of it in the segments before.
    carried: Vec<RecordPart>,
}

/// What shows that two neighbours are of one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proof {
    /// Nothing: it only does not speak against it.
    Nothing,
    /// The first record of the second one names the place of the last record of the first one.
    Link,
    /// The CRC of the record that crosses is right.
    Checksum,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Joint {
    /// Nothing speaks against one history; with what was really compared.
    Joined(Proof),
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

    /// From the bytes of the segment. The CRC of every record is checked.
    pub(super) fn scan(segment: WalSegment<'_>) -> Self {
        let mut records = segment.records_with_every_crc();
        let (mut first_previous, mut last_whole, mut last_end) = (None, None, None);
        for record in records.by_ref() {
            first_previous.get_or_insert(record.previous);
            (last_whole, last_end) = (Some(record.lsn), Some(record.end_lsn));
        }
        let head = records.head().cloned();
        let last_end = last_end.or_else(|| head.as_ref().and_then(|head| head.end_lsn));
        let end = records.end();
        let mut ends = Self {
            name: segment.name,
            tail: records.tail().cloned(),
            has_record: first_previous.is_some(),
            last_end,
            is_switched: end == Some(ReadEnd::Switch),
            is_unfinished: end == Some(ReadEnd::Stopped),
            links: None,
            head,
        };
        let Some(page) = WalPageHeader::parse(segment.bytes) else { return ends };
        ends.links = Some(Links {
            remaining: page.is_continuation().then_some(page.remaining),
            overwrites: page.is_overwrite() && !page.is_continuation(),
            first_previous,
            last_start: ends.tail.as_ref().map(|tail| tail.lsn).or(last_whole),
            last_whole,
            head_part: records.head_part().cloned(),
            tail_part: records.tail_part().cloned(),
            carried: Vec::new(),
        });
        ends
    }

    /// Whether the whole segment is inside of one record.
    pub(super) fn is_inside_a_record(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.end_lsn.is_none()) && !self.has_record && self.tail.is_none()
    }

    /// Takes over the parts of the record that the segment before leaves unfinished, if this one does not end it.
    pub(super) fn carry_from(&mut self, before: &Self) {
        let parts = before.unfinished_parts();
        if let (true, Some(links), Some(parts)) = (self.is_inside_a_record(), &mut self.links, parts) {
            links.carried = parts;
        }
    }

    /// The parts so far of the record that it leaves unfinished; `None` if not all of them are known.
    fn unfinished_parts(&self) -> Option<Vec<RecordPart>> {
        let links = self.links.as_ref()?;
        if let Some(part) = &links.tail_part {
            return Some(vec![part.clone()]);
        }
        let own = links.head_part.clone().filter(|_| self.is_inside_a_record() && !links.carried.is_empty())?;
        Some(links.carried.iter().cloned().chain([own]).collect())
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

/// Compares a segment with the one after it on the same path.
pub(super) fn joint(before: &Ends, after: &Ends, size: WalSegmentSize) -> Joint {
    if before.is_unfinished {
        return Joint::Unfinished;
    }
    let Some(leaves) = before.leaves_a_record(size) else { return Joint::Unknown };
    let overwrites = after.links.as_ref().is_some_and(|links| links.overwrites);
    let mut proof = Proof::Nothing;
    match (leaves, after.remaining()) {
        (false, Some(_)) => {
            return Joint::Other("it begins inside a record, and the segment before it ends between two".to_owned());
        }
        (true, None) if after.links.is_none() => return Joint::NeedsBytes,
        (true, None) if !overwrites => {
            return Joint::Other("it begins with a record, and the segment before it ends inside of one".to_owned());
        }
        (true, Some(remaining)) => match crossing(before, after, remaining, size) {
            Ok(found) => proof = found,
            Err(reason) => return Joint::Other(reason),
        },
        (_, None) => {}
    }
    let Some((left, entered)) = before.links.as_ref().zip(after.links.as_ref()) else { return Joint::Joined(proof) };
    let last = if overwrites { left.last_whole } else { left.last_start };
    match (last, entered.first_previous) {
        (Some(last), Some(previous)) if last != previous => Joint::Other(format!(
            "its first record follows a record at {previous}, and the last record of the segment before it begins at {last}"
        )),
        (Some(_), Some(_)) => Joint::Joined(proof.max(Proof::Link)),
        _ => Joint::Joined(proof),
    }
}

/// Compares the two parts of the record that crosses; an error is the reason why they do not belong together.
fn crossing(before: &Ends, after: &Ends, remaining: u32, size: WalSegmentSize) -> Result<Proof, String> {
    if let Some(reason) = other_length(before, remaining, size) {
        return Err(reason);
    }
    let fails = || "the record that crosses into it fails its checksum".to_owned();
    // A record that continues in a third segment is compared where it ends.
    let Some(head) = after.head.as_ref().filter(|head| head.end_lsn.is_some()) else { return Ok(Proof::Nothing) };
    let end = after.links.as_ref().and_then(|links| links.head_part.as_ref());
    if let Some((parts, end)) = before.unfinished_parts().zip(end) {
        return if parts_make_a_record(parts.iter().chain([end])) { Ok(Proof::Checksum) } else { Err(fails()) };
    }
    let Some(tail) = &before.tail else { return Ok(Proof::Nothing) };
    let is_whole = tail.bytes.len() == tail.in_segment as usize && head.bytes.len() == remaining as usize;
    match is_whole.then(|| crc_holds(&[tail.bytes.as_slice(), head.bytes.as_slice()].concat())) {
        Some(true) => Ok(Proof::Checksum),
        Some(false) => Err(fails()),
        None => Ok(Proof::Nothing),
    }
}

/// Why the lengths of the two parts of the record that crosses do not belong together.
fn other_length(before: &Ends, remaining: u32, size: WalSegmentSize) -> Option<String> {
    let Some(tail) = &before.tail else {
        // Inside a record that is longer than the segment, each page takes its share of it.
        let head = before.head.as_ref().filter(|head| head.end_lsn.is_none() && !before.has_record)?;
        let taken = u64::from(head.remaining.checked_sub(remaining)?);
        let pages = |block: u64| size.as_u64() / block;
        let headers = |block: u64| LONG_HEADER_SIZE as u64 + (pages(block) - 1) * SHORT_HEADER_SIZE as u64;
        let fits = BLOCK_SIZES.iter().any(|block| size.as_u64() - headers(*block) == taken);
        return (!fits).then(|| "the record that comes from the segment before it continues in another way".to_owned());
    };
    (tail.in_segment.checked_add(remaining) != Some(tail.total_length)).then(|| {
        format!(
            "it continues a record with {remaining} bytes, and the segment before it leaves {} of one",
            tail.total_length.saturating_sub(tail.in_segment)
        )
    })
}
