//! Repair: missing or damaged objects are brought back from another repository where they are sound.
//!
//! The steps, in this order. Each one asks the other repositories in their order:
//! 1. WAL segments and history files: they are read, checked by their BLAKE3 and their own header, and sealed again.
//! 2. Packs: the manifest has the salt and the checksum of the lost pack. The pack of the other repository is read once
//!    to check that it gives exactly these bytes, and a second time to store them.
//! 3. Start records.
//! 4. The remaining packs, manifests and `backup.json`: the backup is taken over. Its packs are compared by their
//!    content. Missing or damaged packs are stored under a free name. A new manifest and a new `backup.json` replace
//!    the old ones.
//!
//! Invariants: an object is replaced only after its substitute was completely read and checked. A sound object is never
//! replaced: a damaged object is read once more just before. Stores have no conditional replacement, so another run may
//! bring the object back between this reading and the replacement. Then both have the same content.
//!
//! After a crash: each object is complete, either the old or the new one, and the next run continues. Between a new
//! manifest and its `backup.json`, the backup still cannot be restored. Leases keep `expire` from removing objects in
//! both repositories meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{self, StreamExt};
use holdfast_contract::report::verify::{
    BackupResult, ClaimWindow, Damage, DamageKind, ObjectClass, Repair, RepairKind, RepairedObject, UnrepairedObject,
};
use holdfast_pgtypes::WalFileName;
use holdfast_repo::manifest::Manifest;
use holdfast_repo::name::{self, BackupId, ClaimNumber, ObjectPath};
use holdfast_repo::record::{self, BackupRecord, ClaimRecord, LeasePurpose, LedgerEntry, StartRecord};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Level, Verification, VerifyOptions, verify};
use crate::carry::claims::ClaimPairs;
use crate::carry::{CarriedWal, Carrier, Means, PackWork, Placing, WalFile};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::leases::{Clock, Holder, Lease, new_run};
use crate::restore::{Fetches, every_chunk, try_manifest, would_take};

/// The maximum number of WAL files that are brought back at once, within the memory.
const FILES_AT_ONCE: usize = 8;

/// The maximum number of objects that the ledger entry names.
const MOST_OBJECTS: usize = 1000;

/// Segments of one hole that are asked for: a name in a listing can be anything, and this is 16 TiB of WAL.
const MOST_IN_A_ROW: usize = 1 << 20;

/// How long a repair waits for an `expire`. It stops soon after it has seen the lease.
const EXPIRE_ENDS_WITHIN: Duration = Duration::from_mins(10);

/// The options of a repair besides those of a verification.
#[derive(Debug, Clone, Copy)]
pub struct RepairOptions {
    /// Size of upload parts in bytes.
    pub part_size_bytes: usize,
}

