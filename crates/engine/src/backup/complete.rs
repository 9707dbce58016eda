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
use std::time::Duration;

use futures::future::try_join_all;
use holdfast_repo::name::{self, BackupId, ClusterName};
use holdfast_repo::record::{BackupRecord, BackupType};

use super::run::{Content, Run};
use super::sink::Stored;
use super::sinks::Sinks;
use super::wal_wait::WalWait;
use super::{StoredBackup, archiving, lease, remains};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::repository::{Repository, object_name};
use crate::restore;
use crate::server::{Connection, ConnectionSettings, ServerFacts};

/// The time limit for looking for a record whose creation failed. The store has already used its own time limit before.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// The state of a record after its creation failed.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stored,
    NotStored,
    /// The record may be there, or may still arrive.
    Unknown,
}

/// Looks for the record in the store, since only the answer may have been lost. A request that is still on its way may
/// arrive later.
async fn what_became_of(repository: &Repository, name: &str, record: &BackupRecord, error: &Error) -> Fate {
    let Cause::Store(refused) = &*error.what else { return Fate::NotStored };
    let look = repository.read_record::<BackupRecord>(name);
    match tokio::time::timeout(LOOK_WITHIN, look).await {
        Ok(Ok(found)) if found == *record => Fate::Stored,
        Ok(Ok(_)) => Fate::NotStored,
        Ok(Err(error)) if error.is_not_found() && !refused.is_retryable() => Fate::NotStored,
        Ok(Err(_)) | Err(_) => Fate::Unknown,
    }
}

/// Checks that no other run took this one for dead while `backup.json` was stored. If one did, deletes `backup.json`
/// and gives `false`. `doubt` is the error if it is not known whether `backup.json` was stored.
async fn keep_published(
    repository: &Repository,
    record: &BackupRecord,
    mine: &Mine<'_>,
    doubt: Option<Error>,
) -> Result<bool, Error> {
    let looked = mine.all_are(repository, &record.cluster);
    if let Some(doubt) = doubt {
        // If the store does not answer this either, the doubt stays.
        if !matches!(tokio::time::timeout(LOOK_WITHIN, looked).await, Ok(Ok(false))) {
            return Err(doubt);
        }
    } else if looked.await? {
        return Ok(true);
    }
    // Nobody knows of this backup yet, and its packs may be removed at any moment.
    repository.store().delete(&[object_name(&name::backup_summary(&record.cluster, &record.backup_id))?]).await?;
    Ok(false)
}

/// The start records that must belong to this run when its backup becomes complete.
struct Mine<'a> {
    run: &'a str,
    /// Its own backup, and the killed runs whose packs it uses.
    backups: Vec<BackupId>,
}

impl Mine<'_> {
    async fn all_are(&self, repository: &Repository, cluster: &ClusterName) -> Result<bool, Error> {
        let looks = self.backups.iter().map(|backup| remains::still_mine(repository, cluster, *backup, self.run));
        Ok(try_join_all(looks).await?.into_iter().all(|mine| mine))
    }
}

