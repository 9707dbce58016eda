//! `backup.json`: the record that makes a backup exist (promise 3), of a backup or of a copy.
//!
//! The caller has checked that everything is there that the record names. A run looks for its own start records just
//! before `backup.json` is created, and [`publish`] looks again just after. So it sees another run that took it for
//! dead and removes its data, or the other run sees `backup.json` ([`super::remains`] has the order).
//!
//! If the store does not compare checksums, the record is read back. One that was changed on its way is deleted again.
//!
//! If the answer of the store is lost, the record is looked for: only the answer may have been lost, and a request that
//! is still on its way may arrive later.

use std::time::Duration;

use futures::future::try_join_all;
use holdfast_repo::name::{self, BackupId, ClusterName};
use holdfast_repo::record::BackupRecord;

use super::remains;
use crate::error::{Cause, Error};
use crate::repository::{Repository, object_name};

/// The time limit for looking for a record whose creation failed. The store's own time limit has already passed.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// The start records that must belong to this run when its backup becomes complete.
pub(crate) struct OwnRecords<'a> {
    /// The id of the run.
    pub(crate) run: &'a str,
    /// Its own backup, and the killed runs whose packs it uses.
    pub(crate) backups: Vec<BackupId>,
}

impl OwnRecords<'_> {
    /// Whether no other run has taken this one for dead.
    pub(crate) async fn all_are(&self, repository: &Repository, cluster: &ClusterName) -> Result<bool, Error> {
        let looks = self.backups.iter().map(|backup| remains::still_mine(repository, cluster, *backup, self.run));
        Ok(try_join_all(looks).await?.into_iter().all(|mine| mine))
    }
}

/// How [`publish`] ended.
#[derive(Debug)]
pub(crate) enum Published {
    /// `backup.json` is there, and the backup is complete.
    Complete,
    /// Another run took this one for dead, so `backup.json` was deleted again. If it is in doubt whether it was stored,
    /// it may still arrive.
    TakenForDead { in_doubt: bool },
    /// This run did not create `backup.json`, or does not know whether it did.
    Failed { error: Error, may_exist: bool },
}

/// Creates `backup.json`.
pub(crate) async fn publish(repository: &Repository, record: &BackupRecord, mine: &OwnRecords<'_>) -> Published {
    let name = name::backup_summary(&record.cluster, &record.backup_id);
    let mut doubt = None;
    if let Err(error) = repository.create_record(&name, record).await {
        if matches!(*error.what, Cause::NotReadable { .. }) {
            return withdraw(repository, &name, record, mine, error).await;
        }
        match what_became_of(repository, &name, record, &error).await {
            RecordState::Stored => {}
            RecordState::NotStored => return Published::Failed { error, may_exist: false },
            RecordState::Unknown => doubt = Some(error),
        }
    }
    let in_doubt = doubt.is_some();
    match keep_published(repository, record, mine, doubt).await {
        Ok(true) => Published::Complete,
        Ok(false) => Published::TakenForDead { in_doubt },
        Err(error) => Published::Failed { error, may_exist: true },
    }
}

/// Deletes a `backup.json` that was changed on its way: it would hide a backup from every listing, or stop the listing.
/// It is deleted only while the start records are of this run, because no other run may then create it.
async fn withdraw(
    repository: &Repository,
    name: &str,
    record: &BackupRecord,
    mine: &OwnRecords<'_>,
    error: Error,
) -> Published {
    let withdrawn = async {
        if mine.all_are(repository, &record.cluster).await? {
            repository.store().delete(&[object_name(name)?]).await?;
            return Ok::<_, Error>(true);
        }
        Ok(false)
    };
    let may_exist = !withdrawn.await.unwrap_or_else(|left| {
        tracing::warn!(name, error = %left, "a backup.json that was changed on its way is left in the repository");
        false
    });
    Published::Failed { error, may_exist }
}

/// The state of a record after its creation failed.
#[derive(Debug, PartialEq, Eq)]
enum RecordState {
    Stored,
    NotStored,
    /// The record may be there, or may still arrive.
    Unknown,
}

/// Looks for the record in the store.
async fn what_became_of(repository: &Repository, name: &str, record: &BackupRecord, error: &Error) -> RecordState {
    let Cause::Store(refused) = &*error.what else { return RecordState::NotStored };
    // The store has looked whether that is this run's own request. So it is the record of another run, which may have
    // exactly this content: two runs that copy the same backup write the same.
    if error.is_already_exists() {
        return RecordState::NotStored;
    }
    let look = repository.read_record::<BackupRecord>(name);
    match tokio::time::timeout(LOOK_WITHIN, look).await {
        Ok(Ok(found)) if found == *record => RecordState::Stored,
        Ok(Ok(_)) => RecordState::NotStored,
        Ok(Err(error)) if error.is_not_found() && !refused.is_retryable() => RecordState::NotStored,
        Ok(Err(_)) | Err(_) => RecordState::Unknown,
    }
}