/// Verifies, brings back missing or damaged objects from these other repositories, in their order, and verifies again.
///
/// # Errors
/// Those of [`verify`]; [`Cause::AnotherRun`] while an `expire` does not end; errors of the repository's store. What no
/// other repository could give is in [`Repair::left`].
pub async fn verify_and_repair(
    repository: &Repository,
    others: &[Repository],
    options: &VerifyOptions,
    repair: RepairOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Verification, Error> {
    let (began, clock) = (Instant::now(), Clock::starting(options.now));
    let first = verify(repository, options, progress, cancel).await?;
    if first.damage.is_empty() || first.interrupted.is_some() {
        return Ok(first);
    }
    let phrase = || format!("repairing {} in {}", options.cluster, repository.describe());
    repository.check_writable().doing(phrase)?;
    let mut repairer = Repairer::begin(repository, others, options, repair, &first.damage, progress, cancel, clock)
        .await
        .doing(phrase)?;
    let outcome = tokio::select! {
        outcome = repairer.all(&first.damage) => outcome,
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
    };
    let done = repairer.end().await;
    outcome.doing(phrase)?;
    if done.repaired.is_empty() {
        return Ok(Verification { repair: Some(done), ..first });
    }
    let now = clock.now();
    // Backups that this run found sound and recorded are not read a second time.
    let age = began.elapsed() + Duration::from_secs(1);
    let max_age = if options.remember && options.level == Level::Deep && options.sample.is_none() {
        Some(options.max_age.map_or(age, |before| before.max(age)))
    } else {
        options.max_age
    };
    let second = verify(repository, &VerifyOptions { max_age, now, ..options.clone() }, progress, cancel).await?;
    Ok(both(&first, second, done, began.elapsed()))
}

/// The results of both verifications and of the repair.
fn both(first: &Verification, mut second: Verification, mut repair: Repair, duration: Duration) -> Verification {
    let is_sound = |result: BackupResult| matches!(result, BackupResult::Sound | BackupResult::PassedOver);
    for backup in &mut second.backups {
        let Some(before) = first.backups.iter().find(|before| before.backup_id == backup.backup_id) else { continue };
        if before.result == BackupResult::Damaged && is_sound(backup.result) {
            repair.backups.push(backup.backup_id);
        }
        if backup.result == BackupResult::PassedOver && before.result == BackupResult::Sound {
            *backup = before.clone();
        }
    }
    for claim in &mut second.claims {
        let before = first.claims.iter().find(|before| before.claim == claim.claim);
        // Most segments are read once: the second verification passes over those that were sound.
        claim.segments_read = claim.segments_read.max(before.map_or(0, |before| before.segments_read));
        let known = before.map(|before| before.sound_windows.as_slice()).unwrap_or_default();
        let new = claim.sound_windows.iter().filter(|window| !known.contains(window));
        repair.windows.extend(new.map(|window| ClaimWindow { claim: claim.claim, window: window.clone() }));
    }
    Verification {
        repair: Some(repair),
        object_count: first.object_count + second.object_count,
        read_bytes: first.read_bytes + second.read_bytes,
        duration,
        ..second
    }
}

/// Another repository, from which objects are brought back.
struct Donor {
    carrier: Carrier,
    pairs: ClaimPairs,
    lease: Option<Lease>,
}

/// One repair, while it runs.
struct Repairer<'a> {
    to: &'a Repository,
    options: &'a VerifyOptions,
    progress: &'a Arc<dyn Progress>,
    clock: Clock,
    crew: Crew,
    lease: Lease,
    donors: Vec<Donor>,
    done: Repair,
    /// Why an object could not be brought back so far, by its name.
    reasons: BTreeMap<String, String>,
    /// Objects that a backup still needs and no other repository gave.
    needed: BTreeSet<String>,
}