fn taken_for_dead(repository: &Repository, record: &BackupRecord) -> Error {
    Error::from(Cause::NotReadable {
        store: repository.describe(),
        name: name::backup_start(&record.cluster, &record.backup_id),
        reason: "another run took this backup for dead and removed it, or removed a killed backup whose packs it \
                 uses; do two machines have the same host name and machine id, or the same backup.machine?"
            .to_owned(),
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
        let Content { started, stopped, course, copied, tablespaces, parent } = content;
        let stored = sinks.finish().await?;
        self.finish_segment_on_primary(warnings).await;
        let size = self.control.wal_segment_size;
        let (first, last) = (course.first(size), course.last(size));
        let crew = Crew::new(self.options.jobs);
        let everybody = self.repositories.iter().zip(&self.claims).enumerate();
        let taking_part: Vec<_> = everybody
            .filter(|(index, _)| sinks.takes_part(*index))
            .map(|(index, (repository, claim))| (index, repository, claim))
            .collect();
        let wait = WalWait {
            repositories: taking_part.iter().map(|(_, repository, claim)| (*repository, *claim)).collect(),
            cluster: &self.options.cluster,
            ranges: course.ranges(size),
            history: course.history_file(),
            pg_wal: self.options.pgdata.join("pg_wal"),
            // On a primary, pg_backup_stop has switched to the next segment. A standby cannot do that.
            finished: (!self.facts.in_recovery).then_some(last),
            archives: self.facts.archives(),
            compression: self.options.wal_compression,
            crew: crew.clone(),
            timeout: self.options.archive_timeout,
            backup: self.backup.to_string(),
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
                warnings.extend(archiving::gap_before(repository, cluster, claim, first, &wait.pg_wal).await);
            }
        }
        // The backup has sent what the archiver did not send, so nobody would notice a broken archiver.
        if self.facts.archives() {
            match ServerFacts::archiver_failure(&self.connection).await {
                Ok(None) => {}
                Ok(Some(segment)) => warnings.push(format!(
                    "the archiver's last attempt failed, at {segment}: until it succeeds, this backup can be restored \
                     to its own end, but not to a later moment; see pg_stat_archiver and the server's log"
                )),
                // The stop call is done. A failed query on the session is now only a warning.
                Err(error) => warnings.push(format!("cannot find out whether the archiver works: {error}")),
            }
        }
        let failures = copied.bad_pages.settle(stopped.stop_lsn);
        if failures.count > 0 {
            warnings.push(format!(
                "{} page(s) have a wrong checksum, the first one in {} at block {}; the backup holds them as they are",
                failures.count,
                failures.listed.first().map_or("", |failure| failure.path.as_str()),
                failures.listed.first().map_or(0, |failure| failure.block)
            ));
        }
        warnings.extend(copied.link_warnings.iter().cloned());
        let (mut complete, mut used) = (Vec::new(), BTreeSet::new());
        if self.cancel.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        let lanes = self.repositories.iter().zip(&self.claims).zip(stored).enumerate();
        for (index, ((repository, claim), stored)) in lanes {
            let Some(stored) = stored.filter(|_| sinks.takes_part(index)) else { continue };
            let Stored { manifest, pack_count, size_bytes: stored_bytes, taken_from } = stored;
            let record = BackupRecord {
                backup_id: self.backup,
                label: self.options.label.clone(),
                cluster: self.options.cluster.clone(),
                claim: claim.number,
                backup_type: if parent.is_some() { BackupType::Incremental } else { BackupType::Full },
                parent,
                system_identifier: self.control.system_identifier,
                pg_version: self.facts.version_text.clone(),
                pg_major: self.facts.version.major(),
                catalog_version: self.control.catalog_version,
                wal_segment_size: size,
                timeline: stopped.label.start_timeline,
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
                warnings: copied.link_warnings.clone(),
                annotations: BTreeMap::default(),
            };
            let published = async {
                restore::would_take(repository, &record, &crew).await?;
                self.publish(
                    index,
                    &lease::Needs {
                        repository,
                        claim,
                        record: &record,
                        wal: &wait.ranges,
                        crew: &crew,
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

    /// Makes the backup exist, unless another run took this one for dead: see [`remains`] for the order.
    async fn publish(
        &self,
        index: usize,
        needs: &lease::Needs<'_>,
        taken_from: &BTreeSet<BackupId>,
    ) -> Result<(), Error> {
        let lease::Needs { repository, record, .. } = *needs;
        let cluster = &self.options.cluster;
        let name = name::backup_summary(cluster, &self.backup);
        let publishing = |is: bool| {
            if let Some(publishing) = self.publishing.get(index) {
                publishing.store(is, Ordering::Relaxed);
            }
        };
        lease::look_again(needs).await?;
        let mine = Mine { run: &self.identity, backups: taken_from.iter().copied().chain([self.backup]).collect() };
        if !mine.all_are(repository, cluster).await? {
            return Err(taken_for_dead(repository, record));
        }
        publishing(true);
        let mut doubt = None;
        if let Err(error) = repository.create_record(&name, record).await {
            match what_became_of(repository, &name, record, &error).await {
                Fate::Stored => {}
                Fate::NotStored => {
                    publishing(false);
                    return Err(error);
                }
                Fate::Unknown => doubt = Some(error),
            }
        }
        // A record in doubt may still arrive after it is deleted here.
        let in_doubt = doubt.is_some();
        if keep_published(repository, record, &mine, doubt).await? {
            // This host may have slept while the record was being sent.
            let Err(lost) = lease::look_again(needs).await else { return Ok(()) };
            repository.store().delete(&[object_name(&name)?]).await?;
            publishing(false);
            return Err(lost);
        }
        publishing(in_doubt);
        Err(taken_for_dead(repository, record))
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use std::sync::Arc;

    use holdfast_contract::report::backup::BackupReport;
    use holdfast_repo::record::StartRecord;
    use holdfast_store::{Fault, FaultRule, Faulty, MemoryStore, Operation, StoreErrorKind};

    use super::super::runner::Runner;
    use super::*;
    use crate::repository::{RepositoryTarget, Unlock, init};

    const REPORT: &str = include_str!("../../../contract/tests/samples/backup-2.json");

    /// Creates the record of a backup in a store with these faults; gives the state of the record.
    async fn created(faults: &[(Operation, Fault)]) -> Fate {
        let rules = faults.iter().map(|(operation, fault)| FaultRule::new(&[*operation], 1.0, fault.clone()));
        let store = Faulty::new(Arc::new(MemoryStore::new()), 1, rules.collect());
        store.set_active(false);
        let target = RepositoryTarget { store: Arc::new(store.clone()), unlock: Unlock::NotEncrypted };
        let repository = init::init(&target, "2026-11-29T11:00:00Z".parse().unwrap()).await.unwrap().repository;
        store.set_active(true);
        let report: BackupReport = serde_json::from_str(REPORT).unwrap();
        let record = &report.repositories[0].backup;
        let name = name::backup_summary(&record.cluster, &record.backup_id);
        let error = repository.create_record(&name, record).await.unwrap_err();
        what_became_of(&repository, &name, record, &error).await
    }

    #[tokio::test]
    async fn a_lost_answer_is_looked_for() {
        let denied = || Fault::Refuse(StoreErrorKind::PermissionDenied);
        assert_eq!(created(&[(Operation::Put, Fault::LostAnswer)]).await, Fate::Stored);
        assert_eq!(created(&[(Operation::Put, denied())]).await, Fate::NotStored);
        // The request may still arrive.
        let lost_request = Fault::Refuse(StoreErrorKind::Timeout);
        assert_eq!(created(&[(Operation::Put, lost_request)]).await, Fate::Unknown);
        assert_eq!(created(&[(Operation::Put, Fault::LostAnswer), (Operation::Get, denied())]).await, Fate::Unknown);
    }

    /// A removal by another run deletes `start.json` first.
    #[tokio::test]
    async fn a_record_in_doubt_is_deleted_when_another_run_took_this_one_for_dead() {
        let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock: Unlock::NotEncrypted };
        let now = "2026-11-29T11:00:00Z".parse().unwrap();
        let repository = init::init(&target, now).await.unwrap().repository;
        let report: BackupReport = serde_json::from_str(REPORT).unwrap();
        let record = &report.repositories[0].backup;
        let runner = Runner::here("db1", "/data", None, now).unwrap();
        let start = StartRecord {
            backup_id: record.backup_id,
            cluster: record.cluster.clone(),
            claim: record.claim,
            system_identifier: record.system_identifier,
            host: runner.host.clone(),
            pid: 4711,
            pgdata: runner.pgdata.clone(),
            started: now,
            software_version: "0.1.0".to_owned(),
            parent: None,
            run: Some(runner.identity(Vec::new())),
        };
        let summary = name::backup_summary(&record.cluster, &record.backup_id);
        let start_name = name::backup_start(&record.cluster, &record.backup_id);
        repository.create_record(&start_name, &start).await.unwrap();
        repository.create_record(&summary, record).await.unwrap();
        let doubt = || Some(Error::from(Cause::Internal("no answer".to_owned())));

        let mine = Mine { run: &runner.run, backups: vec![record.backup_id] };
        assert!(keep_published(&repository, record, &mine, None).await.unwrap());
        let left = keep_published(&repository, record, &mine, doubt()).await.unwrap_err();
        assert!(left.to_string().contains("no answer"), "{left}");
        repository.store().head(&object_name(&summary).unwrap()).await.unwrap();

        repository.store().delete(&[object_name(&start_name).unwrap()]).await.unwrap();
        assert!(!keep_published(&repository, record, &mine, doubt()).await.unwrap());
        let gone = repository.store().head(&object_name(&summary).unwrap()).await.unwrap_err();
        assert_eq!(gone.kind(), StoreErrorKind::NotFound);
    }
}
