//! The lease of a restore: while it is valid, `expire` on any host keeps the backup and the WAL after it.
//!
//! A restore may have read-only credentials, or a store that is half broken. So a failure to take the lease is
//! reported, and the restore continues.

use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_pgtypes::WalFileName;
use holdfast_repo::name::{self, BackupId, ClaimNumber, LedgerKind, ObjectPath};
use holdfast_repo::record::{BackupRecord, DecidedWal, LeasePurpose, LedgerEntry, PackRange, SnapshotRecord};
use holdfast_repo::recovery::RecoveryPlan;
use holdfast_store::{Failure, Operation, StoreError, StoreErrorKind};

use super::RestoreOptions;
use crate::archive::stored::wal_object_name;
use crate::archive::tail;
use crate::archive::{WalFolders, WalScope};
use crate::error::{Cause, Error, ResultExt};
use crate::progress::Progress;
use crate::repository::leases::{Clock, Holder, Lease, new_run};
use crate::repository::listed::Listed;
use crate::repository::{Repository, object_name};

/// How long a restore waits for its lease in total. A restore may be urgent, and the store answered a moment ago.
const WAIT: Duration = Duration::from_secs(30);

/// The lease of a restore, and notes about it.
pub(super) struct Protection {
    lease: Option<Lease>,
    pub(super) notes: Vec<String>,
}

impl Protection {
    /// Releases the lease.
    pub(super) async fn end(self) {
        if let Some(lease) = self.lease
            && tokio::time::timeout(WAIT, lease.release()).await.is_err()
        {
            tracing::debug!("the lease of this restore was not deleted in time, and ends by itself");
        }
    }
}

/// What the restore and the restored server read.
pub(super) struct Reads<'a> {
    backup: BackupId,
    /// Whether its data is in the repository.
    has_data: bool,
    claim: ClaimNumber,
    stop_time: DateTime<Utc>,
    plan: &'a RecoveryPlan,
}

impl<'a> Reads<'a> {
    pub(super) fn of_backup(backup: &BackupRecord, plan: &'a RecoveryPlan) -> Self {
        Self { backup: backup.backup_id, has_data: true, claim: backup.claim, stop_time: backup.stop_time, plan }
    }

    pub(super) fn of_snapshot(snapshot: &SnapshotRecord, plan: &'a RecoveryPlan) -> Self {
        Self {
            backup: snapshot.snapshot_id,
            has_data: false,
            claim: snapshot.claim,
            stop_time: snapshot.stop_time,
            plan,
        }
    }

    /// Whether the server replays WAL beyond the moment at which it is consistent.
    fn replays_past_consistency(&self) -> bool {
        self.plan.target_lsn.is_none_or(|target| target > self.plan.consistent_lsn)
    }

    fn needs_wal(&self, wal: &[DecidedWal]) -> bool {
        wal.iter().filter(|wal| wal.claim == self.claim).any(|wal| {
            let of_timeline = self.plan.segments.iter().filter(|range| range.timeline == wal.first.timeline());
            of_timeline.into_iter().any(|range| range.first <= wal.last && wal.first <= range.last)
        })
    }

    fn needs(&self, backups: &[BackupId], packs: &[PackRange], wal: &[DecidedWal]) -> bool {
        backups.contains(&self.backup) || packs.iter().any(|range| range.backup == self.backup) || self.needs_wal(wal)
    }
}

/// Takes the lease, then waits for the end of an `expire` that did not see it, then checks whether the backup and the
/// WAL are still there and what is decided about them. In this order, the check notices whatever that `expire` removed.
pub(super) async fn protect(
    repository: &Repository,
    options: &RestoreOptions,
    reads: &Reads<'_>,
    clock: Clock,
    progress: &dyn Progress,
) -> Result<Protection, Error> {
    let holder = Holder {
        cluster: &options.cluster,
        purpose: LeasePurpose::Restore,
        backups: vec![reads.backup],
        host: &options.host,
    };
    let mut notes = Vec::new();
    let taken = tokio::time::timeout(WAIT, Lease::take(repository, new_run()?, holder, clock)).await;
    let lease = match taken {
        Ok(Ok(lease)) => Some(lease),
        Ok(Err(error)) => {
            notes.push(unprotected(&error.to_string()));
            None
        }
        Err(_) => {
            notes.push(unprotected("the store did not answer in time"));
            None
        }
    };
    let mut look = Look::at(repository, options, reads).await;
    if let Some(lease) = &lease
        && look.has(&[LedgerKind::Removing])
    {
        notes.extend(wait_for_expire(repository, options, lease, clock).await);
        look = Look::at(repository, options, reads).await;
    }
    if let Err(error) = is_there(repository, options, reads, &look).await {
        if let Some(lease) = lease {
            lease.release().await;
        }
        return Err(error);
    }
    if let Ok(Ok(Some(note))) = tokio::time::timeout(WAIT, what_goes(repository, options, reads, &look)).await {
        notes.push(note);
    }
    for note in &notes {
        progress.note(note);
    }
    Ok(Protection { lease, notes })
}

