//! The verdict on each pack: a pack is removed if no manifest that stays names it. A manifest is removed if no manifest
//! that stays refers to parts of it.
//!
//! Manifests are large, so they are not part of the catalog. A [`PackTally`] counts them one at a time. It needs about
//! fifty bytes for each pack, however many manifests name it. It knows which manifests it must read, and gives no
//! verdict without them.

use crate::catalog::{Pack, Parent, Place, Verified};
use crate::judge::Judged;
use crate::policy::RewriteRule;
use crate::setting::{Setting, is_named_for_the_future};
use crate::verdict::{BackupVerdict, PackGoes, PackKept, PackVerdict, Warning};
use holdfast_repo::name::{BackupId, PackId};
use std::collections::{BTreeMap, BTreeSet};

/// One pack that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUse {
    /// The pack that is named.
    pub pack: PackId,
    /// How many of its bytes the backup needs.
    pub live_bytes: u64,
    /// Its size in bytes, if the manifest has it. A pack with another size counts as missing.
    pub size_bytes: Option<u64>,
}

/// What a manifest needs besides itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestUses {
    /// The packs that it names.
    pub packs: Vec<PackUse>,
    /// The backups to whose manifests it refers.
    pub origins: Vec<BackupId>,
}

/// Why there is no verdict yet. The caller must read the manifests or correct the catalog, and plan again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotPlan {
    /// The [`PackTally`] did not get the manifests of these kept backups. If a manifest cannot be read, its backup must
    /// be [`Verified::ManifestUnreadable`].
    #[error("the manifests of {} kept backups were not read, the first is {}", .0.len(), first(.0))]
    NotRead(Vec<BackupId>),
    /// These kept backups name packs or manifests that are missing. They must be [`Verified::Damaged`], so that they do
    /// not count as restorable.
    #[error("{} kept backups name packs or manifests that are missing, the first is {}", .0.len(), first(.0))]
    PartsMissing(Vec<BackupId>),
}

fn first(backups: &[BackupId]) -> String {
    backups.first().map_or_else(String::new, ToString::to_string)
}

/// The number of packs that are compared one by one before the whole list is searched. That is cheaper than a search
/// among 80,000 packs.
const LOOK_AHEAD: usize = 4;

/// Counts which packs the kept manifests name.
#[derive(Debug)]
pub struct PackTally {
    packs: Vec<Pack>,
    named: Vec<Named>,
    to_read: BTreeSet<BackupId>,
    read: BTreeSet<BackupId>,
    /// The reason why no pack may be removed at all.
    blocked: Option<PackKept>,
    unfinished: BTreeSet<BackupId>,
    going: BTreeSet<BackupId>,
    known_damaged: BTreeSet<BackupId>,
    missing: BTreeMap<BackupId, PackId>,
    /// The manifests that were listed.
    manifests: BTreeSet<BackupId>,
    /// The backups to whose manifests others refer.
    referred: BTreeSet<BackupId>,
    missing_origins: BTreeMap<BackupId, BackupId>,
    rewrite: Option<RewriteRule>,
    now: chrono::DateTime<chrono::Utc>,
}

/// The verdict on each pack, and warnings about missing packs and manifests.
pub(crate) type PackVerdicts = (Vec<(Pack, PackVerdict)>, Vec<Warning>);

#[derive(Debug, Clone, Copy, Default)]
struct Named {
    by: Option<BackupId>,
    count: u32,
    live_bytes: u64,
}

impl PackTally {
    pub(crate) fn new(setting: &Setting<'_>, judged: &Judged) -> Self {
        let catalog = setting.catalog;
        let mut packs = catalog.packs.clone();
        packs.sort_unstable_by_key(|pack| pack.id);
        let blocked = blocked(setting);
        let in_packs = catalog.backups.iter().filter(|backup| backup.place == Place::Packs);
        let kept = in_packs.map(|backup| backup.id).filter(|id| judged.is_kept(*id));
        // A restore that reads a pack, or a backup that will name it in its manifest, must find it under its name.
        let is_read = setting.may_run().next().is_some() || setting.restores().next().is_some();
        let damaged = catalog.backups.iter().filter(|backup| backup.verified == Verified::Damaged);
        let goes = |verdict: &BackupVerdict| matches!(verdict, BackupVerdict::Goes(_));
        Self {
            named: vec![Named::default(); packs.len()],
            packs,
            to_read: if blocked.is_some() { BTreeSet::new() } else { kept.collect() },
            read: BTreeSet::new(),
            blocked,
            unfinished: catalog.unfinished.iter().map(|backup| backup.id).collect(),
            going: judged.verdicts.iter().filter(|(_, verdict)| goes(verdict)).map(|(id, _)| *id).collect(),
            known_damaged: damaged.map(|backup| backup.id).collect(),
            missing: BTreeMap::new(),
            manifests: catalog.manifests.clone(),
            referred: BTreeSet::new(),
            missing_origins: BTreeMap::new(),
            rewrite: setting.policy.rewrite.filter(|_| !is_read),
            now: setting.now,
        }
    }

    /// Whether no pack may be removed, so that no manifest is read.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// The backups whose manifests it must get, oldest first. Empty if no pack may be removed anyway.
    pub fn to_read(&self) -> impl Iterator<Item = BackupId> {
        self.to_read.difference(&self.read).copied()
    }

