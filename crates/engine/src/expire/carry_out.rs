//! The second step: removes what was decided, after its grace time, if nothing needs it.
//!
//! Order: `start.json` of all backups to remove, then `backup.json`, then packs, then the manifests without packs, then
//! WAL. Without `start.json`, no backup of any release mistakes the rest for the remains of a dead run. A manifest
//! stays while a pack of its backup does: it tells the next run that packs may be in use. It also stays while another
//! manifest refers to its frames. A crash at any point leaves a
//! state that the next plan understands.
//!
//! A run that starts during the removal loses nothing. Leases, holds and backups are listed just before `backup.json`
//! is deleted, and again before the first pack is deleted. A restore first takes its lease and then looks for
//! `backup.json`. If it still finds `backup.json`, its lease is older than the second listing, and its packs are kept.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use holdfast_pgtypes::{SegmentName, TimelineId, WalFileName};
use holdfast_repo::name::{self, BackupId, ClaimNumber, ClusterName, ObjectPath, PackId};
use holdfast_repo::record::ClaimRecord;
use holdfast_retention as planner;
use holdfast_store::ObjectName;
use tokio_util::sync::CancellationToken;

use super::gather::{Users, Viewer};
use crate::archive::stored::wal_object_name;
use crate::error::{Cause, Error, ResultExt};
use crate::progress::Progress;
use crate::repository::leases::{Clock, Lease, MonotonicTime};
use crate::repository::{Repository, object_name};

/// The number of objects in one request to delete, where the store can do that. S3 accepts at most 1000.
const AT_ONCE: usize = 1000;

/// The number of WAL folders that are listed in parallel.
const LISTS_AT_ONCE: usize = 16;

/// The number of requests to delete WAL that run in parallel: WAL files may be deleted in any order.
const DELETES_AT_ONCE: usize = 4;

/// The listing of other users is repeated after this time, while many objects are deleted.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What to remove, and the facts of its plan.
pub(super) struct Job<'a> {
    pub(super) repository: &'a Repository,
    pub(super) cluster: &'a ClusterName,
    pub(super) claims: &'a BTreeMap<ClaimNumber, ClaimRecord>,
    pub(super) plan: &'a planner::Plan,
    pub(super) removal: &'a planner::Removal,
    pub(super) users: &'a Users,
    pub(super) host: &'a str,
    pub(super) lease: &'a Lease,
    pub(super) clock: Clock,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a CancellationToken,
}

/// What was removed.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) backups: Vec<BackupId>,
    pub(super) packs: u64,
    pub(super) wal_files: u64,
    /// The whole segments among these files, as ranges of numbers.
    pub(super) wal: BTreeMap<(ClaimNumber, TimelineId), Vec<(u64, u64)>>,
    pub(super) size_bytes: u64,
    /// Whether another user started during the removal, so that the rest was left for the next run.
    pub(super) disturbed: bool,
    /// Whether a request to delete failed. Some of its objects may be gone; they are not counted.
    pub(super) in_doubt: bool,
}

impl Done {
    pub(super) fn is_nothing(&self) -> bool {
        self.backups.is_empty() && self.packs == 0 && self.wal_files == 0
    }

