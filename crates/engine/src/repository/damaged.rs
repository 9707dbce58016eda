//! What is known to be damaged in an archive: one set of objects for all verbs, and the backups that it harms.
//!
//! Verifications and failed drills name damaged objects. Such an object counts as damaged until it is read to its last
//! byte and found sound. A backup is damaged if its manifest names such an object, whatever an earlier verification of
//! that backup found, and however many backups share the object. Only a later verification of the backup itself that
//! has read everything says otherwise, if it was as deep as the one that found the damage.
//!
//! A drill that found bad pages, or that does not say which object is damaged, blames its backup and the backups that
//! are built on it, each until a drill of its own proves a restore.
//!
//! Manifests are read only if there is a damaged object.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt};
use holdfast_contract::report::verify::Level;
use holdfast_repo::name::{self, BackupId, ClusterName, ObjectPath};
use holdfast_repo::record::{BackupRecord, DrillFound};

use super::Repository;
use super::drills::{self, DrillEvidence};
use super::readings::{Readings, Sizes, readings};
use super::verified::{MOST_PROBLEMS, Verifications, verifications};
use crate::error::Error;

/// The number of manifests that are read in parallel.
const ENDS_AT_ONCE: usize = 16;

/// When an object was found damaged, and how deep that look was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged {
    time: DateTime<Utc>,
    level: Level,
}

/// A backup whose content is in doubt, and that of those that are built on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt {
    since: DateTime<Utc>,
    /// Whether a deep verification ends it; otherwise only a drill does.
    ends_by_reading: bool,
}

/// What verifications and drills say about the objects and backups of an archive.
#[derive(Debug, Default)]
pub(crate) struct KnownDamage {
    /// The newest verifications of each backup.
    pub(crate) verified: Verifications,
    /// What the drills say about each backup.
    pub(crate) drilled: BTreeMap<BackupId, DrillEvidence>,
    /// Notes about drills for the user.
    pub(crate) notes: Vec<String>,
    objects: BTreeMap<String, Damaged>,
}

impl KnownDamage {
    /// Reads the ledger. `backups` are the complete backups.
    ///
    /// # Errors
    /// [`crate::error::Cause::Store`] if the ledger cannot be listed, or the store cannot be asked for an entry.
    pub(crate) async fn read(
        repository: &Repository,
        cluster: &ClusterName,
        backups: &[BackupRecord],
        now: DateTime<Utc>,
    ) -> Result<Self, Error> {
        // A backup may be built on one that was removed since.
        let mut claims: BTreeMap<_, _> =
            backups.iter().filter_map(|backup| Some((backup.parent?, backup.claim))).collect();
        claims.extend(backups.iter().map(|backup| (backup.backup_id, backup.claim)));
        let verified = verifications(repository, cluster, |_| true, now).await?;
        let (drilled, notes) = drills::newest_results(repository, cluster, &claims, now).await?;
        let mut known = Self::of(verified, drilled, &Readings::default());
        known.notes = notes;
        if known.objects.keys().any(|object| is_pack(object)) {
            // The segment sizes are not needed, because no pack has one.
            let read = readings(repository, cluster, &Sizes::new(), now).await?.readings;
            known.objects.retain(|object, found| read.object(object).is_none_or(|time| time <= found.time));
        }
        Ok(known)
    }

    /// Makes it from what was found, and from what was read later.
    fn of(verified: Verifications, drilled: BTreeMap<BackupId, DrillEvidence>, read: &Readings) -> Self {
        let mut objects: BTreeMap<String, Damaged> = BTreeMap::new();
        let mut found = |object: &str, time, level| {
            let known = objects.entry(object.to_owned()).or_insert(Damaged { time, level });
            // The later one, and of the same time the deeper one: it needs the better proof.
            if (time, level) > (known.time, known.level) {
                *known = Damaged { time, level };
            }
        };
        for (verification, damaged) in verified.unsound() {
            for object in damaged {
                found(object, verification.time, verification.level);
            }
        }
        for worth in drilled.values() {
            if let DrillEvidence::Failed { time, objects, .. } = worth {
                for object in objects {
                    found(object, *time, Level::Deep);
                }
            }
        }
        objects.retain(|object, found| read.object(object).is_none_or(|time| time <= found.time));
        Self { verified, drilled, notes: Vec::new(), objects }
    }

