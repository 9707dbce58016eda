//! The time of the plan: the earlier one of this host's clock and the store's clock.
//!
//! A clock that is late makes everything look younger, so more is kept. A clock that is ahead makes everything look
//! older. The store's time is the time of the lease object, which was written a moment ago.

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::{Error, ResultExt};
use crate::repository::leases::{Clock, Lease};
use crate::repository::{Repository, object_name};

/// A smaller difference is ignored: stores give times in whole seconds, and no clock is exact.
const UNCERTAIN: TimeDelta = TimeDelta::seconds(5);

/// This host's clock, or the store's clock if that is earlier.
pub(super) async fn earlier(repository: &Repository, lease: &Lease, clock: Clock) -> Result<Clock, Error> {
    let info =
        repository.store().head(&object_name(&lease.name())?).await.doing(|| "reading the store's clock".to_owned())?;
    let behind = info.modified.map(|stored| lease.taken() - DateTime::<Utc>::from(stored));
    Ok(match behind.filter(|behind| *behind > UNCERTAIN) {
        Some(behind) => {
            tracing::warn!(seconds = behind.num_seconds(), "the store's clock is behind this host's; its time is used");
            clock.earlier(behind)
        }
        None => clock,
    })
}
