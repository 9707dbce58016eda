//! The WAL records that matter to an archive, and how they are read.
//!
//! Here, only records of two resource managers are read: transactions (`RM_XACT_ID`), because recovery targets are
//! compared with the ends of transactions, and `RM_XLOG_ID`, for restore points, checkpoints and switches. What tells
//! of dropped relations is in [`crate::wal::ddl_record`].
//!
//! A record is a header of 24 bytes, headers of its blocks and of its main data, block data, and the main data at the
//! very end (`xlogrecord.h`). The main data of these records is read here, as in `ParseCommitRecord` and
//! `ParseAbortRecord` (`xactdesc.c`).
//!
//! The transaction id that a record ends follows `recoveryStopsBefore` (`xlogrecovery.c`): the record's own, or for a
//! prepared transaction the prepared one, but never that of a subtransaction.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::bytes::{i64_at, u8_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::version::PgVersion;

/// Size of a record's header in bytes, `SizeOfXLogRecord`.
pub const RECORD_HEADER_SIZE: usize = 24;

/// `RM_XLOG_ID`
const RM_XLOG: u8 = 0;
/// `RM_XACT_ID`
const RM_XACT: u8 = 1;

/// `XLOG_XACT_OPMASK`
const XACT_OPERATION: u8 = 0x70;
/// `XLOG_XACT_HAS_INFO`
const XACT_HAS_INFO: u8 = 0x80;

/// The fixed beginning of every record, `XLogRecord`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record, `xl_tot_len`.
    pub total_length: u32,
    /// The transaction, `xl_xid`; 0 if there is none.
    pub xid: u32,
    /// Where the record before begins, `xl_prev`.
    pub previous: Lsn,
    /// `xl_info`
    pub info: u8,
    /// The resource manager, `xl_rmid`.
    pub resource_manager: u8,
    /// CRC-32C of everything after the header and then of the header up to this field, `xl_crc`.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads a header; `None` if there are too few bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            total_length: u32_at(bytes, 0)?,
            xid: u32_at(bytes, 4)?,
            previous: Lsn::new(u64_at(bytes, 8)?),
            info: u8_at(bytes, 16)?,
            resource_manager: u8_at(bytes, 17)?,
            crc: u32_at(bytes, 20)?,
        })
    }

    /// The part of `xl_info` that belongs to the resource manager.
    pub(crate) const fn operation(&self) -> u8 {
        self.info & 0xF0
    }

    /// Whether the record may be one that is reported. Page images, by far the largest part of `RM_XLOG_ID`, are not.
    pub const fn is_of_interest(&self) -> bool {
        match self.resource_manager {
            // XLOG_CHECKPOINT_SHUTDOWN, XLOG_CHECKPOINT_ONLINE, XLOG_SWITCH, XLOG_RESTORE_POINT
            RM_XLOG => matches!(self.operation(), 0x00 | 0x10 | 0x40 | 0x70),
            RM_XACT => xact_end_kind(self.info).is_some(),
            _ => false,
        }
    }

    /// Whether the record ends its segment, `XLOG_SWITCH`.
    pub const fn is_switch(&self) -> bool {
        self.resource_manager == RM_XLOG && self.operation() == 0x40
    }
}

