//! The byte budget: how much memory the buffers of one command may use together.
//!
//! A count of buffers does not limit memory, because buffers differ in size; bytes do. A permit travels with its buffer
//! and returns its bytes when it is dropped, wherever that happens. So a cancelled or failed stage cannot leak budget.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of this size, as a semaphore counts in `u32`.
const UNIT_BYTES: u64 = 4096;

/// The smallest useful budget, and the smallest value of `backup.memory`: for one repository, one upload part that is
/// being filled, one in flight, and a few extents that are being compressed.
pub const MINIMUM_BYTES: u64 = 32 * 1024 * 1024;

/// A limit on the bytes in buffers; cheap to clone.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    semaphore: Arc<Semaphore>,
    total_units: u32,
}

/// The right to hold some bytes; returned on drop.
#[derive(Debug)]
pub struct Permit {
    inner: OwnedSemaphorePermit,
}

impl ByteBudget {
    /// A budget of `bytes`, at least [`MINIMUM_BYTES`].
    pub fn new(bytes: u64) -> Self {
        let total_units = u32::try_from(bytes.max(MINIMUM_BYTES) / UNIT_BYTES).unwrap_or(u32::MAX >> 3);
        Self { semaphore: Arc::new(Semaphore::new(total_units as usize)), total_units }
    }

    /// Waits until `bytes` are free. A request larger than the whole budget gets the whole budget, so that one
    /// oversized buffer passes alone instead of never.
    pub async fn acquire(&self, bytes: u64) -> Permit {
        let units = units(bytes).min(self.total_units);
        match Arc::clone(&self.semaphore).acquire_many_owned(units).await {
            Ok(inner) => Permit { inner },
            Err(_) => unreachable!("the budget's semaphore is never closed"),
        }
    }

    /// The size of the whole budget in bytes.
    pub fn total_bytes(&self) -> u64 {
        u64::from(self.total_units) * UNIT_BYTES
    }

    /// Bytes that no permit holds at this moment.
    pub fn available_bytes(&self) -> u64 {
        self.semaphore.available_permits() as u64 * UNIT_BYTES
    }
}

impl Permit {
    /// Returns what exceeds `bytes`, after a smaller buffer has replaced a larger one.
    pub fn shrink_to(&mut self, bytes: u64) {
        let keep = units(bytes) as usize;
        let surplus = self.inner.num_permits().saturating_sub(keep);
        drop(self.inner.split(surplus));
    }

    /// Splits off a permit for `bytes` of this one, or for all of it if it has less.
    #[must_use]
    pub fn split_off(&mut self, bytes: u64) -> Self {
        let wanted = (units(bytes) as usize).min(self.inner.num_permits());
        match self.inner.split(wanted) {
            Some(inner) => Self { inner },
            None => unreachable!("a permit always has the units that it counts"),
        }
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_permit_returns_its_bytes() {
        let budget = ByteBudget::new(MINIMUM_BYTES);
        let before = budget.available_bytes();
        let mut permit = budget.acquire(10 * 1024 * 1024).await;
        assert_eq!(budget.available_bytes(), before - 10 * 1024 * 1024);
        permit.shrink_to(4096);
        assert_eq!(budget.available_bytes(), before - 4096);
        drop(permit);
        assert_eq!(budget.available_bytes(), before);
    }

    #[tokio::test]
    async fn a_request_beyond_the_budget_gets_all_of_it() {
        let budget = ByteBudget::new(MINIMUM_BYTES);
        let permit = budget.acquire(u64::MAX).await;
        assert_eq!(budget.available_bytes(), 0);
        drop(permit);
    }
}
