//! Waits for WAL that may arrive at any moment: [`crate::archive`] explains how a running archiver leaves such a hole.
//!
//! A restore never passes over a hole. The archive is listed again until the hole is gone or the time is over; the
//! refusal is the same as without waiting.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_pgtypes::SegmentName;
use holdfast_repo::recovery::{Hole, Unreachable};
use tokio::time::Instant;

use super::preflight::Archive;
use crate::archive::{LIST_AGAIN_AFTER, is_young};
use crate::error::{Cause, Error};
use crate::progress::Progress;
use crate::repository::Repository;

/// How long a plan waits for missing WAL.
const WAIT_AT_MOST: Duration = Duration::from_secs(30);

/// How long one plan has waited.
pub(super) struct Patience {
    began: Instant,
    /// This machine's time when the plan began.
    now: DateTime<Utc>,
    waiting: Option<SegmentName>,
}

impl Patience {
    pub(super) fn new(now: DateTime<Utc>) -> Self {
        Self { began: Instant::now(), now, waiting: None }
    }

    /// Whether the archive should be listed again after a failed plan. It waits a second before it answers yes.
    pub(super) async fn lists_again(
        &mut self,
        repository: &Repository,
        archive: &Archive,
        error: &Error,
        progress: &dyn Progress,
    ) -> bool {
        let Cause::Unreachable(Unreachable::Hole { hole, .. }) = &*error.what else { return false };
        self.waits_for(repository, archive, hole, progress).await
    }

    /// The same for the hole at which a plan ends.
    pub(super) async fn waits_for(
        &mut self,
        repository: &Repository,
        archive: &Archive,
        hole: &Hole,
        progress: &dyn Progress,
    ) -> bool {
        let waited = self.began.elapsed();
        if waited >= WAIT_AT_MOST || !self.is_young(repository, archive, hole, waited).await {
            return false;
        }
        if self.waiting != Some(hole.first_missing) {
            progress.note(&format!("waiting for segment {}, which is being archived", hole.first_missing));
            self.waiting = Some(hole.first_missing);
        }
        tokio::time::sleep(LIST_AGAIN_AFTER).await;
        true
    }

    async fn is_young(&self, repository: &Repository, archive: &Archive, hole: &Hole, waited: Duration) -> bool {
        let size = archive.claim.wal_segment_size;
        let after = hole.first_missing.number(size).saturating_add(hole.count);
        // After a promotion the missing segment may be one of the next timeline.
        let timelines = archive.wal.timelines().filter(|timeline| *timeline >= hole.timeline);
        let mut named = timelines.filter_map(|timeline| SegmentName::from_number(after, timeline, size));
        let Some(after) = named.find(|segment| archive.wal.contains(*segment)) else { return false };
        let now = self.now + TimeDelta::from_std(waited).unwrap_or_default();
        is_young(repository, &archive.claim, after, archive.wal.last_stored(after.timeline()), now).await
    }
}
