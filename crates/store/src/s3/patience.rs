//! [`Patience`]: how long a request may take.
//!
//! A request that moves no byte for the time limit of an attempt is given up. While bytes move it may take longer: as
//! long as its body needs on the slowest line that is worth waiting for. Otherwise a fixed limit would be a least speed
//! of the line that grows with the body, and a WAL segment that does not compress would never pass on a slow one.

use std::time::Duration;

use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use tokio::time::Instant;

use crate::{Hurry, Timeouts};

/// The least rate of a body, in bytes per second: 128 kbit/s, less than any line on which WAL can be archived.
const LEAST_RATE: u64 = 16 << 10;

#[derive(Debug)]
pub(super) struct Patience {
    timeouts: Timeouts,
    /// Counts the bytes of all connections to the store. Those of other requests count as well: the limit by the size
    /// of the body ends a request that is silent beside them.
    moves: Hurry,
}

impl Patience {
    pub(super) fn new(timeouts: Timeouts, moves: Hurry) -> Self {
        Self { timeouts, moves }
    }

    /// The longest time without a byte.
    pub(super) fn silence(&self) -> Duration {
        self.timeouts.attempt
    }

    /// The time limit of a request whose body, in either direction, has this many bytes.
    pub(super) fn limit(&self, body_bytes: u64) -> Duration {
        self.timeouts.attempt.saturating_add(Duration::from_secs(body_bytes / LEAST_RATE))
    }

    /// The settings of one request that sends a body of this many bytes.
    pub(super) fn sending(&self, body_bytes: u64) -> Builder {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.timeouts.connect)
            .operation_attempt_timeout(self.limit(body_bytes))
            .build();
        aws_sdk_s3::Config::builder().timeout_config(timeouts)
    }

    /// The result of a request, or `None` if no byte moved for too long.
    pub(super) async fn while_moving<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            result = request => Some(result),
            () = self.still() => None,
        }
    }

    async fn still(&self) {
        let limit = self.silence();
        let look_again_after = (limit / 8).clamp(Duration::from_millis(1), Duration::from_secs(1));
        let (mut before, mut since) = (self.moves.bytes(), Instant::now());
        while since.elapsed() < limit {
            tokio::time::sleep(look_again_after).await;
            let moved = self.moves.bytes();
            if moved != before {
                (before, since) = (moved, Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_time_for_a_slow_line() {
        let patience = Patience::new(Timeouts::default(), Hurry::default());
        assert_eq!(patience.limit(0), Duration::from_mins(2));
        // A segment that does not compress.
        assert_eq!(patience.limit(16 << 20), Duration::from_secs(120 + 1024));
    }
}
