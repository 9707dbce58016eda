//! The WAL records that tell what was dropped, truncated or rewritten, and how they are read.
//!
//! PostgreSQL does not log statements. What a statement did to files is in these records:
//!
//! - The commit of a transaction lists the files that it drops: those of dropped relations, and the old files of
//!   truncated and rewritten ones (`xl_xact_relfilelocators`). Its invalidation messages name the relations whose
//!   definition changed, by OID, and the rows of `pg_class` that changed, by a hash of their name.
//! - `XLOG_SMGR_CREATE` names each new file, in the transaction that makes it.
//! - `XLOG_HEAP_TRUNCATE` names truncated relations by OID, if `wal_level` is `logical`.
//! - `XLOG_DBASE_*` and `XLOG_TBLSPC_DROP` create and drop the directories of databases and tablespaces. They take
//!   effect at once, and not at the commit.
//! - `XLOG_HEAP_INPLACE` takes effect at once, too: `DROP DATABASE` marks the database with it
//!   ([`crate::wal::database_mark`]).
//!
//! `XLOG_SMGR_TRUNCATE` is not read. `VACUUM` writes it to give empty pages back, and `TRUNCATE` only for a relation
//! that the same transaction made, whose rows nobody else has ever seen.
//!
//! The layouts are those of `xact.h`, `storage_xlog.h`, `dbcommands_xlog.h`, `tablespace.h` and `heapam_xlog.h`, which
//! are the same in 13 to 19 unless said here.

use chrono::{DateTime, Utc};

use crate::bytes::{i64_at, u8_at, u32_at};
use crate::version::PgVersion;
use crate::wal::catalog_name::name_caches;
use crate::wal::database_mark::DatabaseMark;
use crate::wal::record::{RecordHeader, XactEndKind, main_data, timestamp, xact_end_kind};
use crate::wal::relation_file::RelationFile;

/// `RM_XACT_ID`
const RM_XACT: u8 = 1;
/// `RM_SMGR_ID`
const RM_SMGR: u8 = 2;
/// `RM_DBASE_ID`
const RM_DBASE: u8 = 4;
/// `RM_TBLSPC_ID`
const RM_TBLSPC: u8 = 5;
/// `RM_HEAP_ID`
const RM_HEAP: u8 = 10;

/// `XLOG_SMGR_CREATE`
const SMGR_CREATE: u8 = 0x10;
/// `XLOG_TBLSPC_DROP`
const TBLSPC_DROP: u8 = 0x10;
/// `XLOG_HEAP_OPMASK`
const HEAP_OPERATION: u8 = 0x70;
/// `XLOG_HEAP_TRUNCATE`
const HEAP_TRUNCATE: u8 = 0x30;
/// `XLOG_HEAP_INPLACE`
const HEAP_INPLACE: u8 = 0x70;

/// Size of a `SharedInvalidationMessage` in bytes.
const MESSAGE_SIZE: usize = 16;
/// `SHAREDINVALRELCACHE_ID`, -2
const RELATION_MESSAGE: u8 = 0xFE;

/// What one record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DdlRecord {
    /// A transaction ended.
    XactEnd(XactEffects),
    /// A file was made for a relation; it stays if the transaction commits.
    FileCreated {
        /// The transaction, or the subtransaction.
        xid: u32,
        /// Its number, with its database and tablespace.
        file: RelationFile,
    },
    /// `TRUNCATE`, of relations that are decoded for subscribers.
    Truncated {
        /// The transaction, or the subtransaction.
        xid: u32,
        /// The OIDs of the tables, then of sequences that begin again.
        relations: Vec<u32>,
    },
    /// A database was marked invalid, at once and for ever.
    DatabaseMarked(DatabaseMark),
    /// The directory of a database was made, in one tablespace.
    DatabaseCreated {
        /// The transaction.
        xid: u32,
        /// The OID of the database.
        database: u32,
        /// The database and tablespace whose files were copied, if this record says it.
        source: Option<(u32, u32)>,
    },
    /// The directories of a database were removed, at once and for ever.
    DatabaseDropped {
        /// The transaction.
        xid: u32,
        /// The OID of the database.
        database: u32,
        /// The OIDs of the tablespaces from which it was removed.
        tablespaces: Vec<u32>,
    },
    /// A tablespace was removed; PostgreSQL removes only an empty one.
    TablespaceDropped {
        /// The transaction.
        xid: u32,
        /// The OID of the tablespace.
        tablespace: u32,
    },
}

