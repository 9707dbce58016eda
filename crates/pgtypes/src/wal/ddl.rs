//! `DdlTracker`: what transactions dropped, truncated and rewrote, put together from the records that tell of it.
//!
//! A record is one piece of evidence ([`crate::wal::ddl_record`]). The tracker keeps the evidence of transactions that
//! have not ended, and makes one [`DdlEvent`] of it at the commit. Rollbacks make none.
//!
//! Segments are scanned one at a time, so the facts of a segment ([`DdlFacts`]) hold the events of the segment and the
//! evidence about transactions that end later. [`DdlTracker::add_facts`] joins the facts of segments in LSN order.
//!
//! All lists in facts are bounded: a commit that drops 100,000 files keeps some of their names, and their number.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::wal::catalog_name::RelationNameHash;
use crate::wal::ddl_record::{DdlRecord, XactEffects};
use crate::wal::relation_file::RelationFile;

/// Entries of each list that facts keep: enough for some tables with their indexes, in about 2 KiB for an event.
const KEPT_ENTRIES: usize = 32;

/// Events of a segment that facts keep, and open transactions: with the longest lists they have half of the 1 MiB that
/// facts may have.
const KEPT_EVENTS: usize = 128;

/// The first entries of a list, and how many there are beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, bound(deserialize = "T: Deserialize<'de>"))]
pub struct Listed<T> {
    /// The entries.
    pub first: Vec<T>,
    /// The number of entries that are not among them.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: u64,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { first: Vec::new(), more: 0 }
    }
}

impl<T: Ord + Copy> Listed<T> {
    fn all(entries: Vec<T>) -> Self {
        Self { first: entries, more: 0 }
    }

    /// Whether there is nothing, listed or not.
    pub const fn is_empty(&self) -> bool {
        self.first.is_empty() && self.more == 0
    }

    /// The number of all entries.
    pub const fn count(&self) -> u64 {
        (self.first.len() as u64).saturating_add(self.more)
    }

    /// Whether an entry is among the listed ones.
    pub fn lists(&self, entry: T) -> bool {
        self.first.contains(&entry)
    }

    /// The list without the entries of another one. Entries that are not listed stay in the count.
    fn without(&self, others: &Self) -> Self {
        let others: BTreeSet<T> = others.first.iter().copied().collect();
        Self { first: self.first.iter().copied().filter(|entry| !others.contains(entry)).collect(), more: self.more }
    }

    /// The list with at most [`KEPT_ENTRIES`] entries.
    #[must_use]
    fn bounded(mut self) -> Self {
        let left_out = self.first.len().saturating_sub(KEPT_ENTRIES);
        self.first.truncate(KEPT_ENTRIES);
        self.more = self.more.saturating_add(left_out as u64);
        self
    }

    fn join(&mut self, other: Self) {
        self.first.extend(other.first);
        self.more = self.more.saturating_add(other.more);
    }

    fn sort(&mut self) {
        self.first.sort_unstable();
        self.first.dedup();
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A change that people regret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DdlEvent {
    /// Where the record begins with which the change takes effect: a commit, or the drop of a database.
    pub lsn: Lsn,
    /// Where that record ends.
    pub end_lsn: Lsn,
    /// An earlier record of the same change that takes effect at once: recovery must stop before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins_at: Option<Lsn>,
    /// When the transaction ended, by the server's clock; `None` if that is in a later segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<DateTime<Utc>>,
    /// The transaction; `None` if the record is cut before its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<u32>,
    /// What changed.
    pub change: DdlChange,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DdlChange {
    /// Relations lost their files.
    Relations(RelationChanges),
    /// A database was dropped.
    DropDatabase {
        /// Its OID.
        database: u32,
        /// Its name, if an earlier record of the drop has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The OIDs of the tablespaces from which it was removed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tablespaces: Vec<u32>,
    },
    /// A database was moved out of a tablespace, and nothing was lost.
    MoveDatabase {
        /// Its OID.
        database: u32,
        /// The OIDs of the tablespaces from which it was removed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tablespaces: Vec<u32>,
    },
    /// An empty tablespace was dropped.
    DropTablespace {
        /// Its OID.
        tablespace: u32,
    },
}

/// What a transaction did to relations and their files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelationChanges {
    /// The files that the commit removes.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub dropped: Listed<RelationFile>,
    /// The files that the transaction made.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub created: Listed<RelationFile>,
    /// The OIDs of relations that were truncated for certain.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub truncated: Listed<u32>,
    /// The OIDs of relations whose definition changed.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub relations: Listed<u32>,
    /// Hashes of the names of relations whose rows of `pg_class` changed ([`crate::wal::catalog_name`]).
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub names: Listed<u32>,
    /// Those of them that were made, dropped or renamed, because their row types changed as well.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub row_types: Listed<u32>,
    /// The subtransactions.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub subxacts: Listed<u32>,
    /// Whether the commit record is cut, so that lists may lack entries.
    #[serde(skip_serializing_if = "is_false")]
    pub is_cut: bool,
}

/// The part of a change that is about one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedChange {
    /// The OID of the schema.
    pub schema: u32,
    /// Whether the table or view was made, dropped or renamed.
    pub has_row_type: bool,
}

/// What kind of change the evidence shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DdlKind {
    /// Relations were dropped: their files went, and the transaction made no others.
    Drop,
    /// Tables were truncated. Certain: the WAL says so.
    Truncate,
    /// Existing relations got new files: `TRUNCATE`, `REINDEX`, or `ALTER TABLE ... SET TABLESPACE`.
    NewFiles,
    /// Files went, and relations were made: `VACUUM FULL`, `CLUSTER`, an `ALTER TABLE` that rewrites, `REFRESH
    /// MATERIALIZED VIEW`, or a drop and a creation in one transaction.
    Rewrite,
    /// A database was dropped.
    DropDatabase,
    /// A database was moved to another tablespace.
    MoveDatabase,
    /// A tablespace was dropped.
    DropTablespace,
}

