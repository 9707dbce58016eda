//! What a run of `expire` is asked for.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::name::ClusterName;
use holdfast_retention::Policy;

/// The options of [`plan`](super::plan) and [`expire`](super::expire).
#[derive(Debug, Clone)]
pub struct ExpireOptions {
    /// The cluster whose backups and WAL are removed.
    pub cluster: ClusterName,
    /// What the user wants to be able to restore.
    pub policy: Policy,
    /// The time between a decision and its removal.
    pub grace: Duration,
    /// The name of this host, for leases and ledger entries.
    pub host: String,
    /// The time of this host's clock when the run starts.
    pub now: DateTime<Utc>,
}

impl ExpireOptions {
    /// A grace time that a `TimeDelta` cannot hold never ends.
    pub(super) fn grace(&self) -> TimeDelta {
        TimeDelta::from_std(self.grace).unwrap_or(TimeDelta::MAX)
    }

    /// The first moment of the window; `None` without one, and for one that is longer than time.
    pub(super) fn window_start(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        now.checked_sub_signed(self.policy.window?)
    }
}
