//! The end of a backup: packs and manifests are finished, the run waits for the WAL, and `backup.json` makes the backup
//! exist (promise 3).
//!
//! If one of these steps fails in a repository, it is left out, and the others continue. Once the backup exists in one
//! of them, it can no longer fail.
//!
//! Just before `backup.json`, the manifest is read back and checked as a restore would check it, and the run looks for
//! its own start record. A backup that a restore would refuse, or that another run is removing, does not become
//! complete. If the lease was broken, the run first checks that all data is still there ([`lease`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use holdfast_repo::name::{self, BackupId};
use holdfast_repo::record::{BackupRecord, BackupType, ChecksumFailures, ClaimRecord};

use super::publish::{OwnRecords, Published, publish};
use super::run::{Content, Run};
use super::sink::Stored;
use super::sinks::Sinks;
use super::timelines::WalPath;
use super::wal_wait::{WalWait, Written};
use super::{StoredBackup, archiving, lease};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::repository::{Repository, object_name};
use crate::restore;
use crate::server::{Connection, ConnectionSettings, ServerFacts};

fn taken_for_dead(repository: &Repository, record: &BackupRecord) -> Error {
    Error::from(Cause::NotReadable {
        store: repository.describe(),
        name: name::backup_start(&record.cluster, &record.backup_id),
        reason: "another run took this backup for dead and removed it, or removed a killed backup whose packs it \
                 uses; do two machines have the same host name and machine id, or the same backup.machine?"
            .to_owned(),
    })
}

/// The warning about pages with a wrong checksum, if there are any.
fn wrong_checksums(failures: &ChecksumFailures) -> Option<String> {
    (failures.count > 0).then(|| {
        format!(
            "{} page(s) have a wrong checksum, the first one in {} at block {}; the backup holds them as they are",
            failures.count,
            failures.listed.first().map_or("", |failure| failure.path.as_str()),
            failures.listed.first().map_or(0, |failure| failure.block)
        )
    })
}

