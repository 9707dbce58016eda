//! [`Watch`]: whether a blocking operation moves, and whether its caller still waits for it.
//!
//! On a network mount whose server is gone, a system call returns only when the server is back. Nobody can end it, so
//! its caller gives it up, and the thread stays behind. An operation is given up when it makes no step for the time
//! limit; the number of its bytes does not count, so a slow disk has the time that it needs.
//!
//! # What a given up operation can still do
//! It ends at its next step ([`Watch::check`]), and removes its temporary file. Only the system call in which it hangs
//! can take effect later: the naming of an object, with the content that it should have, or one deletion. Names are
//! not used again for other content, so this is what a lost answer of S3 is, and [`crate::Retry`] resolves it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::local_error::LocalError;
use crate::wrappers::hurry::SILENCE;
use crate::{Hurry, StoreErrorKind};

/// A piece of a file, after which an operation has moved. In a hurry a disk must write one within [`SILENCE`].
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// How fast a disk is at least, in bytes per second, when a whole file is synced: this one call cannot be divided.
const LEAST_SYNC_RATE: u64 = 64 << 10;

/// The number of operations on one root that were given up and have not ended. Further ones are refused: the threads
/// for blocking calls are limited, and the other repositories need them.
pub(super) const MOST_STUCK: usize = 64;

/// The interval between two looks at the steps.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// The operations that were given up and have not ended, by root: stores of the same root are opened again and again.
static STUCK: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());

/// The operations on this root that were given up and have not ended.
pub(super) fn stuck(root: &Path) -> usize {
    STUCK.lock().get(root).copied().unwrap_or(0)
}

/// What the thread of an operation and its caller tell each other.
#[derive(Debug)]
pub(super) struct Watch {
    root: PathBuf,
    hurry: Hurry,
    steps: AtomicU64,
    /// The time that the present step may take beyond the limit, in seconds.
    grace_seconds: AtomicU64,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Ended,
    GivenUp,
}

impl Watch {
    /// Refuses a root on which too many operations hang.
    pub(super) fn begin(root: &Path, hurry: Hurry) -> Result<Arc<Self>, LocalError> {
        let stuck = stuck(root);
        if stuck >= MOST_STUCK {
            let detail = format!("{stuck} earlier requests to this directory have not ended");
            return Err(LocalError::new(StoreErrorKind::Timeout, detail));
        }
        Ok(Arc::new(Self {
            root: root.to_owned(),
            hurry,
            steps: AtomicU64::new(0),
            grace_seconds: AtomicU64::new(0),
            state: Mutex::new(State::Running),
        }))
    }

    /// Another step is done.
    pub(super) fn moved(&self) {
        self.grace_seconds.store(0, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// The next step is the sync of a file of this size.
    pub(super) fn syncs(&self, bytes: u64) {
        self.moved();
        self.grace_seconds.store(bytes / LEAST_SYNC_RATE, Ordering::Relaxed);
    }

    /// Whether the caller has little time, and looks for a step every few seconds.
    pub(super) fn in_hurry(&self) -> bool {
        self.hurry.has_begun()
    }

    /// An error if nobody waits for the result any longer. Called before every step that others can see.
    pub(super) fn check(&self) -> Result<(), LocalError> {
        if *self.state.lock() == State::GivenUp {
            return Err(LocalError::new(StoreErrorKind::Cancelled, "it took too long, and was given up"));
        }
        self.moved();
        Ok(())
    }

    /// Returns when the operation has made no step for `limit`, or for less if the caller is in a hurry. Says for how
    /// long. Looks are counted, and not the time between them: while this process is stopped or the machine is
    /// suspended, nothing can move.
    pub(super) async fn still(&self, limit: Duration) -> Duration {
        let look_again_after = LOOK_AGAIN_AFTER.min(limit);
        let mut before = self.steps.load(Ordering::Relaxed);
        let (mut silent, mut silent_in_hurry) = (Duration::ZERO, Duration::ZERO);
        loop {
            tokio::time::sleep(look_again_after).await;
            let steps = self.steps.load(Ordering::Relaxed);
            if steps != before {
                (before, silent, silent_in_hurry) = (steps, Duration::ZERO, Duration::ZERO);
                continue;
            }
            silent += look_again_after;
            silent_in_hurry = if self.in_hurry() { silent_in_hurry + look_again_after } else { Duration::ZERO };
            let grace = Duration::from_secs(self.grace_seconds.load(Ordering::Relaxed));
            if silent >= limit + grace || silent_in_hurry >= SILENCE {
                return silent;
            }
        }
    }

    fn set(&self, to: State) {
        let mut state = self.state.lock();
        match (*state, to) {
            (State::Running, State::GivenUp) => *STUCK.lock().entry(self.root.clone()).or_default() += 1,
            (State::GivenUp, State::Ended) => {
                let mut stuck = STUCK.lock();
                let left = stuck.get(&self.root).copied().unwrap_or(0).saturating_sub(1);
                if left == 0 {
                    stuck.remove(&self.root)
                } else {
                    stuck.insert(self.root.clone(), left)
                };
            }
            (State::Ended, _) => return,
            _ => {}
        }
        *state = to;
    }
}

/// The side of the caller: dropped before the end of the operation, it gives the operation up.
#[derive(Debug)]
pub(super) struct Waiting(pub(super) Arc<Watch>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.set(State::GivenUp);
    }
}

/// The side of the thread: dropped at the end of the operation.
#[derive(Debug)]
pub(super) struct Working(pub(super) Arc<Watch>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.set(State::Ended);
    }
}
