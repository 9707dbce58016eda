//! The segments of a range that are missing in an archive, by listing their folders.

use std::collections::BTreeSet;

use holdfast_pgtypes::{SegmentName, WalFileName};
use holdfast_repo::name::{self, ClusterName, ObjectPath};
use holdfast_repo::record::ClaimRecord;

use super::listed_wal::is_large_enough;
use super::stored::wal_object_name;
use crate::error::{Cause, Error, ResultExt};
use crate::repository::Repository;

/// The segments from `first` to `last`, both included and of one timeline, that are not stored under the claim;
/// ascending. One listing for each 4 GiB of WAL.
///
/// # Errors
/// [`Cause::Store`] if a listing fails, [`Cause::Internal`] if `first` and `last` are of different timelines.
pub async fn missing_segments(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    first: SegmentName,
    last: SegmentName,
) -> Result<Vec<SegmentName>, Error> {
    let mut missing = Vec::new();
    let mut next = Some(first).filter(|first| *first <= last);
    while let Some(segment) = next {
        let (found, end) = missing_of_folder(repository, cluster, claim, segment, last).await?;
        missing.extend(found);
        next = end.next(claim.wal_segment_size).filter(|next| *next <= last);
    }
    Ok(missing)
}

/// The missing segments of the first folder that lacks any: later folders are not listed. Empty if nothing is missing.
pub(crate) async fn first_missing(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    first: SegmentName,
    last: SegmentName,
) -> Result<Vec<SegmentName>, Error> {
    let mut next = Some(first).filter(|first| *first <= last);
    while let Some(segment) = next {
        let (found, end) = missing_of_folder(repository, cluster, claim, segment, last).await?;
        if !found.is_empty() {
            return Ok(found);
        }
        next = end.next(claim.wal_segment_size).filter(|next| *next <= last);
    }
    Ok(Vec::new())
}

/// The segments missing in a folder, from `first`, and the last segment that was looked for. One listing, from `first`.
async fn missing_of_folder(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    first: SegmentName,
    last: SegmentName,
) -> Result<(Vec<SegmentName>, SegmentName), Error> {
    if first.timeline() != last.timeline() {
        return Err(Cause::Internal(format!("{first} and {last} are of different timelines")).into());
    }
    let file = |segment| WalFileName::Segment(segment);
    let folder = name::wal_log_folder(cluster, claim.number, &file(first));
    let stored = stored_in(repository, &folder, &format!("{folder}{first}"))
        .await
        .doing(|| format!("looking for WAL segments {first} to {last} in {}", repository.describe()))?;
    let (mut missing, mut end, mut next) = (Vec::new(), first, Some(first));
    while let Some(segment) = next {
        let object = wal_object_name(repository, cluster, claim, &file(segment));
        if !object.starts_with(&folder) {
            break;
        }
        if !stored.contains(&object) {
            missing.push(segment);
        }
        end = segment;
        next = segment.next(claim.wal_segment_size).filter(|next| *next <= last);
    }
    Ok((missing, end))
}

async fn stored_in(repository: &Repository, folder: &str, after: &str) -> Result<BTreeSet<String>, Error> {
    let objects = repository.store().list(folder, Some(after)).await?;
    // An object that is too small to be WAL is not the segment.
    let names = objects.into_iter().filter(is_large_enough).map(|object| object.name.to_string());
    Ok(names.filter(|name| matches!(name.parse(), Ok(ObjectPath::WalFile { .. }))).collect())
}
