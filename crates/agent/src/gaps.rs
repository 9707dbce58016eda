//! [`Gaps`]: the missing WAL that the ledgers of the repositories record.
//!
//! `wal verify` finds gaps, and records them and that it has looked. The agent lists no WAL: it reads what is recorded,
//! and reports it with its age.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_contract::agent::GapStatus;
use holdfast_engine::Error;
use holdfast_engine::archive::Destination;
use holdfast_engine::continuity::{last_verified, recorded_gaps};
use parking_lot::Mutex;

/// How often it is checked whether the ledgers should be read.
pub(crate) const CHECKED_EVERY: Duration = Duration::from_mins(1);

/// How often the ledgers are read: each look costs a few requests.
const READ_EVERY: TimeDelta = TimeDelta::minutes(10);

/// What was found at the last look.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Mutex<Vec<GapStatus>>);

impl Gaps {
    /// Reads the ledgers of these repositories, if the last look is long ago. If one of them cannot be read, what was
    /// known stays, with its time.
    pub(crate) async fn read(&self, destinations: &[Destination], now: DateTime<Utc>) {
        for destination in destinations {
            let repository = destination.repository.describe();
            let known = self.0.lock().iter().find(|known| known.repository == repository).map(|known| known.looked_at);
            if known.is_some_and(|at| now - at < READ_EVERY) {
                continue;
            }
            match count(destination).await {
                Ok((segment_count, verified_at)) => {
                    let mut all = self.0.lock();
                    all.retain(|known| known.repository != repository);
                    all.push(GapStatus { repository, segment_count, looked_at: now, verified_at });
                    all.sort_by(|a, b| a.repository.cmp(&b.repository));
                }
                Err(error) => tracing::warn!(%repository, %error, "the recorded gaps in the WAL cannot be read"),
            }
        }
    }

    pub(crate) fn status(&self) -> Vec<GapStatus> {
        self.0.lock().clone()
    }
}

/// The number of missing segments, and when somebody looked for them.
async fn count(destination: &Destination) -> Result<(u64, Option<DateTime<Utc>>), Error> {
    let claim = std::slice::from_ref(&destination.claim);
    let gaps = recorded_gaps(&destination.repository, &destination.claim.cluster, claim).await?;
    for bad in &gaps.unreadable {
        tracing::warn!(object = %bad.object, error = %bad.error, "an entry about a gap in the WAL cannot be read");
    }
    let verified_at = last_verified(&destination.repository, &destination.claim.cluster).await?;
    Ok((gaps.segment_count(), verified_at))
}
