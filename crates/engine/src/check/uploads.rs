//! Multipart uploads that nobody will finish: they take space and do not appear in listings.
//!
//! The next backup of the same machine aborts those of its dead runs. Those of machines that no longer exist, and of
//! `wal push`, are left to the bucket's lifecycle rule.

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_store::MOST_UNFINISHED;

use super::{CheckReport, Verdict};
use crate::repository::Repository;

/// No upload of a running command is this old: an object takes minutes, or hours on the slowest line.
const OLD: TimeDelta = TimeDelta::days(1);

/// Counts the old uploads. Reports nothing if the store does not list them or the request fails.
pub(super) async fn count_old(repository: &Repository, now: DateTime<Utc>, report: &mut CheckReport) {
    let uploads = match repository.store().unfinished_uploads("").await {
        Ok(Some(uploads)) => uploads,
        Ok(None) => return,
        Err(error) => return tracing::debug!(%error, "unfinished uploads cannot be listed"),
    };
    let is_old = |begun| now.signed_duration_since(DateTime::<Utc>::from(begun)) > OLD;
    let count = uploads.iter().filter(|upload| upload.begun.is_some_and(is_old)).count();
    if count > 0 {
        let at_least = if uploads.len() < MOST_UNFINISHED { "" } else { "at least " };
        let detail = format!(
            "{}: {at_least}{count} begun more than a day ago, whose parts take up space and do not appear in \
             listings: set a lifecycle rule on the bucket that aborts incomplete multipart uploads",
            repository.describe()
        );
        report.add("unfinished uploads", Verdict::Warning, detail);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::sync::Arc;

    use holdfast_store::{MemoryStore, PutMode, Store};

    use super::*;
    use crate::repository::{RepositoryTarget, Unlock, init};

    #[tokio::test]
    async fn old_uploads_are_counted_and_those_at_work_are_not() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let target = RepositoryTarget { store: Arc::clone(&store), unlock: Unlock::NotEncrypted };
        let now = Utc::now();
        let repository = init::init(&target, now).await.unwrap().repository;
        let found = async |now| {
            let mut report = CheckReport::default();
            count_old(&repository, now, &mut report).await;
            report.findings.into_iter().map(|finding| (finding.verdict, finding.detail)).collect::<Vec<_>>()
        };
        assert_eq!(found(now + TimeDelta::days(2)).await, [], "the trials of `repo init` leave none");
        for name in ["main/wal/1", "main/packs/1"] {
            store.begin_upload(&name.parse().unwrap(), PutMode::Create).await.unwrap();
        }
        assert_eq!(found(now + TimeDelta::hours(23)).await, []);
        let expected = "memory:: 2 begun more than a day ago, whose parts take up space and do not appear in \
                        listings: set a lifecycle rule on the bucket that aborts incomplete multipart uploads";
        assert_eq!(found(now + TimeDelta::hours(25)).await, [(Verdict::Warning, expected.to_owned())]);
    }
}
