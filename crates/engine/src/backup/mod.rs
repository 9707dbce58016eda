//! The verb `backup`: a full, online backup of a data directory into every repository.
//!
//! Steps, a file each:
//! 1. [`lock`]: one backup at a time of this data directory; [`remains`]: dead runs are cleaned up.
//! 2. [`session`]: `pg_backup_start` on a connection that stays open.
//! 3. [`scan`] lists the files, [`plan`] cuts them into units (pure).
//! 4. [`copy`]: [`read`] -> [`encode`] -> [`sink`], many units at once, under one byte budget.
//! 5. `global/pg_control` is read ([`control`]), `pg_backup_stop` called; `backup_label`, `tablespace_map` and the control
//!    file are stored.
//! 6. Packs and manifest are finished and looked at; [`wal_wait`] waits for the WAL.
//! 7. `backup.json` is created. Only now the backup exists.
//!
//! What is left behind: after an error or a cancel nothing, as far as the store can be reached; after a kill the
//! objects of an unfinished backup, which the next run removes. The server leaves backup mode by itself when the
//! connection closes. Nothing is ever written into the data directory.

mod control;
mod copy;
mod encode;
mod lock;
mod plan;
mod read;
mod remains;
mod scan;
mod session;
mod sink;
mod wal_wait;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use holdfast_pgtypes::checksum::PAGE_SIZE;
use holdfast_pgtypes::{ControlFile, Lsn, SegmentName};
use holdfast_repo::Compression;
use holdfast_repo::manifest::{FileEntry, FileKind};
use holdfast_repo::name::{self, BackupId, ClusterName};
use holdfast_repo::record::{
    BackupRecord, BackupType, ChecksumFailure, ChecksumFailures, ClaimRecord, DatabaseEntry,
    MAX_LISTED_CHECKSUM_FAILURES, StartRecord, TablespaceEntry,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::copy::{Copied, Copier};
use self::plan::{PageCheck, SourceFile};
use self::remains::Runner;
use self::scan::{PageChecks, Scan};
use self::session::{Started, Stopped};
use self::sink::{Sink, Stored};
use self::wal_wait::WalWait;
use crate::error::{Doing, Error, ServerSetting, What};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::claim::{Claimant, Identity};
use crate::repository::{Repository, RepositoryTarget};
use crate::server::{Connection, ConnectionSettings, Database, ServerFacts};

pub use self::control::read_control_file;

/// How long a cancelled run gets to end by itself, uploads included; then what it waits for is dropped.
const CANCEL_WITHIN: Duration = Duration::from_secs(10);

/// How long a failed or cancelled run tries to remove what it has stored, for each repository: once for its unfinished
/// uploads, and once for its objects. A store that is away must not hold the end of a run up.
const CLEAN_WITHIN: Duration = Duration::from_secs(5);

/// What a backup is told.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The archive's name.
    pub cluster: ClusterName,
    /// The data directory.
    pub pgdata: PathBuf,
    /// How to reach the server; found through `postmaster.pid` without it.
    pub connection: Option<String>,
    /// For a backup from a standby: how to reach the primary, so that it can finish its WAL segment.
    pub primary_connection: Option<String>,
    /// Written into `backup_label`.
    pub label: String,
    /// Ask for an immediate checkpoint.
    pub start_fast: bool,
    /// Threads that compress; 0 for one a processor.
    pub jobs: usize,
    /// Bound on buffers, in bytes.
    pub memory_bytes: u64,
    /// Size of upload parts in bytes.
    pub part_size_bytes: usize,
    /// How data is compressed.
    pub compression: Compression,
    /// How WAL is compressed; its codec counts when this backup is the first to claim the archive.
    pub wal_compression: Compression,
    /// Verify page checksums while reading.
    pub page_checks: bool,
    /// How long to wait for the WAL after the copy.
    pub archive_timeout: Duration,
    /// This host.
    pub host: String,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What a backup says at its end.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BackupReport {
    /// One record a repository.
    pub repositories: Vec<StoredBackup>,
    /// Things that the user should know.
    pub warnings: Vec<String>,
}

/// A backup in one repository.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StoredBackup {
    /// The redacted URL.
    pub repository: String,
    /// What `backup.json` says.
    pub backup: BackupRecord,
}