impl DdlEvent {
    /// The kind that the evidence shows.
    pub fn kind(&self) -> DdlKind {
        match &self.change {
            DdlChange::DropDatabase { .. } => DdlKind::DropDatabase,
            DdlChange::MoveDatabase { .. } => DdlKind::MoveDatabase,
            DdlChange::DropTablespace { .. } => DdlKind::DropTablespace,
            DdlChange::Relations(changes) => changes.kind(),
        }
    }

    /// Where recovery must stop so that nothing of the change is there: before the record that begins here.
    pub fn stop_before(&self) -> Lsn {
        self.begins_at.unwrap_or(self.lsn)
    }

    fn bounded(mut self) -> Self {
        if let DdlChange::Relations(changes) = self.change {
            self.change = DdlChange::Relations(RelationChanges {
                dropped: changes.dropped.bounded(),
                created: changes.created.bounded(),
                truncated: changes.truncated.bounded(),
                relations: changes.relations.bounded(),
                names: changes.names.bounded(),
                row_types: changes.row_types.bounded(),
                subxacts: changes.subxacts.bounded(),
                is_cut: changes.is_cut,
            });
        }
        self
    }
}

impl RelationChanges {
    /// The files that were there before the transaction and are gone.
    pub fn lost(&self) -> Listed<RelationFile> {
        self.dropped.without(&self.created)
    }

    /// The files that the transaction left behind.
    pub fn kept(&self) -> Listed<RelationFile> {
        self.created.without(&self.dropped)
    }

    /// Whether some evidence about the change is not listed here.
    pub const fn is_partial(&self) -> bool {
        self.is_cut
            || self.dropped.more > 0
            || self.created.more > 0
            || self.truncated.more > 0
            || self.relations.more > 0
            || self.names.more > 0
            || self.row_types.more > 0
            || self.subxacts.more > 0
    }

    /// What happened to the relation of this name, and the OID of its schema; `None` if its row of `pg_class` did not
    /// change, as far as it is listed. `is_schema` says which OIDs can be those of schemas.
    pub fn of_name(&self, name: RelationNameHash, is_schema: impl Fn(u32) -> bool) -> Option<NamedChange> {
        let schemas = self.names.first.iter().map(|hash| (*hash, name.schema(*hash)));
        let (hash, schema) = schemas.into_iter().find(|(_, schema)| is_schema(*schema))?;
        Some(NamedChange { schema, has_row_type: self.row_types.lists(hash) })
    }

    fn kind(&self) -> DdlKind {
        let kept = self.kept();
        if !self.truncated.is_empty() {
            return DdlKind::Truncate;
        }
        if kept.is_empty() {
            return DdlKind::Drop;
        }
        // A new relation's file has its OID as number. A new file of an existing relation has a number of its own, and
        // the relation keeps its OID. To rewrite a table, PostgreSQL makes a second one.
        if self.is_cut || self.relations.more > 0 || kept.first.iter().any(|file| self.relations.lists(file.number)) {
            return DdlKind::Rewrite;
        }
        DdlKind::NewFiles
    }
}

/// What is known of a transaction that has not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenXact {
    /// The transaction, or the subtransaction.
    pub xid: u32,
    /// The files that it made.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub created: Listed<RelationFile>,
    /// The OIDs of the relations that it truncated.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub truncated: Listed<u32>,
    /// The OID of the database whose files it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_created: Option<u32>,
}

