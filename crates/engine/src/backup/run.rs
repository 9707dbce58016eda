//! A running backup: the server is in backup mode, and files are copied into the sinks.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_pgtypes::checksum::PAGE_SIZE;
use holdfast_pgtypes::{ControlFile, Lsn};
use holdfast_repo::name::BackupId;
use holdfast_repo::record::{ClaimRecord, DatabaseEntry, TablespaceEntry};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::copy::{Copied, Copier};
use super::encode::Encoding;
use super::incremental::choose::{Changes, find_changes};
use super::incremental::lane::ParentLane;
use super::incremental::page_lsn::PageLsns;
use super::incremental::parent::Parent;
use super::incremental::sort::Summarized;
use super::incremental::{Base, overlay};
use super::listing::{PageCheck, Scan, SourceFile};
use super::plan;
use super::present::AskedServer;
use super::remains::Adopted;
use super::resume::Everywhere;
use super::scan::{self, PageChecks};
use super::session::{self, Started, Stopped};
use super::sink::Sink;
use super::sinks::Sinks;
use super::timelines::WalPath;
use super::{BackupOptions, CANCEL_WITHIN, CLEAN_WITHIN, Resumed, StoredBackup, remains};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::leases::{Clock, Lease};
use crate::server::{Connection, Database, ServerFacts, prove_started, prove_timeline, read_control_bytes};

/// A backup that has its id.
pub(super) struct Run<'a> {
    pub(super) options: &'a BackupOptions,
    pub(super) control: ControlFile,
    pub(super) facts: ServerFacts,
    pub(super) connection: Connection,
    pub(super) repositories: Vec<Repository>,
    pub(super) claims: Vec<ClaimRecord>,
    pub(super) backup: BackupId,
    /// Data that killed runs have stored.
    pub(super) earlier: Option<Arc<Everywhere>>,
    /// For each repository, the killed runs that this run has taken over.
    pub(super) adopted: Vec<BTreeSet<BackupId>>,
    /// The random id of this run, in its start record.
    pub(super) identity: String,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a CancellationToken,
    pub(super) began: Instant,
    pub(super) clock: Clock,
    /// For each repository, the lease of this run.
    pub(super) leases: Vec<Option<Lease>>,
    /// For each repository, whether `backup.json` was sent, so that the backup may exist.
    pub(super) publishing: Vec<AtomicBool>,
    /// For each repository, whether this run's start record stays: it may name remains of dead runs that could not be
    /// removed. In that case, the repository has nothing else of this run.
    pub(super) kept: Vec<bool>,
}

/// The result of a run.
pub(super) struct Outcome {
    /// The repositories that have the backup.
    pub(super) complete: Vec<StoredBackup>,
    /// The indexes of the repositories that were left out, with the reason.
    pub(super) failed: Vec<(usize, Error)>,
    /// What this backup reused from killed runs.
    pub(super) resumed: Option<Resumed>,
}

/// The result of the copy.
pub(super) struct Content {
    pub(super) started: Started,
    pub(super) stopped: Stopped,
    pub(super) wal_path: WalPath,
    pub(super) copied: Copied,
    pub(super) tablespaces: Vec<TablespaceEntry>,
    /// The parent, if anything was compared with it.
    pub(super) parent: Option<BackupId>,
}

/// The result of copying the files, before the stop call.
struct CopiedFiles<'a> {
    copier: Copier<'a>,
    totals: Copied,
    tablespaces: Vec<TablespaceEntry>,
    /// The bytes of `pg_control`.
    control: Vec<u8>,
    is_incremental: bool,
}

