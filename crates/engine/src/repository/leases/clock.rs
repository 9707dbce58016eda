//! Clocks that also run while the machine sleeps.
//!
//! `Instant` of tokio and of the standard library stops while a machine is suspended (`CLOCK_MONOTONIC`): after a
//! night's sleep a run would believe that its lease is still valid.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use rustix::time::{ClockId, clock_gettime};

/// A moment, read from the kernel's clock and from the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MonotonicTime {
    boot: Duration,
    wall: SystemTime,
}

impl MonotonicTime {
    pub(crate) fn now() -> Self {
        let boot = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(boot.tv_nsec).unwrap_or_default();
        Self { boot: Duration::new(seconds, nanoseconds), wall: SystemTime::now() }
    }

    /// The time since then, by the kernel's clock, which includes sleep.
    fn passed(self) -> Duration {
        Self::now().boot.saturating_sub(self.boot)
    }

    /// The longest time that may have passed. A virtual machine that was paused from outside does not notice it: when
    /// it continues, only its wall clock has advanced.
    pub(crate) fn passed_at_most(self) -> Duration {
        self.passed().max(self.wall.elapsed().unwrap_or_default())
    }

    /// The same moment, as if the machine had slept for `length` since then.
    #[cfg(test)]
    pub(crate) fn slept(self, length: Duration) -> Self {
        Self { boot: self.boot.saturating_sub(length), wall: self.wall - length }
    }
}

/// A clock that starts from a time given by the caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    read: DateTime<Utc>,
    at: MonotonicTime,
}

impl Clock {
    /// Starts the clock; `now` is the present time.
    pub(crate) fn starting(now: DateTime<Utc>) -> Self {
        Self { read: now, at: MonotonicTime::now() }
    }

    /// The present time.
    pub(crate) fn now(self) -> DateTime<Utc> {
        TimeDelta::from_std(self.at.passed())
            .ok()
            .and_then(|passed| self.read.checked_add_signed(passed))
            .unwrap_or(self.read)
    }

    /// The time since the clock was started.
    pub(crate) fn passed(self) -> Duration {
        self.at.passed()
    }

    /// The same clock, set back by `by`.
    pub(crate) fn earlier(self, by: TimeDelta) -> Self {
        Self { read: self.read.checked_sub_signed(by).unwrap_or(self.read), at: self.at }
    }
}
