//! What can go wrong in a verb: one variant for each thing that a caller does differently.
//!
//! [`Cause`] says what happened; [`Error::doing`] collects, from the inside to the outside, phrases
//! in the present tense that say what the engine was doing. The wording for people (hints, exit
//! codes) is the command line's; everything it needs for that is a field here.

mod scope;

use std::path::{Path, PathBuf};

use holdfast_pgtypes as pg;
use holdfast_repo as repo;
use holdfast_store::StoreError;

/// An error of a verb, with what it was doing.
#[derive(Debug)]
pub struct Error {
    /// What happened.
    pub what: Box<Cause>,
    /// What the engine was doing, innermost first.
    pub doing: Vec<String>,
}

/// What happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The object store refused or could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Bytes in the repository are not what they should be.
    #[error(transparent)]
    Format(#[from] repo::FormatError),
    /// A JSON record of the repository cannot be read.
    #[error(transparent)]
    Record(#[from] repo::record::RecordError),
    /// The repository key cannot be unlocked.
    #[error(transparent)]
    Key(#[from] repo::key::KeyError),
    /// The requested target cannot be reached from what is stored.
    #[error(transparent)]
    Unreachable(#[from] repo::recovery::Unreachable),
    /// A statement or the connection failed.
    #[error("{}", postgres_text(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The connection string cannot be used.
    #[error("{0}")]
    Connection(String),
    /// The connection parameters cannot be used as they are written.
    #[error("{0}")]
    ConnectionParameters(String),
    /// A session that was needed to its end is gone.
    #[error("the session with PostgreSQL was lost: {reason}")]
    SessionLost {
        /// What the server said last, or how the connection failed.
        reason: String,
    },
    /// `postmaster.pid` is not what a server writes.
    #[error("{} does not begin with a process id", path.display())]
    PostmasterPid {
        /// The file.
        path: PathBuf,
    },
    /// The server cannot be backed up as it is configured.
    #[error("{0}")]
    ServerSetting(ServerSetting),
    /// A local file could not be read or written.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// "read", "write", "create" and the like.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// `global/pg_control` is not one of PostgreSQL 13 to 18, or is damaged.
    #[error("{}: {source}", path.display())]
    ControlFile {
        /// Where it was read.
        path: PathBuf,
        /// Why it is refused.
        source: pg::control::ControlFileError,
    },
    /// A file inside the data directory or the repository does not parse.
    #[error("{name} cannot be understood: {reason}")]
    Malformed {
        /// Which file or object.
        name: String,
        /// Why.
        reason: String,
    },
    /// There is no repository at this place.
    #[error("there is no Holdfast repository at {store}")]
    NotInitialised {
        /// The redacted URL.
        store: String,
    },
    /// There is a repository already, and it is another one than would be made.
    #[error("{store} holds a repository already: {found}")]
    AlreadyInitialised {
        /// The redacted URL.
        store: String,
        /// Which.
        found: String,
    },
    /// A later release does something in this repository that this one does not know.
    #[error("{store} has the feature {feature}, which this release does not know: written by a newer holdfast")]
    NewerFeature {
        /// The redacted URL.
        store: String,
        /// The last part of its name.
        feature: String,
    },
    /// The configuration and the repository disagree on encryption.
    #[error("{store} is {found}, but the configuration says {configured}")]
    EncryptionMismatch {
        /// The redacted URL.
        store: String,
        /// "encrypted with aes-256-gcm" or "not encrypted".
        found: String,
        /// What the configuration says.
        configured: String,
    },
    /// The repository has no key slot that could be opened by what is configured.
    #[error("{store} has no {kind} key slot")]
    NoKeySlot {
        /// The redacted URL.
        store: String,
        /// "passphrase" or "key-file".
        kind: &'static str,
    },
    /// The keys were rotated, and the configured secret does not give the newest.
    #[error("the keys of {store} were rotated: {why}")]
    KeysRotated {
        /// The redacted URL.
        store: String,
        /// What says so.
        why: String,
    },
    /// The archive belongs to another cluster.
    #[error("the archive {cluster} in {store} belongs to system identifier {claimed}, but {here} has {found}")]
    WrongCluster {
        /// The redacted URL.
        store: String,
        /// The name of the archive.
        cluster: String,
        /// Who claimed it.
        claimed: pg::SystemIdentifier,
        /// What is being worked with.
        here: String,
        /// Its identity.
        found: pg::SystemIdentifier,
    },
    /// The archive was claimed for somebody else.
    #[error("the archive {cluster} in {store} is claimed {}, but {here} is {owner}", claimed_by(claimed.as_ref(), *system_identifier))]
    WrongOwner {
        /// The redacted URL.
        store: String,
        /// The name of the archive.
        cluster: String,
        /// Whose the claim is; `None` when it names nobody.
        claimed: Option<String>,
        /// The system identifier of the claim.
        system_identifier: pg::SystemIdentifier,
        /// What is being worked with: "the data directory /srv/pg".
        here: String,
        /// Its owner.
        owner: String,
    },
    /// An archive that is to be begun holds objects already, and no claim.
    #[error(
        "the archive {cluster} in {store} is not empty: it holds {found}, and nobody has claimed it; {here} is {owner}"
    )]
    ArchiveNotEmpty {
        /// The redacted URL.
        store: String,
        /// The name of the archive.
        cluster: String,
        /// What it holds, in words.
        found: String,
        /// What is being worked with.
        here: String,
        /// Its owner.
        owner: String,
    },
    /// The archive belongs to another major version of PostgreSQL.
    #[error("the archive {cluster} in {store} is of PostgreSQL {claimed}, but {here} is of PostgreSQL {found}")]
    WrongVersion {
        /// The redacted URL.
        store: String,
        /// The name of the archive.
        cluster: String,
        /// The major version that claimed it.
        claimed: u16,
        /// What is being worked with.
        here: String,
        /// Its major version.
        found: u16,
    },
    /// A WAL file is not the segment that its name says, or not of this cluster.
    #[error("{file}: {source}")]
    SegmentMismatch {
        /// The WAL file.
        file: String,
        /// Which of its facts differs.
        source: pg::wal::segment_check::SegmentMismatch,
    },
    /// A WAL segment file that is not whole.
    #[error("{} has {found} bytes, the cluster's WAL segments have {}", path.display(), expected.bytes())]
    SegmentSize {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The size of every segment of this cluster.
        expected: pg::WalSegmentSize,
    },
    /// No claim has been made on this archive yet.
    #[error("nothing has been archived for cluster {cluster} in {store}")]
    NoClaim {
        /// The redacted URL.
        store: String,
        /// The name of the archive.
        cluster: String,
    },
    /// The same name with other content is stored already.
    #[error("{name} is stored in {store} already, with other content")]
    Divergence {
        /// The redacted URL.
        store: String,
        /// The object.
        name: String,
        /// The BLAKE3 of the stored content, where known.
        stored: String,
        /// The BLAKE3 of the content here.
        here: String,
    },
    /// The repository answered that this WAL file is not there.
    #[error("{file} is not in the archive")]
    Absent {
        /// The WAL file.
        file: String,
    },
    /// What was stored could not be read back as it was sent.
    #[error("{name} in {store} is not as it was stored: {reason}")]
    NotReadable {
        /// The redacted URL.
        store: String,
        /// The object.
        name: String,
        /// Size or checksum that differs.
        reason: String,
    },
    /// WAL that the backup needs did not reach the archive in time.
    #[error("WAL segment {segment} was not archived within {}s", waited.as_secs())]
    NotArchived {
        /// The first one missing.
        segment: String,
        /// How long it was waited for.
        waited: std::time::Duration,
    },
    /// The restore target directory holds something.
    #[error("{} is not empty", directory.display())]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory of a tablespace holds something that this restore does not own.
    #[error("tablespace {tablespace} would be in {}, which is not empty", directory.display())]
    TablespaceNotEmpty {
        /// The tablespace's name.
        tablespace: String,
        /// Its directory.
        directory: PathBuf,
    },
    /// Something lies in the way of a restore that is not its own, and would be removed.
    #[error("{} holds {found}, which this restore would remove", directory.display())]
    NotOurs {
        /// The directory to restore into.
        directory: PathBuf,
        /// What it is and where, in words.
        found: String,
    },
    /// Only the directory to restore into has this WAL.
    #[error("{} holds WAL that was not archived: {count} files, {first} to {last}", directory.display())]
    UnarchivedWal {
        /// `pg_wal`.
        directory: PathBuf,
        /// How many files.
        count: usize,
        /// The first of them.
        first: String,
        /// The last of them.
        last: String,
    },
    /// One configured place lies in another, and what is done to one would be done to the other.
    #[error("{inner} is inside {outer}")]
    Overlap {
        /// What lies in the other, or is the same.
        inner: String,
        /// What it lies in.
        outer: String,
    },
    /// A server that runs on this host uses this place.
    #[error("{} is in use by the PostgreSQL server of {} (process {pid})", place.display(), pgdata.display())]
    InUse {
        /// What is used.
        place: PathBuf,
        /// The server's data directory.
        pgdata: PathBuf,
        /// One of its processes.
        pid: i32,
    },
    /// A link in a copied data directory leads to what a server that runs on this host uses.
    #[error("{} leads to {}, which is in use by the PostgreSQL server of {} (process {pid})", link.display(), target.display(), pgdata.display())]
    LinkInUse {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// The server's data directory.
        pgdata: PathBuf,
        /// One of its processes.
        pid: i32,
    },
    /// WAL replay would write where a server of this host has its files.
    #[error("this recovery makes the tablespace in {} again, which is in use by the PostgreSQL server of {} (process {pid})",
        place.display(), pgdata.display())]
    ReplayInUse {
        /// The directory of the tablespace.
        place: PathBuf,
        /// The server's data directory.
        pgdata: PathBuf,
        /// One of its processes.
        pid: i32,
    },
    /// Whether a server runs cannot be told.
    #[error("{} holds no process number, so it is not known whether a server runs there", path.display())]
    UnclearLockFile {
        /// `postmaster.pid`.
        path: PathBuf,
    },
    /// A server may run in this directory, in another container or on the host of this one.
    #[error(
        "{} has the lock file of a PostgreSQL server (process {pid}), and a container does not show whether that process \
         runs elsewhere",
        directory.display()
    )]
    UnseenServer {
        /// The data directory.
        directory: PathBuf,
        /// The process.
        pid: i32,
    },
    /// A server runs in this directory.
    #[error("a PostgreSQL server is running in {} (process {pid})", directory.display())]
    ServerRunning {
        /// The data directory.
        directory: PathBuf,
        /// Its process.
        pid: i32,
    },
    /// Another run of the same kind is at work.
    #[error("another {verb} of {subject} is running{}", pid.map_or(String::new(), |p| format!(" (process {p})")))]
    AnotherRun {
        /// "backup", "restore".
        verb: &'static str,
        /// Of what.
        subject: String,
        /// Its process, where known.
        pid: Option<i32>,
    },
    /// What a run that was taken for dead wrote last, after others had begun to remove it: no backup.
    #[error(
        "{name} makes no backup: its run was taken for dead, and {missing} was removed before the record came; \
         `holdfast expire` removes what is left"
    )]
    Remnant {
        /// The record, `backup.json`.
        name: String,
        /// The first object of it that is missing.
        missing: String,
    },
    /// The lease of this run ended before it was prolonged: others may have taken it for dead.
    #[error(
        "the lease of this run in {cluster} ended before it could be prolonged, because this host slept or {store} was \
         away for too long"
    )]
    LeaseEnded {
        /// The redacted URL.
        store: String,
        /// The cluster.
        cluster: String,
    },
    /// There are no programs of PostgreSQL in the version that is needed.
    #[error("PostgreSQL {major} is needed here to start the restored server, and was not found: {found}")]
    NoPrograms {
        /// The major version.
        major: u16,
        /// What was found instead, in words.
        found: String,
    },
    /// A file system has no room for what would be written.
    #[error("{} has {free} bytes free, and {needed} are needed", directory.display())]
    NoRoom {
        /// A directory of the file system.
        directory: PathBuf,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A restored server stopped its recovery because WAL could not be asked for.
    #[error("recovery of the restored server stopped, since the repository could not be asked for WAL: {log}")]
    ReplayStopped {
        /// What `restore_command` ended with, as in the table of exit codes.
        status: u8,
        /// What the server said.
        log: String,
    },
    /// No backup of that name is complete.
    #[error("there is no complete backup {backup} of cluster {cluster}")]
    NoSuchBackup {
        /// What was asked for.
        backup: String,
        /// The cluster.
        cluster: String,
    },
    /// No snapshot of that id is recorded.
    #[error("there is no snapshot {snapshot} of cluster {cluster}")]
    NoSuchSnapshot {
        /// What was asked for.
        snapshot: String,
        /// The cluster.
        cluster: String,
    },
    /// The history of a timeline is in the archive, is needed, and cannot be read.
    #[error("the history of timeline {timeline} is needed, but cannot be read: {reason}")]
    UnreadableHistory {
        /// The timeline.
        timeline: pg::TimelineId,
        /// Whether it is the timeline that was asked for.
        named: bool,
        /// Why it cannot be read.
        reason: String,
        /// Whether a newer release wrote it.
        newer: bool,
    },
    /// A backup failed, and a record that makes it exist was sent: it may be stored all the same.
    #[error("backup {backup} may exist in {}: {failure}", stores.join(" and in "))]
    MayExist {
        /// The backup.
        backup: String,
        /// The redacted URLs of the repositories where it may be.
        stores: Vec<String>,
        /// Why it failed.
        failure: Box<Error>,
    },
    /// A backup would have more packs in this repository than it has names for.
    #[error("the backup needs more than {most} packs in {store}")]
    TooManyPacks {
        /// The redacted URL.
        store: String,
        /// How many there can be.
        most: u32,
    },
    /// Something asked for cannot be done as asked.
    #[error("{0}")]
    Refused(String),
    /// A signal or the caller ended the command.
    #[error("cancelled")]
    Cancelled,
    /// A fault of Holdfast itself.
    #[error("internal fault: {0}")]
    Internal(String),
}

