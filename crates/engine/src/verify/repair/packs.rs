//! Step 2: packs, each with exactly the bytes that its manifest expects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_contract::report::verify::{Damage, ObjectClass, RepairKind};
use holdfast_repo::manifest::Manifest;
use holdfast_repo::name::{BackupId, ClusterName};

use super::{Repairer, placing};
use crate::carry::{PackWork, Placing};
use crate::error::Error;
use crate::pipeline::crew::Crew;
use crate::repository::Repository;
use crate::restore::{Fetches, every_chunk, try_manifest};

impl Repairer<'_> {
    /// Step 2. The remaining packs go to `taken_over`, by their backups.
    pub(super) async fn packs(
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
            let Ok(lost) = manifest_of(self.to, &self.options.cluster, backup, &self.crew).await else { continue };
            for number in 0..self.donors.len() {
                let Some(carrier) = self.donors.get(number).map(|donor| donor.carrier.clone()) else { continue };
                let there = match manifest_of(&carrier.from, &self.options.cluster, backup, &self.crew).await {
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
}

/// The manifest of a backup, read with the checks of a restore.
async fn manifest_of(
    repository: &Repository,
    cluster: &ClusterName,
    backup: BackupId,
    crew: &Crew,
) -> Result<Arc<Manifest>, Error> {
    let record = repository.backup(cluster, backup).await?;
    Ok(try_manifest(repository, &record, crew).await?.manifest)
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