fn unprotected(why: &str) -> String {
    format!("no lease was taken, so run no `holdfast expire` before this restore has ended: {why}")
}

/// What the repository has after the lease was taken. A running `expire` sees the lease at its next check. Before its
/// last check, it records in the ledger what it removes. So if the ledger has no such entry now, there is nothing to
/// wait for, and whatever was removed before is gone already.
struct Look {
    /// Whether the backup is gone. If the store does not answer, the restore itself finds out what is there.
    is_gone: bool,
    /// The kinds of entries in the ledger; none if it cannot be listed.
    kinds: Vec<LedgerKind>,
}

impl Look {
    async fn at(repository: &Repository, options: &RestoreOptions, reads: &Reads<'_>) -> Self {
        let (kinds, gone) = tokio::join!(
            tokio::time::timeout(WAIT, kinds(repository, options)),
            tokio::time::timeout(WAIT, is_gone(repository, options, reads.backup)),
        );
        Self {
            is_gone: reads.has_data && matches!(gone, Ok(Ok(true))),
            kinds: kinds.ok().and_then(Result::ok).unwrap_or_default(),
        }
    }

    /// Whether the ledger has an entry of one of these kinds.
    fn has(&self, kinds: &[LedgerKind]) -> bool {
        self.kinds.iter().any(|kind| kinds.contains(kind))
    }
}

/// The kinds of entries in the ledger.
async fn kinds(repository: &Repository, options: &RestoreOptions) -> Result<Vec<LedgerKind>, Error> {
    let listed = repository.store().list(&name::ledger_folder(&options.cluster), None).await?;
    let kind = |name: &str| match name.parse() {
        Ok(ObjectPath::Ledger { kind, .. }) => Some(kind),
        _ => None,
    };
    Ok(listed.iter().filter_map(|object| kind(object.name.as_ref())).collect())
}

async fn wait_for_expire(
    repository: &Repository,
    options: &RestoreOptions,
    lease: &Lease,
    clock: Clock,
) -> Option<String> {
    let name = lease.name();
    let waiting = repository.wait_for_expire(&options.cluster, &options.host, clock, &name, WAIT);
    match tokio::time::timeout(WAIT * 2, waiting).await {
        Ok(Err(error)) if matches!(*error.what, Cause::AnotherRun { .. }) => Some(
            "an `expire` that may not have seen this restore is at work or was killed, and may remove what it needs: look \
             whether it runs, and restore once more if something turns out to be missing"
                .to_owned(),
        ),
        // If the store cannot be asked, the restore itself finds out what is there.
        _ => None,
    }
}

/// Fails if the backup is gone, or WAL that was there when the restore was planned.
async fn is_there(
    repository: &Repository,
    options: &RestoreOptions,
    reads: &Reads<'_>,
    look: &Look,
) -> Result<(), Error> {
    if look.is_gone {
        let gone = Cause::NoSuchBackup { backup: reads.backup.to_string(), cluster: options.cluster.to_string() };
        return Err(gone).doing(|| "looking for the backup once more, since `expire` may have removed it".to_owned());
    }
    // WAL is looked for only if something was ever removed. If the store does not answer, or hides what it listed a
    // moment ago, the restore itself finds out what is there.
    if !look.has(&[LedgerKind::Removing, LedgerKind::Removal]) {
        return Ok(());
    }
    match tokio::time::timeout(WAIT, lost_segment(repository, options, reads)).await {
        Ok(Ok(Some(name))) => {
            let detail = "it was there when this restore was planned".to_owned();
            let missing =
                Failure { store: repository.describe(), name, operation: Operation::List, detail, source: None };
            let missing: Error = StoreError::new(StoreErrorKind::NotFound, missing).into();
            Err(missing).doing(|| "looking for the WAL once more, since `expire` has removed some".to_owned())
        }
        _ => Ok(()),
    }
}

