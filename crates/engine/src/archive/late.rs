//! Short-lived holes in the archive of a running server.
//!
//! `wal push` sends the next segments in parallel with the one that PostgreSQL asks for. So a segment may be stored a
//! moment before its predecessor. A listing at that moment shows a hole. The age of the object after the hole shows
//! this: an object that is minutes old did not overtake anything. A command that finds a young hole lists again for a
//! limited time, and then accepts the result.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_pgtypes::{SegmentName, WalFileName};
use holdfast_repo::record::ClaimRecord;
use tokio::time::Instant;

use super::known_logs::KnownLogs;
use super::listed_wal::ListedWal;
use super::stored::wal_object_name;
use super::wal_folders::{WalFolders, WalScope};
use crate::error::Error;
use crate::repository::{Repository, object_name};

/// How long a segment may come after its successor. PostgreSQL repeats a failed `archive_command` after a second, and
/// after three failures waits a minute.
const OVERTAKEN_WITHIN: TimeDelta = TimeDelta::minutes(2);

/// How long a listing for reports is repeated.
pub(crate) const SHOW_AT_LEAST: Duration = Duration::from_secs(5);

/// The pause between two listings.
pub(crate) const LIST_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Whether `segment` was stored so recently that missing segments before it may still arrive. `newest` is the time at
/// which the newest segment of its timeline was stored, by the store's clock. `now` is by this machine's clock; if that
/// clock is far off, every hole counts as old.
pub(crate) async fn is_young(
    repository: &Repository,
    claim: &ClaimRecord,
    segment: SegmentName,
    newest: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> bool {
    let near = |a: DateTime<Utc>, b: DateTime<Utc>| (a - b).abs() < OVERTAKEN_WITHIN;
    // If nothing was stored recently, no request is needed.
    if newest.is_some_and(|newest| !near(newest, now)) {
        return false;
    }
    let object = wal_object_name(repository, &claim.cluster, claim, &WalFileName::Segment(segment));
    let Ok(object) = object_name(&object) else { return false };
    match repository.store().head(&object).await {
        Ok(info) => info
            .modified
            .map(DateTime::<Utc>::from)
            .is_some_and(|stored| near(stored, now) && newest.is_none_or(|newest| near(stored, newest))),
        Err(error) => {
            tracing::debug!(%segment, %error, "the age of the segment after a gap cannot be read");
            false
        }
    }
}

/// Lists the WAL of a claim for a report. Repeats the listing for a few seconds while the newest hole of a timeline is
/// young.
///
/// # Errors
/// As [`WalFolders::read_and_list`].
pub async fn list_settled(
    repository: &Repository,
    claim: &ClaimRecord,
    wanted: WalScope,
    known: &KnownLogs,
    now: DateTime<Utc>,
) -> Result<ListedWal, Error> {
    list_within(repository, claim, wanted, known, now, SHOW_AT_LEAST).await
}

/// The same, repeated for at most this time.
pub(crate) async fn list_within(
    repository: &Repository,
    claim: &ClaimRecord,
    wanted: WalScope,
    known: &KnownLogs,
    now: DateTime<Utc>,
    patience: Duration,
) -> Result<ListedWal, Error> {
    let began = Instant::now();
    loop {
        let folders = WalFolders::read(repository, claim).await?;
        let listed = folders.list(repository, |_| wanted, known).await?;
        if began.elapsed() >= patience || !has_young_hole(repository, &listed, now).await {
            return Ok(listed);
        }
        tokio::time::sleep(LIST_AGAIN_AFTER).await;
    }
}

async fn has_young_hole(repository: &Repository, listed: &ListedWal, now: DateTime<Utc>) -> bool {
    let wal = listed.inventory();
    for timeline in wal.timelines() {
        let ranges = wal.ranges(timeline);
        let Some(last) = ranges.last().filter(|_| ranges.len() > 1) else { continue };
        if is_young(repository, listed.claim(), last.first, wal.last_stored(timeline), now).await {
            return true;
        }
    }
    false
}