    /// The names of the damaged objects.
    pub(crate) fn objects(&self) -> BTreeSet<String> {
        self.objects.keys().cloned().collect()
    }

    /// Whether this object is damaged.
    pub(crate) fn is_damaged(&self, object: &str) -> bool {
        self.objects.contains_key(object)
    }

    /// The first of these objects that harms a backup which needs all of them.
    pub(crate) fn harming<'a>(&self, backup: BackupId, mut needed: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        if self.objects.is_empty() {
            return None;
        }
        let shallow = self.verified.proved(backup, Level::Shallow);
        let deep = self.verified.proved(backup, Level::Deep);
        needed.find(|object| {
            self.objects.get(*object).is_some_and(|found| {
                // Manifests are read by every verification.
                let is_read = is_pack(object) && found.level == Level::Deep;
                let proof = if is_read { deep } else { deep.max(shallow) };
                proof.is_none_or(|proof| proof <= found.time)
            })
        })
    }

    /// The backups that are damaged or in doubt, as far as their manifests need not be read. `backups` must be ordered
    /// oldest first.
    pub(crate) fn in_doubt<'a>(&self, backups: impl IntoIterator<Item = &'a BackupRecord>) -> BTreeSet<BackupId> {
        let mut doubts: BTreeMap<BackupId, Doubt> = BTreeMap::new();
        let mut damaged = BTreeSet::new();
        for BackupRecord { backup_id, parent, .. } in backups {
            let inherited = parent.and_then(|parent| {
                let of_parent = doubts.get(&parent).copied().or_else(|| self.own_doubt(parent))?;
                (!self.has_ended(*backup_id, of_parent)).then_some(of_parent)
            });
            let own = self.own_doubt(*backup_id);
            if let Some(doubt) = own.or(inherited) {
                doubts.insert(*backup_id, doubt);
                damaged.insert(*backup_id);
            }
            let has_failed = matches!(self.drilled.get(backup_id), Some(DrillEvidence::Failed { .. }));
            if has_failed || self.verified.standing(*backup_id).is_some_and(|standing| !standing.sound) {
                damaged.insert(*backup_id);
            }
        }
        damaged
    }

    /// The damaged backups, which must be ordered oldest first. If there are damaged objects, the end of each manifest
    /// is read: it lists what the backup needs.
    ///
    /// # Errors
    /// [`crate::error::Cause::Store`] if the store cannot be asked. A manifest that cannot be read harms its own
    /// backup, and is not an error here.
    pub(crate) async fn backups(
        &self,
        repository: &Repository,
        backups: &[BackupRecord],
    ) -> Result<BTreeSet<BackupId>, Error> {
        let mut damaged = self.in_doubt(backups);
        if !self.objects.keys().any(|object| is_shared(object)) {
            return Ok(damaged);
        }
        let left: Vec<&BackupRecord> = backups.iter().filter(|it| !damaged.contains(&it.backup_id)).collect();
        let reads = left.into_iter().map(|backup| async move {
            (backup, repository.manifest_end(&name::manifest(&backup.cluster, &backup.backup_id)).await)
        });
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(ENDS_AT_ONCE);
        while let Some((backup, end)) = reads.next().await {
            let end = match end {
                Ok(end) => end,
                Err(error) if error.is_of_one_object() || error.is_newer() => continue,
                Err(error) => return Err(error),
            };
            let packs = end.packs.iter().map(|pack| pack.name.as_str());
            let manifests = end.origins.iter().map(String::as_str);
            if self.harming(backup.backup_id, packs.chain(manifests)).is_some() {
                damaged.insert(backup.backup_id);
            }
        }
        Ok(damaged)
    }

    /// What a drill or a verification reports about a backup that does not name all damaged objects.
    fn own_doubt(&self, backup: BackupId) -> Option<Doubt> {
        if let Some(DrillEvidence::Failed { time, found, objects, .. }) = self.drilled.get(&backup) {
            let named = !objects.is_empty() && found.iter().all(|kind| matches!(kind, DrillFound::Object));
            if !named {
                return Some(Doubt { since: *time, ends_by_reading: false });
            }
        }
        let (standing, objects) = self.verified.unsound().find(|(found, _)| found.backup_id == backup)?;
        let is_cut = objects.len() >= MOST_PROBLEMS;
        is_cut.then_some(Doubt { since: standing.time, ends_by_reading: true })
    }

    /// Whether a backup was proved after the doubt about its parent.
    fn has_ended(&self, backup: BackupId, doubt: Doubt) -> bool {
        let drilled = match self.drilled.get(&backup) {
            Some(DrillEvidence::Proven { time }) => Some(*time),
            _ => None,
        };
        let read = self.verified.proved(backup, Level::Deep).filter(|_| doubt.ends_by_reading);
        drilled.max(read).is_some_and(|time| time > doubt.since)
    }
}

