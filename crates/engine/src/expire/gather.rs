//! The facts for the planner: the catalog of an archive, from listings and records.
//!
//! Order: backups are listed before packs and WAL. A pack or segment that appears between the listings belongs to a
//! backup that is not known yet, and the grace time protects it. Leases and holds are read last: a run that writes one
//! checks afterwards whether it was in time.
//!
//! An unreadable record is in the catalog as unreadable, and the planner keeps what it may need. Only an unreadable
//! hold is an error: it may hold any backup. An unreachable store is always an error.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{SegmentName, TimelineId, WalSegmentSize};
use holdfast_repo::catalog::BackupCatalog;
use holdfast_repo::name::{self, BackupId, ClaimNumber, ClusterName, LedgerKind, ObjectPath, PackId, RunId};
use holdfast_repo::record::{BackupRecord, ClaimRecord, LeasePurpose, LedgerEntry, SnapshotRecord, StartRecord};
use holdfast_retention as planner;

use super::incomplete::{believe, hold, take_damaged};
use crate::archive::{WalFolders, WalScope};
use crate::error::{Cause, Error, ResultExt};
use crate::repository::Repository;
use crate::repository::damaged::KnownDamage;
use crate::repository::drills::DrillEvidence;
use crate::repository::leases::{ListedLease, NamedLease};
use crate::repository::listed::{Listed, Unreadable};
use crate::repository::lost::lost_backups;
use crate::repository::machine::Machine;
use crate::restore::read_history;

#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) catalog: planner::Catalog,
    /// The claims that can be read.
    pub(super) claims: BTreeMap<ClaimNumber, ClaimRecord>,
    /// The runs, holds and backups that may need something, as of this reading.
    pub(super) users: Users,
    /// Warnings for the report.
    pub(super) notes: Vec<String>,
}

impl Gathered {
    /// The unfinished backups that may still run.
    pub(super) fn may_run(&self, policy: &planner::Policy, now: DateTime<Utc>) -> BTreeSet<BackupId> {
        let running = self.catalog.may_run(policy, now);
        running.map(|unfinished| unfinished.id).collect()
    }
}

/// The run that reads, and its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Viewer<'a> {
    /// This run, if it has a lease. That lease is left out.
    pub(super) own: Option<&'a RunId>,
    pub(super) host: &'a str,
    pub(super) now: DateTime<Utc>,
}

/// The names of everything that may need objects. If a name appears that was not planned for, the removal stops.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Users {
    /// Runs whose lease is in force. A run that renews its expired lease appears here as a new one.
    pub(super) runs: BTreeSet<RunId>,
    pub(super) holds: BTreeSet<String>,
    pub(super) backups: BTreeSet<BackupId>,
    /// The complete backups. A backup that has just become complete needs its packs from now on.
    pub(super) complete: BTreeSet<BackupId>,
    /// Records of volume snapshots, which need WAL.
    pub(super) snapshots: BTreeSet<String>,
}

impl Users {
    /// Lists the names, without reading any record.
    pub(super) async fn list(
        repository: &Repository,
        cluster: &ClusterName,
        viewer: Viewer<'_>,
    ) -> Result<Self, Error> {
        let (leases, holds, backups, snapshots) = tokio::try_join!(
            repository.lease_names(cluster),
            repository.ledger_names(cluster, LedgerKind::Hold),
            repository.listed(cluster),
            snapshot_names(repository, cluster)
        )?;
        let runs = leases.into_iter().filter(|lease| is_there(lease, viewer)).map(|lease| lease.run);
        let holds = holds.into_iter().map(|(_, name)| name);
        Ok(Self {
            runs: runs.collect(),
            holds: holds.collect(),
            backups: all_ids(&backups),
            complete: backups.complete().collect(),
            snapshots,
        })
    }

    /// Whether there is a name that `before` does not have.
    pub(super) fn has_others_than(&self, before: &Self) -> bool {
        !(self.runs.is_subset(&before.runs)
            && self.holds.is_subset(&before.holds)
            && self.backups.is_subset(&before.backups)
            && self.complete.is_subset(&before.complete)
            && self.snapshots.is_subset(&before.snapshots))
    }
}

async fn snapshot_names(repository: &Repository, cluster: &ClusterName) -> Result<BTreeSet<String>, Error> {
    let listed = repository.store().list(&name::snapshots_folder(cluster), None).await;
    let listed = listed.doing(|| format!("listing the snapshots of {cluster} in {}", repository.describe()))?;
    Ok(listed.into_iter().map(|object| object.name.to_string()).collect())
}

