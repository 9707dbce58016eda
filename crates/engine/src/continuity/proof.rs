//! Whether files that somebody offers are of the same history as the archive. Pure.
//!
//! Servers that have the system identifier in common can have different histories: a copy of a server that was started
//! without a recovery, a standby that was promoted, a drill. Their segments have the same names and the same headers.
//! Histories part and never meet again. So segments are of one history with what the archive has before and after them
//! if each continues the one before it, from the last archived segment before them to the first one after them, and
//! each of these joints was really compared: by the CRC of a record that crosses, or by the link of the first record to
//! the last one before it.
//!
//! A link is only a position. Two copies of a server that write the same amount, such as nothing and then a switch of
//! the segment, have the same positions and different records. So if only a link joins the last segment to the archive,
//! the server must also have an archived segment after it with the same bytes, and with a record that has a time in
//! microseconds: the end of a transaction, or a restore point. Copies that do nothing write the same records without.
//! That says something about the other segments only if all of them are of one server, as in `pg_wal`. In a folder that
//! several servers may have filled, a record must cross each joint from the first offered segment on.

use holdfast_pgtypes::wal::page::{LONG_HEADER_SIZE, SHORT_HEADER_SIZE, WalPageHeader};
use holdfast_pgtypes::wal::reader::{PassedRecord, WalSegment};
use holdfast_pgtypes::wal::record::Event;
use holdfast_pgtypes::{Lsn, TimelineId, WalSegmentSize};

use super::ends::{Ends, Joint, Proof, joint};

/// How many records are looked at for the one that begins a timeline: after a crash and changed settings, two others
/// come before it.
const FIRST_RECORDS: usize = 4;

/// A row of segments that are proven to be of one history.
#[derive(Debug)]
pub(super) struct Chain {
    size: WalSegmentSize,
    last: Ends,
    /// Whether the last joints are inside of a record that has not ended.
    is_open: bool,
}

impl Chain {
    /// Begins with an archived segment.
    pub(super) fn after(archived: Ends, size: WalSegmentSize) -> Self {
        Self { size, last: archived, is_open: false }
    }

    /// Adds the next segment. An error is the reason why it is not proven to continue the row.
    pub(super) fn add(&mut self, mut next: Ends) -> Result<Proof, String> {
        next.carry_from(&self.last);
        let (before, after) = (self.last.name, next.name);
        let unproven = || format!("nothing shows that {after} continues {before}");
        let proof = match joint(&self.last, &next, self.size) {
            Joint::Other(reason) => return Err(format!("{after} does not continue {before}: {reason}")),
            Joint::Unfinished => return Err(format!("PostgreSQL cannot read {before} to its end")),
            Joint::NeedsBytes | Joint::Unknown => return Err(unproven()),
            Joint::Joined(proof) => proof,
        };
        match proof {
            Proof::Nothing if next.is_inside_a_record() => self.is_open = true,
            Proof::Checksum => self.is_open = false,
            Proof::Link if !self.is_open => {}
            Proof::Nothing | Proof::Link => return Err(unproven()),
        }
        self.last = next;
        Ok(proof)
    }

    /// Whether every joint so far was compared.
    pub(super) fn is_proven(&self) -> bool {
        !self.is_open
    }
}

/// How far two copies of one segment are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreement {
    /// The second one has no record that another server could not have written too.
    Unknown,
    /// All whole records of the second one are in the first one, and one of them has a time.
    Same,
    /// They differ from here on.
    Differs(Lsn),
}

/// Compares an archived segment with the copy of a server, which may still be writing it. Records of the copy count up
/// to `until`, where its timeline was left.
pub(super) fn agreement(archived: WalSegment<'_>, own: WalSegment<'_>, until: Lsn) -> Agreement {
    let (mut end, mut has_time) = (None, false);
    for record in own.records_with_every_crc().take_while(|record| record.end_lsn <= until) {
        end = Some(record.end_lsn);
        has_time |= matches!(record.event, Some(Event::XactEnd(_) | Event::RestorePoint(_)));
    }
    let Some(end) = end else { return Agreement::Unknown };
    let start = own.name.start_lsn(own.size);
    let length = usize::try_from(end.as_u64().saturating_sub(start.as_u64())).unwrap_or(usize::MAX);
    let archived = archived.bytes.get(..length).unwrap_or(archived.bytes);
    let own = own.bytes.get(..length).unwrap_or(own.bytes);
    match archived.iter().zip(own).position(|(a, b)| a != b) {
        Some(at) => Agreement::Differs(start.saturating_add(at as u64)),
        None if archived.len() < own.len() => Agreement::Differs(start.saturating_add(archived.len() as u64)),
        None if has_time => Agreement::Same,
        None => Agreement::Unknown,
    }
}

/// Whether a timeline begins in this segment at this LSN, by its first records. An error is the reason why not.
pub(super) fn begins_at(
    segment: WalSegment<'_>,
    switch: Lsn,
    timeline: TimelineId,
    parent: TimelineId,
) -> Result<(), String> {
    let name = segment.name;
    let block = WalPageHeader::parse(segment.bytes).and_then(|page| page.long).map_or(0, |long| long.block_size);
    let is_on_page = block > 0 && switch.as_u64().is_multiple_of(u64::from(block));
    // Between two pages a record begins after the header of the second one.
    let places = [0, SHORT_HEADER_SIZE as u64, LONG_HEADER_SIZE as u64];
    let may_begin = |lsn: Lsn| {
        places.iter().filter(|place| **place == 0 || is_on_page).any(|place| switch.saturating_add(*place) == lsn)
    };
    let later: Vec<PassedRecord> =
        segment.records_with_every_crc().skip_while(|record| record.lsn < switch).take(FIRST_RECORDS).collect();
    if !later.first().is_some_and(|first| may_begin(first.lsn)) {
        return Err(format!(
            "no record begins at {switch} in {name}, the first archived segment of timeline {timeline}"
        ));
    }
    let start = later.iter().find_map(|record| record.timeline_start);
    match start {
        Some(start) if start.timeline == timeline.get() && start.previous == parent.get() => Ok(()),
        Some(start) => Err(format!(
            "at {switch} in {name}, timeline {} begins after timeline {}, not timeline {timeline} after timeline {parent}",
            start.timeline, start.previous
        )),
        None => Err(format!("the records at {switch} in {name} do not begin a timeline")),
    }
}
