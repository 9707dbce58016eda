//! The time that a plan is made for: the earlier one of this host's clock and the store's.
//!
//! A clock that is late makes everything look young, and more stays. One that is ahead makes everything look old. The
//! store's time is that of the lease, which was written a moment ago.

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::{Error, ResultExt};
use crate::repository::leases::{Clock, Lease};
use crate::repository::{Repository, object_name};

/// Stores tell times in whole seconds, and a clock is never quite right: less is no difference.
const UNCERTAIN: TimeDelta = TimeDelta::seconds(5);

/// This host's clock, or an earlier one if the store's is late.
pub(super) async fn earlier(repository: &Repository, lease: &Lease, clock: Clock) -> Result<Clock, Error> {
    let info =
        repository.store().head(&object_name(&lease.name())?).await.doing(|| "asking for the time".to_owned())?;
    let behind = info.modified.map(|stored| lease.taken() - DateTime::<Utc>::from(stored));
    Ok(match behind.filter(|behind| *behind > UNCERTAIN) {
        Some(behind) => {
            tracing::warn!(seconds = behind.num_seconds(), "the store's clock is behind this host's, and counts");
            clock.earlier(behind)
        }
        None => clock,
    })
}
