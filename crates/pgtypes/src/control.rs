//! `ControlFile`: the contents of `global/pg_control`, as `ControlFileData` of `pg_control.h`.
//!
//! There are three layouts. In those of 13 to 18 every field that is read here has the same offset: they differ in one
//! byte before the CRC (18 has `default_char_signedness` there) and in padding. 19 has new and larger fields, and most
//! others moved (`Layout`). The compiler decides the layout of the structure in the file, so the offsets below are
//! those of the 64-bit little-endian ABIs.
//!
//! A control file is checked in the order in which a reader can trust it: length, version, CRC-32C, then fields. An
//! error names the version of the file even if this release does not know it. A wrong CRC may come from a torn read,
//! while the server was writing the file: PostgreSQL's own tools read again, and so should callers.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::bytes::{i64_at, u8_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::segment::{InvalidSegmentSize, WalSegmentSize};
use crate::system_identifier::SystemIdentifier;
use crate::timeline::TimelineId;
use crate::version::{PgVersion, SUPPORTED};

/// Size of the file in bytes, `PG_CONTROL_FILE_SIZE`: the structure and zeros.
pub const CONTROL_FILE_SIZE: usize = 8192;

/// Where the fields are, in bytes, as far as it is not the same everywhere. Each is the first of a group of fields that
/// are read here and keep their distances.
struct Layout {
    /// `checkPointCopy.nextXid`, then `nextOid` and `nextMulti`.
    next_xid: usize,
    /// `checkPointCopy.oldestXid`
    oldest_xid: usize,
    /// `checkPointCopy.time`
    checkpoint_time: usize,
    /// `minRecoveryPoint`, then its timeline, `backupStartPoint`, `backupEndPoint` and `backupEndRequired`.
    min_recovery_point: usize,
    /// `wal_level`, then the other settings that a standby compares.
    wal_level: usize,
    /// `blcksz`, then `relseg_size`.
    block_size: usize,
    /// `xlog_blcksz`, then `xlog_seg_size`.
    wal_block_size: usize,
    /// `data_checksum_version`. 19 has `data_checksum_version_init` before it, which is the value of `initdb`.
    data_checksum_version: usize,
    /// `crc`, which ends the structure.
    crc: usize,
}

impl Layout {
    const V13: Self = Self {
        next_xid: 64,
        oldest_xid: 84,
        checkpoint_time: 104,
        min_recovery_point: 136,
        wal_level: 172,
        block_size: 216,
        wal_block_size: 224,
        data_checksum_version: 252,
        crc: 288,
    };
    const V18: Self = Self { crc: 292, ..Self::V13 };
    const V19: Self = Self {
        next_xid: 72,
        oldest_xid: 96,
        checkpoint_time: 112,
        min_recovery_point: 144,
        wal_level: 180,
        block_size: 224,
        wal_block_size: 236,
        data_checksum_version: 268,
        crc: 308,
    };

    const fn of(version: PgVersion) -> &'static Self {
        match version.control_version() {
            ..1800 => &Self::V13,
            1800..1900 => &Self::V18,
            _ => &Self::V19,
        }
    }
}

/// What the server was doing when it last wrote its control file, as `DBState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbState {
    /// `DB_STARTUP`
    StartingUp,
    /// `DB_SHUTDOWNED`
    ShutDown,
    /// `DB_SHUTDOWNED_IN_RECOVERY`
    ShutDownInRecovery,
    /// `DB_SHUTDOWNING`
    ShuttingDown,
    /// `DB_IN_CRASH_RECOVERY`
    InCrashRecovery,
    /// `DB_IN_ARCHIVE_RECOVERY`
    InArchiveRecovery,
    /// `DB_IN_PRODUCTION`
    InProduction,
}

impl DbState {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::StartingUp,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }
}

impl fmt::Display for DbState {
    /// Prints the words of `pg_controldata`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartingUp => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        })
    }
}

/// The server's `wal_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    /// Not enough for archiving.
    Minimal,
    /// Enough for archiving and standbys.
    Replica,
    /// `Replica`, and logical decoding.
    Logical,
}

impl fmt::Display for WalLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minimal => "minimal",
            Self::Replica => "replica",
            Self::Logical => "logical",
        })
    }
}