fn is_pack(object: &str) -> bool {
    matches!(object.parse(), Ok(ObjectPath::Pack { .. }))
}

/// Whether several backups may need the object.
fn is_shared(object: &str) -> bool {
    matches!(object.parse(), Ok(ObjectPath::Pack { .. } | ObjectPath::Manifest { .. }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use chrono::TimeDelta;
    use holdfast_contract::report::backup::BackupReport;
    use holdfast_contract::report::verify::Verified;
    use holdfast_repo::name::PackId;

    use super::*;

    const REPORT: &str = include_str!("../../../contract/tests/samples/backup-2.json");

    fn id(hour: u32) -> BackupId {
        format!("20261129T{hour:02}0000Z").parse().unwrap()
    }

    fn at(hour: i64) -> DateTime<Utc> {
        "2026-11-30T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::hours(hour)
    }

    fn pack(number: u32) -> String {
        format!("main/packs/{}/{number:06}.pack", id(1))
    }

    /// A chain of four backups; backups are numbered by their hours.
    fn chain() -> Vec<BackupRecord> {
        let report: BackupReport = serde_json::from_str(REPORT).unwrap();
        let sample = &report.repositories[0].backup;
        let of = |hour: u32| {
            let parent = (hour > 1).then(|| id(hour - 1));
            BackupRecord { backup_id: id(hour), parent, ..sample.clone() }
        };
        (1..=4).map(of).collect()
    }

    /// A verification of the backup of this hour, at this hour, that found these packs damaged.
    type Look<'a> = (u32, i64, Level, &'a [u32]);

    fn verified(looks: &[Look<'_>]) -> Verifications {
        Verifications::of_results(looks.iter().map(|(hour, time, level, packs)| {
            let (host, software_version) = ("db1".to_owned(), "0.1.0".to_owned());
            let (backup_id, time, sound) = (id(*hour), at(*time), packs.is_empty());
            let verified = Verified { backup_id, time, level: *level, sound, host, software_version };
            (verified, packs.iter().copied().map(pack).collect())
        }))
    }

    /// The damaged backups. All four name pack 1, and the backup of hour n also names pack n.
    fn damaged(looks: &[Look<'_>], drilled: &[(u32, DrillEvidence)], read: &[(u32, i64)]) -> Vec<u32> {
        let mut readings = Readings::default();
        for (number, time) in read {
            readings.read_pack(PackId { backup: id(1), number: *number }, at(*time));
        }
        let drilled = drilled.iter().map(|(hour, worth)| (id(*hour), worth.clone())).collect();
        let known = KnownDamage::of(verified(looks), drilled, &readings);
        let doubt = known.in_doubt(&chain());
        let is_harmed = |hour: u32| {
            let packs = [pack(1), pack(hour)];
            known.harming(id(hour), packs.iter().map(String::as_str)).is_some()
        };
        (1..=4).filter(|hour| doubt.contains(&id(*hour)) || is_harmed(*hour)).collect()
    }

    #[test]
    fn a_backup_is_damaged_by_the_objects_that_it_names() {
        use Level::{Deep, Shallow};
        for (what, looks, read, expected) in [
            ("nothing is known", &[][..], &[][..], &[][..]),
            ("a pack of all", &[(4, 9, Deep, &[1][..])][..], &[], &[1, 2, 3, 4]),
            ("verified before", &[(2, 5, Deep, &[]), (4, 9, Deep, &[1])], &[], &[1, 2, 3, 4]),
            ("verified at the same time", &[(2, 9, Deep, &[]), (4, 9, Deep, &[1])], &[], &[1, 2, 3, 4]),
            ("verified later", &[(2, 10, Deep, &[]), (4, 9, Deep, &[1])], &[], &[1, 3, 4]),
            ("looked at later", &[(2, 10, Shallow, &[]), (4, 9, Deep, &[1])], &[], &[1, 2, 3, 4]),
            ("found by a look", &[(2, 10, Shallow, &[]), (4, 9, Shallow, &[1])], &[], &[1, 3, 4]),
            ("a pack of one", &[(3, 9, Deep, &[3])], &[], &[3]),
            ("read later", &[(4, 9, Deep, &[1])], &[(1, 10)], &[4]),
            ("read before", &[(4, 9, Deep, &[1])], &[(1, 8)], &[1, 2, 3, 4]),
            ("found again", &[(2, 12, Deep, &[1]), (4, 9, Deep, &[1])], &[(1, 10)], &[1, 2, 3, 4]),
        ] {
            assert_eq!(damaged(looks, &[], read), expected, "{what}");
        }
    }

    fn failed(time: i64, found: &[DrillFound], packs: &[u32]) -> DrillEvidence {
        let objects = packs.iter().copied().map(pack).collect();
        DrillEvidence::Failed { why: String::new(), time: at(time), found: found.to_vec(), objects }
    }

    #[test]
    fn a_failed_drill_counts_for_the_backups_that_are_built_on_it() {
        use DrillFound::{Object, Page};
        for (what, drilled, looks, expected) in [
            ("bad pages", vec![(2, failed(5, &[Page], &[]))], &[][..], &[2, 3, 4][..]),
            ("read later", vec![(2, failed(5, &[Page], &[]))], &[(3, 9, Level::Deep, &[][..])], &[2, 3, 4]),
            ("proved later", vec![(2, failed(5, &[Page], &[])), (3, DrillEvidence::Proven { time: at(6) })], &[], &[2]),
            (
                "proved before",
                vec![(2, failed(5, &[Page], &[])), (3, DrillEvidence::Proven { time: at(4) })],
                &[],
                &[2, 3, 4],
            ),
            ("an unknown object", vec![(2, failed(5, &[Object], &[]))], &[], &[2, 3, 4]),
            ("an object of all", vec![(4, failed(5, &[Object], &[1]))], &[], &[1, 2, 3, 4]),
            ("an object of one", vec![(2, failed(5, &[Object], &[2]))], &[], &[2]),
            ("an object and pages", vec![(3, failed(5, &[Object, Page], &[3]))], &[], &[3, 4]),
        ] {
            assert_eq!(damaged(looks, &drilled, &[]), expected, "{what}");
        }
    }

    /// The parent that failed was removed since.
    #[test]
    fn a_removed_parent_is_not_forgotten() {
        let drilled = BTreeMap::from([(id(1), failed(5, &[DrillFound::Page], &[]))]);
        let known = KnownDamage::of(Verifications::default(), drilled, &Readings::default());
        let left: Vec<BackupRecord> = chain().into_iter().skip(1).collect();
        assert_eq!(known.in_doubt(&left), BTreeSet::from([id(2), id(3), id(4)]));
    }
}