/// Takes a backup.
pub async fn backup(
    targets: &[RepositoryTarget],
    options: &BackupOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BackupReport, Error> {
    let began = Instant::now();
    let control = read_control_file(&options.pgdata)?;
    let mut warnings = Vec::new();
    progress.phase("opening", None);
    let mut repositories = Vec::new();
    for target in targets {
        repositories.push(Repository::open(target).await?);
    }
    let claims = claim_archives(&repositories, options, &control).await?;
    let _lock = lock::BackupLock::take(&options.pgdata)?;
    let settings = ConnectionSettings { connection: options.connection.clone(), pgdata: options.pgdata.clone() };
    let connection = Connection::open(&settings).await?;
    let facts = ServerFacts::ask(&connection).await?;
    check_server(&facts, options, &control, &mut warnings)?;
    let runner = Runner { host: options.host.clone(), pgdata: options.pgdata.display().to_string() };
    let mut dead = None;
    for repository in &repositories {
        for removed in remains::remove_of_runner(repository, &options.cluster, &runner).await? {
            progress.note(&format!("removed the remains of backup {removed}, which was not finished"));
            dead = dead.max(Some(removed));
        }
    }
    let backup = reserve(&repositories, &claims, options, &control, dead).await?;
    let publishing = AtomicBool::new(false);
    let run =
        Run { options, control, facts, connection, repositories, claims, backup, progress, cancel, began, publishing };
    let outcome = {
        let mut execute = std::pin::pin!(run.execute(&mut warnings));
        tokio::select! {
            biased;
            outcome = &mut execute => outcome,
            () = cancel.cancelled() => {
                // The run ends by itself and cleans its uploads up; only the server has to be told.
                run.connection.cancel_statement().await;
                match tokio::time::timeout(CANCEL_WITHIN, execute).await {
                    Ok(Ok(complete)) => Ok(complete),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "the cancelled backup ended");
                        Err(What::Cancelled.into())
                    }
                    Err(_) => Err(What::Cancelled.into()),
                }
            }
        }
    };
    match outcome {
        Ok(repositories) => {
            run.connection.close().await;
            Ok(BackupReport { repositories, warnings })
        }
        Err(error) => {
            run.give_up().await;
            Err(error.doing(format!("taking backup {backup}")))
        }
    }
}

/// Takes or checks the claim on every archive, before anything else is written.
async fn claim_archives(
    repositories: &[Repository],
    options: &BackupOptions,
    control: &ControlFile,
) -> Result<Vec<ClaimRecord>, Error> {
    let claimant = Claimant {
        identity: Identity::of_control_file(control),
        here: format!("the data directory {}", options.pgdata.display()),
        wal_codec: options.wal_compression.codec(),
        host: options.host.clone(),
        now: options.now.trunc_subsecs(0),
    };
    let mut claims = Vec::new();
    for repository in repositories {
        claims.push(repository.take_claim(&options.cluster, &claimant).await?);
    }
    Ok(claims)
}

fn check_server(
    facts: &ServerFacts,
    options: &BackupOptions,
    control: &ControlFile,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    facts.check_is_of(&options.pgdata, control.system_identifier)?;
    if facts.wal_level == "minimal" {
        return Err(What::ServerSetting(ServerSetting::WalLevelMinimal).into());
    }
    if !facts.archives() && !facts.in_recovery {
        warnings.push(
            "the server does not archive its WAL (archive_mode, archive_command): this backup can be restored to its \
             own end, and to no later moment"
                .to_owned(),
        );
    }
    if options.page_checks && !control.has_data_checksums() {
        warnings.push("the cluster has no data checksums, so its pages were not checked".to_owned());
    } else if options.page_checks && control.block_size != PAGE_SIZE as u32 {
        let size = control.block_size;
        warnings.push(format!("the cluster has pages of {size} bytes, whose checksums this release cannot check"));
    }
    Ok(())
}

/// Finds an id that no other backup has, by creating its start record in every repository. It is later than that of the
/// dead run whose remains were removed: a name never comes back with other content.
async fn reserve(
    repositories: &[Repository],
    claims: &[ClaimRecord],
    options: &BackupOptions,
    control: &ControlFile,
    dead: Option<BackupId>,
) -> Result<BackupId, Error> {
    let after = dead.map(|dead| dead.time() + chrono::TimeDelta::seconds(1));
    let mut time = after.map_or(options.now, |after| after.max(options.now)).trunc_subsecs(0);
    'ids: for _ in 0..60 {
        let backup_id = BackupId::new(time).map_err(|e| What::Internal(e.to_string()))?;
        time += chrono::TimeDelta::seconds(1);
        for (index, (repository, claim)) in repositories.iter().zip(claims).enumerate() {
            let record = StartRecord {
                backup_id,
                cluster: options.cluster.clone(),
                claim: claim.number,
                system_identifier: control.system_identifier,
                host: options.host.clone(),
                pid: std::process::id(),
                pgdata: options.pgdata.display().to_string(),
                started: options.now,
                software_version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            match repository.create_record(&name::backup_start(&options.cluster, &backup_id), &record).await {
                Ok(()) => {}
                Err(error) if error.is_already_exists() => {
                    for earlier in repositories.iter().take(index) {
                        remains::remove(earlier, &options.cluster, backup_id).await?;
                    }
                    continue 'ids;
                }
                Err(error) => return Err(error),
            }
        }
        return Ok(backup_id);
    }
    Err(What::AnotherRun { verb: "backup", subject: options.cluster.to_string(), pid: None }.into())
}