    /// Counts the whole manifest of one backup: the packs that it names, and the backups to whose manifests it refers.
    /// The manifest of a backup that will be removed is ignored.
    pub fn manifest(
        &mut self,
        backup: BackupId,
        uses: impl IntoIterator<Item = PackUse>,
        origins: impl IntoIterator<Item = BackupId>,
    ) {
        if !self.to_read.contains(&backup) || !self.read.insert(backup) {
            return;
        }
        for origin in origins {
            self.referred.insert(origin);
            if !self.manifests.contains(&origin) {
                self.missing_origins.entry(backup).or_insert(origin);
            }
        }
        let mut last = None;
        let mut expected = 0;
        for PackUse { pack, live_bytes, size_bytes } in uses {
            // A manifest lists its packs in order, so the pack is nearly always one of the next few.
            let ahead = self.packs.get(expected..).unwrap_or_default().iter().take(LOOK_AHEAD);
            let index = match ahead.into_iter().position(|next| next.id == pack) {
                Some(skipped) => Ok(expected + skipped),
                None => self.packs.binary_search_by_key(&pack, |pack| pack.id),
            };
            let there = index.ok().and_then(|index| Some((index, self.packs.get(index)?)));
            let Some((index, _)) = there.filter(|(_, found)| size_bytes.is_none_or(|size| size == found.size_bytes))
            else {
                self.missing.entry(backup).or_insert(pack);
                continue;
            };
            expected = index + 1;
            let Some(named) = self.named.get_mut(index) else { continue };
            // A pack that a manifest names twice has one user.
            named.count += u32::from(last != Some(index));
            last = Some(index);
            named.by = Some(named.by.map_or(backup, |by| by.min(backup)));
            named.live_bytes = named.live_bytes.max(live_bytes);
        }
    }

    /// The backups to whose manifests the kept ones refer; `None` if that is not known, because no manifest is read.
    pub(crate) fn referred(&self) -> Option<BTreeSet<BackupId>> {
        (!self.is_blocked()).then(|| self.referred.clone())
    }

    /// The verdicts, sorted by pack.
    pub(crate) fn finish(self) -> Result<PackVerdicts, CannotPlan> {
        let not_read: Vec<BackupId> = self.to_read().collect();
        if !not_read.is_empty() {
            return Err(CannotPlan::NotRead(not_read));
        }
        let is_new = |backup: &&BackupId| !self.known_damaged.contains(backup);
        let damaged: BTreeSet<BackupId> =
            self.missing.keys().chain(self.missing_origins.keys()).filter(is_new).copied().collect();
        if !damaged.is_empty() {
            return Err(CannotPlan::PartsMissing(damaged.into_iter().collect()));
        }
        let packs = self.missing.iter().map(|(backup, pack)| Warning::PackMissing { backup: *backup, pack: *pack });
        let origins = self.missing_origins.iter();
        let origins = origins.map(|(backup, of)| Warning::ManifestMissing { backup: *backup, of: *of });
        let warnings = packs.chain(origins).collect();
        let verdicts =
            self.packs.iter().zip(&self.named).map(|(pack, named)| (*pack, self.verdict(pack, named))).collect();
        Ok((verdicts, warnings))
    }

    fn verdict(&self, pack: &Pack, named: &Named) -> PackVerdict {
        if let Some(reason) = &self.blocked {
            return PackVerdict::Kept(reason.clone());
        }
        let of = pack.id.backup;
        if self.unfinished.contains(&of) {
            return PackVerdict::Kept(PackKept::Unfinished);
        }
        if let Some(by) = named.by {
            if self.rewrite.is_some_and(|rule| is_mostly_dead(rule, named.live_bytes, pack.size_bytes)) {
                return PackVerdict::Rewrite { live_bytes: named.live_bytes, size_bytes: pack.size_bytes };
            }
            return PackVerdict::Kept(PackKept::Named { by, count: named.count });
        }
        if is_named_for_the_future(of, self.now) {
            return PackVerdict::Kept(PackKept::InTheFuture);
        }
        PackVerdict::Goes(if self.going.contains(&of) { PackGoes::WithItsBackup } else { PackGoes::NotNamed })
    }
}

fn is_mostly_dead(rule: RewriteRule, live_bytes: u64, size_bytes: u64) -> bool {
    let dead_bytes = size_bytes.saturating_sub(live_bytes);
    u128::from(live_bytes) * 100 <= u128::from(rule.live_percent) * u128::from(size_bytes)
        && dead_bytes >= rule.dead_bytes
}

/// Why no pack may be removed, if there is a reason. Then no manifest is read, so no missing pack is noticed. A backup
/// that seems to be the last sound one may not be, and what another backup needs must stay with it.
pub(crate) fn blocked(setting: &Setting<'_>) -> Option<PackKept> {
    let catalog = setting.catalog;
    if setting.policy.is_empty() {
        return Some(PackKept::NoPolicy);
    }
    let unreadable = catalog.backups.iter().filter(|backup| matches!(backup.verified, Verified::ManifestUnreadable(_)));
    // A run that does not name its parent may use any pack. If its parent is gone, the packs that it uses are in
    // danger.
    let running = setting.may_run().filter(|running| !setting.parent_is_there(running));
    let by = catalog.unknown.iter().map(|unknown| unknown.id).chain(unreadable.map(|backup| backup.id));
    if let Some(by) = by.chain(running.map(|running| running.id)).min() {
        return Some(PackKept::MayBeNamedBy(by));
    }
    setting.has_unknown_restore().then_some(PackKept::UnknownRestore)
}

/// Whether an unfinished backup names a parent that is gone; for warnings.
pub(crate) fn names_a_lost_parent(setting: &Setting<'_>, parent: Parent) -> bool {
    match parent {
        Parent::Unknown | Parent::Nothing => false,
        Parent::Backup(id) => !setting.catalog.backups.iter().any(|backup| backup.id == id),
    }
}