impl<'a> Repairer<'a> {
    #[expect(clippy::too_many_arguments, reason = "all of what the two public functions are given")]
    async fn begin(
        to: &'a Repository,
        others: &[Repository],
        options: &'a VerifyOptions,
        repair: RepairOptions,
        damage: &[Damage],
        progress: &'a Arc<dyn Progress>,
        cancel: &CancellationToken,
        clock: Clock,
    ) -> Result<Repairer<'a>, Error> {
        let cluster = &options.cluster;
        let holder = Holder { cluster, purpose: LeasePurpose::Restore, backups: Vec::new(), host: &options.host };
        let lease = Lease::take(to, new_run()?, holder.clone(), clock).await?;
        to.wait_for_expire(cluster, &options.host, clock, &lease.name(), EXPIRE_ENDS_WITHIN).await?;
        let crew = Crew::new(options.jobs);
        let damaged: BTreeSet<String> = damage.iter().map(|damage| damage.object.clone()).collect();
        let mut donors = Vec::new();
        for from in others {
            let means = Means {
                cluster: cluster.clone(),
                crew: crew.clone(),
                part_size_bytes: repair.part_size_bytes,
                memory_bytes: options.memory_bytes,
                progress: Arc::clone(progress),
                cancel: cancel.child_token(),
            };
            let pairs = match ClaimPairs::of_both(from, to, cluster).await {
                Ok(pairs) => pairs,
                // If one repository is not available, the others can still help.
                Err(error) => {
                    progress.note(&format!("nothing comes from {}: {error}", from.describe()));
                    continue;
                }
            };
            let carrier = Carrier::new(from, to, means, &damaged).await?;
            let lease = match Lease::take(from, new_run()?, holder.clone(), clock).await {
                Ok(lease) => Some(lease),
                Err(error) => {
                    progress.note(&format!(
                        "`holdfast expire` does not see that {} is read, since no lease could be taken there: {error}",
                        from.describe()
                    ));
                    None
                }
            };
            donors.push(Donor { carrier, pairs, lease });
        }
        Ok(Repairer {
            to,
            options,
            progress,
            clock,
            crew,
            lease,
            donors,
            done: Repair::default(),
            reasons: BTreeMap::new(),
            needed: BTreeSet::new(),
        })
    }

    async fn all(&mut self, damage: &[Damage]) -> Result<(), Error> {
        self.progress.phase("repairing", None);
        for damage in damage.iter().filter(|damage| is_wal(damage)) {
            self.wal(damage).await?;
        }
        let mut taken_over: BTreeMap<BackupId, BTreeSet<String>> = BTreeMap::new();
        self.packs(damage, &mut taken_over).await?;
        for damage in damage {
            match (damage.class, damage.object.parse()) {
                (ObjectClass::Manifest, _) => {
                    for backup in &damage.backups {
                        taken_over.entry(*backup).or_default().insert(damage.object.clone());
                    }
                }
                (ObjectClass::BackupRecord, Ok(ObjectPath::BackupSummary { backup, .. })) => {
                    taken_over.entry(backup).or_default().insert(damage.object.clone());
                }
                (ObjectClass::StartRecord, Ok(ObjectPath::BackupStart { backup, .. })) => {
                    self.start_record(backup, &damage.object).await?;
                }
                _ => {}
            }
        }
        for (backup, objects) in taken_over {
            self.take_over(backup, &objects).await?;
        }
        for damage in damage {
            let is_repaired = self.done.repaired.iter().any(|repaired| repaired.object == damage.object);
            if is_repaired && !self.reasons.contains_key(&damage.object) {
                continue;
            }
            let reason = self.reasons.get(&damage.object).cloned();
            let reason = reason.unwrap_or_else(|| "there is no repair for an object of this kind".to_owned());
            self.done.left.push(UnrepairedObject { object: damage.object.clone(), reason });
        }
        Ok(())
    }

    fn repaired(&mut self, object: &str, donor: usize, how: RepairKind) {
        let from = self.donors.get(donor).map(|donor| donor.carrier.from.describe()).unwrap_or_default();
        self.progress.note(&format!("{object} is repaired from {from}"));
        self.reasons.remove(object);
        self.done.repaired.push(RepairedObject { object: object.to_owned(), from, how });
    }

    /// Records why an object could not be brought back. Only a cancelled command is an error.
    fn failed(&mut self, object: &str, donor: usize, error: &Error) -> Result<(), Error> {
        if matches!(*error.what, Cause::Cancelled) {
            return Err(Cause::Cancelled.into());
        }
        let from = self.donors.get(donor).map(|donor| donor.carrier.from.describe()).unwrap_or_default();
        self.reasons.insert(object.to_owned(), format!("{from}: {error}"));
        Ok(())
    }

    /// Step 1 for one entry, which may be several segments in a row.
    async fn wal(&mut self, damage: &Damage) -> Result<(), Error> {
        let Ok(ObjectPath::WalFile { claim, file, .. }) = damage.object.parse() else { return Ok(()) };
        let placing = placing(damage);
        let files = self.in_a_row(claim, file, damage.count);
        let mut missing: Vec<WalFileName> = files;
        for number in 0..self.donors.len() {
            let Some(donor) = self.donors.get(number) else { continue };
            let Some((from, to)) = donor.pairs.of_second(claim) else { continue };
            let (from, to, carrier) = (from.clone(), to.clone(), donor.carrier.clone());
            if let Err(error) = compare_around(&carrier, &from, &to, &missing).await {
                self.failed(&damage.object, number, &error)?;
                continue;
            }
            let tries = std::mem::take(&mut missing).into_iter().map(|file| {
                let wal = WalFile { file, from: &from, to: &to };
                let carrier = &carrier;
                async move { (file, carrier.bring_wal_back(wal, placing).await) }
            });
            let mut tries = stream::iter(tries.collect::<Vec<_>>()).buffered(FILES_AT_ONCE);
            while let Some((file, tried)) = tries.next().await {
                let object = crate::archive::wal_object_name(self.to, &self.options.cluster, &to, &file);
                match tried {
                    Ok(CarriedWal::Stored(_) | CarriedWal::AlreadyThere) => {
                        self.repaired(&object, number, RepairKind::SealedAnew);
                    }
                    Ok(CarriedWal::Absent) => missing.push(file),
                    Err(error) => {
                        self.failed(&damage.object, number, &error)?;
                        missing.push(file);
                    }
                }
            }
        }
        if !missing.is_empty() && !self.reasons.contains_key(&damage.object) {
            let reason = match missing.len() {
                1 => "no other repository has it".to_owned(),
                count => format!("no other repository has {count} of them"),
            };
            self.reasons.insert(damage.object.clone(), reason);
        }
        Ok(())
    }

    fn in_a_row(&self, claim: ClaimNumber, file: WalFileName, count: u64) -> Vec<WalFileName> {
        let WalFileName::Segment(first) = file else { return vec![file] };
        let sizes = self.donors.iter().filter_map(|donor| Some(donor.pairs.of_second(claim)?.1.wal_segment_size));
        let Some(size) = sizes.into_iter().next() else { return vec![file] };
        let segments = std::iter::successors(Some(first), |segment| segment.next(size));
        segments
            .take(usize::try_from(count).unwrap_or(MOST_IN_A_ROW).min(MOST_IN_A_ROW))
            .map(WalFileName::Segment)
            .collect()
    }

    /// Step 2. The remaining packs go to `taken_over`, by their backups.
    async fn packs(
        &mut self,
        damage: &[Damage],
        taken_over: &mut BTreeMap<BackupId, BTreeSet<String>>,
    ) -> Result<(), Error> {
        let mut left: BTreeMap<&str, &Damage> =
            damage.iter().filter(|it| it.class == ObjectClass::Pack).map(|it| (it.object.as_str(), it)).collect();
        let backups: BTreeSet<BackupId> = left.values().flat_map(|damage| &damage.backups).copied().collect();
        for backup in backups {
            if !left.values().any(|damage| damage.backups.contains(&backup)) {
                continue;
            }
            let Ok((_, lost)) = read_backup(self.to, &self.options.cluster, backup, &self.crew).await else { continue };
            for number in 0..self.donors.len() {
                let Some(carrier) = self.donors.get(number).map(|donor| donor.carrier.clone()) else { continue };
                let there = read_backup(&carrier.from, &self.options.cluster, backup, &self.crew).await;
                let (_, there) = match there {
                    Ok(there) => there,
                    Err(error) => {
                        for pack in left.values().filter(|damage| damage.backups.contains(&backup)) {
                            self.failed(&pack.object, number, &error)?;
                        }
                        continue;
                    }
                };
                let wanted: BTreeSet<&str> = left.keys().copied().collect();
                for work in works(&there, &wanted, &self.crew).await? {
                    let name = work.entry.name.clone();
                    let Some(entry) = lost.packs().iter().find(|pack| pack.name == name) else { continue };
                    let Some(damage) = left.get(name.as_str()) else { continue };
                    let brought = async {
                        if placing(damage) == Placing::Replace && carrier.is_sound(entry).await? {
                            return Ok(true);
                        }
                        carrier.bring_back(&there, &work, entry, placing(damage)).await
                    };
                    match brought.await {
                        Ok(true) => {
                            left.remove(name.as_str());
                            self.repaired(&name, number, RepairKind::SameBytes);
                        }
                        Ok(false) => {}
                        Err(error) => self.failed(&name, number, &error)?,
                    }
                }
            }
        }
        for (pack, damage) in left {
            for backup in &damage.backups {
                taken_over.entry(*backup).or_default().insert(pack.to_owned());
            }
        }
        Ok(())
    }

    /// Step 4 for one backup. These objects of it are missing or damaged.
    async fn take_over(&mut self, backup: BackupId, objects: &BTreeSet<String>) -> Result<(), Error> {
        for number in 0..self.donors.len() {
            let taken = match self.donors.get(number) {
                Some(donor) => self.take_over_from(donor, backup, objects).await,
                None => continue,
            };
            match taken {
                Ok(()) => {
                    for object in objects {
                        // Several backups may have needed this pack: it is reported once.
                        let is_known = self.done.repaired.iter().any(|known| known.object == *object);
                        if !is_known && !self.needed.contains(object) {
                            self.repaired(object, number, RepairKind::TakenOver);
                        }
                    }
                    return Ok(());
                }
                Err(error) => {
                    for object in objects {
                        self.failed(object, number, &error)?;
                    }
                }
            }
        }
        for object in objects {
            self.reasons.entry(object.clone()).or_insert_with(|| "no other repository has the backup".to_owned());
            // It may be repaired for another backup that shares it: this one still needs it.
            self.needed.insert(object.clone());
            self.done.repaired.retain(|repaired| repaired.object != *object);
        }
        Ok(())
    }

    async fn take_over_from(&self, donor: &Donor, backup: BackupId, objects: &BTreeSet<String>) -> Result<(), Error> {
        let (cluster, from) = (&self.options.cluster, &donor.carrier.from);
        let there = from.backup(cluster, backup).await?;
        let claims = donor.pairs.of_first(there.claim);
        let (_, claim) = claims.ok_or_else(|| {
            Cause::Refused(format!(
                "{} has no claim of the same cluster as claim {} of {}",
                self.to.describe(),
                there.claim,
                from.describe()
            ))
        })?;
        let summary = name::backup_summary(cluster, &backup);
        let own = match self.to.backup(cluster, backup).await {
            Ok(own) => Some(own),
            // A record that was not known to be missing was removed since: the backup has gone, and stays away.
            Err(error) if error.is_not_found() && !objects.contains(&summary) => return Err(error),
            Err(error) if error.is_of_one_object() && !error.is_newer() => None,
            Err(error) => return Err(error),
        };
        if own.as_ref().is_some_and(|own| !is_same(own, &there)) {
            let (one, two) = (self.to.describe(), from.describe());
            return Err(Cause::Refused(format!("backup {backup} of {two} is not the same as that of {one}")).into());
        }
        let before = own.clone();
        let may_write = async {
            self.lease.check()?;
            let now = self.to.backup(cluster, backup).await.ok();
            if now == before {
                return Ok(());
            }
            let subject = format!("backup {backup}");
            Err(Cause::AnotherRun { verb: "verify --repair", subject, pid: None }.into())
        };
        let data = donor.carrier.carry_data(&there, may_write.boxed()).await?;
        let base = own.unwrap_or_else(|| BackupRecord { claim: claim.number, ..there.clone() });
        let new = data.record(&base, &donor.carrier);
        would_take(self.to, &new, &self.crew).await?;
        self.lease.check()?;
        self.to.replace_record(&summary, &new).await
    }

    /// Step 3, for one start record.
    async fn start_record(&mut self, backup: BackupId, object: &str) -> Result<(), Error> {
        for number in 0..self.donors.len() {
            let Some(donor) = self.donors.get(number) else { continue };
            let brought = async {
                let there: StartRecord = donor.carrier.from.read_record(object).await?;
                let claims = donor.pairs.of_first(there.claim);
                let (_, claim) = claims.ok_or_else(|| Cause::Absent { file: format!("claim {}", there.claim) })?;
                if there.backup_id != backup || there.cluster != self.options.cluster {
                    let reason = format!("it is of backup {} of cluster {}", there.backup_id, there.cluster);
                    return Err(Cause::Malformed { name: object.to_owned(), reason }.into());
                }
                // The backup is complete, so no run is working on it.
                let start = StartRecord { claim: claim.number, run: None, ..there };
                self.to.replace_record(object, &start).await
            };
            match brought.await {
                Ok(()) => {
                    self.repaired(object, number, RepairKind::SealedAnew);
                    return Ok(());
                }
                Err(error) => self.failed(object, number, &error)?,
            }
        }
        Ok(())
    }

    /// Records in the ledger what was brought back, and releases the leases.
    async fn end(self) -> Repair {
        if !self.done.repaired.is_empty() {
            let ids: BTreeMap<String, _> =
                self.donors.iter().map(|donor| (donor.carrier.from.describe(), donor.carrier.from.id())).collect();
            let named = self.done.repaired.iter().take(MOST_OBJECTS).filter_map(|repaired| {
                let repository_id = *ids.get(&repaired.from)?;
                Some(record::RepairedObject { object: repaired.object.clone(), repository_id })
            });
            let entry = LedgerEntry::Repair {
                objects: named.collect(),
                object_count: self.done.repaired.len() as u64,
                left_count: self.done.left.len() as u64,
            };
            let (cluster, host) = (&self.options.cluster, &self.options.host);
            if let Err(error) = self.to.write_ledger(cluster, host, self.clock.now(), entry).await {
                self.progress.note(&format!("the ledger does not say what was repaired: {error}"));
            }
        }
        self.lease.release().await;
        for donor in self.donors {
            if let Some(lease) = donor.lease {
                lease.release().await;
            }
        }
        self.done
    }
}