fn is_there(lease: &NamedLease, viewer: Viewer<'_>) -> bool {
    Some(&lease.run) != viewer.own && !lease.is_over(viewer.now)
}

fn all_ids(listed: &BackupCatalog) -> BTreeSet<BackupId> {
    listed.complete().chain(listed.unfinished().map(|(id, _)| id)).collect()
}

/// Reads everything except the manifests.
pub(super) async fn gather(
    repository: &Repository,
    cluster: &ClusterName,
    viewer: Viewer<'_>,
) -> Result<Gathered, Error> {
    let mut notes = Vec::new();
    let listed = repository.listed(cluster).await?;
    let snapshots_before = snapshot_names(repository, cluster).await?;
    let (claims, mut backups, starts, snapshots) = tokio::try_join!(
        repository.claims(cluster),
        repository.backups_of(cluster, &listed),
        starts(repository, cluster, &listed),
        repository.snapshots(cluster)
    )?;
    let packs = packs(repository, cluster).await?;
    let mut catalog = planner::Catalog { packs, ..planner::Catalog::default() };
    for claim in &claims.records {
        let (wal, unread) = wal(repository, claim).await?;
        notes.extend(unread);
        catalog.claims.insert(claim.number, planner::Claim { since: Some(claim.since), wal });
    }
    for bad in &claims.unreadable {
        notes.push(format!(
            "the record of claim {} cannot be read, so its backups and its WAL are kept: {}",
            bad.id, bad.error
        ));
        // Without the record, the segment size is not known, so the WAL is not listed.
        let wal = planner::WalArchive::new(WalSegmentSize::DEFAULT);
        catalog.claims.insert(bad.id, planner::Claim { since: None, wal });
    }
    let lost = take_damaged(repository, cluster, &mut backups).await?;
    let known = KnownDamage::read(repository, cluster, &backups.records, viewer.now).await?;
    notes.extend(
        known
            .verified
            .unreadable
            .iter()
            .map(|bad| format!("{} cannot be read, so it is ignored: {}", bad.object, bad.error)),
    );
    let mut damaged = known.backups(repository, &backups.records).await?;
    damaged.extend(lost);
    notes.extend(notes_on_drills(&known, &backups.records));
    catalog.backups.extend(backups.records.iter().map(|backup| of_backup(backup, &known, &damaged)));
    catalog.backups.extend(snapshots.records.iter().map(of_snapshot));
    for bad in backups.unreadable.iter().chain(&snapshots.unreadable) {
        if matches!(*bad.error.what, Cause::Remnant { .. }) {
            catalog.remnants.insert(bad.id);
        } else {
            catalog.unknown.push(of_unreadable(bad));
        }
    }
    let ids = listed.complete().chain(listed.unfinished().map(|(id, _)| id));
    catalog.manifests = ids.filter(|id| listed.objects(*id).is_some_and(|objects| objects.manifest)).collect();
    let lost = keep_lost(repository, cluster, &listed, &known, &mut catalog).await?;
    for (id, objects) in listed.unfinished() {
        // Only the removal of a complete backup leaves a manifest without a start record.
        if !objects.start && !lost.contains(&id) {
            catalog.half_removed.insert(id);
        }
    }

    let leases = repository.leases(cluster).await?;
    let mut users = Users::default();
    users
        .runs
        .extend(leases.iter().filter(|lease| is_there(&lease.named, viewer)).map(|lease| lease.named.run.clone()));
    let here = Machine::here();
    let leases: Vec<ListedLease> = leases
        .into_iter()
        .filter(|lease| Some(&lease.named.run) != viewer.own && !lease.is_known_dead(&here, viewer.host, viewer.now))
        .collect();
    for (id, start) in starts.iter().filter(|(id, _)| !lost.contains(id)) {
        catalog.unfinished.push(of_unfinished(*id, start.as_ref(), &leases));
    }
    // What a running backup uses is in its start record, once that is written.
    let started: BTreeSet<&str> =
        starts.iter().filter_map(|(_, start)| Some(start.as_ref()?.run.as_ref()?.id.as_str())).collect();
    let others = leases.iter().filter(|lease| !started.contains(lease.named.run.as_str()));
    catalog.restores.extend(others.flat_map(uses));
    let Listed { records: holds, unreadable } = repository.ledger(cluster, LedgerKind::Hold).await?;
    if let Some(bad) = unreadable.into_iter().next() {
        return Err(bad.error).doing(|| format!("reading {} to see which backup it holds", bad.object));
    }
    users.backups = all_ids(&listed);
    users.complete = listed.complete().collect();
    users.snapshots = snapshots_before;
    for (object, record) in holds {
        users.holds.insert(object);
        if let LedgerEntry::Hold { backup, until, with_wal, .. } = record.entry {
            hold(&mut catalog, backup, planner::Hold { until }, with_wal, viewer.now);
        }
    }
    for id in catalog.restores.iter().filter_map(|restore| restore.backup).collect::<Vec<_>>() {
        believe(&mut catalog, id);
    }
    let claims = claims.records.into_iter().map(|claim| (claim.number, claim)).collect();
    Ok(Gathered { catalog, claims, users, notes })
}

