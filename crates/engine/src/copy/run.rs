//! The steps of a copy, and their common state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use holdfast_repo::name::{self, BackupId, ClaimNumber};
use holdfast_repo::record::{BackupRecord, LeasePurpose, LedgerEntry, SnapshotRecord};
use holdfast_store::StoreErrorKind;
use tokio_util::sync::CancellationToken;

use super::wal::ClaimWal;
use super::{Copied, CopiedBackup, CopyChoice, CopyOptions, CopyOutcome};
use crate::carry::claims::{ClaimPairs, Taker};
use crate::carry::{CarriedData, Carrier, CarryContext};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::damaged::KnownDamage;
use crate::repository::leases::{Clock, EXPIRE_ENDS_WITHIN, Holder, Lease, new_run};

/// The time limit for the ledger entry at the end of a copy, and for the release of its leases.
const RELEASE_WITHIN: Duration = Duration::from_secs(30);

/// One copy.
pub(super) struct Run<'a> {
    pub(super) from: &'a Repository,
    pub(super) to: &'a Repository,
    pub(super) options: &'a CopyOptions,
    pub(super) progress: &'a Arc<dyn Progress>,
    pub(super) cancel: &'a CancellationToken,
    pub(super) clock: Clock,
    pub(super) carrier: Carrier,
    /// The lease in the source; `None` if nothing may be written there.
    source: Option<Lease>,
    /// The leases in the target: one of this run, and one that protects everything.
    pub(super) leases: [Lease; 2],
    pub(super) records: Vec<BackupRecord>,
    pub(super) pairs: ClaimPairs,
    pub(super) wal: BTreeMap<ClaimNumber, ClaimWal>,
    pub(super) snapshots: Vec<SnapshotRecord>,
    done: Copied,
}