/// A setting of the server that makes a backup impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerSetting {
    /// `wal_level = minimal` writes too little WAL to recover a backup.
    #[error("wal_level is \"minimal\"")]
    WalLevelMinimal,
    /// A version that this release does not know.
    #[error("PostgreSQL {0} is not supported (13 to 18 are)")]
    Version(String),
    /// The connection leads to another server than the data directory's.
    #[error("the connection leads to a server with system identifier {server}, but {} has {directory_identifier}", directory.display())]
    OtherServer {
        /// The server's identity.
        server: pg::SystemIdentifier,
        /// The directory.
        directory: PathBuf,
        /// The directory's identity.
        directory_identifier: pg::SystemIdentifier,
    },
    /// The connection leads to a server of the same cluster that uses other files.
    #[error("the connection does not lead to the server of {}: {reason}", directory.display())]
    OtherFiles {
        /// The directory.
        directory: PathBuf,
        /// What differs.
        reason: String,
    },
}

impl Error {
    /// Adds what was being done, from the inside to the outside.
    #[must_use]
    pub fn doing(mut self, phrase: impl Into<String>) -> Self {
        self.doing.push(phrase.into());
        self
    }

    /// A failed operation on a local file.
    pub(crate) fn file(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Cause::File { operation, path: path.to_owned(), source }.into()
    }