/// Warnings about drills that failed because of one of these backups.
fn notes_on_drills(known: &KnownDamage, backups: &[BackupRecord]) -> Vec<String> {
    let failed = backups.iter().filter_map(|backup| match known.drilled.get(&backup.backup_id) {
        Some(DrillEvidence::Failed { why, .. }) => Some(format!(
            "backup {} does not count as restorable, because its last drill failed: {why}",
            backup.backup_id
        )),
        _ => None,
    });
    known.notes.iter().cloned().chain(failed).collect()
}

/// Keeps what is left of backups that lost their `backup.json`: it may be brought back. Returns these backups.
async fn keep_lost(
    repository: &Repository,
    cluster: &ClusterName,
    listed: &BackupCatalog,
    known: &KnownDamage,
    catalog: &mut planner::Catalog,
) -> Result<BTreeSet<BackupId>, Error> {
    let unfinished: BTreeSet<BackupId> = listed.unfinished().map(|(id, _)| id).collect();
    let mut verified = known.verified.seen_whole(|backup| name::backup_summary(cluster, &backup));
    verified.retain(|backup| unfinished.contains(backup));
    if verified.is_empty() {
        return Ok(verified);
    }
    let complete: BTreeSet<BackupId> = listed.complete().collect();
    let mut lost = lost_backups(repository, cluster, &known.verified, &complete).await?;
    lost.retain(|id| verified.contains(id));
    catalog.unknown.extend(lost.iter().map(|id| {
        let reason = "it was complete, and its backup.json is missing".to_owned();
        planner::UnknownBackup { id: *id, claim: None, reason: planner::UnknownReason::Unreadable(reason) }
    }));
    Ok(lost)
}

/// The start records of the unfinished backups; `None` for a record that cannot be read.
async fn starts(
    repository: &Repository,
    cluster: &ClusterName,
    listed: &BackupCatalog,
) -> Result<Vec<(BackupId, Option<StartRecord>)>, Error> {
    let begun = listed.unfinished().filter(|(_, objects)| objects.start);
    let names = begun.map(|(id, _)| (id, name::backup_start(cluster, &id)));
    let read = Listed::read(names.collect(), |id| async move {
        Ok((id, repository.read_record::<StartRecord>(&name::backup_start(cluster, &id)).await?))
    });
    let Listed { records, unreadable } = read.await?;
    let unreadable = unreadable.into_iter().map(|bad| (bad.id, None));
    Ok(records.into_iter().map(|(id, start)| (id, Some(start))).chain(unreadable).collect())
}

async fn packs(repository: &Repository, cluster: &ClusterName) -> Result<Vec<planner::Pack>, Error> {
    let (mut packs, mut next) = (Vec::new(), None);
    loop {
        let page = repository.store().list_page(&format!("{cluster}/packs/"), None, next.as_deref()).await;
        let page = page.doing(|| format!("listing the packs of {cluster} in {}", repository.describe()))?;
        packs.extend(page.objects.iter().filter_map(|object| match object.name.as_ref().parse() {
            Ok(ObjectPath::Pack { backup, number, .. }) => {
                let id = PackId { backup, number };
                Some(planner::Pack { id, size_bytes: object.size_bytes })
            }
            _ => None,
        }));
        next = page.next;
        if next.is_none() {
            return Ok(packs);
        }
    }
}