/// Copies everything that was listed into every sink: directories and links first, then the files. `summarized` is used
/// only if the copier has a base.
pub(super) async fn copy_listed(
    copier: &Copier<'_>,
    scan: Scan,
    summarized: Option<&Summarized>,
    sinks: &mut Sinks<'_>,
) -> Result<Copied, Error> {
    let Scan { directories, links, link_warnings, mut files, removed, vanished, total_bytes } = scan;
    for directory in &directories {
        sinks.entry(&directory.entry()).await?;
    }
    for link in &links {
        sinks.entry(&link.entry()).await?;
    }
    drop((directories, links));
    sinks.end_group().await?;
    plan::sort(&mut files);
    let copying = || "copying the data directory".to_owned();
    let mut totals = if let (Some(summarized), Some(base)) = (summarized, copier.encoding.base.clone()) {
        let sorted = summarized.sort(&base, files, copier.encoding.extent_size_bytes);
        copier.progress.phase("copying what changed", Some(sorted.read_bytes));
        copier.copy_changed(sorted, summarized, &base, sinks).await.doing(copying)?
    } else {
        copier.progress.phase("copying", Some(total_bytes));
        copier.copy(files, sinks).await.doing(copying)?
    };
    sinks.unchanged_files().await?;
    totals.removed_count += removed;
    totals.missing.extend(vanished);
    // A file that is listed twice is reported only once.
    totals.link_warnings.retain(|said| !link_warnings.contains(said));
    totals.link_warnings.splice(..0, link_warnings);
    Ok(totals)
}

/// Whether pages are checked: if requested, if the cluster has checksums, and if its page size is supported.
pub(super) fn page_checks(control: &ControlFile, requested: bool) -> PageChecks {
    let known_size = control.block_size == PAGE_SIZE as u32;
    if requested && control.has_data_checksums() && known_size { PageChecks::On } else { PageChecks::Off }
}

/// The files from the stop call, and the control file, in the order of their restore: `pg_control` is last.
pub(super) fn last_files(
    label: Vec<u8>,
    tablespace_map: Vec<u8>,
    control: Vec<u8>,
    mode: u32,
    mtime: i64,
) -> Vec<(SourceFile, Vec<u8>)> {
    let file = |path: &str, content: Vec<u8>| {
        let (path, size_bytes) = (path.as_bytes().into(), content.len() as u64);
        (SourceFile { path, size_bytes, mtime, mode, check: PageCheck::None, identity: None }, content)
    };
    let mut files = vec![file("backup_label", label)];
    if !tablespace_map.is_empty() {
        files.push(file("tablespace_map", tablespace_map));
    }
    files.push(file(ControlFile::PATH, control));
    files
}

/// What the backup reused from killed runs, if anything.
fn resumed(backups: BTreeSet<BackupId>, size_bytes: u64) -> Option<Resumed> {
    (!backups.is_empty()).then(|| Resumed { backups: backups.into_iter().collect(), size_bytes })
}