/// A backup that has its id.
struct Run<'a> {
    options: &'a BackupOptions,
    control: ControlFile,
    facts: ServerFacts,
    connection: Connection,
    repositories: Vec<Repository>,
    claims: Vec<ClaimRecord>,
    backup: BackupId,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
    began: Instant,
    /// Whether a record that makes the backup exist is on its way, or there.
    publishing: AtomicBool,
}

/// What the copy came to.
struct Content {
    started: Started,
    stopped: Stopped,
    copied: Copied,
    tablespaces: Vec<TablespaceEntry>,
}

impl Run<'_> {
    async fn execute(&self, warnings: &mut Vec<String>) -> Result<Vec<StoredBackup>, Error> {
        let mut sinks = Vec::new();
        for repository in &self.repositories {
            let part_size = self.options.part_size_bytes;
            sinks
                .push(Sink::new(repository.clone(), &self.options.cluster, self.backup, part_size, self.cancel).await?);
        }
        match self.copy_everything(&mut sinks).await {
            Ok(content) => self.complete(sinks, content, warnings).await,
            Err(error) => {
                for sink in sinks {
                    sink.abort().await;
                }
                Err(error)
            }
        }
    }

    /// From the start call to the last byte of `pg_control`.
    async fn copy_everything(&self, sinks: &mut [Sink]) -> Result<Content, Error> {
        let (options, version) = (self.options, self.facts.version);
        self.progress.phase("waiting for a checkpoint", None);
        let started = session::start(&self.connection, version, &options.label, options.start_fast).await?;
        self.progress.note(&format!("backup {} starts at {}", self.backup, started.start_lsn));
        let scan = self.scan().await?;
        let tablespaces = self.tablespaces(&scan).await?;
        let Scan { directories, links, mut files, removed, total_bytes } = scan;
        for sink in sinks.iter_mut() {
            for directory in &directories {
                sink.entry(&FileEntry {
                    path: &directory.path,
                    kind: FileKind::Directory,
                    mode: directory.mode,
                    size_bytes: 0,
                    mtime_seconds: u64::try_from(directory.mtime).unwrap_or(0),
                })
                .await?;
            }
            for link in &links {
                sink.entry(&FileEntry {
                    path: &link.path,
                    kind: FileKind::Symlink { target: &link.target },
                    mode: 0o777,
                    size_bytes: 0,
                    mtime_seconds: u64::try_from(link.mtime).unwrap_or(0),
                })
                .await?;
            }
        }
        drop((directories, links));
        plan::sort(&mut files);
        let extent_size_bytes = self.repositories.first().map_or(0, |first| first.record().extent_size_bytes);
        let copier = Copier {
            pgdata: options.pgdata.clone(),
            compression: options.compression,
            crew: Crew::new(options.jobs)?,
            budget: ByteBudget::new(options.memory_bytes),
            extent_size_bytes,
            progress: self.progress,
            cancel: self.cancel.clone(),
        };
        copier.check_budget(options.part_size_bytes, sinks.len())?;
        self.progress.phase("copying", Some(total_bytes));
        let mut copied = copier.copy(files, sinks).await.doing(|| "copying the data directory".to_owned())?;
        copied.removed_count += removed;
        self.progress.phase("finishing", None);
        // After all other files and before the stop call. On a standby the control file says with its minimum recovery
        // end from where on the copied pages are consistent, and the stop LSN must not lie before that; a standby that
        // is promoted in between makes the stop call fail (`do_pg_backup_stop`), and not the restore.
        let control = control::read_control_bytes(&options.pgdata)?;
        let stopped = session::stop(&self.connection, version).await?;
        let last = copier.copy_from_memory(self.last_files(&stopped, control)?, sinks).await?;
        copied.file_count += last.file_count;
        copied.size_bytes += last.size_bytes;
        Ok(Content { started, stopped, copied, tablespaces })
    }

    async fn scan(&self) -> Result<Scan, Error> {
        self.progress.phase("listing files", None);
        let (pgdata, control, cancel) = (self.options.pgdata.clone(), self.control.clone(), self.cancel.clone());
        let known_size = self.control.block_size == PAGE_SIZE as u32;
        let checks = if self.options.page_checks && self.control.has_data_checksums() && known_size {
            PageChecks::On
        } else {
            PageChecks::Off
        };
        tokio::task::spawn_blocking(move || scan::scan(&pgdata, &control, checks, &cancel))
            .await
            .map_err(|e| What::Internal(format!("listing the data directory: {e}")))?
            .doing(|| "listing the data directory".to_owned())
    }

    /// What the stop call gave, and the control file, in the order of their restore: `pg_control` is last.
    fn last_files(&self, stopped: &Stopped, control: Vec<u8>) -> Result<Vec<(SourceFile, Vec<u8>)>, Error> {
        // The server would write all of them with the mode that initdb gave its files: 0600, or 0640 for group access.
        let control_path = self.options.pgdata.join(ControlFile::PATH);
        let metadata = std::fs::metadata(&control_path).map_err(|e| Error::file("look at", &control_path, e))?;
        let mode = metadata.mode() & 0o777;
        let file = |path: &str, content: Vec<u8>| {
            let file = SourceFile {
                path: path.as_bytes().into(),
                size_bytes: content.len() as u64,
                mtime: stopped.stop_time.timestamp(),
                mode,
                check: PageCheck::None,
            };
            (file, content)
        };
        let mut files = vec![file("backup_label", stopped.label_text.clone().into_bytes())];
        if !stopped.tablespace_map.is_empty() {
            files.push(file("tablespace_map", stopped.tablespace_map.clone().into_bytes()));
        }
        files.push(file(ControlFile::PATH, control));
        Ok(files)
    }

    /// Finishes packs and manifests, waits for the WAL, and makes the backup exist.
    async fn complete(
        &self,
        sinks: Vec<Sink>,
        content: Content,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<StoredBackup>, Error> {
        let Content { started, stopped, copied, tablespaces } = content;
        let mut stored = Vec::new();
        let mut sinks = sinks.into_iter();
        while let Some(sink) = sinks.next() {
            match sink.finish().await {
                Ok(done) => stored.push(done),
                Err(error) => {
                    for sink in sinks {
                        sink.abort().await;
                    }
                    return Err(error);
                }
            }
        }
        self.finish_segment_on_primary(warnings).await;
        let size = self.control.wal_segment_size;
        let timeline = stopped.label.start_timeline;
        let first = SegmentName::containing(started.start_lsn, timeline, size);
        let last = SegmentName::ending_at(stopped.stop_lsn, timeline, size);
        let wait = WalWait {
            repositories: self.repositories.iter().zip(&self.claims).collect(),
            cluster: &self.options.cluster,
            first,
            last,
            pg_wal: self.options.pgdata.join("pg_wal"),
            // pg_backup_stop has switched to the next segment on a primary; a standby cannot.
            finished: (!self.facts.in_recovery).then_some(last),
            compression: self.options.wal_compression,
            crew: Crew::new(self.options.jobs)?,
            timeout: self.options.archive_timeout,
            backup: self.backup.to_string(),
        };
        wait.run(self.progress, self.cancel).await?;
        let failures = self.failures(&copied, started.start_lsn, stopped.stop_lsn);
        if failures.count > 0 {
            warnings.push(format!(
                "{} page(s) have a wrong checksum, the first one in {} at block {}; the backup holds them as they are",
                failures.count,
                failures.listed.first().map_or("", |failure| failure.path.as_str()),
                failures.listed.first().map_or(0, |failure| failure.block)
            ));
        }
        let mut complete = Vec::new();
        if self.cancel.is_cancelled() {
            return Err(What::Cancelled.into());
        }
        for ((repository, claim), stored) in self.repositories.iter().zip(&self.claims).zip(stored) {
            let Stored { manifest, pack_count, stored_bytes } = stored;
            let record = BackupRecord {
                backup_id: self.backup,
                label: self.options.label.clone(),
                cluster: self.options.cluster.clone(),
                claim: claim.number,
                backup_type: BackupType::Full,
                system_identifier: self.control.system_identifier,
                pg_version: self.facts.version_text.clone(),
                pg_major: self.facts.version.major(),
                catalog_version: self.control.catalog_version,
                wal_segment_size: size,
                timeline,
                start_lsn: started.start_lsn,
                stop_lsn: stopped.stop_lsn,
                start_segment: first,
                stop_segment: last,
                start_time: started.start_time,
                stop_time: stopped.stop_time,
                duration_milliseconds: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
                from_standby: self.facts.in_recovery,
                data_checksums: self.control.has_data_checksums(),
                checksum_failures: failures.clone(),
                file_count: copied.file_count,
                removed_file_count: copied.removed_count,
                size_bytes: copied.size_bytes,
                stored_bytes,
                pack_count,
                tablespaces: tablespaces.clone(),
                databases: self.databases(),
                compression: self.options.compression.to_string(),
                encryption: repository.record().encryption,
                manifest,
                next_xid: self.control.next_xid,
                host: self.options.host.clone(),
                software_version: env!("CARGO_PKG_VERSION").to_owned(),
                annotations: BTreeMap::default(),
            };
            self.publishing.store(true, Ordering::Relaxed);
            let name = name::backup_summary(&self.options.cluster, &self.backup);
            if let Err(error) = repository.create_record(&name, &record).await {
                let in_doubt = matches!(&*error.what, What::Store(error) if error.is_retryable());
                self.publishing.store(in_doubt, Ordering::Relaxed);
                return Err(error);
            }
            complete.push(StoredBackup { repository: repository.describe(), backup: record });
        }
        Ok(complete)
    }

    /// A standby cannot finish the segment of the stop LSN; its primary can, when we know how to reach it.
    async fn finish_segment_on_primary(&self, warnings: &mut Vec<String>) {
        let Some(connection) = &self.options.primary_connection else { return };
        if !self.facts.in_recovery {
            return;
        }
        let settings = ConnectionSettings { connection: Some(connection.clone()), pgdata: self.options.pgdata.clone() };
        let switched = async {
            let primary = Connection::open(&settings).await?;
            let row = primary.client().execute("SELECT pg_switch_wal()", &[]).await;
            primary.close().await;
            row.map_err(Error::from)
        };
        if let Err(error) = switched.await {
            // The primary may finish the segment by itself in time (archive_timeout, or plain work).
            warnings.push(format!("the primary could not be asked to finish its WAL segment: {error}"));
        }
    }

    fn failures(&self, copied: &Copied, start_lsn: Lsn, stop_lsn: Lsn) -> ChecksumFailures {
        let settled: Vec<ChecksumFailure> = copied
            .bad_pages
            .iter()
            .filter(|(_, page)| page.counts(start_lsn, stop_lsn))
            .map(|(path, page)| ChecksumFailure {
                path: String::from_utf8_lossy(path).into_owned(),
                block: page.block,
                expected: page.expected,
                found: page.found,
            })
            .collect();
        ChecksumFailures {
            count: settled.len() as u64,
            listed: settled.into_iter().take(MAX_LISTED_CHECKSUM_FAILURES).collect(),
        }
    }

    /// The tablespaces as they stand on disk: one can have been made or dropped since the server was asked, and files
    /// below a link that the backup does not know as a tablespace could not be restored.
    async fn tablespaces(&self, scan: &Scan) -> Result<Vec<TablespaceEntry>, Error> {
        let names = ServerFacts::tablespace_names(&self.connection).await?;
        let mut paths: BTreeMap<u32, &[u8]> = BTreeMap::new();
        // First those that are directories, made "in place": the others have a link besides.
        paths.extend(
            scan.directories.iter().filter_map(|found| Some((scan::tablespace_oid(&found.path)?, &*found.path))),
        );
        paths.extend(scan.links.iter().filter_map(|link| Some((scan::tablespace_oid(&link.path)?, &*link.target))));
        let entry = |(oid, path): (u32, &[u8])| TablespaceEntry {
            oid,
            name: names.get(&oid).cloned().unwrap_or_else(|| oid.to_string()),
            path: String::from_utf8_lossy(path).into_owned(),
        };
        Ok(paths.into_iter().map(entry).collect())
    }

    fn databases(&self) -> Vec<DatabaseEntry> {
        let entry = |database: &Database| DatabaseEntry { oid: database.oid, name: database.name.clone() };
        self.facts.databases.iter().map(entry).collect()
    }

    /// After an error or a cancel: the server leaves backup mode, the repositories are cleaned.
    async fn give_up(self) {
        self.connection.cancel_statement().await;
        self.connection.close().await;
        if self.publishing.load(Ordering::Relaxed) {
            // The last write may still arrive, and what it makes appear must be whole.
            tracing::warn!("whether the last record was stored is not known; the next backup on this host cleans up");
            return;
        }
        for repository in &self.repositories {
            let removing = remains::remove(repository, &self.options.cluster, self.backup);
            match tokio::time::timeout(CLEAN_WITHIN, removing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the next backup on this host will remove what is left"),
                Err(_) => tracing::warn!(
                    store = repository.describe(),
                    "the store takes too long; the next backup on this host will remove what is left"
                ),
            }
        }
    }
}
