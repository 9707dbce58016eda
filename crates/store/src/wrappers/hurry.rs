//! [`Hurry`]: what changes for requests if their caller has little time.
//!
//! The archiver of a server that is stopping is such a caller: `pg_ctl` waits for it. Connections count here the bytes
//! that they move, and [`super::retry`] gives up a request when no byte moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::pace::Pace;

/// How long a caller in a hurry waits for the next byte. `pg_ctl stop` waits 60 seconds, and in that time the archiver
/// may try a file six times. A line of 1 Mbit/s needs some seconds for the bytes that the kernel accepted at once.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// The interval between two looks at the count of bytes.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Tells that the caller has little time from some moment on; all clones see it. From then on a request that fails is
/// repeated within [`RetryPolicy::refused_deadline`](crate::RetryPolicy::refused_deadline) only, and a request fails if
/// no byte moves for some seconds. While bytes move, it continues: slow lines must still deliver.
#[derive(Clone, Debug, Default)]
pub struct Hurry(Arc<Moves>);

#[derive(Debug, Default)]
struct Moves {
    begun: watch::Sender<bool>,
    /// Bytes to and from the store, over all connections.
    bytes: AtomicU64,
}

impl Hurry {
    /// From now on the caller has little time.
    pub fn begin(&self) {
        self.0.begun.send_replace(true);
    }

    /// The caller has time again. A request that failed in the meantime stays failed.
    pub fn end(&self) {
        self.0.begun.send_replace(false);
    }

    /// Counts bytes that a connection to the store sent or received.
    pub(crate) fn moved(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// All bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn has_begun(&self) -> bool {
        *self.0.begun.borrow()
    }

    async fn begun(&self) {
        // The sender lives as long as this value does.
        drop(self.0.begun.subscribe().wait_for(|begun| *begun).await);
    }

    /// Returns when the hurry has begun and no byte has moved for [`SILENCE`].
    pub(super) async fn silence(&self, pace: &dyn Pace) {
        self.begun().await;
        let (mut before, mut since) = (self.bytes(), pace.now());
        while pace.now().saturating_sub(since) < SILENCE {
            pace.sleep(LOOK_AGAIN_AFTER).await;
            let had_time = !self.has_begun();
            self.begun().await;
            let moved = self.bytes();
            if had_time || moved != before {
                (before, since) = (moved, pace.now());
            }
        }
    }
}