impl Run<'_> {
    /// Runs the backup, from the first sink to the last record. `parent` is that of an incremental backup. `early` has
    /// the earlier error of each repository.
    pub(super) async fn execute(
        &self,
        parent: Option<Parent>,
        early: Vec<Option<Error>>,
        warnings: &mut Vec<String>,
    ) -> Result<Outcome, Error> {
        let extent_bytes = self.repositories.first().map_or(0, |first| first.record().extent_size_bytes);
        if extent_bytes == 0 {
            return Err(
                Cause::Refused("holdfast.json of the repository says that extents have 0 bytes".to_owned()).into()
            );
        }
        let mut sinks = Sinks::new(self.progress, self.cancel.clone());
        for (repository, early) in self.repositories.iter().zip(early) {
            let (cluster, part_size) = (&self.options.cluster, self.options.part_size_bytes);
            let sink = if let Some(error) = early {
                Err(error)
            } else {
                let (backup, memory) = (self.backup, self.options.memory_bytes / self.repositories.len() as u64);
                let sink = Sink::new(repository.clone(), cluster, backup, part_size, extent_bytes, memory, self.cancel);
                let parent = parent.as_ref().and_then(|parent| parent.lanes.get(sinks.len())?.clone());
                let earlier = self.earlier.as_ref().and_then(|earlier| earlier.lane(sinks.len()));
                sink.await.map(|sink| sink.with_parent(parent).with_earlier(earlier))
            };
            let sink = match sink {
                Err(error) if !error.is_of_repository() => return Err(error),
                sink => sink,
            };
            sinks.add(repository.describe(), sink);
        }
        sinks.check_any()?;
        let copied = Box::pin(self.copy_everything(&mut sinks, extent_bytes, parent.as_ref())).await;
        // The manifests of the parent make room in memory for the new ones, which are read back.
        drop(parent);
        let done = match copied {
            Ok(content) => {
                let resumed_bytes = content.copied.resumed_bytes;
                let complete = self.complete(&mut sinks, content, warnings).await;
                complete.map(|(complete, backups)| (complete, resumed(backups, resumed_bytes)))
            }
            Err(error) => Err(error),
        };
        match done {
            Ok((complete, resumed)) => Ok(Outcome { complete, failed: sinks.into_failures(), resumed }),
            Err(error) => {
                sinks.abort().await;
                Err(error)
            }
        }
    }

    /// Removes what no backup needs of the killed runs that this run took over, in the repositories that have the
    /// backup.
    pub(super) async fn remove_adopted(&self, failed: &[usize]) {
        let lanes = self.repositories.iter().zip(&self.adopted).enumerate();
        for (_, (repository, adopted)) in lanes.filter(|(index, _)| !failed.contains(index)) {
            if adopted.is_empty() {
                continue;
            }
            self.progress.phase("removing what killed backups left", None);
            let removing = remains::remove_adopted(repository, &self.options.cluster, adopted, &self.identity);
            let removed = tokio::select! {
                removed = removing => removed,
                () = self.cancel.cancelled() => return,
            };
            let names: Vec<String> = adopted.iter().map(ToString::to_string).collect();
            let names = names.join(" and ");
            match removed {
                Ok(Adopted::Removed) => {
                    self.progress.note(&format!("removed what no backup needs of {names}, which was not finished"));
                }
                Ok(Adopted::Kept) => self.progress.note(&format!(
                    "the remains of backup {names}, which was not finished, are kept: another backup may need them"
                )),
                Err(error) => tracing::warn!(%error, "the next backup on this host will remove what is left"),
            }
        }
    }

    /// Copies the data directory, from the start call to the last byte of `pg_control`.
    async fn copy_everything(
        &self,
        sinks: &mut Sinks<'_>,
        extent_size_bytes: u32,
        parent: Option<&Parent>,
    ) -> Result<Content, Error> {
        let (options, version) = (self.options, self.facts.version);
        self.progress.phase("waiting for a checkpoint", None);
        let started = session::start(&self.connection, version, &options.label, options.start_fast).await?;
        self.progress.note(&format!("backup {} starts at {}", self.backup, started.start_lsn));
        let at_start = prove_started(&options.pgdata, started.start_lsn).await?;
        let CopiedFiles { copier, mut totals, tablespaces, control, is_incremental } = {
            let mut work =
                std::pin::pin!(self.copy_files(sinks, parent, started.start_lsn, &at_start, extent_size_bytes));
            tokio::select! {
                biased;
                copied = &mut work => copied?,
                lost = self.connection.lost() => {
                    // Without the session there is no stop call and no `backup_label`, so the copy is useless.
                    self.cancel.cancel();
                    drop(tokio::time::timeout(CANCEL_WITHIN, work).await);
                    return Err(lost.doing("copying the data directory"));
                }
            }
        };
        let stopped = session::stop(&self.connection, version).await?;
        prove_timeline(&options.pgdata, &at_start, started.start_lsn, stopped.label.start_timeline)?;
        let parent = parent.filter(|_| is_incremental);
        if let Some(record) = parent.map(|parent| &parent.record)
            && stopped.stop_lsn < record.stop_lsn
        {
            // The parent's data may be newer than the end of this backup.
            return Err(Cause::Refused(format!(
                "this backup ends at {}, before its parent {} at {}: take it again when the standby has replayed that \
                 WAL, or use `--type full`",
                stopped.stop_lsn, record.backup_id, record.stop_lsn
            ))
            .into());
        }
        let wal_path = {
            let began = stopped.label.start_timeline;
            WalPath::find(&options.pgdata, began, started.start_lsn, stopped.stop_lsn, self.facts.in_recovery)?
        };
        if let Some(record) = parent.map(|parent| &parent.record)
            && !wal_path.contains(record)
        {
            return Err(Cause::Refused(format!(
                "the standby has followed its upstream to a timeline that does not contain the parent of this backup, \
                 {}: take it again",
                record.backup_id
            ))
            .into());
        }
        let last = copier.copy_from_memory(self.last_files(&stopped, control)?, sinks).await?;
        totals.file_count += last.file_count;
        totals.size_bytes += last.size_bytes;
        let parent = parent.map(Parent::id);
        Ok(Content { started, stopped, wal_path, copied: totals, tablespaces, parent })
    }

    /// Copies all files, and reads the bytes of the control file.
    async fn copy_files(
        &self,
        sinks: &mut Sinks<'_>,
        parent: Option<&Parent>,
        start_lsn: Lsn,
        at_start: &ControlFile,
        extent_size_bytes: u32,
    ) -> Result<CopiedFiles<'_>, Error> {
        let options = self.options;
        let changes = match parent {
            Some(parent) => {
                find_changes(parent, options, (&self.connection, &self.facts), at_start, start_lsn, self.progress)
                    .await?
            }
            None => None,
        };
        let server = AskedServer::before_listing(&self.connection, &options.pgdata, self.facts.version).await?;
        let scan = self.scan().await?;
        plan::check_manifest(&scan, extent_size_bytes)?;
        let listed = server.check_databases(&scan).await?;
        let tablespaces = server.tablespaces(&scan).await?;
        let (base, summarized) = self.base(parent, changes, &scan);
        let is_incremental = base.is_some();
        let copier = Copier {
            pgdata: options.pgdata.clone(),
            encoding: Encoding {
                compression: options.compression,
                extent_size_bytes,
                base,
                earlier: self.earlier.clone(),
            },
            crew: Crew::new(options.jobs),
            budget: ByteBudget::new(options.memory_bytes),
            start_lsn,
            progress: self.progress,
            cancel: self.cancel.clone(),
        };
        copier.check_budget(options.part_size_bytes, sinks.len())?;
        let mut totals = copy_listed(&copier, scan, summarized.as_ref(), sinks).await?;
        self.progress.phase("finishing", None);
        server.check_copied(listed, std::mem::take(&mut totals.missing), &tablespaces).await?;
        // The control file is read after all other files and before the stop call. On a standby, its minimum recovery
        // ending location says where the copied pages become consistent, and the stop LSN must not be before that. If
        // the standby is promoted in between, the stop call fails (`do_pg_backup_stop`), and not the restore.
        let control = read_control_bytes(&options.pgdata)?;
        Ok(CopiedFiles { copier, totals, tablespaces, control, is_incremental })
    }

    /// The base that the copy compares with, and the changes from WAL summaries.
    fn base(
        &self,
        parent: Option<&Parent>,
        changes: Option<Changes>,
        scan: &Scan,
    ) -> (Option<Arc<Base>>, Option<Summarized>) {
        let (Some(parent), Some(changes)) = (parent, changes) else { return (None, None) };
        let Some(ParentLane { manifest, .. }) = parent.lanes.iter().flatten().next() else { return (None, None) };
        let (since, index) = (parent.record.start_lsn, &parent.index);
        let (by_lsn, summarized) = match changes {
            Changes::Summarized(changes) => (None, Some(Summarized::new(changes, &self.control))),
            Changes::ByPages => (Some(PageLsns::new(since, &self.control, &scan.files, manifest, index)), None),
        };
        let extents = scan.total_bytes / u64::from(manifest.header().extent_bytes.max(1)) + scan.files.len() as u64;
        let base = Base::new(Arc::clone(manifest), Arc::clone(index), by_lsn, overlay::most_patches(extents));
        (Some(Arc::new(base)), summarized)
    }

    async fn scan(&self) -> Result<Scan, Error> {
        self.progress.phase("listing files", None);
        let (pgdata, control, cancel) = (self.options.pgdata.clone(), self.control.clone(), self.cancel.clone());
        let checks = page_checks(&self.control, self.options.page_checks);
        tokio::task::spawn_blocking(move || scan::scan(&pgdata, &control, checks, &cancel))
            .await
            .map_err(|e| Cause::Internal(format!("listing the data directory: {e}")))?
            .doing(|| "listing the data directory".to_owned())
    }

    fn last_files(&self, stopped: &Stopped, control: Vec<u8>) -> Result<Vec<(SourceFile, Vec<u8>)>, Error> {
        // The server would write these files with the mode of its own files: 0600, or 0640 for group access.
        let control_path = self.options.pgdata.join(ControlFile::PATH);
        let metadata = std::fs::metadata(&control_path).map_err(|e| Error::file("look at", &control_path, e))?;
        let (label, map) = (stopped.label_bytes.clone(), stopped.tablespace_map.clone());
        Ok(last_files(label, map, control, metadata.mode() & 0o777, stopped.stop_time.timestamp()))
    }

    pub(super) fn databases(&self) -> Vec<DatabaseEntry> {
        let entry = |database: &Database| DatabaseEntry { oid: database.oid, name: database.name.clone() };
        self.facts.databases.iter().map(entry).collect()
    }

    /// Whether the backup may exist in the repository at this index, although this run has no confirmation.
    pub(super) fn may_exist(&self, index: usize) -> bool {
        self.publishing.get(index).is_some_and(|publishing| publishing.load(Ordering::Relaxed))
    }

    /// The error of the whole run, with the repositories in which the backup may still exist.
    pub(super) fn failed_with(&self, error: Error) -> Error {
        let (backup, everywhere) = (self.backup, self.repositories.iter().enumerate());
        let stores: Vec<String> =
            everywhere.filter(|(at, _)| self.may_exist(*at)).map(|(_, repository)| repository.describe()).collect();
        let error = error.doing(format!("taking backup {backup}"));
        if stores.is_empty() {
            return error;
        }
        Cause::MayExist { backup: backup.to_string(), stores, failure: Box::new(error) }.into()
    }

    /// Ends a failed or cancelled run: the server leaves backup mode, and the repositories are cleaned up.
    pub(super) async fn give_up(self) {
        self.connection.cancel_statement().await;
        let all = (0..self.repositories.len()).collect();
        self.end(all).await;
    }

    /// Closes the session, and removes what the run has stored in these repositories, as far as they can be reached.
    pub(super) async fn end(self, failed: Vec<usize>) {
        let Self { options, connection, repositories, backup, identity, publishing, kept, leases, .. } = self;
        connection.close().await;
        let lanes = repositories.iter().zip(&publishing).zip(kept).enumerate();
        for (_, ((repository, publishing), kept)) in lanes.filter(|(at, _)| failed.contains(at)) {
            if kept {
                tracing::debug!(store = repository.describe(), "the next backup on this host cleans up");
                continue;
            }
            if publishing.load(Ordering::Relaxed) {
                // The last write may still arrive, and the backup that it creates must be whole.
                tracing::warn!(
                    store = repository.describe(),
                    "it is not known whether the last record was stored; the next backup on this host cleans up"
                );
                continue;
            }
            let removing = remains::remove_own(repository, &options.cluster, backup, &identity);
            match tokio::time::timeout(CLEAN_WITHIN, removing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the next backup on this host will remove what is left"),
                Err(_) => tracing::warn!(
                    store = repository.describe(),
                    "the store takes too long; the next backup on this host will remove what is left"
                ),
            }
        }
        let released = futures::future::join_all(leases.into_iter().flatten().map(Lease::release));
        if tokio::time::timeout(CLEAN_WITHIN, released).await.is_err() {
            tracing::debug!("the lease of this run was not deleted in time, and ends by itself");
        }
    }
}
