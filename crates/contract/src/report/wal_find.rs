//! `holdfast wal find`.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::wal::ddl::{DdlKind, Listed};
use holdfast_pgtypes::wal::relation_file::RelationFile;
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use holdfast_repo::name::{BackupId, ClaimNumber, ClusterName};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFindReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// The repository's redacted URL.
    pub store: String,
    /// The number of the claim whose WAL was searched.
    pub claim: ClaimNumber,
    /// The timeline along which it was searched.
    pub timeline: TimelineId,
    /// The searched WAL; `None` if a place was looked up without a search for changes.
    #[serde(default)]
    pub searched: Option<SearchedWal>,
    /// What was found. Changes are newest first.
    pub places: Vec<FoundPlace>,
    /// Further notes, as text for people.
    pub notes: Vec<String>,
}

/// The WAL that was searched for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchedWal {
    /// The number of segments whose facts were looked at.
    pub segments: u64,
    /// The number of segments that were read as a whole, because their facts did not say enough.
    pub segments_read: u64,
}

/// A place in the WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundPlace {
    /// The timeline in the name of the segment.
    pub timeline: TimelineId,
    /// The segment in which the record begins.
    pub segment: SegmentName,
    /// Where the record begins.
    pub lsn: Lsn,
    /// When the transaction ended or the restore point was made, by the server's clock; `None` if it is not known.
    pub time: Option<DateTime<Utc>>,
    /// The transaction; `None` if the record has none or it is not known.
    pub xid: Option<u32>,
    /// The kind of record or change.
    pub what: FoundWhat,
    /// The name of the restore point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What was changed, if it is a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<FoundChange>,
    /// How to restore to it.
    pub ways: Vec<RestoreFlags>,
}

/// What is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FoundWhat {
    /// A transaction was committed.
    Commit,
    /// A transaction was rolled back.
    Rollback,
    RestorePoint,
    /// The wanted LSN.
    Position,
    /// No record that is known: recovery stops here or later.
    Unknown,
    /// Relations lost their files, and the transaction made no others.
    Drop,
    /// Tables were truncated. Certain: the WAL says so.
    Truncate,
    /// Existing relations got new files: `TRUNCATE`, `REINDEX`, or `ALTER TABLE ... SET TABLESPACE`.
    NewFiles,
    /// Files went, and relations were made: a rewrite, or a drop and a creation in one transaction.
    Rewrite,
    /// A database was dropped.
    DropDatabase,
    /// A database was moved to another tablespace, and nothing was lost.
    MoveDatabase,
    /// An empty tablespace was dropped.
    DropTablespace,
}

impl From<DdlKind> for FoundWhat {
    fn from(kind: DdlKind) -> Self {
        match kind {
            DdlKind::Drop => Self::Drop,
            DdlKind::Truncate => Self::Truncate,
            DdlKind::NewFiles => Self::NewFiles,
            DdlKind::Rewrite => Self::Rewrite,
            DdlKind::DropDatabase => Self::DropDatabase,
            DdlKind::MoveDatabase => Self::MoveDatabase,
            DdlKind::DropTablespace => Self::DropTablespace,
        }
    }
}

/// What a transaction took away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundChange {
    /// The OID of the database; `None` if it concerns none, or relations that all databases share.
    pub database: Option<u32>,
    /// Its name, if the WAL or a backup says it.
    pub database_name: Option<String>,
    /// The OID of the tablespace that was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// How the wanted relation was recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recognised: Option<Recognised>,
    /// Relations whose definition changed, as the newest backup before it knows them. It does not know those that were
    /// made after it.
    pub known_relations: Vec<KnownRelation>,
    /// The OIDs of all relations whose definition changed.
    pub relations: Listed<u32>,
    /// The OIDs of relations that were truncated for certain.
    pub truncated: Listed<u32>,
    /// The files that are gone.
    pub lost_files: Listed<RelationFile>,
    /// The files that came instead.
    pub new_files: Listed<RelationFile>,
}

/// A relation as a backup has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KnownRelation {
    pub oid: u32,
    /// The schema; its OID if the backup does not have its name.
    pub schema: String,
    pub name: String,
    /// `relkind`: `r` is a table, `i` an index, `t` a TOAST table, `S` a sequence, `m` a materialised view.
    pub kind: char,
    /// Whether the file that the backup has of it is among those that are gone. If not, the relation had got another
    /// file in between, or it only changed, as the other side of a foreign key does.
    pub file_is_gone: bool,
}

/// How the wanted relation or database was recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recognised {
    /// Which evidence matched.
    pub by: RecognisedBy,
    /// For a relation's name: the OID of the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
    /// Its name, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_name: Option<String>,
    /// For a relation's name: whether the row type changed as well, so that the table or view was made, dropped or
    /// renamed, and not only truncated or rewritten. Indexes and sequences have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_type: Option<bool>,
}

/// By what something was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecognisedBy {
    /// The commit changed the row of `pg_class` with this name, known by its hash.
    Name,
    /// The number is the OID of a changed relation.
    RelationOid,
    /// The number is that of a file that is gone.
    File,
    /// The database has this name, in the WAL or in a backup.
    DatabaseName,
    /// The number is the OID of the database, or of the tablespace.
    DatabaseOrTablespace,
}

impl From<RecognisedBy> for Recognised {
    fn from(by: RecognisedBy) -> Self {
        Self { by, schema: None, schema_name: None, row_type: None }
    }
}

/// One way to restore to a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreFlags {
    /// On which side of the place recovery stops.
    pub stops: StopSide,
    /// The flags for `holdfast restore`.
    pub flags: Vec<String>,
    /// The backup that it would begin with; `None` if it is not possible.
    pub backup: Option<BackupId>,
    /// Why it is not possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A side of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopSide {
    /// Without what is there.
    Before,
    /// With what is there.
    After,
}
