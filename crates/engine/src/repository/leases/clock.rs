//! Clocks that go on while the machine sleeps.
//!
//! `Instant` of tokio and of the standard library stands still while a machine is suspended (`CLOCK_MONOTONIC`): a run
//! that slept for a night would take a lease that ended long ago for its own.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use rustix::time::{ClockId, clock_gettime};

/// A moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    boot: Duration,
    wall: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        let boot = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(boot.tv_nsec).unwrap_or_default();
        Self { boot: Duration::new(seconds, nanoseconds), wall: SystemTime::now() }
    }

    /// How long ago that was, by the kernel's clock.
    fn passed(self) -> Duration {
        Self::now().boot.saturating_sub(self.boot)
    }

    /// The most that may have passed. A virtual machine that was stopped from outside does not know of it: only its wall
    /// clock is ahead when it goes on.
    pub(super) fn passed_at_most(self) -> Duration {
        self.passed().max(self.wall.elapsed().unwrap_or_default())
    }

    /// The same moment, as if the machine had slept for so long since.
    #[cfg(test)]
    pub(super) fn slept(self, length: Duration) -> Self {
        Self { boot: self.boot.saturating_sub(length), wall: self.wall - length }
    }
}

/// The time, from one reading of a clock that the caller gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    read: DateTime<Utc>,
    at: Moment,
}

impl Clock {
    /// From now on.
    pub(crate) fn starting(now: DateTime<Utc>) -> Self {
        Self { read: now, at: Moment::now() }
    }

    /// Now.
    pub(crate) fn now(self) -> DateTime<Utc> {
        TimeDelta::from_std(self.at.passed())
            .ok()
            .and_then(|passed| self.read.checked_add_signed(passed))
            .unwrap_or(self.read)
    }

    /// How long ago it was read.
    pub(crate) fn passed(self) -> Duration {
        self.at.passed()
    }

    /// The same clock, earlier by so much.
    pub(crate) fn earlier(self, by: TimeDelta) -> Self {
        Self { read: self.read.checked_sub_signed(by).unwrap_or(self.read), at: self.at }
    }
}
