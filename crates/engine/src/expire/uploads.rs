//! Unfinished uploads that no run will finish. A bucket keeps and bills their parts for ever, and no listing of objects
//! shows them.
//!
//! An upload of this cluster is aborted if it is older than the grace time and than [`LONGEST_UPLOAD`], and if it does
//! not belong to a backup that may still run. If the store cannot list uploads or abort one, the report says so, and
//! the run continues.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{self, StreamExt};
use holdfast_repo::name::{BackupId, ObjectPath};
use holdfast_store::UnfinishedUpload;

use super::ExpireOptions;
use super::gather::Gathered;
use crate::error::Error;
use crate::repository::Repository;
use crate::repository::leases::Lease;

/// No upload of a living run is older, however short the grace time is. An object takes minutes, or hours on a very
/// slow line.
const LONGEST_UPLOAD: TimeDelta = TimeDelta::days(1);

/// The number of uploads that are aborted in parallel.
const AT_ONCE: usize = 16;

/// The uploads to abort.
pub(super) async fn over(
    repository: &Repository,
    options: &ExpireOptions,
    found: &Gathered,
    now: DateTime<Utc>,
    notes: &mut Vec<String>,
) -> Vec<UnfinishedUpload> {
    let uploads = match repository.store().unfinished_uploads(&format!("{}/", options.cluster)).await {
        Ok(Some(uploads)) => uploads,
        Ok(None) => {
            notes.push(
                "the store does not list unfinished uploads: set a lifecycle rule on the bucket that aborts incomplete \
                 multipart uploads"
                    .to_owned(),
            );
            return Vec::new();
        }
        Err(error) => {
            notes.push(format!("unfinished uploads cannot be listed, so none is aborted: {error}"));
            return Vec::new();
        }
    };
    let oldest = options.grace().max(LONGEST_UPLOAD);
    let running: BTreeSet<BackupId> = found.may_run(&options.policy, now);
    let goes = |upload: &UnfinishedUpload| {
        let begun = upload.begun.map(DateTime::<Utc>::from);
        let is_old = begun.and_then(|begun| begun.checked_add_signed(oldest)).is_some_and(|end| end < now);
        is_old
            && match upload.name.as_ref().parse() {
                Ok(
                    ObjectPath::Pack { backup, .. }
                    | ObjectPath::Manifest { backup, .. }
                    | ObjectPath::BackupStart { backup, .. }
                    | ObjectPath::BackupSummary { backup, .. },
                ) => !running.contains(&backup),
                // An object with another name is not ours.
                Ok(path) => path.cluster() == Some(&options.cluster),
                Err(_) => false,
            }
    };
    uploads.into_iter().filter(goes).collect()
}

/// Aborts the uploads; gives the number that it aborted.
pub(super) async fn abort(
    repository: &Repository,
    lease: &Lease,
    uploads: &[UnfinishedUpload],
    notes: &mut Vec<String>,
) -> Result<u64, Error> {
    let aborts = uploads.iter().map(|upload| async move {
        lease.check()?;
        Ok::<_, Error>(repository.store().abort_unfinished(upload).await)
    });
    let mut aborts = stream::iter(aborts.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
    let (mut aborted, mut failed) = (0, 0_u64);
    let mut reason = None;
    while let Some(outcome) = aborts.next().await {
        match outcome? {
            Ok(()) => aborted += 1,
            Err(error) => {
                failed += 1;
                reason.get_or_insert(error);
            }
        }
    }
    if let Some(error) = reason {
        notes.push(format!("{failed} unfinished uploads could not be aborted: {error}"));
    }
    Ok(aborted)
}
