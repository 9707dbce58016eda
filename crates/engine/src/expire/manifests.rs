//! The plan with its packs. The end of each kept backup's manifest is read: it lists the packs that the backup needs.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt};
use holdfast_repo::manifest::ManifestEnd;
use holdfast_repo::name::{self, BackupId, ClusterName, ObjectPath, PackId};
use holdfast_retention as planner;

use crate::error::{Cause, Error};
use crate::repository::Repository;

/// The number of manifests that are read in parallel: enough to hide latency. Each one has its list of packs in memory.
const ENDS_AT_ONCE: usize = 16;

/// A plan, and the manifests of removed backups that must stay.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) plan: planner::Plan,
    /// Backups whose manifest has frames that other manifests use; `None` if that is not known.
    in_use: Option<BTreeSet<BackupId>>,
    /// Backups with at least one pack that stays.
    with_packs: BTreeSet<BackupId>,
}

impl Planned {
    /// Whether the manifest of a removed backup must stay: while one of its packs stays, or while another manifest
    /// refers to its frames.
    pub(super) fn keeps_manifest(&self, id: BackupId) -> bool {
        self.in_use.as_ref().is_none_or(|in_use| in_use.contains(&id)) || self.with_packs.contains(&id)
    }
}

/// Makes a plan from an outline. Unreadable manifests and missing packs that it finds are recorded in the catalog.
pub(super) async fn plan(
    repository: &Repository,
    cluster: &ClusterName,
    catalog: &mut planner::Catalog,
    outline: impl Fn(&planner::Catalog) -> planner::Outline,
) -> Result<Planned, Error> {
    // The loop ends: each round marks at least one more backup as unreadable or damaged.
    loop {
        let mut outline = outline(catalog);
        let to_read: Vec<BackupId> = outline.packs.to_read().collect();
        let mut in_use = BTreeSet::new();
        let unreadable = count(repository, cluster, &to_read, &mut outline, &mut in_use).await?;
        if !unreadable.is_empty() {
            for (id, why) in unreadable {
                mark(catalog, &[id], &planner::Verified::ManifestUnreadable(why));
            }
            continue;
        }
        // If no pack can be removed, or no backup is kept, no manifest is read, and it is not known what is in use.
        let in_use = (!to_read.is_empty()).then_some(in_use);
        match outline.finish() {
            Ok(plan) => return Ok(settled(plan, catalog, in_use)),
            Err(planner::CannotPlan::PacksMissing(damaged)) => mark(catalog, &damaged, &planner::Verified::Damaged),
            Err(error @ planner::CannotPlan::NotRead(_)) => return Err(Cause::Internal(error.to_string()).into()),
        }
    }
}

fn mark(catalog: &mut planner::Catalog, ids: &[BackupId], verified: &planner::Verified) {
    for backup in catalog.backups.iter_mut().filter(|backup| ids.contains(&backup.id)) {
        if backup.place == planner::Place::Packs {
            backup.verified = verified.clone();
        }
    }
}

/// Takes the verdict away from a half-removed backup whose manifest others use: it is no longer a backup.
fn settled(plan: planner::Plan, catalog: &planner::Catalog, in_use: Option<BTreeSet<BackupId>>) -> Planned {
    let stays = |verdict: &planner::PackVerdict| !matches!(verdict, planner::PackVerdict::Goes(_));
    let with_packs = plan.packs.iter().filter(|(_, verdict)| stays(verdict)).map(|(pack, _)| pack.id.backup).collect();
    let mut planned = Planned { plan, in_use, with_packs };
    let remains: Vec<_> = catalog.half_removed.iter().copied().filter(|id| planned.keeps_manifest(*id)).collect();
    for id in remains {
        planned.plan.backups.remove(&id);
    }
    planned
}

/// Counts the packs of these manifests; gives the manifests that cannot be read, each with the reason.
async fn count(
    repository: &Repository,
    cluster: &ClusterName,
    to_read: &[BackupId],
    outline: &mut planner::Outline,
    in_use: &mut BTreeSet<BackupId>,
) -> Result<Vec<(BackupId, String)>, Error> {
    let reads: Vec<_> = to_read
        .iter()
        .map(|id| async move {
            let name = name::manifest(cluster, id);
            // Read again after an error: one bit that flipped on the way must not keep every pack.
            let end = match repository.manifest_end(&name).await {
                Err(error) if error.is_of_one_object() && !error.is_newer() => repository.manifest_end(&name).await,
                end => end,
            };
            Ok::<_, Error>((*id, end))
        })
        .collect();
    let mut reads = stream::iter(reads).buffer_unordered(ENDS_AT_ONCE);
    let mut unreadable = Vec::new();
    while let Some(read) = reads.next().await {
        let (id, end) = read?;
        let understood = match end {
            Ok(end) => uses(cluster, &end),
            Err(error) if error.is_of_one_object() || error.is_newer() => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        match understood {
            Ok((uses, origins)) => {
                outline.packs.manifest(id, uses);
                in_use.extend(origins);
            }
            Err(why) => unreadable.push((id, why)),
        }
    }
    Ok(unreadable)
}

/// The packs that a manifest names, and the backups whose frames it refers to.
type Uses = (Vec<planner::PackUse>, Vec<BackupId>);

fn uses(cluster: &ClusterName, end: &ManifestEnd) -> Result<Uses, String> {
    let packs = end.packs.iter().map(|entry| match entry.name.parse() {
        Ok(ObjectPath::Pack { cluster: of, backup, number }) if of == *cluster => {
            let pack = PackId { backup, number };
            Ok(planner::PackUse { pack, live_bytes: entry.live_bytes, size_bytes: Some(entry.size_bytes) })
        }
        _ => Err(format!("it names the pack {:?}, which is not a pack of {cluster}", entry.name)),
    });
    let origins = end.origins.iter().map(|origin| match origin.parse() {
        Ok(ObjectPath::Manifest { cluster: of, backup }) if of == *cluster => Ok(backup),
        _ => Err(format!("it refers to {origin:?}, which is not a manifest of {cluster}")),
    });
    Ok((packs.collect::<Result<_, _>>()?, origins.collect::<Result<_, _>>()?))
}