/// Checks that no other run took this one for dead while `backup.json` was stored. If one did, deletes `backup.json`
/// and gives `false`. `doubt` is the error if it is not known whether `backup.json` was stored.
async fn keep_published(
    repository: &Repository,
    record: &BackupRecord,
    mine: &OwnRecords<'_>,
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a failed set-up fails the test")]

    use std::sync::Arc;

    use holdfast_contract::report::backup::BackupReport;
    use holdfast_repo::record::StartRecord;
    use holdfast_store::{Fault, FaultRule, Faulty, MemoryStore, Operation, StoreErrorKind};

    use super::*;
    use crate::backup::runner::Runner;
    use crate::repository::confirm::not_compared;
    use crate::repository::{RepositoryTarget, Unlock, init};

    const REPORT: &str = include_str!("../../../contract/tests/samples/backup-2.json");

    fn started(record: &BackupRecord, runner: &Runner) -> StartRecord {
        StartRecord {
            backup_id: record.backup_id,
            cluster: record.cluster.clone(),
            claim: record.claim,
            system_identifier: record.system_identifier,
            host: runner.host.clone(),
            pid: 4711,
            pgdata: runner.pgdata.clone(),
            started: "2026-11-29T11:00:00Z".parse().unwrap(),
            software_version: "0.1.0".to_owned(),
            parent: None,
            run: Some(runner.identity(Vec::new())),
        }
    }

    /// Creates the record of a backup in a store with these faults; gives the state of the record.
    async fn created(faults: &[(Operation, Fault)]) -> RecordState {
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
        assert_eq!(created(&[(Operation::Put, Fault::LostAnswer)]).await, RecordState::Stored);
        assert_eq!(created(&[(Operation::Put, denied())]).await, RecordState::NotStored);
        // The request may still arrive.
        let exists = Fault::Refuse(StoreErrorKind::AlreadyExists);
        assert_eq!(created(&[(Operation::Put, exists)]).await, RecordState::NotStored);
        let lost_request = Fault::Refuse(StoreErrorKind::Timeout);
        assert_eq!(created(&[(Operation::Put, lost_request)]).await, RecordState::Unknown);
        assert_eq!(
            created(&[(Operation::Put, Fault::LostAnswer), (Operation::Get, denied())]).await,
            RecordState::Unknown
        );
    }

    /// On a store that does not compare checksums, a `backup.json` of this run that was changed on its way goes again.
    /// Nothing is deleted that another run may have written.
    #[tokio::test]
    async fn a_damaged_backup_json_is_deleted_again() {
        for (mine, goes) in [(true, true), (false, false)] {
            let rule =
                FaultRule::new(&[Operation::Get], 1.0, Fault::FlipBit).on("main/backups/20260822T101500Z/backup");
            let store = Arc::new(Faulty::new(Arc::new(MemoryStore::new()), 1, vec![rule]));
            let target = RepositoryTarget { store, unlock: Unlock::NotEncrypted };
            let now = "2026-11-29T11:00:00Z".parse().unwrap();
            let repository = not_compared(&init::init(&target, now).await.unwrap().repository);
            let report: BackupReport = serde_json::from_str(REPORT).unwrap();
            let mut record = report.repositories[0].backup.clone();
            record.cluster = "main".parse().unwrap();
            record.backup_id = "20260822T101500Z".parse().unwrap();
            let runner = Runner::here("db1", "/data", None, now).unwrap();
            let start_name = name::backup_start(&record.cluster, &record.backup_id);
            repository.create_record(&start_name, &started(&record, &runner)).await.unwrap();
            let run = if mine { runner.run.as_str() } else { "another" };
            let published = publish(&repository, &record, &OwnRecords { run, backups: vec![record.backup_id] }).await;
            let Published::Failed { error, may_exist } = published else { panic!("{published:?}") };
            assert!(matches!(*error.what, Cause::NotReadable { .. }), "{error}");
            assert_eq!(may_exist, !goes);
            let summary = object_name(&name::backup_summary(&record.cluster, &record.backup_id)).unwrap();
            assert_eq!(repository.store().head(&summary).await.is_err(), goes);
        }
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
        let start = started(record, &runner);
        let summary = name::backup_summary(&record.cluster, &record.backup_id);
        let start_name = name::backup_start(&record.cluster, &record.backup_id);
        repository.create_record(&start_name, &start).await.unwrap();
        repository.create_record(&summary, record).await.unwrap();
        let doubt = || Some(Error::from(Cause::Internal("no answer".to_owned())));

        let mine = OwnRecords { run: &runner.run, backups: vec![record.backup_id] };
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