/// Compares the segments before and after a hole that both repositories have: an archive that has split on this
/// timeline would close the hole with WAL of another server, and recovery would take that for the end of the WAL.
async fn compare_around(
    carrier: &Carrier,
    from: &ClaimRecord,
    to: &ClaimRecord,
    files: &[WalFileName],
) -> Result<(), Error> {
    let size = to.wal_segment_size;
    let segments = || files.iter().filter_map(|file| file.segment());
    let around =
        [segments().min().and_then(|first| first.previous(size)), segments().max().and_then(|last| last.next(size))];
    for segment in around.into_iter().flatten() {
        let file = WalFileName::Segment(segment);
        match carrier.compare_wal(WalFile { file, from, to }).await {
            // What is wrong with a neighbour is damage of its own.
            Err(error) if error.is_of_one_object() && !matches!(*error.what, Cause::Divergence { .. }) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn is_wal(damage: &Damage) -> bool {
    matches!(damage.class, ObjectClass::WalSegment | ObjectClass::TimelineHistory)
}

fn placing(damage: &Damage) -> Placing {
    if damage.kind == DamageKind::Missing { Placing::Create } else { Placing::Replace }
}

fn is_same(one: &BackupRecord, two: &BackupRecord) -> bool {
    (one.system_identifier, one.start_lsn, one.stop_lsn) == (two.system_identifier, two.start_lsn, two.stop_lsn)
}

/// A backup and its manifest, read with the checks of a restore.
async fn read_backup(
    repository: &Repository,
    cluster: &name::ClusterName,
    backup: BackupId,
    crew: &Crew,
) -> Result<(BackupRecord, Arc<Manifest>), Error> {
    let record = repository.backup(cluster, backup).await?;
    let manifest = try_manifest(repository, &record, crew).await?.manifest;
    Ok((record, manifest))
}

/// What the manifest needs from these packs.
async fn works(manifest: &Arc<Manifest>, names: &BTreeSet<&str>, crew: &Crew) -> Result<Vec<PackWork>, Error> {
    let sorting = Arc::clone(manifest);
    let wanted = crew.run(move || every_chunk(&sorting)).await?;
    let mut works = BTreeMap::new();
    for (number, entry) in manifest.packs().iter().enumerate() {
        if names.contains(entry.name.as_str()) {
            works.insert(number as u32, PackWork { entry: entry.clone(), frames: Vec::new() });
        }
    }
    let wanted = wanted.into_iter().filter(|chunk| works.contains_key(&chunk.pack)).collect::<Vec<_>>();
    for fetch in Fetches::new(manifest, wanted.into_iter()) {
        if let Some(work) = works.get_mut(&fetch.pack) {
            work.frames.extend(fetch.frames);
        }
    }
    Ok(works.into_values().collect())
}
