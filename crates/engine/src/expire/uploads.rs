//! Unfinished uploads that nobody will finish: parts of objects of this cluster that no listing of objects shows, and that
//! a bucket keeps and bills for ever.
//!
//! An upload goes when it was begun longer ago than the grace time, and than any object takes, and is not one of a backup
//! that may still run. A store that does not list its uploads, or fails to abort one, stops nothing, and is named.

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

/// No upload of a living run is as old, however short the grace time: an object takes minutes, on the slowest line hours.
const LONGEST_UPLOAD: TimeDelta = TimeDelta::days(1);

/// Uploads that are aborted at once.
const AT_ONCE: usize = 16;

/// Those that go.
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
                "the store does not say which uploads were begun and never finished: set a lifecycle rule on the bucket \
                 that aborts incomplete multipart uploads"
                    .to_owned(),
            );
            return Vec::new();
        }
        Err(error) => {
            notes.push(format!("unfinished uploads cannot be listed, and stay: {error}"));
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
                // An object of another name is nobody's of ours.
                Ok(path) => path.cluster() == Some(&options.cluster),
                Err(_) => false,
            }
    };
    uploads.into_iter().filter(goes).collect()
}

/// Throws their parts away; says how many.
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