impl OpenXact {
    fn bounded(self) -> Self {
        Self { created: self.created.bounded(), truncated: self.truncated.bounded(), ..self }
    }
}

/// A database that was marked invalid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedDatabase {
    /// Its OID.
    pub database: u32,
    /// Its name.
    pub name: String,
    /// Where the record begins that marks it.
    pub lsn: Lsn,
}

/// The database and the tablespace out of which its files were copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CopiedDatabase {
    /// The OID of the database.
    pub database: u32,
    /// The OID of the tablespace in which the files were.
    pub tablespace: u32,
}

/// What the records of one segment tell about DDL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DdlFacts {
    /// The changes in LSN order, with the evidence that is in this segment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<DdlEvent>,
    /// Evidence about transactions that end in a later segment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<OpenXact>,
    /// Databases that were marked and not dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marked: Vec<MarkedDatabase>,
    /// Databases that were copied into another tablespace and not yet removed from this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub copied: Vec<CopiedDatabase>,
    /// The number of events and open transactions that are not listed; only the segment itself shows them.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

impl DdlFacts {
    /// The facts with bounded lists, as they are stored.
    #[must_use]
    pub fn bounded(self) -> Self {
        let left_out = |count: usize| count.saturating_sub(KEPT_EVENTS) as u64;
        let all = left_out(self.events.len()) + left_out(self.open.len());
        let all = all + left_out(self.marked.len()) + left_out(self.copied.len());
        Self {
            left_out: self.left_out.saturating_add(all),
            events: self.events.into_iter().take(KEPT_EVENTS).map(DdlEvent::bounded).collect(),
            open: self.open.into_iter().take(KEPT_EVENTS).map(OpenXact::bounded).collect(),
            marked: self.marked.into_iter().take(KEPT_EVENTS).collect(),
            copied: self.copied.into_iter().take(KEPT_EVENTS).collect(),
        }
    }
}

/// Puts evidence together. Records and facts must be added in LSN order.
#[derive(Debug, Clone, Default)]
pub struct DdlTracker {
    open: BTreeMap<u32, OpenXact>,
    /// Drops of databases whose transaction has not ended.
    dropping: BTreeMap<u32, DdlEvent>,
    marked: BTreeMap<u32, MarkedDatabase>,
    copied: Vec<CopiedDatabase>,
    /// By transaction, the places in the list of events of drops of tablespaces, which have no time of their own.
    undated: BTreeMap<u32, Vec<usize>>,
}

impl DdlTracker {
    /// Adds the record that begins at `lsn` and ends at `end_lsn`; a change that it completes goes to `events`, which
    /// is the same list for all records of a segment.
    pub fn add(&mut self, lsn: Lsn, end_lsn: Lsn, record: DdlRecord, events: &mut Vec<DdlEvent>) {
        match record {
            DdlRecord::XactEnd(effects) => self.end(lsn, end_lsn, effects, events),
            DdlRecord::FileCreated { xid, file } => self.xact(xid).created.join(Listed::all(vec![file])),
            DdlRecord::Truncated { xid, relations } => self.xact(xid).truncated.join(Listed::all(relations)),
            DdlRecord::DatabaseMarked(mark) => {
                let marked = MarkedDatabase { database: mark.database, name: mark.name, lsn };
                self.marked.insert(marked.database, marked);
            }
            DdlRecord::DatabaseCreated { xid, database, source } => match source {
                Some((of, tablespace)) if of == database => self.copied.push(CopiedDatabase { database, tablespace }),
                _ => self.xact(xid).database_created = Some(database),
            },
            DdlRecord::DatabaseDropped { xid, database, tablespaces } => {
                // A move removes the old files in a transaction without an id.
                let change = DdlChange::DropDatabase { database, name: None, tablespaces };
                let xid = Some(xid).filter(|xid| *xid != 0);
                let event = DdlEvent { lsn, end_lsn, begins_at: None, time: None, xid, change };
                match xid {
                    Some(xid) => drop(self.dropping.insert(xid, event)),
                    None => events.extend(self.complete(event)),
                }
            }
            DdlRecord::TablespaceDropped { xid, tablespace } => {
                let change = DdlChange::DropTablespace { tablespace };
                self.undated.entry(xid).or_default().push(events.len());
                events.push(DdlEvent { lsn, end_lsn, begins_at: None, time: None, xid: Some(xid), change });
            }
        }
    }

    fn xact(&mut self, xid: u32) -> &mut OpenXact {
        self.open.entry(xid).or_insert_with(|| OpenXact { xid, ..OpenXact::default() })
    }

