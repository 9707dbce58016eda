//! Repair: missing or damaged objects are brought back from another repository where they are sound.
//!
//! The steps, in this order. Each one asks the other repositories in their order:
//! 1. WAL segments and history files: they are read, checked by their BLAKE3 and their own header, and sealed again.
//! 2. Packs: the manifest has the salt and the checksum of the lost pack. The pack of the other repository is read once
//!    to check that it gives exactly these bytes, and a second time to store them.
//! 3. Start records.
//! 4. The remaining packs, manifests and `backup.json`: the backup is taken over. Its packs are compared by their
//!    content. Missing or damaged packs are stored under a free name. A new manifest and a new `backup.json` replace
//!    the old ones. A manifest to which a sound one refers is not replaced.
//!
//! Invariants: an object is replaced only after its substitute was completely read and checked. A sound object is never
//! replaced: a damaged object is read once more just before. Stores have no conditional replacement, so another run may
//! bring the object back between this reading and the replacement. Then both have the same content.
//!
//! After a crash: each object is complete, either the old or the new one, and the next run continues. Between a new
//! manifest and its `backup.json`, the backup still cannot be restored. Leases keep `expire` from removing objects in
//! both repositories meanwhile.
//!
//! This file has both verifications, the other repositories and the order of the steps. Step 1 is in [`wal`], step 2 in
//! [`packs`], steps 3 and 4 are in [`backups`].

mod backups;
mod packs;
mod wal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::report::verify::{
    BackupResult, ClaimWindow, Damage, DamageKind, ObjectClass, Repair, RepairKind, RepairedObject, UnrepairedObject,
};
use holdfast_repo::name::{BackupId, ObjectPath};
use holdfast_repo::record::{self, LeasePurpose, LedgerEntry};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Level, Verification, VerifyOptions, verify};
use crate::carry::claims::ClaimPairs;
use crate::carry::{Carrier, CarryContext, Placing};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::leases::{Clock, EXPIRE_ENDS_WITHIN, Holder, Lease, new_run};

/// The maximum number of objects that the ledger entry names.
const MOST_OBJECTS: usize = 1000;

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
    // A scrub reads what would be too old in the next run, half of this time later.
    let age = 2 * (began.elapsed() + Duration::from_secs(1));
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
            let means = CarryContext {
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
                    progress.note(&format!("{} cannot be used as a source: {error}", from.describe()));
                    continue;
                }
            };
            let carrier = Carrier::new(from, to, means, &damaged).await?;
            let lease = match Lease::take(from, new_run()?, holder.clone(), clock).await {
                Ok(lease) => Some(lease),
                Err(error) => {
                    progress.note(&format!(
                        "no lease could be taken in {}, so `holdfast expire` may remove objects there during the repair: {error}",
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
        // The newest one first. Its manifest may refer to that of an older one, and no longer does so when it is taken
        // over. So the older manifest can be replaced, unless that of a sound backup refers to it.
        for (backup, objects) in taken_over.into_iter().rev() {
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
        self.progress.note(&format!("repaired {object} from {from}"));
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
                self.progress.note(&format!("the repair could not be recorded in the ledger: {error}"));
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

fn is_wal(damage: &Damage) -> bool {
    matches!(damage.class, ObjectClass::WalSegment | ObjectClass::TimelineHistory)
}

fn placing(damage: &Damage) -> Placing {
    if damage.kind == DamageKind::Missing { Placing::Create } else { Placing::Replace }
}