    /// Notes that a WAL file was deleted.
    fn wal_file(&mut self, object: &ObjectName, claims: &BTreeMap<ClaimNumber, ClaimRecord>) {
        self.wal_files += 1;
        let Ok(ObjectPath::WalFile { claim, file: WalFileName::Segment(segment), .. }) = object.as_ref().parse() else {
            return;
        };
        let Some(size) = claims.get(&claim).map(|claim| claim.wal_segment_size) else { return };
        let number = segment.number(size);
        let ranges = self.wal.entry((claim, segment.timeline())).or_default();
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
}

/// Removes what the job names. `done` is correct even after an error.
pub(super) async fn remove(job: &Job<'_>, done: &mut Done) -> Result<(), Error> {
    let mut guard = Guard { job, looked: None };
    let backups: Vec<BackupId> = job.removal.backups.iter().copied().collect();
    if !backups.is_empty() || !job.removal.packs.is_empty() {
        job.progress.phase("removing backups", None);
    }
    let records = |of: fn(&ClusterName, &BackupId) -> String| {
        backups.iter().map(move |id| Ok((object_name(&of(job.cluster, id))?, *id))).collect::<Result<Vec<_>, Error>>()
    };
    let (starts, ends) = (records(name::backup_start)?, records(name::backup_end)?);
    for (starts, ends) in starts.chunks(AT_ONCE / 2).zip(ends.chunks(AT_ONCE / 2)) {
        if !guard.is_alone(true).await? {
            done.disturbed = true;
            return Ok(());
        }
        delete(job, done, starts.iter().chain(ends).map(|(name, _)| name)).await?;
    }
    for chunk in records(name::backup_summary)?.chunks(AT_ONCE) {
        if !guard.is_alone(true).await? {
            done.disturbed = true;
            return Ok(());
        }
        delete(job, done, chunk.iter().map(|(name, _)| name)).await?;
        // A backup whose removal was interrupted has been counted before.
        done.backups.extend(chunk.iter().map(|(_, id)| *id).filter(|id| job.users.complete.contains(id)));
    }
    let sizes: BTreeMap<PackId, u64> = job
        .plan
        .packs
        .iter()
        .map(|(pack, _)| (pack.id, pack.size_bytes))
        .filter(|(id, _)| job.removal.packs.contains(id))
        .collect();
    let packs: Vec<PackId> = job.removal.packs.iter().copied().collect();
    // The first check for packs must come after the last `backup.json` was deleted.
    guard.looked = None;
    for chunk in packs.chunks(AT_ONCE) {
        if !guard.is_alone(false).await? {
            done.disturbed = true;
            return Ok(());
        }
        let names = chunk.iter().map(|id| object_name(&name::pack(job.cluster, &id.backup, id.number)));
        let names: Vec<ObjectName> = names.collect::<Result<_, _>>()?;
        delete(job, done, names.iter()).await?;
        done.packs += chunk.len() as u64;
        done.size_bytes += chunk.iter().filter_map(|id| sizes.get(id)).sum::<u64>();
    }
    manifests(job, &mut guard, done).await?;
    if !done.disturbed {
        wal(job, &mut guard, done).await?;
    }
    Ok(())
}

/// Deletes the manifests of backups that have no packs left, if no other manifest refers to them.
async fn manifests(job: &Job<'_>, guard: &mut Guard<'_>, done: &mut Done) -> Result<(), Error> {
    let names = job.removal.manifests.iter().map(|id| object_name(&name::manifest(job.cluster, id)));
    let names: Vec<ObjectName> = names.collect::<Result<_, _>>()?;
    for chunk in names.chunks(AT_ONCE) {
        if !guard.is_alone(false).await? {
            done.disturbed = true;
            return Ok(());
        }
        delete(job, done, chunk.iter()).await?;
    }
    Ok(())
}

/// Deletes the segments of the ranges, with the partial segments and backup history files of the same numbers.
async fn wal(job: &Job<'_>, guard: &mut Guard<'_>, done: &mut Done) -> Result<(), Error> {
    if job.removal.wal.is_empty() {
        return Ok(());
    }
    job.progress.phase("removing WAL", None);
    // A restore that started since the last check may need the WAL after its backup.
    guard.looked = None;
    let lists = folders(job).into_iter().map(|folder| list(job, folder));
    let mut lists = stream::iter(lists.collect::<Vec<_>>()).buffered(LISTS_AT_ONCE);
    let mut waiting: Vec<(ObjectName, u64)> = Vec::new();
    loop {
        let more = lists.next().await.transpose()?;
        let is_last = more.is_none();
        waiting.extend(more.unwrap_or_default());
        while waiting.len() >= AT_ONCE * DELETES_AT_ONCE || is_last && !waiting.is_empty() {
            if !guard.is_alone(false).await? {
                done.disturbed = true;
                return Ok(());
            }
            let chunk: Vec<_> = waiting.drain(..waiting.len().min(AT_ONCE * DELETES_AT_ONCE)).collect();
            delete(job, done, chunk.iter().map(|(name, _)| name)).await?;
            for (name, _) in &chunk {
                done.wal_file(name, job.claims);
            }
            done.size_bytes += chunk.iter().map(|(_, size)| size).sum::<u64>();
        }
        if is_last {
            return Ok(());
        }
    }
}

/// A folder of WAL, and the ranges of segment numbers to delete in it.
struct Folder<'a> {
    claim: &'a ClaimRecord,
    prefix: String,
    numbers: Vec<(u64, u64)>,
}