/// The WAL of a claim, and a warning for each history file that cannot be read.
async fn wal(repository: &Repository, claim: &ClaimRecord) -> Result<(planner::WalArchive, Vec<String>), Error> {
    let listed = WalFolders::read_and_list(repository, claim, WalScope::All).await?;
    let inventory = listed.inventory();
    let size = claim.wal_segment_size;
    let mut archive = planner::WalArchive::new(size);
    let mut timelines: BTreeSet<TimelineId> = inventory.timelines().chain(inventory.histories()).collect();
    timelines.extend(inventory.partials().chain(inventory.backup_histories()).map(SegmentName::timeline));
    for timeline in timelines {
        let ranges = inventory.ranges(timeline);
        let numbers = ranges.iter().map(|range| (range.first.number(size), range.last.number(size)));
        archive.segments.insert(timeline, numbers.collect());
        if let Some(stored) = listed.newest(timeline) {
            archive.last_stored.insert(timeline, stored);
        }
    }
    archive.partials.extend(inventory.partials());
    archive.backup_histories.extend(inventory.backup_histories());
    let names = inventory.histories().map(|timeline| (timeline, format!("the history file of timeline {timeline}")));
    let histories = Listed::read(names.collect(), |timeline| async move {
        Ok((timeline, read_history(repository, claim, timeline).await?))
    });
    let Listed { records, unreadable } = histories.await?;
    archive.histories.extend(records);
    let notes = unreadable.iter().map(|bad| format!("{} cannot be read: {}", bad.object, bad.error));
    Ok((archive, notes.collect()))
}

fn of_backup(backup: &BackupRecord, known: &KnownDamage, damaged: &BTreeSet<BackupId>) -> planner::Backup {
    planner::Backup {
        id: backup.backup_id,
        claim: backup.claim,
        timeline: backup.timeline,
        start_lsn: backup.start_lsn,
        stop_timeline: backup.stop_segment.timeline(),
        stop_lsn: backup.stop_lsn,
        start_time: backup.start_time,
        stop_time: backup.stop_time,
        place: planner::Place::Packs,
        hold: None,
        hold_with_wal: None,
        verified: match known.verified.standing(backup.backup_id).map(|standing| standing.sound) {
            // A failed drill counts more: any verification has read less than a restore.
            _ if damaged.contains(&backup.backup_id) => planner::Verified::Damaged,
            Some(true) => planner::Verified::Sound,
            // The restore drill has read everything that a restore needs.
            None if known.drilled.contains_key(&backup.backup_id) => planner::Verified::Sound,
            Some(false) | None => planner::Verified::Never,
        },
    }
}

fn of_snapshot(snapshot: &SnapshotRecord) -> planner::Backup {
    planner::Backup {
        id: snapshot.snapshot_id,
        claim: snapshot.claim,
        timeline: snapshot.timeline,
        start_lsn: snapshot.start_lsn,
        stop_timeline: snapshot.stop_segment.timeline(),
        stop_lsn: snapshot.stop_lsn,
        start_time: snapshot.start_time,
        stop_time: snapshot.stop_time,
        place: planner::Place::Snapshot,
        hold: None,
        hold_with_wal: None,
        verified: planner::Verified::Never,
    }
}

fn of_unreadable(bad: &Unreadable<BackupId>) -> planner::UnknownBackup {
    let reason = if bad.error.is_newer() {
        planner::UnknownReason::Newer
    } else {
        planner::UnknownReason::Unreadable(bad.error.to_string())
    };
    planner::UnknownBackup { id: bad.id, claim: None, reason }
}

fn of_unfinished(id: BackupId, start: Option<&StartRecord>, leases: &[ListedLease]) -> planner::UnfinishedBackup {
    let run = start.and_then(|start| start.run.as_ref()).filter(|run| run.leased);
    let own = leases.iter().filter(|lease| run.is_some_and(|run| lease.named.run.as_str() == run.id));
    let end = own.map(|lease| lease.named.end()).max();
    // A backup takes its lease before it writes its start record. If the lease is gone, the run is dead.
    let has_ended = run.map(|_| DateTime::UNIX_EPOCH);
    planner::UnfinishedBackup {
        id,
        claim: start.map(|start| start.claim),
        started: start.map_or_else(|| id.time(), |start| start.started),
        lease_until: end.or(has_ended),
        parent: start.map_or(planner::Parent::Unknown, parent),
        start_lsn: None,
    }
}

fn parent(start: &StartRecord) -> planner::Parent {
    start.parent.map_or(planner::Parent::Nothing, planner::Parent::Backup)
}

/// What the run of a lease uses. A restore uses its backup; a backup uses the backups whose packs it may name. The run
/// of an unreadable lease may use every backup.
fn uses(lease: &ListedLease) -> Vec<planner::RunningRestore> {
    let of = |backup| planner::RunningRestore { backup, lease_until: lease.named.end() };
    match &lease.record {
        Ok(record) if record.purpose == LeasePurpose::Expire => Vec::new(),
        Ok(record) if !record.backups.is_empty() || record.purpose == LeasePurpose::Backup => {
            record.backups.iter().map(|id| of(Some(*id))).collect()
        }
        _ => vec![of(None)],
    }
}