/// What the end of a transaction tells beside its time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XactEffects {
    /// Whether the transaction's changes are kept.
    pub is_commit: bool,
    /// The transaction, as recovery targets name it; `None` if the record is cut before its id.
    pub xid: Option<u32>,
    /// When it ended, by the server's clock.
    pub time: Option<DateTime<Utc>>,
    /// Its subtransactions.
    pub subxacts: Vec<u32>,
    /// The files that it removes. For a rollback, those that it had made.
    pub dropped: Vec<RelationFile>,
    /// The number of these files; more than are listed if the record is cut.
    pub dropped_count: u32,
    /// The OIDs of the relations whose definition changed, ascending.
    pub relations: Vec<u32>,
    /// For each changed row of `pg_class`, the hash of its name and schema ([`crate::wal::catalog_name`]), ascending.
    pub names: Vec<u32>,
    /// Those of them whose row type changed as well, ascending.
    pub row_types: Vec<u32>,
    /// Whether the record is cut, so that the lists may lack entries.
    pub is_cut: bool,
}

impl RecordHeader {
    /// Whether the record may tell of DDL.
    pub(crate) const fn may_tell_of_ddl(&self) -> bool {
        match self.resource_manager {
            RM_XACT => xact_end_kind(self.info).is_some(),
            RM_SMGR => self.operation() == SMGR_CREATE,
            RM_DBASE => true,
            RM_TBLSPC => self.operation() == TBLSPC_DROP,
            RM_HEAP => matches!(self.info & HEAP_OPERATION, HEAP_TRUNCATE | HEAP_INPLACE),
            _ => false,
        }
    }
}

impl DdlRecord {
    /// Reads a record, header included. Its bytes may be cut; then the content after the cut is unknown. `None` if it
    /// tells nothing about DDL, or is invalid.
    pub(crate) fn read(record: &[u8], version: PgVersion) -> Option<Self> {
        let header = RecordHeader::parse(record)?;
        if !header.may_tell_of_ddl() {
            return None;
        }
        let xid = header.xid;
        if header.resource_manager == RM_HEAP && header.info & HEAP_OPERATION == HEAP_INPLACE {
            return DatabaseMark::read(record, version).map(Self::DatabaseMarked);
        }
        let data = main_data(record)?;
        match header.resource_manager {
            RM_XACT => {
                let is_cut = record.len() < header.total_length as usize;
                XactEffects::read(&header, data, is_cut, version).map(Self::XactEnd)
            }
            RM_SMGR => Some(Self::FileCreated { xid, file: RelationFile::at(data, 0)? }),
            RM_TBLSPC => Some(Self::TablespaceDropped { xid, tablespace: u32_at(data, 0)? }),
            RM_HEAP => {
                // xl_heap_truncate: database, number, flags, padding, OIDs
                let count = u32_at(data, 4)? as usize;
                Some(Self::Truncated { xid, relations: (0..count).map_while(|n| u32_at(data, 12 + 4 * n)).collect() })
            }
            RM_DBASE => read_database(&header, data, version),
            _ => None,
        }
    }
}

/// `XLOG_DBASE_CREATE` and `XLOG_DBASE_DROP` until 14; `_CREATE_FILE_COPY`, `_CREATE_WAL_LOG` and `_DROP` since 15.
fn read_database(header: &RecordHeader, data: &[u8], version: PgVersion) -> Option<DdlRecord> {
    let xid = header.xid;
    let database = u32_at(data, 0)?;
    let (logged, drop) = if version >= PgVersion::V15 { (Some(0x10), 0x20) } else { (None, 0x10) };
    match header.operation() {
        0x00 => Some(DdlRecord::DatabaseCreated { xid, database, source: u32_at(data, 8).zip(u32_at(data, 12)) }),
        operation if Some(operation) == logged => Some(DdlRecord::DatabaseCreated { xid, database, source: None }),
        operation if operation == drop => {
            let count = u32_at(data, 4)? as usize;
            let tablespaces = (0..count).map_while(|n| u32_at(data, 8 + 4 * n)).collect();
            Some(DdlRecord::DatabaseDropped { xid, database, tablespaces })
        }
        _ => None,
    }
}