/// Whether the record's CRC is right, as `ValidXLogRecord`. `record` is the whole record.
pub fn crc_holds(record: &[u8]) -> bool {
    let (Some(header), Some(body), Some(found)) =
        (record.get(..20), record.get(RECORD_HEADER_SIZE..), u32_at(record, 20))
    else {
        return false;
    };
    crc32c::crc32c_append(crc32c::crc32c(body), header) == found
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XactEndKind {
    /// `COMMIT`
    Commit,
    /// `ROLLBACK`
    Abort,
    /// `COMMIT PREPARED`
    CommitPrepared,
    /// `ROLLBACK PREPARED`
    AbortPrepared,
}

impl XactEndKind {
    /// Whether the transaction's changes are kept.
    pub const fn is_commit(self) -> bool {
        matches!(self, Self::Commit | Self::CommitPrepared)
    }
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct XactEnd {
    /// Where the record begins; recovery that excludes the transaction ends before it.
    pub lsn: Lsn,
    /// Where the record ends; recovery that includes the transaction ends here.
    pub end_lsn: Lsn,
    /// When the transaction ended, by the server's clock.
    pub time: DateTime<Utc>,
    /// The transaction; `None` if the record is cut before its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<u32>,
    /// How it ended.
    pub kind: XactEndKind,
}

/// A restore point made by `pg_create_restore_point`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// The name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Where the record begins.
    pub lsn: Lsn,
    /// Where the record ends, which is where recovery to it ends and what the function returned.
    pub end_lsn: Lsn,
    /// When it was made, by the server's clock.
    pub time: DateTime<Utc>,
}

/// The occasion of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointKind {
    /// A checkpoint at the server's shutdown.
    Shutdown,
    /// A checkpoint of a server that continued to run.
    Online,
}

/// A checkpoint record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Where the record begins.
    pub lsn: Lsn,
    /// Where replay from this checkpoint begins.
    pub redo: Lsn,
    /// The timeline, `ThisTimeLineID`.
    pub timeline: u32,
    /// The occasion.
    pub kind: CheckpointKind,
}

/// What the record says with which a server begins a timeline: a checkpoint, or the end of recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineStart {
    /// The timeline, `ThisTimeLineID`.
    pub timeline: u32,
    /// The timeline that it continues, `PrevTimeLineID`; the same one in a checkpoint of a server that was only started
    /// again.
    pub previous: u32,
}

impl TimelineStart {
    /// Reads `XLOG_CHECKPOINT_SHUTDOWN` or `XLOG_END_OF_RECOVERY`; `None` for every other record. Both begin with eight
    /// bytes, a redo LSN or a time, and continue with the two timelines.
    pub(crate) fn read(record: &[u8]) -> Option<Self> {
        let header = RecordHeader::parse(record)?;
        if header.resource_manager != RM_XLOG || !matches!(header.operation(), 0x00 | 0x90) {
            return None;
        }
        let data = main_data(record)?;
        Some(Self { timeline: u32_at(data, 8)?, previous: u32_at(data, 12)? })
    }
}

/// The content of a record that is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The end of a transaction.
    XactEnd(XactEnd),
    /// A restore point.
    RestorePoint(RestorePoint),
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// `XLOG_SWITCH`: the rest of the segment is unused.
    Switch {
        /// Where the record begins.
        lsn: Lsn,
    },
}

impl Event {
    /// Reads the record that begins at `lsn` and ends at `end_lsn`. `record` is its bytes, header included. They may be
    /// cut; then the content after the cut is unknown. `None` if the record is not one that is reported, or is invalid.
    pub(crate) fn read(record: &[u8], lsn: Lsn, end_lsn: Lsn, version: PgVersion) -> Option<Self> {
        let header = RecordHeader::parse(record)?;
        if !header.is_of_interest() {
            return None;
        }
        if header.is_switch() {
            return Some(Self::Switch { lsn });
        }
        let data = main_data(record)?;
        if header.resource_manager == RM_XACT {
            return read_xact_end(&header, data, lsn, end_lsn, version).map(Self::XactEnd);
        }
        match header.operation() {
            0x70 => {
                let name = data.get(8..)?;
                let name = name.split(|byte| *byte == 0).next()?;
                Some(Self::RestorePoint(RestorePoint {
                    name: String::from_utf8_lossy(name).into_owned(),
                    lsn,
                    end_lsn,
                    time: timestamp(i64_at(data, 0)?)?,
                }))
            }
            operation => Some(Self::Checkpoint(Checkpoint {
                lsn,
                redo: Lsn::new(u64_at(data, 0)?),
                timeline: u32_at(data, 8)?,
                kind: if operation == 0 { CheckpointKind::Shutdown } else { CheckpointKind::Online },
            })),
        }
    }
}

