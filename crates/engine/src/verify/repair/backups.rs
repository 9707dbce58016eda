//! Steps 3 and 4: start records, and whole backups that are taken over from another repository.

use std::collections::BTreeSet;

use futures::FutureExt as _;
use holdfast_contract::report::verify::RepairKind;
use holdfast_repo::name::{self, BackupId};
use holdfast_repo::record::{BackupRecord, StartRecord};

use super::{Donor, Repairer};
use crate::error::{Cause, Error};
use crate::restore::would_take;

impl Repairer<'_> {
    /// Step 4 for one backup. These objects of it are missing or damaged.
    pub(super) async fn take_over(&mut self, backup: BackupId, objects: &BTreeSet<String>) -> Result<(), Error> {
        for number in 0..self.donors.len() {
            let taken = match self.donors.get(number) {
                Some(donor) => self.take_over_from(donor, backup, objects).await,
                None => continue,
            };
            match taken {
                Ok(()) => {
                    let manifest = name::manifest(&self.options.cluster, &backup);
                    self.donors.iter().for_each(|donor| donor.carrier.rewrote(&manifest));
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
    pub(super) async fn start_record(&mut self, backup: BackupId, object: &str) -> Result<(), Error> {
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
                    self.repaired(object, number, RepairKind::SealedAgain);
                    return Ok(());
                }
                Err(error) => self.failed(object, number, &error)?,
            }
        }
        Ok(())
    }
}

fn is_same(one: &BackupRecord, two: &BackupRecord) -> bool {
    (one.system_identifier, one.start_lsn, one.stop_lsn) == (two.system_identifier, two.start_lsn, two.stop_lsn)
}