impl<'a> Run<'a> {
    /// Steps 1 to 3.
    pub(super) async fn begin(
        from: &'a Repository,
        to: &'a Repository,
        options: &'a CopyOptions,
        progress: &'a Arc<dyn Progress>,
        cancel: &'a CancellationToken,
    ) -> Result<Run<'a>, Error> {
        let (cluster, clock) = (&options.cluster, Clock::starting(options.now));
        let mut done = Copied::default();
        let chosen = choose(from, options).await?;
        let holder = |purpose, backups: Vec<BackupId>| Holder { cluster, purpose, backups, host: &options.host };
        let ids: Vec<BackupId> = chosen.iter().copied().collect();
        let source = match Lease::take(from, new_run()?, holder(LeasePurpose::Restore, ids), clock).await {
            Ok(lease) => Some(lease),
            // Read-only access to the source is enough for a copy.
            Err(error) => {
                let note = format!(
                    "no lease could be taken in {}, so `holdfast expire` may remove objects there during the copy: {error}",
                    from.describe()
                );
                progress.note(&note);
                done.notes.push(note);
                None
            }
        };
        let (records, snapshots) = read_chosen(from, options, &chosen, &mut done).await?;
        let needed = records.iter().map(|record| record.claim).chain(snapshots.iter().map(|snapshot| snapshot.claim));
        let needed: BTreeSet<ClaimNumber> = needed.collect();
        let taker = Taker { wal_codec: options.wal_codec, host: &options.host };
        let pairs = ClaimPairs::take(from, to, cluster, &needed, taker).await?;
        let own = Lease::take(to, new_run()?, holder(LeasePurpose::Backup, Vec::new()), clock).await?;
        let all = Lease::take(to, new_run()?, holder(LeasePurpose::Restore, Vec::new()), clock).await?;
        to.wait_for_expire(cluster, &options.host, clock, &all.name(), EXPIRE_ENDS_WITHIN).await?;
        let means = CarryContext {
            cluster: cluster.clone(),
            crew: Crew::new(options.jobs),
            part_size_bytes: options.part_size_bytes,
            memory_bytes: options.memory_bytes,
            progress: Arc::clone(progress),
            cancel: cancel.child_token(),
        };
        let there = to.backups(cluster).await?.records;
        let damaged = KnownDamage::read(to, cluster, &there, options.now).await?.objects();
        let carrier = Carrier::new(from, to, means, &damaged).await?;
        let leases = [own, all];
        let wal = BTreeMap::new();
        Ok(Run {
            from,
            to,
            options,
            progress,
            cancel,
            clock,
            carrier,
            source,
            leases,
            records,
            pairs,
            wal,
            snapshots,
            done,
        })
    }

    /// Steps 4 and 5.
    pub(super) async fn all(&mut self) -> Result<(), Error> {
        self.list_wal().boxed().await?;
        for record in self.records.clone() {
            self.progress.backup(&record.backup_id.to_string());
            let copied = self.copy_backup(&record).boxed().await;
            let copied = copied.doing(|| format!("copying backup {}", record.backup_id));
            let id = record.backup_id;
            let copied = match copied {
                Ok(None) => CopiedBackup::of(id, CopyOutcome::AlreadyThere),
                Ok(Some(CarriedData { pack_count, pack_bytes, new_pack_count, new_pack_bytes, .. })) => CopiedBackup {
                    packs: (pack_count, pack_bytes),
                    new_packs: (new_pack_count, new_pack_bytes),
                    ..CopiedBackup::of(id, CopyOutcome::Copied)
                },
                Err(error) if error.is_of_one_object() || matches!(*error.what, Cause::Absent { .. }) => {
                    self.progress.note(&format!("backup {id} is not copied: {error}"));
                    self.remove_remains(id).await;
                    CopiedBackup { error: Some(error), ..CopiedBackup::of(id, CopyOutcome::Failed) }
                }
                Err(error) => return Err(error),
            };
            self.done.backups.push(copied);
        }
        if self.options.all_wal || self.options.which == CopyChoice::All {
            self.copy_all_wal().boxed().await?;
            self.copy_snapshots().boxed().await?;
        }
        Ok(())
    }

    async fn copy_snapshots(&mut self) -> Result<(), Error> {
        for snapshot in &self.snapshots {
            let Some((_, to)) = self.pairs.of_first(snapshot.claim) else { continue };
            let record = SnapshotRecord { claim: to.number, ..snapshot.clone() };
            // A record is written after all WAL from start to stop is there.
            if let Some(missing) = self.wal.get(&snapshot.claim).and_then(|wal| wal.missing_of(snapshot)) {
                let id = snapshot.snapshot_id;
                self.done
                    .notes
                    .push(format!("snapshot {id} is not recorded: its WAL segment {missing} was not copied"));
                continue;
            }
            match self.to.create_record(&name::snapshot(&self.options.cluster, &snapshot.snapshot_id), &record).await {
                Ok(()) => self.done.snapshots.push(snapshot.snapshot_id),
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Records in the ledger what was copied, and releases the leases.
    pub(super) async fn end(mut self) -> Copied {
        self.done.wal = self.wal.values().map(ClaimWal::counted).collect();
        self.done.backups.sort_by_key(|backup| backup.backup_id);
        self.done.wal_error = self.wal.values_mut().find_map(|wal| wal.error.take());
        let copied = self.done.backups.iter().filter(|backup| backup.outcome == CopyOutcome::Copied);
        let (packs, pack_bytes) = self
            .done
            .backups
            .iter()
            .fold((0, 0), |sum, backup| (sum.0 + backup.new_packs.0, sum.1 + backup.new_packs.1));
        let files: u64 = self.done.wal.iter().map(|wal| wal.stored_count).sum();
        let entry = LedgerEntry::Copy {
            repository_id: self.from.id(),
            backups: copied.map(|backup| backup.backup_id).collect(),
            pack_count: packs,
            wal_file_count: files,
            size_bytes: pack_bytes + self.done.wal.iter().map(|wal| wal.stored_bytes).sum::<u64>(),
        };
        if packs + files > 0 || self.done.backups.iter().any(|backup| backup.outcome == CopyOutcome::Copied) {
            let (options, now) = (self.options, self.clock.now());
            let written = self.to.write_ledger(&options.cluster, &options.host, now, entry);
            let unrecorded = |why: &str| format!("the copy could not be recorded in the ledger: {why}");
            match tokio::time::timeout(RELEASE_WITHIN, written).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => self.done.notes.push(unrecorded(&error.to_string())),
                Err(_) => self.done.notes.push(unrecorded("no answer in time")),
            }
        }
        let [own, all] = self.leases;
        let release = async {
            own.release().await;
            all.release().await;
            if let Some(source) = self.source {
                source.release().await;
            }
        };
        if tokio::time::timeout(RELEASE_WITHIN, release).await.is_err() {
            tracing::debug!("leases of a copy were not deleted in time, and end by themselves");
        }
        self.done
    }
}

impl CopiedBackup {
    fn of(backup_id: BackupId, outcome: CopyOutcome) -> Self {
        Self { backup_id, outcome, packs: (0, 0), new_packs: (0, 0), error: None }
    }
}

/// The ids of the requested backups.
async fn choose(from: &Repository, options: &CopyOptions) -> Result<BTreeSet<BackupId>, Error> {
    let cluster = &options.cluster;
    let complete: BTreeSet<BackupId> = from.listed(cluster).await?.complete().collect();
    let missing = |backup: String| Cause::NoSuchBackup { backup, cluster: cluster.to_string() };
    let chosen: BTreeSet<BackupId> = match &options.which {
        CopyChoice::All => complete,
        CopyChoice::Latest => complete.last().copied().into_iter().collect(),
        CopyChoice::These(ids) => match ids.iter().find(|id| !complete.contains(id)) {
            Some(unknown) => return Err(missing(unknown.to_string()).into()),
            None => ids.iter().copied().collect(),
        },
    };
    if chosen.is_empty() {
        return Err(missing("latest".to_owned()).into());
    }
    Ok(chosen)
}

/// Reads the records of the chosen backups, which a lease now protects. With [`CopyChoice::All`], also reads those of
/// the volume snapshots.
async fn read_chosen(
    from: &Repository,
    options: &CopyOptions,
    chosen: &BTreeSet<BackupId>,
    done: &mut Copied,
) -> Result<(Vec<BackupRecord>, Vec<SnapshotRecord>), Error> {
    let found = from.backups(&options.cluster).await?;
    for bad in found.unreadable.into_iter().filter(|bad| chosen.contains(&bad.id)) {
        let is_gone = matches!(&*bad.error.what, Cause::Store(fault) if fault.kind() == StoreErrorKind::NotFound
            && fault.failure().name == bad.object);
        if is_gone && options.which == CopyChoice::All {
            done.notes.push(format!("backup {} was removed before it could be copied", bad.id));
            continue;
        }
        done.backups.push(CopiedBackup { error: Some(bad.error), ..CopiedBackup::of(bad.id, CopyOutcome::Failed) });
    }
    let records: Vec<BackupRecord> =
        found.records.into_iter().filter(|record| chosen.contains(&record.backup_id)).collect();
    let snapshots = match options.which {
        CopyChoice::All => from.snapshots(&options.cluster).await?.records,
        _ => Vec::new(),
    };
    Ok((records, snapshots))
}
