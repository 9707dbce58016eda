//! The plan with its packs. The end of each kept backup's manifest is read: it lists the packs that the backup needs,
//! and the earlier manifests to which it refers.

use futures::stream::{self, StreamExt};
use holdfast_repo::manifest::ManifestEnd;
use holdfast_repo::name::{self, BackupId, ClusterName, ObjectPath, PackId};
use holdfast_retention as planner;

use crate::error::{Cause, Error};
use crate::repository::Repository;

/// The number of manifests that are read in parallel: enough to hide latency. Each one has its list of packs in memory.
const ENDS_AT_ONCE: usize = 16;

/// Makes a plan from an outline. Unreadable manifests, and missing packs and manifests, that it finds are recorded in
/// the catalog.
pub(super) async fn plan(
    repository: &Repository,
    cluster: &ClusterName,
    catalog: &mut planner::Catalog,
    outline: impl Fn(&planner::Catalog) -> planner::Outline,
) -> Result<planner::Plan, Error> {
    // The loop ends: each round marks at least one more backup as unreadable or damaged.
    loop {
        let mut outline = outline(catalog);
        let to_read: Vec<BackupId> = outline.packs.to_read().collect();
        let unreadable = count(repository, cluster, &to_read, &mut outline).await?;
        if !unreadable.is_empty() {
            for (id, why) in unreadable {
                mark(catalog, &[id], &planner::Verified::ManifestUnreadable(why));
            }
            continue;
        }
        match outline.finish() {
            Ok(plan) => return Ok(plan),
            Err(planner::CannotPlan::PartsMissing(damaged)) => mark(catalog, &damaged, &planner::Verified::Damaged),
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

/// Counts the packs of these manifests; gives the manifests that cannot be read, each with the reason.
async fn count(
    repository: &Repository,
    cluster: &ClusterName,
    to_read: &[BackupId],
    outline: &mut planner::Outline,
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
            Ok(planner::ManifestUses { packs, origins }) => outline.packs.manifest(id, packs, origins),
            Err(why) => unreadable.push((id, why)),
        }
    }
    Ok(unreadable)
}

fn uses(cluster: &ClusterName, end: &ManifestEnd) -> Result<planner::ManifestUses, String> {
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
    Ok(planner::ManifestUses { packs: packs.collect::<Result<_, _>>()?, origins: origins.collect::<Result<_, _>>()? })
}
