//! Which segments of a range are not in an archive, by listing the folders that would hold them.

use std::collections::BTreeSet;

use holdfast_pgtypes::{SegmentName, WalFileName};
use holdfast_repo::name::{self, ClusterName, ObjectPath};
use holdfast_repo::record::ClaimRecord;

use crate::error::{Doing, Error, What};
use crate::repository::Repository;

/// The segments from `first` to `last`, both included and of one timeline, that are not stored under the claim;
/// ascending. One listing for each 4 GiB of WAL.
pub async fn missing_segments(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    first: SegmentName,
    last: SegmentName,
) -> Result<Vec<SegmentName>, Error> {
    if first.timeline() != last.timeline() {
        return Err(What::Internal(format!("{first} and {last} are of different timelines")).into());
    }
    let size = claim.wal_segment_size;
    let mut missing = Vec::new();
    let mut stored = BTreeSet::new();
    let mut listed = None;
    let mut next = Some(first).filter(|first| *first <= last);
    while let Some(segment) = next {
        let file = WalFileName::Segment(segment);
        let folder = name::wal_log_folder(cluster, claim.number, &file);
        if listed.as_ref() != Some(&folder) {
            stored = stored_in(repository, &folder)
                .await
                .doing(|| format!("looking for WAL segments {first} to {last} in {}", repository.describe()))?;
            listed = Some(folder);
        }
        if !stored.contains(&name::wal_file(cluster, claim.number, &file, claim.wal_codec, repository.is_encrypted())) {
            missing.push(segment);
        }
        next = segment.next(size).filter(|next| *next <= last);
    }
    Ok(missing)
}

async fn stored_in(repository: &Repository, folder: &str) -> Result<BTreeSet<String>, Error> {
    let objects = repository.store().list(folder, None).await?;
    let names = objects.into_iter().map(|object| object.name.to_string());
    Ok(names.filter(|name| matches!(name.parse(), Ok(ObjectPath::WalFile { .. }))).collect())
}