fn folders<'a>(job: &Job<'a>) -> Vec<Folder<'a>> {
    let mut logs: BTreeMap<(ClaimNumber, TimelineId, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for range in &job.removal.wal {
        let Some(claim) = job.claims.get(&range.claim) else { continue };
        let per_log = claim.wal_segment_size.segments_per_id();
        for log in range.first / per_log..=range.last / per_log {
            let within = (range.first.max(log * per_log), range.last.min(log * per_log + per_log - 1));
            logs.entry((range.claim, range.timeline, log)).or_default().push(within);
        }
    }
    let folder = |((number, timeline, log), numbers): ((ClaimNumber, TimelineId, u64), Vec<(u64, u64)>)| {
        let claim = job.claims.get(&number)?;
        let first = log * claim.wal_segment_size.segments_per_id();
        let first = SegmentName::from_number(first, timeline, claim.wal_segment_size)?;
        let folder = name::wal_timeline_folder(job.cluster, number, timeline);
        Some(Folder { claim, prefix: format!("{folder}{}/", first.group()), numbers })
    };
    logs.into_iter().filter_map(folder).collect()
}

async fn list(job: &Job<'_>, folder: Folder<'_>) -> Result<Vec<(ObjectName, u64)>, Error> {
    let listed = job.repository.store().list(&folder.prefix, None).await;
    let listed = listed.doing(|| format!("listing {} in {}", folder.prefix, job.repository.describe()))?;
    let size = folder.claim.wal_segment_size;
    let goes = |object: &holdfast_store::ObjectInfo| {
        let Ok(ObjectPath::WalFile { file, .. }) = object.name.as_ref().parse() else { return false };
        // An object with another name is not WAL of this archive.
        if wal_object_name(job.repository, job.cluster, folder.claim, &file) != object.name.as_ref() {
            return false;
        }
        let (WalFileName::Segment(segment)
        | WalFileName::Partial(segment)
        | WalFileName::BackupHistory { segment, .. }) = file
        else {
            return false;
        };
        let number = segment.number(size);
        folder.numbers.iter().any(|(first, last)| (*first..=*last).contains(&number))
    };
    Ok(listed.into_iter().filter(goes).map(|object| (object.name, object.size_bytes)).collect())
}

async fn delete<'n>(job: &Job<'_>, done: &mut Done, names: impl Iterator<Item = &'n ObjectName>) -> Result<(), Error> {
    if job.cancel.is_cancelled() {
        return Err(Cause::Cancelled.into());
    }
    job.lease.check()?;
    let names: Vec<ObjectName> = names.cloned().collect();
    done.in_doubt = true;
    // Every request runs to its end, even if another one fails, so that as few objects as possible are in doubt.
    let requests = futures::future::join_all(names.chunks(AT_ONCE).map(|chunk| job.repository.store().delete(chunk)));
    // If the machine sleeps while a request waits for its next attempt, the request is not sent again.
    let deleted = tokio::select! {
        biased;
        () = job.lease.breaks() => return job.lease.check(),
        deleted = requests => deleted,
    };
    deleted.into_iter().collect::<Result<(), _>>()?;
    done.in_doubt = false;
    Ok(())
}

/// Looks for users that started after the plan.
struct Guard<'a> {
    job: &'a Job<'a>,
    looked: Option<MonotonicTime>,
}

impl Guard<'_> {
    /// Whether no such user exists. With `now`, it lists in any case; otherwise an answer is valid for [`LOOK_AGAIN`].
    async fn is_alone(&mut self, now: bool) -> Result<bool, Error> {
        if !now && self.looked.is_some_and(|looked| looked.passed_at_most() < LOOK_AGAIN) {
            return Ok(true);
        }
        let job = self.job;
        let viewer = Viewer { own: Some(job.lease.run()), host: job.host, now: job.clock.now() };
        let users = Users::list(job.repository, job.cluster, viewer).await?;
        self.looked = Some(MonotonicTime::now());
        Ok(!users.has_others_than(job.users))
    }
}
