//! The lease of a running backup, in each repository. While it is in force, `expire` on any host treats the run as
//! alive and keeps the parent and all WAL, however long the backup takes.
//!
//! The lease is taken before the start record is written, and the record says so. If no lease could be taken, the age
//! of the start record decides whether the run is alive, as for early releases.
//!
//! A machine that sleeps does not renew its lease, and `expire` may remove what the backup needs. If the lease has
//! expired, the backup takes a new one, waits until no `expire` runs, and checks that everything is there
//! ([`look_again`]). It does this just before `backup.json` is written, and again just after.

use std::time::Duration;

use holdfast_pgtypes::SegmentName;
use holdfast_repo::name::{BackupId, RunId};
use holdfast_repo::record::{BackupRecord, ClaimRecord, LeasePurpose};

use super::BackupOptions;
use super::begin::Early;
use super::runner::Runner;
use crate::archive::{WalFolders, WalScope};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::leases::{Clock, EXPIRE_ENDS_WITHIN, Holder, Lease};
use crate::restore;

/// The time that a backup waits for its lease in one repository.
const WAIT: Duration = Duration::from_secs(30);

/// Takes a lease in each repository that takes part; `None` where that fails.
pub(super) async fn acquire(
    repositories: &[Repository],
    early: &Early<'_>,
    options: &BackupOptions,
    runner: &Runner,
    parent: Option<BackupId>,
    clock: Clock,
    progress: &dyn Progress,
) -> Result<Vec<Option<Lease>>, Error> {
    let run: RunId = runner.run.parse().map_err(|e| Cause::Internal(format!("run id: {e}")))?;
    let mut leases = Vec::new();
    for (index, repository) in repositories.iter().enumerate() {
        if early.is_out(index) {
            leases.push(None);
            continue;
        }
        let holder = Holder {
            cluster: &options.cluster,
            purpose: LeasePurpose::Backup,
            backups: parent.into_iter().collect(),
            host: &options.host,
        };
        let taken = tokio::time::timeout(WAIT, Lease::take(repository, run.clone(), holder, clock)).await;
        let why = match taken {
            Ok(Ok(lease)) => {
                leases.push(Some(lease));
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the store did not answer in time".to_owned(),
        };
        progress.note(&format!(
            "this backup has no lease in {}, so `holdfast expire` treats it as dead if it runs for more than a week: \
             {why}",
            repository.describe()
        ));
        leases.push(None);
    }
    Ok(leases)
}

/// What a backup needs in one repository at its end.
pub(super) struct Needs<'a> {
    pub(super) repository: &'a Repository,
    pub(super) claim: &'a ClaimRecord,
    pub(super) record: &'a BackupRecord,
    /// Its WAL, a range for each timeline.
    pub(super) wal: &'a [(SegmentName, SegmentName)],
    pub(super) crew: &'a Crew,
    pub(super) lease: Option<&'a Lease>,
    pub(super) clock: Clock,
    pub(super) host: &'a str,
}

/// If the lease was broken: takes a new one and checks that everything is still there. Otherwise it does nothing.
pub(super) async fn look_again(needs: &Needs<'_>) -> Result<(), Error> {
    let Some(lease) = needs.lease else { return Ok(()) };
    // A loop, because the machine may sleep again meanwhile.
    while !lease.is_unbroken() {
        Box::pin(check_again(needs, lease))
            .await
            .doing(|| "checking again that all data of this backup is there, since its lease has expired".to_owned())?;
    }
    Ok(())
}

async fn check_again(needs: &Needs<'_>, lease: &Lease) -> Result<(), Error> {
    let Needs { repository, claim, record, wal, crew, clock, host, .. } = *needs;
    let ended = lease.ended();
    lease.take_again().await?;
    repository.wait_for_expire(&record.cluster, host, clock, &lease.name(), EXPIRE_ENDS_WITHIN).await?;
    restore::would_take(repository, record, crew).await?;
    let listed = WalFolders::read_and_list(repository, claim, WalScope::From(record.start_lsn)).await?;
    let inventory = listed.inventory();
    match wal.iter().find_map(|(first, last)| inventory.holes(*first, *last).first().copied()) {
        None => Ok(()),
        Some(hole) => Err(ended).doing(|| format!("looking for WAL segment {}, which is gone", hole.first)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use chrono::Utc;
    use holdfast_pgtypes::WalFileName;
    use holdfast_repo::name::ObjectPath;
    use holdfast_store::PutMode;

    use super::*;
    use crate::repository::leases::new_run;
    use crate::restore::tests::sample::Sample;

    /// Data of the backup was removed while its host slept: the backup must not become complete.
    #[tokio::test]
    async fn a_backup_whose_host_slept_checks_that_everything_is_there() {
        let sample = Sample::new(true).await;
        let (repository, record) = (&sample.repository, &sample.backup);
        let claim = repository.current_claim(&record.cluster).await.unwrap();
        let clock = Clock::starting(Utc::now());
        let holder =
            Holder { cluster: &record.cluster, purpose: LeasePurpose::Backup, backups: Vec::new(), host: "db1" };
        let lease = Lease::take(repository, new_run().unwrap(), holder, clock).await.unwrap();
        let (wal, crew) = ([(record.start_segment, record.stop_segment)], Crew::new(1));
        let needs = Needs {
            repository,
            claim: &claim,
            record,
            wal: &wal,
            crew: &crew,
            lease: Some(&lease),
            clock,
            host: "db1",
        };
        let pack = sample.packs[0].name.parse().unwrap();
        let listed = sample.store.list("main/wal/", None).await.unwrap().into_iter();
        let mut segments = listed.filter(|object| {
            matches!(object.name.as_ref().parse(), Ok(ObjectPath::WalFile { file: WalFileName::Segment(segment), .. })
                if segment == record.start_segment)
        });
        let segment = segments.next().unwrap().name;
        for (object, error) in [(None, None), (Some(pack), Some("not")), (Some(segment), Some("ended before"))] {
            let body = match &object {
                Some(name) => Some(sample.store.get(name).await.unwrap()),
                None => None,
            };
            sample.store.delete(object.as_slice()).await.unwrap();
            look_again(&needs).await.unwrap();
            lease.sleep(Duration::from_mins(90));
            assert!(!lease.is_unbroken());
            match (look_again(&needs).await, error) {
                (Ok(()), None) => assert!(lease.is_unbroken()),
                (Err(found), Some(words)) => assert!(found.what.to_string().contains(words), "{found}"),
                (looked, expected) => unreachable!("{looked:?}, expected {expected:?}"),
            }
            if let (Some(name), Some(body)) = (object, body) {
                sample.store.put(&name, body, PutMode::Create).await.unwrap();
            }
        }
        lease.release().await;
        assert_eq!(repository.leases(&record.cluster).await.unwrap().len(), 0);
    }
}