async fn is_gone(repository: &Repository, options: &RestoreOptions, backup: BackupId) -> Result<bool, Error> {
    let name = object_name(&name::backup_summary(&options.cluster, &backup))?;
    match repository.store().head(&name).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(true),
        looked => Ok(looked.map(|_| false)?),
    }
}

/// The object of the first segment of the plan that is missing now.
async fn lost_segment(
    repository: &Repository,
    options: &RestoreOptions,
    reads: &Reads<'_>,
) -> Result<Option<String>, Error> {
    let cluster = &options.cluster;
    let claims = repository.claims(cluster).await?;
    let Some(claim) = claims.records.into_iter().find(|claim| claim.number == reads.claim) else { return Ok(None) };
    let listed = WalFolders::read_and_list(repository, &claim, WalScope::From(reads.plan.start_lsn)).await?;
    let size = claim.wal_segment_size;
    let holes = reads.plan.segments.iter().flat_map(|range| listed.inventory().holes(range.first, range.last));
    let mut missing = holes.flat_map(|hole| {
        std::iter::successors(Some(hole.first), move |segment| segment.next(size).filter(|next| *next <= hole.last))
    });
    let lost = loop {
        let Some(segment) = missing.next() else { return Ok(None) };
        // The plan may need it only in pieces.
        let in_pieces = reads.plan.tails.iter().any(|tail| tail.timeline == segment.timeline());
        if !in_pieces || tail::list_segment(repository, &claim, segment).await?.is_empty() {
            break segment;
        }
    };
    let name = wal_object_name(repository, cluster, &claim, &WalFileName::Segment(lost));
    // An incomplete listing is not a loss.
    match repository.store().head(&object_name(&name)?).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(Some(name)),
        looked => Ok(looked.map(|_| None)?),
    }
}

/// What the user must know about the removal of the backup, and of the WAL that the server will still fetch after the
/// restore, when the lease has ended.
async fn what_goes(
    repository: &Repository,
    options: &RestoreOptions,
    reads: &Reads<'_>,
    look: &Look,
) -> Result<Option<String>, Error> {
    let (cluster, backup) = (&options.cluster, reads.backup);
    let keep = format!("`holdfast backup hold {backup} --with-wal --until 7d`");
    let read = async |kind| {
        if !look.has(&[kind]) {
            return Ok(Listed { records: Vec::new(), unreadable: Vec::new() });
        }
        repository.ledger(cluster, kind).await
    };
    let removing = read(LedgerKind::Removing).await?;
    let is_going = |entry: &LedgerEntry| matches!(entry, LedgerEntry::Removing { backups, packs, wal, .. } if reads.needs(backups, packs, wal));
    if !removing.unreadable.is_empty() || removing.records.iter().any(|(_, record)| is_going(&record.entry)) {
        return Ok(Some(format!(
            "an `expire` that did not come to its end was removing backup {backup}, or WAL that the restored server has to \
             fetch, and any of it may be gone: run {keep}, and look whether the server recovers as far as it should"
        )));
    }
    let decided = read(LedgerKind::Deletion).await?;
    let ends = decided.records.iter().filter_map(|(_, record)| match &record.entry {
        LedgerEntry::Deletion { backups, wal, not_before, .. } if reads.needs(backups, &[], wal) => Some(*not_before),
        _ => None,
    });
    if let Some(end) = ends.min() {
        return Ok(Some(format!(
            "the removal of backup {backup}, or of WAL that the restored server has to fetch, is decided, and not before \
             {end}: run no `holdfast expire` after that until the server has recovered, or run {keep} to keep both",
            end = end.format("%Y-%m-%d %H:%M:%SZ")
        )));
    }
    if let Some(bad) = decided.unreadable.first() {
        return Ok(Some(format!(
            "the decision {} cannot be read, so the removal of backup {backup}, or of WAL that the restored server has to \
             fetch, may be decided: run {keep} until the server has recovered",
            bad.object
        )));
    }
    let Some(policy) = options.retention.as_ref().filter(|_| reads.replays_past_consistency()) else { return Ok(None) };
    let window = policy.window.and_then(|window| options.now.checked_sub_signed(window));
    if window.is_some_and(|start| reads.stop_time > start) {
        return Ok(None);
    }
    let kinds = [LedgerKind::Removal, LedgerKind::Deletion];
    let expires = !policy.is_empty() || look.has(&kinds);
    Ok(expires.then(|| {
        format!(
            "no window keeps the WAL after backup {backup}, which the restored server has to fetch, and the lease of this \
             restore ends with it: run {keep} before the next `holdfast expire`, and release it when the server has \
             recovered"
        )
    }))
}
