//! The time of the plan: the earlier one of this host's clock and the store's clock.
//!
//! A clock that is late makes everything look younger, so more is kept. A clock that is ahead makes everything look
//! older. The store's time is the time of the lease object, which was written a moment ago.

use crate::error::Error;
use crate::repository::Repository;
use crate::repository::leases::{Clock, Lease};

/// This host's clock, or the store's clock if that is earlier.
pub(super) async fn earlier(repository: &Repository, lease: &Lease, clock: Clock) -> Result<Clock, Error> {
    repository.earlier_clock(&lease.name(), clock).await
}
