//! [`Hurry`]: what changes for requests when their caller has little time.
//!
//! The archiver of a server that is stopping is such a caller: `pg_ctl` waits for it. Connections count here what they
//! move, and [`super::retry`] gives up a request when nothing does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::retry::Pace;

/// How long a caller in a hurry waits for the next byte. `pg_ctl stop` waits 60 seconds, in which the archiver may try a
/// file six times. And a line of 1 Mbit/s needs some seconds for what the kernel took from us at once.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// How often such a caller looks whether bytes moved.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Whether the caller has little time from some moment on, which all clones learn: what fails then is repeated within
/// [`RetryPolicy::refused_deadline`](crate::RetryPolicy::refused_deadline) only, and a request fails when no byte moves for some seconds. As long as bytes move, it
/// goes on: slow lines must still deliver.
#[derive(Clone, Debug, Default)]
pub struct Hurry(Arc<Moves>);

#[derive(Debug, Default)]
struct Moves {
    begun: watch::Sender<bool>,
    /// Bytes to the store and from it, by any connection.
    bytes: AtomicU64,
}

impl Hurry {
    /// From now on.
    pub fn begin(&self) {
        self.0.begun.send_replace(true);
    }

    /// Counts bytes that a connection to the store took or gave.
    pub(crate) fn moved(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn has_begun(&self) -> bool {
        *self.0.begun.borrow()
    }

    async fn begun(&self) {
        // The sender lives as long as this value does.
        drop(self.0.begun.subscribe().wait_for(|begun| *begun).await);
    }

    /// Returns when it has begun and no byte has moved for a while.
    pub(super) async fn silence(&self, pace: &dyn Pace) {
        self.begun().await;
        let bytes = || self.0.bytes.load(Ordering::Relaxed);
        let (mut before, mut since) = (bytes(), pace.now());
        while pace.now().saturating_sub(since) < SILENCE {
            pace.sleep(LOOK_AGAIN_AFTER).await;
            let moved = bytes();
            if moved != before {
                (before, since) = (moved, pace.now());
            }
        }
    }
}