    fn end(&mut self, lsn: Lsn, end_lsn: Lsn, effects: XactEffects, events: &mut Vec<DdlEvent>) {
        if let Some(xid) = effects.xid {
            for place in self.undated.remove(&xid).into_iter().flatten() {
                if let Some(event) = events.get_mut(place).filter(|event| event.xid == Some(xid)) {
                    event.time = effects.time;
                }
            }
            if let Some(mut event) = self.dropping.remove(&xid) {
                event.time = effects.time;
                events.extend(self.complete(event));
            }
        }
        let is_commit = effects.is_commit;
        let changes = RelationChanges {
            dropped: Listed {
                more: u64::from(effects.dropped_count).saturating_sub(effects.dropped.len() as u64),
                first: effects.dropped,
            },
            relations: Listed::all(effects.relations),
            names: Listed::all(effects.names),
            row_types: Listed::all(effects.row_types),
            subxacts: Listed::all(effects.subxacts),
            is_cut: effects.is_cut,
            ..RelationChanges::default()
        };
        let (xid, time, change) = (effects.xid, effects.time, DdlChange::Relations(changes));
        let ended = self.complete(DdlEvent { lsn, end_lsn, begins_at: None, time, xid, change });
        events.extend(ended.filter(|_| is_commit));
    }

    /// Adds the kept evidence to an event, and forgets it. `None` if nothing is lost.
    fn complete(&mut self, mut event: DdlEvent) -> Option<DdlEvent> {
        match &mut event.change {
            DdlChange::Relations(changes) => {
                // Most transactions leave no evidence.
                let xids = event.xid.into_iter().chain(changes.subxacts.first.iter().copied());
                let xids: Vec<u32> = if self.open.is_empty() { Vec::new() } else { xids.collect() };
                for open in xids.into_iter().filter_map(|xid| self.open.remove(&xid)) {
                    changes.created.join(open.created);
                    changes.truncated.join(open.truncated);
                }
                // Each fork of a relation has a record of its own.
                changes.created.sort();
                changes.truncated.sort();
                let is_lost = !changes.lost().is_empty();
                return Some(event).filter(|_| is_lost);
            }
            DdlChange::DropDatabase { database, name, tablespaces } => {
                let (database, open) = (*database, event.xid.and_then(|xid| self.open.remove(&xid)));
                // A CREATE DATABASE that failed removes what it has copied.
                if open.is_some_and(|open| open.database_created == Some(database)) {
                    return None;
                }
                if let Some(marked) = self.marked.remove(&database) {
                    *name = Some(marked.name);
                    event.begins_at = Some(marked.lsn);
                    return Some(event);
                }
                let copied = |tablespace: u32| CopiedDatabase { database, tablespace };
                let is_move = tablespaces.iter().all(|tablespace| self.copied.contains(&copied(*tablespace)));
                if name.is_none() && !tablespaces.is_empty() && is_move {
                    let tablespaces = std::mem::take(tablespaces);
                    let removed: Vec<_> = tablespaces.iter().map(|tablespace| copied(*tablespace)).collect();
                    self.copied.retain(|copied| !removed.contains(copied));
                    event.change = DdlChange::MoveDatabase { database, tablespaces };
                }
            }
            DdlChange::MoveDatabase { .. } | DdlChange::DropTablespace { .. } => {}
        }
        Some(event)
    }

    /// Adds the facts of a segment, and returns its events with the evidence of the segments before.
    pub fn add_facts(&mut self, facts: DdlFacts) -> Vec<DdlEvent> {
        for marked in facts.marked {
            self.marked.insert(marked.database, marked);
        }
        self.copied.extend(facts.copied);
        let events = facts.events.into_iter().filter_map(|event| self.complete(event)).collect();
        for open in facts.open {
            let known = self.xact(open.xid);
            known.created.join(open.created);
            known.truncated.join(open.truncated);
            known.database_created = known.database_created.or(open.database_created);
        }
        events
    }

    /// The events of a segment and the evidence that is left, with complete lists.
    pub fn into_facts(mut self, mut events: Vec<DdlEvent>) -> DdlFacts {
        let dropping = std::mem::take(&mut self.dropping);
        events.extend(dropping.into_values().filter_map(|event| self.complete(event)));
        events.sort_by_key(|event| event.lsn);
        for open in self.open.values_mut() {
            open.created.sort();
            open.truncated.sort();
        }
        DdlFacts {
            events,
            open: self.open.into_values().collect(),
            marked: self.marked.into_values().collect(),
            copied: self.copied,
            left_out: 0,
        }
    }
}