/// PostgreSQL's `TimestampTz`: microseconds since 2000-01-01 UTC.
pub(crate) fn timestamp(microseconds: i64) -> Option<DateTime<Utc>> {
    /// Microseconds from 1970 to 2000.
    const EPOCH: i64 = 946_684_800_000_000;
    DateTime::from_timestamp_micros(microseconds.checked_add(EPOCH)?)
}

/// The main data of a record without blocks; all records that are reported have none.
pub(crate) fn main_data(record: &[u8]) -> Option<&[u8]> {
    let mut rest = record.get(RECORD_HEADER_SIZE..)?;
    loop {
        let (id, after) = rest.split_first()?;
        rest = match id {
            // XLR_BLOCK_ID_DATA_SHORT: one byte of length
            255 => {
                let length = usize::from(*after.first()?);
                let data = after.get(1..)?;
                return Some(data.get(..length).unwrap_or(data));
            }
            // XLR_BLOCK_ID_DATA_LONG: four bytes of length
            254 => {
                let length = u32_at(after, 0)? as usize;
                let data = after.get(4..)?;
                return Some(data.get(..length).unwrap_or(data));
            }
            // XLR_BLOCK_ID_ORIGIN
            253 => after.get(2..)?,
            // XLR_BLOCK_ID_TOPLEVEL_XID
            252 => after.get(4..)?,
            _ => return None,
        };
    }
}

/// How a record of `RM_XACT_ID` ends a transaction; `None` if it does not.
pub(crate) const fn xact_end_kind(info: u8) -> Option<XactEndKind> {
    match info & XACT_OPERATION {
        0x00 => Some(XactEndKind::Commit),
        0x20 => Some(XactEndKind::Abort),
        0x30 => Some(XactEndKind::CommitPrepared),
        0x40 => Some(XactEndKind::AbortPrepared),
        _ => None,
    }
}

fn read_xact_end(header: &RecordHeader, data: &[u8], lsn: Lsn, end_lsn: Lsn, version: PgVersion) -> Option<XactEnd> {
    let kind = xact_end_kind(header.info)?;
    let xid = match kind {
        XactEndKind::Commit | XactEndKind::Abort => Some(header.xid),
        XactEndKind::CommitPrepared | XactEndKind::AbortPrepared if header.info & XACT_HAS_INFO != 0 => {
            prepared_xid(data.get(8..)?, version)
        }
        XactEndKind::CommitPrepared | XactEndKind::AbortPrepared => None,
    };
    Some(XactEnd { lsn, end_lsn, time: timestamp(i64_at(data, 0)?)?, xid: xid.filter(|xid| *xid != 0), kind })
}

/// The transaction that a `COMMIT PREPARED` or `ROLLBACK PREPARED` ends, `twophase_xid`. It comes after the optional
/// parts of the record that `xinfo` announces; `data` begins with `xinfo`.
fn prepared_xid(data: &[u8], version: PgVersion) -> Option<u32> {
    let info = u32_at(data, 0)?;
    let mut at = 4_usize;
    // XACT_XINFO_HAS_DBINFO: database and tablespace
    if info & 1 != 0 {
        at = at.checked_add(8)?;
    }
    // In the record's order; each is a count and that many items.
    let lists = [
        // XACT_XINFO_HAS_SUBXACTS
        (1 << 1, 4),
        // XACT_XINFO_HAS_RELFILELOCATORS
        (1 << 2, 12),
        // XACT_XINFO_HAS_DROPPED_STATS, since 15; the object's number has 64 bits since 18
        (1 << 8, if version >= PgVersion::V18 { 16 } else { 12 }),
        // XACT_XINFO_HAS_INVALS
        (1 << 3, 16),
    ];
    for (flag, item_size) in lists {
        if info & flag != 0 {
            let count = u32_at(data, at)? as usize;
            at = at.checked_add(4)?.checked_add(count.checked_mul(item_size)?)?;
        }
    }
    // XACT_XINFO_HAS_TWOPHASE
    if info & (1 << 4) != 0 { u32_at(data, at) } else { None }
}