impl XactEffects {
    /// As `ParseCommitRecord` and `ParseAbortRecord` (`xactdesc.c`). `data` is the record's main data.
    fn read(header: &RecordHeader, data: &[u8], is_cut: bool, version: PgVersion) -> Option<Self> {
        let kind = xact_end_kind(header.info)?;
        let mut effects = Self {
            is_commit: kind.is_commit(),
            time: i64_at(data, 0).and_then(timestamp),
            xid: Some(header.xid).filter(|xid| *xid != 0),
            is_cut,
            ..Self::default()
        };
        let is_prepared = matches!(kind, XactEndKind::CommitPrepared | XactEndKind::AbortPrepared);
        if is_prepared {
            effects.xid = None;
        }
        // XLOG_XACT_HAS_INFO
        if header.info & 0x80 == 0 {
            return Some(effects);
        }
        // What comes after a cut is left empty.
        let prepared_xid = effects.read_lists(data, version);
        if is_prepared {
            effects.xid = prepared_xid;
        }
        effects.relations.sort_unstable();
        effects.relations.dedup();
        effects.names.sort_unstable();
        effects.names.dedup();
        effects.row_types.sort_unstable();
        effects.row_types.dedup();
        effects.row_types.retain(|hash| effects.names.binary_search(hash).is_ok());
        Some(effects)
    }

    /// Reads what `xinfo` announces, in the order of the record. Returns the prepared transaction, if there is one and
    /// the record is not cut before it.
    fn read_lists(&mut self, data: &[u8], version: PgVersion) -> Option<u32> {
        let info = u32_at(data, 8)?;
        let mut at = 12_usize;
        // XACT_XINFO_HAS_DBINFO: database and tablespace
        if info & 1 != 0 {
            at += 8;
        }
        // XACT_XINFO_HAS_SUBXACTS
        if info & (1 << 1) != 0 {
            let list = List::at(data, at, 4)?;
            self.subxacts.extend(list.offsets(data).filter_map(|offset| u32_at(data, offset)));
            at = list.end?;
        }
        // XACT_XINFO_HAS_RELFILELOCATORS
        if info & (1 << 2) != 0 {
            let list = List::at(data, at, RelationFile::SIZE)?;
            self.dropped_count = list.count;
            self.dropped.extend(list.offsets(data).filter_map(|offset| RelationFile::at(data, offset)));
            at = list.end?;
        }
        // XACT_XINFO_HAS_DROPPED_STATS, since 15; the object's number has 64 bits since 18
        if info & (1 << 8) != 0 {
            at = List::at(data, at, if version >= PgVersion::V18 { 16 } else { 12 })?.end?;
        }
        // XACT_XINFO_HAS_INVALS
        if info & (1 << 3) != 0 {
            let list = List::at(data, at, MESSAGE_SIZE)?;
            for offset in list.offsets(data) {
                self.add_message(data, offset, version);
            }
            at = list.end?;
        }
        // XACT_XINFO_HAS_TWOPHASE
        if info & (1 << 4) != 0 { u32_at(data, at) } else { None }
    }

    /// `SharedInvalidationMessage` (`sinval.h`): a byte with the kind, the database, and for the two kinds that are
    /// read, an OID or a hash.
    fn add_message(&mut self, data: &[u8], offset: usize, version: PgVersion) -> Option<()> {
        let (kind, value) = (u8_at(data, offset)?, u32_at(data, offset + 8)?);
        if kind == RELATION_MESSAGE {
            // 0 is "all relations".
            self.relations.extend(Some(value).filter(|oid| *oid != 0));
            return Some(());
        }
        let (of_relations, of_types) = name_caches(version);
        if kind == of_relations {
            self.names.push(value);
        } else if kind == of_types {
            self.row_types.push(value);
        }
        Some(())
    }
}

/// A count and that many items.
struct List {
    start: usize,
    count: u32,
    item_size: usize,
    /// Where the next part of the record begins; `None` if that is beyond any record.
    end: Option<usize>,
}

impl List {
    fn at(data: &[u8], at: usize, item_size: usize) -> Option<Self> {
        let count = u32_at(data, at)?;
        let start = at.checked_add(4)?;
        let end = (count as usize).checked_mul(item_size).and_then(|size| start.checked_add(size));
        Some(Self { start, count, item_size, end })
    }

    /// Where the items begin that are within the data.
    fn offsets(&self, data: &[u8]) -> impl Iterator<Item = usize> + use<> {
        let within = data.len().saturating_sub(self.start) / self.item_size;
        let (start, item_size) = (self.start, self.item_size);
        (0..within.min(self.count as usize)).map(move |n| start + n * item_size)
    }
}
