//! What the operator stands on: the API server, the way to the instances, and the time of day; and the name under which it
//! writes. Tests bring their own.

use crate::status_client::Dial;
use chrono::{DateTime, Utc};
use kube::Client;
use tokio::time::Instant;

/// The name under which the operator applies fields and publishes Events.
pub const FIELD_MANAGER: &str = "holdfast-operator";

/// What the operator stands on.
#[derive(Clone)]
pub struct Environment {
    /// The API server.
    pub client: Client,
    /// The way to the instances.
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
    /// The world as it is.
    pub fn real(client: Client) -> Self {
        Self { client, dial: Dial::default(), clock: Clock::System }
    }
}

/// The time of day. How long something took is never measured by it.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The system's.
    System,
    /// It was this time at that moment, and goes on from there as tokio's clock does.
    Since(DateTime<Utc>, Instant),
}

impl Clock {
    /// The time of day.
    pub fn now(self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Since(then, moment) => {
                then + chrono::Duration::from_std(moment.elapsed()).unwrap_or(chrono::Duration::MAX)
            }
        }
    }
}
