//! A backup under way: the server is in backup mode, files go into the sinks.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_pgtypes::ControlFile;
use holdfast_pgtypes::checksum::PAGE_SIZE;
use holdfast_repo::manifest::{FileEntry, FileKind};
use holdfast_repo::name::BackupId;
use holdfast_repo::record::{ClaimRecord, DatabaseEntry, TablespaceEntry};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::copy::{Copied, Copier};
use super::plan::{self, PageCheck, SourceFile};
use super::scan::{self, PageChecks, Scan};
use super::session::{self, Started, Stopped};
use super::sink::Sink;
use super::{BackupOptions, CANCEL_WITHIN, CLEAN_WITHIN, StoredBackup, control, remains};
use crate::error::{Doing, Error, What};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::server::{Connection, Database, ServerFacts, prove_started, prove_timeline};

/// A backup that has its id.
pub(super) struct Run<'a> {
    pub(super) options: &'a BackupOptions,
    pub(super) control: ControlFile,
    pub(super) facts: ServerFacts,
    pub(super) connection: Connection,
    pub(super) repositories: Vec<Repository>,
    pub(super) claims: Vec<ClaimRecord>,
    pub(super) backup: BackupId,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a CancellationToken,
    pub(super) began: Instant,
    /// Whether a record that makes the backup exist is on its way, or there.
    pub(super) publishing: AtomicBool,
}

/// What the copy came to.
pub(super) struct Content {
    pub(super) started: Started,
    pub(super) stopped: Stopped,
    pub(super) copied: Copied,
    pub(super) tablespaces: Vec<TablespaceEntry>,
}

impl Run<'_> {
    /// From the first sink to the last record.
    pub(super) async fn execute(&self, warnings: &mut Vec<String>) -> Result<Vec<StoredBackup>, Error> {
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
        let at_start = prove_started(&options.pgdata, started.start_lsn).await?;
        let (copier, mut totals, tablespaces, control) = {
            let mut work = std::pin::pin!(self.copy_files(sinks));
            tokio::select! {
                biased;
                copied = &mut work => copied?,
                lost = self.connection.lost() => {
                    // Without the session there is no stop call and no backup_label: nothing of this can be used.
                    self.cancel.cancel();
                    drop(tokio::time::timeout(CANCEL_WITHIN, work).await);
                    return Err(lost.doing("copying the data directory"));
                }
            }
        };
        let stopped = session::stop(&self.connection, version).await?;
        prove_timeline(&options.pgdata, &at_start, started.start_lsn, stopped.label.start_timeline)?;
        let last = copier.copy_from_memory(self.last_files(&stopped, control)?, sinks).await?;
        totals.file_count += last.file_count;
        totals.size_bytes += last.size_bytes;
        Ok(Content { started, stopped, copied: totals, tablespaces })
    }

    /// All files, and the control file's bytes.
    async fn copy_files(
        &self,
        sinks: &mut [Sink],
    ) -> Result<(Copier<'_>, Copied, Vec<TablespaceEntry>, Vec<u8>), Error> {
        let options = self.options;
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
        let mut totals = copier.copy(files, sinks).await.doing(|| "copying the data directory".to_owned())?;
        totals.removed_count += removed;
        self.progress.phase("finishing", None);
        // After all other files and before the stop call. On a standby the control file says with its minimum recovery
        // end from where on the copied pages are consistent, and the stop LSN must not lie before that; a standby that
        // is promoted in between makes the stop call fail (`do_pg_backup_stop`), and not the restore.
        let control = control::read_control_bytes(&options.pgdata)?;
        Ok((copier, totals, tablespaces, control))
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

    pub(super) fn databases(&self) -> Vec<DatabaseEntry> {
        let entry = |database: &Database| DatabaseEntry { oid: database.oid, name: database.name.clone() };
        self.facts.databases.iter().map(entry).collect()
    }

    /// After an error or a cancel: the server leaves backup mode, the repositories are cleaned.
    pub(super) async fn give_up(self) {
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