impl Run<'_> {
    /// Finishes packs and manifests, waits for the WAL, and makes the backup exist in each repository where all of that
    /// succeeded. Also gives the killed runs whose packs the backup uses.
    pub(super) async fn complete(
        &self,
        sinks: &mut Sinks<'_>,
        content: Content,
        warnings: &mut Vec<String>,
    ) -> Result<(Vec<StoredBackup>, BTreeSet<BackupId>), Error> {
        let stored = sinks.finish().await?;
        self.finish_segment_on_primary(warnings).await;
        let crew = Crew::new(self.options.jobs);
        self.wait_for_wal(sinks, &content.wal_path, &crew, warnings).await?;
        self.look_at_archiver(warnings).await;
        let failures = content.copied.bad_pages.settle(content.stopped.stop_lsn);
        warnings.extend(wrong_checksums(&failures));
        warnings.extend(content.copied.link_warnings.iter().cloned());
        if self.cancel.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        self.publish_all(sinks, stored, &content, &failures, &crew).await
    }

    /// Waits until every repository has the WAL from start to stop, and sends what the archiver does not send.
    async fn wait_for_wal(
        &self,
        sinks: &mut Sinks<'_>,
        wal_path: &WalPath,
        crew: &Crew,
        warnings: &mut Vec<String>,
    ) -> Result<(), Error> {
        let size = self.control.wal_segment_size;
        let (first, last) = (wal_path.first(size), wal_path.last(size));
        let pg_wal = self.options.pgdata.join("pg_wal");
        let own = Written {
            pg_wal: pg_wal.clone(),
            // pg_backup_stop has switched a primary to the next segment. A standby has the WAL that it has replayed.
            end: if self.facts.in_recovery { wal_path.stop_lsn() } else { last.end_lsn(size) },
            timeline: wal_path.timeline(),
            archives: self.facts.archives() || !self.facts.in_recovery,
        };
        let everybody = self.repositories.iter().zip(&self.claims).enumerate();
        let taking_part: Vec<_> = everybody
            .filter(|(index, _)| sinks.takes_part(*index))
            .map(|(index, (repository, claim))| (index, repository, claim))
            .collect();
        let wait = WalWait {
            repositories: taking_part.iter().map(|(_, repository, claim)| (*repository, *claim)).collect(),
            cluster: &self.options.cluster,
            ranges: wal_path.ranges(size),
            history: wal_path.history_file(),
            pg_wal,
            // Only a primary can switch to the next segment.
            finished: (!self.facts.in_recovery).then_some(last),
            archives: self.facts.archives(),
            compression: self.options.wal_compression,
            crew: crew.clone(),
            timeout: self.options.archive_timeout,
            backup: self.backup.to_string(),
            own: Some(own),
        };
        let mut counted = BTreeSet::new();
        let waited = wait.each(self.progress, self.cancel).await?;
        for ((index, ..), waited) in taking_part.iter().zip(waited) {
            counted.extend(sinks.settle_alone(*index, waited).await?.unwrap_or_default());
        }
        warnings.extend(archiving::sent_in_its_place(&counted));
        if self.facts.archives() {
            for (index, repository, claim) in &taking_part {
                if !sinks.takes_part(*index) {
                    continue;
                }
                let cluster = &self.options.cluster;
                warnings.extend(archiving::gap_before(repository, cluster, claim, first, &self.options.pgdata).await);
            }
        }
        Ok(())
    }

    /// The backup has sent what the archiver did not send, so nobody would notice a broken archiver.
    async fn look_at_archiver(&self, warnings: &mut Vec<String>) {
        if !self.facts.archives() {
            return;
        }
        match ServerFacts::archiver_failure(&self.connection).await {
            Ok(None) => {}
            Ok(Some(segment)) => warnings.push(format!(
                "the archiver's last attempt failed, at {segment}: until it succeeds, this backup can be restored to its \
                 own end, but not to a later moment; see pg_stat_archiver and the server's log"
            )),
            // The stop call is done. A failed query on the session is now only a warning.
            Err(error) => warnings.push(format!("cannot find out whether the archiver works: {error}")),
        }
    }

    /// Makes the backup exist in each repository that has all of it.
    async fn publish_all(
        &self,
        sinks: &mut Sinks<'_>,
        stored: Vec<Option<Stored>>,
        content: &Content,
        failures: &ChecksumFailures,
        crew: &Crew,
    ) -> Result<(Vec<StoredBackup>, BTreeSet<BackupId>), Error> {
        let (mut complete, mut used) = (Vec::new(), BTreeSet::new());
        let wal = content.wal_path.ranges(self.control.wal_segment_size);
        let lanes = self.repositories.iter().zip(&self.claims).zip(stored).enumerate();
        for (index, ((repository, claim), stored)) in lanes {
            let Some(stored) = stored.filter(|_| sinks.takes_part(index)) else { continue };
            let record = self.record(repository, claim, &stored, content, failures);
            let taken_from = stored.taken_from;
            let published = async {
                restore::would_take(repository, &record, crew).await?;
                self.publish_in(
                    index,
                    &lease::Needs {
                        repository,
                        claim,
                        record: &record,
                        wal: &wal,
                        crew,
                        lease: self.leases.get(index).and_then(Option::as_ref),
                        clock: self.clock,
                        host: &self.options.host,
                    },
                    &taken_from,
                )
                .await
            };
            // A cancelled run that takes too long is dropped with all that it knows. Once a backup exists, the cancel
            // must end the work here instead.
            let published = if complete.is_empty() {
                published.await
            } else {
                tokio::select! {
                    biased;
                    published = published => published,
                    () = self.cancel.cancelled() => Err(Cause::Cancelled.into()),
                }
            };
            match published {
                Ok(()) => {
                    complete.push(StoredBackup { repository: repository.describe(), backup: record });
                    used.extend(taken_from);
                }
                // A backup that already exists is reported, whatever ends the rest.
                Err(error) if !complete.is_empty() => sinks.leave_out(index, error).await,
                Err(error) => {
                    sinks.settle::<()>(index, Err(error)).await?;
                }
            }
        }
        Ok((complete, used))
    }

    /// `backup.json` of one repository.
    fn record(
        &self,
        repository: &Repository,
        claim: &ClaimRecord,
        stored: &Stored,
        content: &Content,
        failures: &ChecksumFailures,
    ) -> BackupRecord {
        let Content { started, stopped, wal_path, copied, .. } = content;
        let size = self.control.wal_segment_size;
        BackupRecord {
            backup_id: self.backup,
            label: self.options.label.clone(),
            cluster: self.options.cluster.clone(),
            claim: claim.number,
            backup_type: if content.parent.is_some() { BackupType::Incremental } else { BackupType::Full },
            parent: content.parent,
            system_identifier: self.control.system_identifier,
            pg_version: self.facts.version_text.clone(),
            pg_major: self.facts.version.major(),
            catalog_version: self.control.catalog_version,
            wal_segment_size: size,
            timeline: stopped.label.start_timeline,
            start_lsn: started.start_lsn,
            stop_lsn: stopped.stop_lsn,
            start_segment: wal_path.first(size),
            stop_segment: wal_path.last(size),
            start_time: started.start_time,
            stop_time: stopped.stop_time,
            duration_milliseconds: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            from_standby: self.facts.in_recovery,
            data_checksums: self.control.has_data_checksums(),
            checksum_failures: failures.clone(),
            file_count: copied.file_count,
            removed_file_count: copied.removed_count,
            size_bytes: copied.size_bytes,
            stored_bytes: stored.size_bytes,
            pack_count: stored.pack_count,
            tablespaces: content.tablespaces.clone(),
            databases: self.databases(),
            compression: self.options.compression.to_string(),
            encryption: repository.record().encryption,
            manifest: stored.manifest.clone(),
            next_xid: self.control.next_xid,
            host: self.options.host.clone(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            warnings: copied.link_warnings.clone(),
            annotations: BTreeMap::default(),
        }
    }

    /// Makes the backup exist in one repository, unless another run took this one for dead.
    async fn publish_in(
        &self,
        index: usize,
        needs: &lease::Needs<'_>,
        taken_from: &BTreeSet<BackupId>,
    ) -> Result<(), Error> {
        let lease::Needs { repository, record, .. } = *needs;
        let cluster = &self.options.cluster;
        let publishing = |is: bool| {
            if let Some(publishing) = self.publishing.get(index) {
                publishing.store(is, Ordering::Relaxed);
            }
        };
        lease::look_again(needs).await?;
        let mine =
            OwnRecords { run: &self.identity, backups: taken_from.iter().copied().chain([self.backup]).collect() };
        if !mine.all_are(repository, cluster).await? {
            return Err(taken_for_dead(repository, record));
        }
        publishing(true);
        match publish(repository, record, &mine).await {
            // This host may have slept while the record was being sent.
            Published::Complete => {
                let Err(lost) = lease::look_again(needs).await else { return Ok(()) };
                repository.store().delete(&[object_name(&name::backup_summary(cluster, &self.backup))?]).await?;
                publishing(false);
                Err(lost)
            }
            // A record in doubt may still arrive after it was deleted.
            Published::TakenForDead { in_doubt } => {
                publishing(in_doubt);
                Err(taken_for_dead(repository, record))
            }
            Published::Failed { error, may_exist } => {
                publishing(may_exist);
                Err(error)
            }
        }
    }

    /// A standby cannot finish the segment of the stop LSN. Its primary can, if its connection is configured.
    async fn finish_segment_on_primary(&self, warnings: &mut Vec<String>) {
        let Some(connection) = &self.options.primary_connection else { return };
        if !self.facts.in_recovery {
            return;
        }
        let settings = ConnectionSettings {
            connection: Some(connection.expose()),
            subject: "cluster.primary_connection",
            environment: &self.options.environment,
            pgdata: None,
        };
        let switched = async {
            let primary = Connection::open(&settings).await?;
            let row = primary.client().execute("SELECT pg_switch_wal()", &[]).await;
            primary.close().await;
            row.map_err(Error::from)
        };
        if let Err(error) = switched.await {
            // The primary may still finish the segment in time (archive_timeout, or normal work).
            warnings.push(format!("the primary could not be asked to finish its WAL segment: {error}"));
        }
    }
}
