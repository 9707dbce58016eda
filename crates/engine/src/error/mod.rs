//! The errors of the verbs: one variant for each thing that a caller does differently.
//!
//! [`Cause`] says what happened; [`Error::doing`] collects, from the inside to the outside, phrases in the present
//! tense that say what the engine was doing. The command line adds hints and exit codes; everything that it needs for
//! them is a field here.

mod host_fault;
mod result_ext;
mod scope;
mod server_setting;
mod text;

use std::path::{Path, PathBuf};

use holdfast_pgtypes as pg;
use holdfast_repo as repo;
use holdfast_store::StoreError;

pub use host_fault::HostFault;
pub use result_ext::ResultExt;
pub use server_setting::ServerSetting;
use text::claimed_by;
pub(crate) use text::postgres_text;

/// An error of a verb, with what the verb was doing.
#[derive(Debug)]
pub struct Error {
    /// What happened.
    pub what: Box<Cause>,
    /// What the engine was doing, innermost first.
    pub doing: Vec<String>,
}

/// What happened; the caller decides by the variant.
#[expect(missing_docs, reason = "the texts of the errors say what the fields are")]
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
    /// The server answered a command of the replication protocol, or its start, with an error.
    #[error("{severity}: {message} (SQLSTATE {sqlstate})")]
    ServerAnswer {
        /// `ERROR` or `FATAL`, perhaps translated.
        severity: String,
        /// The server's message.
        message: String,
        /// The five characters of the error code.
        sqlstate: String,
    },
    /// The connection over which a server streams its WAL has ended, or says something that is not the protocol.
    #[error("the replication connection was lost: {reason}")]
    StreamLost {
        /// How it failed.
        reason: String,
    },
    /// The replication slot no longer protects the WAL that is needed.
    #[error("the replication slot {slot} is lost: {reason}")]
    SlotLost {
        /// The name of the slot.
        slot: String,
        /// What the server says.
        reason: String,
    },
    /// The server no longer has WAL that the repository does not have yet.
    #[error("WAL is missing: the repository ends at {from} on timeline {timeline}, and {reason}")]
    WalGap {
        /// The first missing byte.
        from: pg::Lsn,
        /// The timeline of the missing WAL.
        timeline: pg::TimelineId,
        /// What the server says.
        reason: String,
    },
    /// The server's WAL is not the continuation of what the repository has.
    #[error("the server's WAL differs from the WAL in {store}: {reason}")]
    OtherWal {
        /// The redacted URL of the repository.
        store: String,
        /// What differs.
        reason: String,
    },
    /// The connection string cannot be used.
    #[error("{0}")]
    Connection(String),
    /// The connection parameters cannot be used as they are written.
    #[error("{0}")]
    ConnectionParameters(String),
    /// A session that was needed until its end is lost.
    #[error("the session with PostgreSQL was lost: {reason}")]
    SessionLost {
        /// The server's last message, or how the connection failed.
        reason: String,
    },
    /// `postmaster.pid` does not have the form that a server writes.
    #[error("{} does not begin with a process id", path.display())]
    PostmasterPid {
        /// The path of the file.
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
        /// The path of the file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The server, the data directory or a WAL file here is of a PostgreSQL that is not supported.
    #[error(transparent)]
    UnsupportedVersion(#[from] pg::version::UnsupportedVersion),
    /// Something in the repository is of a PostgreSQL that is not supported: a later release has stored it.
    #[error("{name}: {source}")]
    StoredVersion {
        /// What it is, for messages: "claim 3 of the archive main".
        name: String,
        source: pg::version::UnsupportedVersion,
    },
    /// `global/pg_control` is not a control file of a supported PostgreSQL, or is damaged.
    #[error("{}: {source}", path.display())]
    ControlFile {
        path: PathBuf,
        /// Why it is refused.
        source: pg::control::ControlFileError,
    },
    /// A file inside the data directory or the repository does not parse.
    #[error("{name} cannot be understood: {reason}")]
    Malformed {
        /// The file or object.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no repository at this place.
    #[error("there is no Holdfast repository at {store}")]
    NotInitialised {
        /// The redacted URL of the repository.
        store: String,
    },
    /// There is already a repository, or remains of one, that does not fit the configuration.
    #[error("{store} already holds a repository: {found}")]
    AlreadyInitialised {
        /// The redacted URL of the repository.
        store: String,
        /// The object that shows it.
        found: String,
    },
    /// The repository has a feature of a later release that this release does not know.
    #[error("{store} has the feature {feature}, which this release does not know: written by a newer holdfast")]
    NewerFeature {
        /// The redacted URL of the repository.
        store: String,
        /// The last part of the name of the feature's object.
        feature: String,
    },
    /// The configuration and the repository disagree on encryption.
    #[error("{store} is {found}, but the configuration says {configured}")]
    EncryptionMismatch {
        /// The redacted URL of the repository.
        store: String,
        /// "encrypted with aes-256-gcm" or "not encrypted".
        found: String,
        /// What the configuration says.
        configured: String,
    },
    /// The repository has no key slot of the kind that the configured secret can open.
    #[error("{store} has no {kind} key slot")]
    NoKeySlot {
        /// The redacted URL of the repository.
        store: String,
        /// "passphrase" or "key-file".
        kind: &'static str,
    },
    /// The keys were rotated, and the configured secret does not give the newest key.
    #[error("the keys of {store} were rotated: {why}")]
    KeysRotated {
        /// The redacted URL of the repository.
        store: String,
        why: String,
    },
    /// The archive belongs to another cluster.
    #[error("the archive {cluster} in {store} belongs to system identifier {claimed}, but {here} has {found}")]
    WrongCluster {
        /// The redacted URL of the repository.
        store: String,
        /// The name of the archive.
        cluster: String,
        /// The system identifier in the claim.
        claimed: pg::SystemIdentifier,
        /// The cluster in use, for messages: "the data directory /srv/pg".
        here: String,
        found: pg::SystemIdentifier,
    },
    /// The archive was claimed for another owner.
    #[error("the archive {cluster} in {store} is claimed {}, but {here} is {owner}", claimed_by(claimed.as_ref(), *system_identifier))]
    WrongOwner {
        /// The redacted URL of the repository.
        store: String,
        /// The name of the archive.
        cluster: String,
        /// The owner in the claim; `None` if it names none.
        claimed: Option<String>,
        /// The system identifier of the claim.
        system_identifier: pg::SystemIdentifier,
        /// The cluster in use, for messages: "the data directory /srv/pg".
        here: String,
        /// The owner of that cluster.
        owner: String,
    },
    /// A new archive already holds objects and has no claim.
    #[error(
        "the archive {cluster} in {store} is not empty: it holds {found}, and nobody has claimed it; {here} is {owner}"
    )]
    ArchiveNotEmpty {
        /// The redacted URL of the repository.
        store: String,
        /// The name of the archive.
        cluster: String,
        /// What it holds, as text for people.
        found: String,
        /// The cluster in use, for messages.
        here: String,
        /// The owner of that cluster.
        owner: String,
    },
    /// The archive belongs to another major version of PostgreSQL.
    #[error("the archive {cluster} in {store} is of PostgreSQL {claimed}, but {here} is of PostgreSQL {found}")]
    WrongVersion {
        /// The redacted URL of the repository.
        store: String,
        /// The name of the archive.
        cluster: String,
        /// The major version in the claim.
        claimed: u16,
        /// The cluster in use, for messages.
        here: String,
        /// The major version of that cluster.
        found: u16,
    },
    /// A WAL file is not the segment that its name says, or not of this cluster.
    #[error("{file}: {source}")]
    SegmentMismatch {
        file: String,
        /// The fact that differs.
        source: pg::wal::segment_check::SegmentMismatch,
    },
    /// A WAL segment file does not have the size of a segment.
    #[error("{} has {found} bytes, the cluster's WAL segments have {}", path.display(), expected.bytes())]
    SegmentSize {
        /// The path of the file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The size of the segments of this cluster.
        expected: pg::WalSegmentSize,
    },
    /// No claim has been made on this archive yet.
    #[error("nothing has been archived for cluster {cluster} in {store}")]
    NoClaim {
        /// The redacted URL of the repository.
        store: String,
        /// The name of the archive.
        cluster: String,
    },
    /// Other content is already stored under the name.
    #[error("{name} is already stored in {store}, with other content")]
    Divergence {
        /// The redacted URL of the repository.
        store: String,
        /// The name of the object.
        name: String,
        /// The BLAKE3 of the stored content, if known.
        stored: String,
        /// The BLAKE3 of the content here.
        here: String,
    },
    /// The repository answered that this WAL file is not there.
    #[error("{file} is not in the archive")]
    Absent { file: String },
    /// The pieces of a segment do not reach the end that `--tail` gives: some are damaged or lost.
    #[error(
        "of WAL segment {segment} only the pieces before {end} can be read, but the archive had all before {needed}"
    )]
    TailTooShort {
        /// The name of the segment.
        segment: String,
        /// The end of what can be read.
        end: pg::Lsn,
        /// The end of what must be there.
        needed: pg::Lsn,
    },
    /// An object does not read back as it was stored.
    #[error("{name} in {store} is not as it was stored: {reason}")]
    NotReadable {
        /// The redacted URL of the repository.
        store: String,
        /// The name of the object.
        name: String,
        /// The size or checksum that differs.
        reason: String,
    },
    /// WAL that the backup needs did not reach the archive in time.
    #[error("WAL segment {segment} was not archived within {}s", waited.as_secs())]
    NotArchived {
        /// The first missing segment.
        segment: String,
        /// How long the command waited.
        waited: std::time::Duration,
    },
    /// The restore target directory holds something.
    #[error("{} is not empty", directory.display())]
    NotEmpty { directory: PathBuf },
    /// The directory of a tablespace holds something that this restore does not own.
    #[error("tablespace {tablespace} would be in {}, which is not empty", directory.display())]
    TablespaceNotEmpty {
        tablespace: String,
        /// The place of the tablespace.
        directory: PathBuf,
    },
    /// The restore would remove something that does not belong to the old data directory.
    #[error("{} holds {found}, which this restore would remove", directory.display())]
    NotOurs {
        /// The directory to restore into.
        directory: PathBuf,
        /// What it is and where, as text for people.
        found: String,
    },
    /// Only the directory to restore into has this WAL.
    #[error("{} holds WAL that was not archived: {count} files, {first} to {last}", directory.display())]
    UnarchivedWal {
        directory: PathBuf,
        /// The number of files.
        count: usize,
        first: String,
        last: String,
    },
    /// One configured place is inside another, so a change in one would be a change in the other.
    #[error("{inner} is inside {outer}")]
    Overlap {
        /// The place that is inside the other, or the same.
        inner: String,
        /// The place that contains it.
        outer: String,
    },
    /// A server that runs on this host uses this place.
    #[error("{} is in use by the PostgreSQL server of {} (process {pid})", place.display(), pgdata.display())]
    InUse {
        place: PathBuf,
        /// The server's data directory.
        pgdata: PathBuf,
        /// The process id of one of its processes.
        pid: i32,
    },
    /// A link in a copied data directory leads to what a server that runs on this host uses.
    #[error("{} leads to {}, which is in use by the PostgreSQL server of {} (process {pid})", link.display(), target.display(), pgdata.display())]
    LinkInUse {
        link: PathBuf,
        target: PathBuf,
        /// The server's data directory.
        pgdata: PathBuf,
        /// The process id of one of its processes.
        pid: i32,
    },
    /// WAL replay would write into a directory of a server of this host.
    #[error("this recovery makes the tablespace in {} again, which is in use by the PostgreSQL server of {} (process {pid})",
        place.display(), pgdata.display())]
    ReplayInUse {
        /// The directory of the tablespace.
        place: PathBuf,
        /// The server's data directory.
        pgdata: PathBuf,
        /// The process id of one of its processes.
        pid: i32,
    },
    /// It is not known whether a server runs.
    #[error("{} contains no process id, so it is not known whether a server runs there", path.display())]
    UnclearLockFile {
        /// The path of `postmaster.pid`.
        path: PathBuf,
    },
    /// A server may run in this directory, in another container or on this container's host.
    #[error(
        "{} has the lock file of a PostgreSQL server (process {pid}), and a container does not show whether that process \
         runs elsewhere",
        directory.display()
    )]
    UnseenServer {
        directory: PathBuf,
        /// The process id in the lock file.
        pid: i32,
    },
    /// A server runs in this directory.
    #[error("a PostgreSQL server is running in {} (process {pid})", directory.display())]
    ServerRunning {
        directory: PathBuf,
        /// The process id of the server.
        pid: i32,
    },
    /// Another run of the same kind is active.
    #[error("another {verb} of {subject} is running{}", pid.map_or(String::new(), |p| format!(" (process {p})")))]
    AnotherRun {
        /// The verb: "backup", "restore".
        verb: &'static str,
        /// The object of the verb, for the message.
        subject: String,
        /// The process id of the other run, if known.
        pid: Option<i32>,
    },
    /// The last write of a run that was taken for dead, after others had begun to remove it. It is not a backup.
    #[error(
        "{name} is not a backup: its run was taken for dead, and {missing} was removed before the record came; \
         `holdfast expire` removes what is left"
    )]
    Remnant {
        /// The object of the record, `backup.json`.
        name: String,
        /// The first missing object of the backup.
        missing: String,
    },
    /// Packs of a backup are missing and others are there: it is damaged; it is not a remnant.
    #[error("the backup cannot be restored: {missing}, which its manifest names, is missing")]
    LostPack {
        /// The first pack of it that is missing.
        missing: String,
    },
    /// A backup is held, but it may be gone or still be removed.
    #[error("backup {backup} is held, but it may still be removed: {why}")]
    HeldInDoubt {
        /// The id of the backup.
        backup: String,
        /// Who may remove it.
        why: String,
    },
    /// The lease of this run ended before it was renewed: others may have taken the run for dead.
    #[error(
        "the lease of this run in {cluster} ended before it could be renewed, because this host slept or {store} was \
         unavailable for too long"
    )]
    LeaseEnded {
        /// The redacted URL of the repository.
        store: String,
        /// The cluster's name in the repository.
        cluster: String,
    },
    /// The programs of the needed PostgreSQL version are missing.
    #[error("PostgreSQL {major} is needed here to start the restored server, and was not found: {found}")]
    NoPrograms {
        major: u16,
        /// What was found instead, as text for people.
        found: String,
    },
    /// A file system does not have enough free space.
    #[error("{} has {free} bytes free, but {needed} are needed", directory.display())]
    NoRoom {
        /// A directory in the file system.
        directory: PathBuf,
        /// The number of bytes that are needed.
        needed: u64,
        /// The number of free bytes.
        free: u64,
    },
    /// This host had too little for a restored server, or ended it.
    #[error("this host failed the restored server: {what}")]
    Host {
        fault: HostFault,
        /// What the server or its client said.
        what: String,
    },
    /// The time was over before anything was done.
    #[error("the time limit of {limit:?} was over before anything was restored")]
    OutOfTime {
        /// How long it might take.
        limit: std::time::Duration,
    },
    /// A restored server stopped its recovery because a request for WAL failed.
    #[error("recovery of the restored server stopped, since the repository could not be asked for WAL: {log}")]
    ReplayStopped {
        /// The exit code of `restore_command`, as in the table of exit codes.
        status: u8,
        /// The lines of the server's log.
        log: String,
    },
    /// No backup of that name is complete.
    #[error("there is no complete backup {backup} of cluster {cluster}")]
    NoSuchBackup {
        backup: String,
        /// The cluster's name in the repository.
        cluster: String,
    },
    /// No snapshot of that id is recorded.
    #[error("there is no snapshot {snapshot} of cluster {cluster}")]
    NoSuchSnapshot {
        snapshot: String,
        /// The cluster's name in the repository.
        cluster: String,
    },
    /// The history of a timeline is needed, and the stored file cannot be read.
    #[error("the history of timeline {timeline} is needed, but cannot be read: {reason}")]
    UnreadableHistory {
        /// The timeline that the history file is about.
        timeline: pg::TimelineId,
        /// Whether the request names this timeline.
        named: bool,
        /// Why it cannot be read.
        reason: String,
        /// Whether a newer release wrote it.
        newer: bool,
    },
    /// A backup failed after its final record was sent: the record may be stored.
    #[error("backup {backup} may exist in {}: {failure}", stores.join(" and in "))]
    MayExist {
        /// The id of the backup.
        backup: String,
        /// The redacted URLs of the repositories where it may be.
        stores: Vec<String>,
        /// The error after which this is not known.
        failure: Box<Error>,
    },
    /// A backup would have more packs in this repository than there are names.
    #[error("the backup needs more than {most} packs in {store}")]
    TooManyPacks {
        /// The redacted URL of the repository.
        store: String,
        /// The maximum number of packs.
        most: u32,
    },
    /// The request cannot be carried out as given.
    #[error("{0}")]
    Refused(String),
    /// A signal or the caller cancelled the command.
    #[error("cancelled")]
    Cancelled,
    /// A bug in Holdfast.
    #[error("internal fault: {0}")]
    Internal(String),
}

impl Error {
    /// Adds what was being done, from the inside to the outside.
    #[must_use]
    pub fn doing(mut self, phrase: impl Into<String>) -> Self {
        self.doing.push(phrase.into());
        self
    }

    /// The error of a failed operation on a local file.
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
