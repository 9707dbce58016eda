//! Holes in the archive of a living server that last a moment.
//!
//! `wal push` sends the next segments along with the one that PostgreSQL asks for, side by side, so that a segment may be
//! stored a moment before its predecessor. A listing at that moment shows a hole. Such a hole is known by the age of the object
//! after it: one that has been there for minutes did not overtake anything. Whoever meets a young hole lists again for a
//! bounded time, and then takes what it sees for what it is.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_pgtypes::{SegmentName, WalFileName};
use holdfast_repo::record::ClaimRecord;
use tokio::time::Instant;

use super::known_logs::KnownLogs;
use super::listed_wal::ListedWal;
use super::stored::wal_object_name;
use super::wal_folders::{WalFolders, Wanted};
use crate::error::Error;
use crate::repository::{Repository, object_name};

/// How long a segment may come after its successor. PostgreSQL repeats a failed `archive_command` after a second, and after
/// three failures waits a minute.
const OVERTAKEN_WITHIN: TimeDelta = TimeDelta::minutes(2);

/// How long a listing that only shows what is there is repeated.
const SHOW_AT_LEAST: Duration = Duration::from_secs(5);

/// The pause between two listings.
pub(crate) const LIST_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Whether `segment` was stored so lately that what is missing before it may be on its way. `newest` is when the newest
/// segment of its timeline was stored, by the same clock; `now` is of this machine, whose clock may be another one, and one
/// that is far off makes every hole an old one.
pub(crate) async fn is_young(
    repository: &Repository,
    claim: &ClaimRecord,
    segment: SegmentName,
    newest: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> bool {
    let near = |a: DateTime<Utc>, b: DateTime<Utc>| (a - b).abs() < OVERTAKEN_WITHIN;
    // Spares the request wherever nothing was stored lately.
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
            tracing::debug!(%segment, %error, "the age of the segment after a gap cannot be found out");
            false
        }
    }
}

/// Lists the WAL of a claim, to show it: again for a few seconds while the newest hole of a timeline is a young one.
///
/// # Errors
/// As [`WalFolders::read_and_list`].
pub async fn list_settled(
    repository: &Repository,
    claim: &ClaimRecord,
    wanted: Wanted,
    known: &KnownLogs,
    now: DateTime<Utc>,
) -> Result<ListedWal, Error> {
    list_within(repository, claim, wanted, known, now, SHOW_AT_LEAST).await
}

/// The same, with patience of this length.
pub(crate) async fn list_within(
    repository: &Repository,
    claim: &ClaimRecord,
    wanted: Wanted,
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