    /// Whether a conditional create found the name taken.
    pub fn is_already_exists(&self) -> bool {
        matches!(&*self.what, Cause::Store(e) if e.kind() == holdfast_store::StoreErrorKind::AlreadyExists)
    }

    /// Whether the repository answered that the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(&*self.what, Cause::Store(e) if e.kind() == holdfast_store::StoreErrorKind::NotFound)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.what)?;
        for phrase in &self.doing {
            write!(f, ", while {phrase}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.what)
    }
}

impl<T: Into<Cause>> From<T> for Error {
    fn from(what: T) -> Self {
        Self { what: Box::new(what.into()), doing: Vec::new() }
    }
}

/// Adds what was being done to a failed result.
pub trait ResultExt<T> {
    /// `phrase` completes "while …", in the present tense.
    ///
    /// # Errors
    /// The failure itself, with the phrase.
    fn doing(self, phrase: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<Error>> ResultExt<T> for Result<T, E> {
    fn doing(self, phrase: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| e.into().doing(phrase()))
    }
}

fn claimed_by(owner: Option<&String>, system_identifier: pg::SystemIdentifier) -> String {
    match owner {
        Some(owner) => format!("by {owner} (system identifier {system_identifier})"),
        None => format!("for system identifier {system_identifier}, without an owner"),
    }
}

/// PostgreSQL's own message, not only "db error".
pub(crate) fn postgres_text(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    if let Some(db) = error.as_db_error() {
        return format!("{}: {} (SQLSTATE {})", db.severity(), db.message(), db.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