/// The contents of `pg_control`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// The identifier of the cluster.
    pub system_identifier: SystemIdentifier,
    /// The major that made the cluster, by its catalog version.
    pub version: PgVersion,
    /// `pg_control_version`
    pub control_version: u32,
    /// `catalog_version_no`
    pub catalog_version: u32,
    /// The server's state when it last wrote the file.
    pub state: DbState,
    /// When the file was written.
    pub modified: DateTime<Utc>,
    /// Where the last checkpoint record begins.
    pub checkpoint: Lsn,
    /// Where replay from that checkpoint must begin.
    pub redo: Lsn,
    /// The timeline of the checkpoint.
    pub timeline: TimelineId,
    /// The timeline before it, the same unless the checkpoint began a timeline.
    pub previous_timeline: TimelineId,
    /// `full_page_writes` at the checkpoint.
    pub full_page_writes: bool,
    /// The next transaction id with its epoch in the upper half.
    pub next_xid: u64,
    /// The next object id.
    pub next_oid: u32,
    /// The next multixact id.
    pub next_multixact: u32,
    /// The oldest transaction id that may still be in a row.
    pub oldest_xid: u32,
    /// When the checkpoint was made.
    pub checkpoint_time: DateTime<Utc>,
    /// Recovery must reach this LSN before the cluster is consistent; `None` on a primary.
    pub min_recovery_point: Option<Lsn>,
    /// The timeline of `min_recovery_point`.
    pub min_recovery_timeline: Option<TimelineId>,
    /// The start LSN of the backup that is being recovered; `None` once its end is reached.
    pub backup_start: Option<Lsn>,
    /// The end of a backup from a standby that is being recovered.
    pub backup_end: Option<Lsn>,
    /// Whether recovery must meet the record of the backup's end.
    pub end_of_backup_required: bool,
    /// `wal_level`
    pub wal_level: WalLevel,
    /// `wal_log_hints`
    pub wal_log_hints: bool,
    /// `max_connections`; a hot standby needs at least this value, and the same holds for the next four.
    pub max_connections: u32,
    /// `max_worker_processes`
    pub max_worker_processes: u32,
    /// `max_wal_senders`
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`
    pub max_locks_per_transaction: u32,
    /// `track_commit_timestamp`
    pub track_commit_timestamp: bool,
    /// Size of a data page in bytes.
    pub block_size: u32,
    /// Pages in one file of a large relation.
    pub relation_segment_pages: u32,
    /// Size of a WAL page in bytes.
    pub wal_block_size: u32,
    /// Size of a WAL segment.
    pub wal_segment_size: WalSegmentSize,
    /// 0 if data pages have no checksums, else the version of the checksum's algorithm (1).
    pub data_checksum_version: u32,
}

/// Why the bytes are not a control file.
#[expect(missing_docs, reason = "the texts of the errors say what the fields are")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// The bytes end before the structure does.
    #[error("pg_control is too short: {found} bytes, {needed} are needed")]
    TooShort {
        /// Number of bytes found.
        found: usize,
        /// Size of the structure in bytes.
        needed: usize,
    },
    /// The file is of a version of PostgreSQL that is not known here.
    #[error(
        "pg_control has control version {control_version} and catalog version {catalog_version}, which no supported \
         PostgreSQL ({SUPPORTED}) has"
    )]
    UnknownVersion {
        /// `pg_control_version`; if the file is from a big-endian machine, its bytes are swapped.
        control_version: u32,
        catalog_version: u32,
    },
    /// The contents do not match the CRC in the file: it is damaged, or was read while the server wrote it.
    #[error("pg_control is damaged: its CRC-32C is {found:08X}, its contents have {expected:08X}")]
    BadCrc {
        /// CRC computed from the contents.
        expected: u32,
        found: u32,
    },
    /// The CRC is right, but a field has a value that PostgreSQL does not write.
    #[error("pg_control has {value} as {field}, which PostgreSQL does not write")]
    InvalidField {
        /// The field, in the words of `pg_controldata`.
        field: &'static str,
        value: u64,
    },
    /// The CRC is right, but the segment size is not a valid one.
    #[error("pg_control has no valid WAL segment size")]
    InvalidSegmentSize(#[from] InvalidSegmentSize),
}

impl ControlFile {
    /// The path of the control file in the data directory.
    pub const PATH: &'static str = "global/pg_control";

    /// Reads a control file and ignores bytes after the structure.
    ///
    /// # Errors
    /// [`ControlFileError::UnknownVersion`] for a file of another PostgreSQL than 13 to 19,
    /// [`ControlFileError::InvalidField`] and [`ControlFileError::InvalidSegmentSize`] for values that PostgreSQL does
    /// not write. [`ControlFileError::TooShort`] and [`ControlFileError::BadCrc`] also for a file that the server is
    /// writing: read it again.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let too_short = |needed| ControlFileError::TooShort { found: bytes.len(), needed };
        let needed = Layout::V13.crc + 4;
        let control_version = u32_at(bytes, 8).ok_or(too_short(needed))?;
        let catalog_version = u32_at(bytes, 12).ok_or(too_short(needed))?;
        let version = PgVersion::from_catalog_version(catalog_version)
            .filter(|version| version.control_version() == control_version)
            .ok_or(ControlFileError::UnknownVersion { control_version, catalog_version })?;

        let layout = Layout::of(version);
        let found = u32_at(bytes, layout.crc).ok_or(too_short(layout.crc + 4))?;
        let body = bytes.get(..layout.crc).ok_or(too_short(layout.crc + 4))?;
        let expected = crc32c::crc32c(body);
        if expected != found {
            return Err(ControlFileError::BadCrc { expected, found });
        }
        Fields { body }.read(version, layout)
    }

    /// Whether data pages have checksums.
    pub const fn has_data_checksums(&self) -> bool {
        self.data_checksum_version != 0
    }

    /// The timeline that the server has reached, as far as the file knows: a standby may be on a later timeline than
    /// that of its last restartpoint.
    pub fn reached_timeline(&self) -> TimelineId {
        self.min_recovery_timeline.map_or(self.timeline, |reached| reached.max(self.timeline))
    }
}

/// The structure up to its CRC.
struct Fields<'a> {
    body: &'a [u8],
}

impl Fields<'_> {
    fn read(&self, version: PgVersion, at: &Layout) -> Result<ControlFile, ControlFileError> {
        let state = self.u32(16)?;
        let wal_level = self.u32(at.wal_level)?;
        Ok(ControlFile {
            system_identifier: SystemIdentifier::new(self.u64(0)?),
            version,
            control_version: self.u32(8)?,
            catalog_version: self.u32(12)?,
            state: DbState::from_number(state).ok_or_else(|| invalid("cluster state", state))?,
            modified: self.time("time of last modification", 24)?,
            checkpoint: self.lsn(32)?,
            redo: self.lsn(40)?,
            timeline: self.timeline("checkpoint's timeline", 48)?,
            previous_timeline: self.timeline("checkpoint's previous timeline", 52)?,
            full_page_writes: self.flag(56)?,
            next_xid: self.u64(at.next_xid)?,
            next_oid: self.u32(at.next_xid + 8)?,
            next_multixact: self.u32(at.next_xid + 12)?,
            oldest_xid: self.u32(at.oldest_xid)?,
            checkpoint_time: self.time("time of the checkpoint", at.checkpoint_time)?,
            min_recovery_point: self.lsn(at.min_recovery_point)?.valid(),
            min_recovery_timeline: TimelineId::new(self.u32(at.min_recovery_point + 8)?),
            backup_start: self.lsn(at.min_recovery_point + 16)?.valid(),
            backup_end: self.lsn(at.min_recovery_point + 24)?.valid(),
            end_of_backup_required: self.flag(at.min_recovery_point + 32)?,
            wal_level: match wal_level {
                0 => WalLevel::Minimal,
                1 => WalLevel::Replica,
                2 => WalLevel::Logical,
                _ => return Err(invalid("wal_level", wal_level)),
            },
            wal_log_hints: self.flag(at.wal_level + 4)?,
            max_connections: self.u32(at.wal_level + 8)?,
            max_worker_processes: self.u32(at.wal_level + 12)?,
            max_wal_senders: self.u32(at.wal_level + 16)?,
            max_prepared_transactions: self.u32(at.wal_level + 20)?,
            max_locks_per_transaction: self.u32(at.wal_level + 24)?,
            track_commit_timestamp: self.flag(at.wal_level + 28)?,
            block_size: self.u32(at.block_size)?,
            relation_segment_pages: self.u32(at.block_size + 4)?,
            wal_block_size: self.u32(at.wal_block_size)?,
            wal_segment_size: WalSegmentSize::new(self.u32(at.wal_block_size + 4)?)?,
            data_checksum_version: self.u32(at.data_checksum_version)?,
        })
    }

    fn get<T>(&self, value: Option<T>, needed: usize) -> Result<T, ControlFileError> {
        value.ok_or(ControlFileError::TooShort { found: self.body.len(), needed })
    }

    fn u32(&self, offset: usize) -> Result<u32, ControlFileError> {
        self.get(u32_at(self.body, offset), offset + 4)
    }

    fn u64(&self, offset: usize) -> Result<u64, ControlFileError> {
        self.get(u64_at(self.body, offset), offset + 8)
    }

    fn lsn(&self, offset: usize) -> Result<Lsn, ControlFileError> {
        self.u64(offset).map(Lsn::new)
    }

    fn flag(&self, offset: usize) -> Result<bool, ControlFileError> {
        self.get(u8_at(self.body, offset), offset + 1).map(|byte| byte != 0)
    }

    fn timeline(&self, field: &'static str, offset: usize) -> Result<TimelineId, ControlFileError> {
        let number = self.u32(offset)?;
        TimelineId::new(number).ok_or_else(|| invalid(field, number))
    }

    fn time(&self, field: &'static str, offset: usize) -> Result<DateTime<Utc>, ControlFileError> {
        let seconds = self.get(i64_at(self.body, offset), offset + 8)?;
        DateTime::from_timestamp(seconds, 0)
            .ok_or(ControlFileError::InvalidField { field, value: seconds.cast_unsigned() })
    }
}

fn invalid(field: &'static str, value: u32) -> ControlFileError {
    ControlFileError::InvalidField { field, value: u64::from(value) }
}
