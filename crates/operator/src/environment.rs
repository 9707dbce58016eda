//! What the operator depends on: the API server, the way to the instances, the time of day, and the name under which it
//! writes. Tests provide their own.

use crate::status_client::Dial;
use chrono::{DateTime, Utc};
use kube::Client;
use tokio::time::Instant;

/// The name under which the operator applies fields and publishes Events.
pub const FIELD_MANAGER: &str = "holdfast-operator";

/// What the operator depends on.
#[derive(Clone)]
pub struct Environment {
    /// The client of the API server.
    pub client: Client,
    /// How instances are reached.
    pub dial: Dial,
    /// The time of day.
    pub clock: Clock,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Environment").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl Environment {
    /// The real environment with this client.
    pub fn real(client: Client) -> Self {
        Self { client, dial: Dial::default(), clock: Clock::System }
    }
}

/// A clock for the time of day. Durations are never measured by it.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    System,
    /// A clock that showed this time at that instant, and continues with tokio's clock.
    Since(DateTime<Utc>, Instant),
}

impl Clock {
    /// The current time.
    pub fn now(self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Since(then, moment) => {
                then + chrono::Duration::from_std(moment.elapsed()).unwrap_or(chrono::Duration::MAX)
            }
        }
    }
}
