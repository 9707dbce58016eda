//! When a drill ends early: it is cancelled, its time is over, or its file system is nearly full.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::room::Room;
use crate::error::{Cause, Error};

/// The interval at which the free space is checked. At 2 GB/s, 100 MB are written in this time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a drill waits for a signal of its own before it believes that a process ended by itself. systemd sends
/// SIGTERM to all processes of a unit, and PostgreSQL may be the first to have ended.
const SIGNAL_WITHIN: Duration = Duration::from_secs(5);

/// The limits of a drill.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) cancel: CancellationToken,
    pub(super) deadline: Instant,
    /// The time limit of the whole drill, for messages.
    pub(super) time_limit: Duration,
    pub(super) room: Room,
}

/// Why a drill ends early.
#[derive(Debug)]
pub(super) enum EarlyEnd {
    /// Somebody stopped it.
    Cancelled,
    /// Its time is over.
    Time,
    /// The free space of the file system is below the reserve.
    Room(Error),
}

impl EarlyEnd {
    /// The error of a step that has no findings.
    pub(super) fn into_error(self, bounds: &Bounds) -> Error {
        match self {
            Self::Cancelled => Cause::Cancelled.into(),
            Self::Time => Cause::OutOfTime { limit: bounds.time_limit }.into(),
            Self::Room(error) => error,
        }
    }
}

impl Bounds {
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Why the drill must end now, if it must.
    pub(super) fn check(&self) -> Option<EarlyEnd> {
        if self.is_cancelled() {
            return Some(EarlyEnd::Cancelled);
        }
        if self.is_over() {
            return Some(EarlyEnd::Time);
        }
        self.room.check_reserve().err().map(EarlyEnd::Room)
    }

    /// Waits until the drill must end, and returns why.
    pub(super) async fn early_end(&self) -> EarlyEnd {
        loop {
            if let Some(over) = self.check() {
                return over;
            }
            tokio::select! {
                () = self.cancel.cancelled() => {}
                () = tokio::time::sleep_until(self.deadline) => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Runs work that may be dropped at any point.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, EarlyEnd> {
        tokio::select! {
            done = work => Ok(done),
            over = self.early_end() => Err(over),
        }
    }

    /// Runs work that ends soon after its token is cancelled, and waits for its end.
    pub(super) async fn until_over<T, W>(
        &self,
        work: impl FnOnce(CancellationToken) -> W,
    ) -> Result<Result<T, Error>, EarlyEnd>
    where
        W: Future<Output = Result<T, Error>>,
    {
        let stop = self.cancel.child_token();
        let mut work = Box::pin(work(stop.clone()));
        let over = tokio::select! {
            done = &mut work => return Ok(done),
            over = self.early_end() => over,
        };
        stop.cancel();
        match work.await {
            Err(error) if matches!(*error.what, Cause::Cancelled) => Err(over),
            done => Ok(done),
        }
    }

    /// Waits a moment for a signal, before a process that has ended counts as a finding: whatever stops the drill may
    /// have ended that process, too.
    pub(super) async fn settle(&self) -> Result<(), Error> {
        drop(tokio::time::timeout(SIGNAL_WITHIN, self.cancel.cancelled()).await);
        self.refuse_cancelled()
    }

    /// Ends a drill that was cancelled.
    pub(super) fn refuse_cancelled(&self) -> Result<(), Error> {
        if self.is_cancelled() { Err(Cause::Cancelled.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn bounds(seconds: u64, reserve: u64) -> Bounds {
        let time_limit = Duration::from_secs(seconds);
        Bounds {
            cancel: CancellationToken::new(),
            deadline: Instant::now() + time_limit,
            time_limit,
            room: Room::with_reserve(std::env::temp_dir(), reserve),
        }
    }

    #[tokio::test]
    async fn each_bound_ends_what_is_done() {
        assert_eq!(bounds(3600, 0).within(async { 7 }).await.unwrap(), 7);
        let never = std::future::pending::<()>;
        assert!(matches!(bounds(0, 0).within(never()).await, Err(EarlyEnd::Time)));
        let full = bounds(3600, u64::MAX);
        let Err(EarlyEnd::Room(error)) = full.within(never()).await else { panic!("there is room") };
        assert!(matches!(*error.what, Cause::NoRoom { needed: u64::MAX, .. }), "{error}");
        let cancelled = bounds(3600, 0);
        cancelled.cancel.cancel();
        assert!(matches!(cancelled.within(never()).await, Err(EarlyEnd::Cancelled)));
    }

    #[tokio::test]
    async fn a_signal_that_comes_a_little_later_counts() {
        let bounds = bounds(3600, 0);
        let cancel = bounds.cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancel.cancel();
        });
        let error = bounds.settle().await.unwrap_err();
        assert!(matches!(*error.what, Cause::Cancelled), "{error}");
    }

    #[tokio::test]
    async fn what_obeys_its_token_is_waited_for() {
        let obeying = |stop: CancellationToken| async move {
            stop.cancelled().await;
            Err::<(), Error>(Cause::Cancelled.into())
        };
        assert!(matches!(bounds(0, 0).until_over(obeying).await, Err(EarlyEnd::Time)));
        // The error of the work itself comes first.
        let failing = |stop: CancellationToken| async move {
            stop.cancelled().await;
            Err::<(), Error>(Cause::Internal("x".to_owned()).into())
        };
        let error = bounds(0, 0).until_over(failing).await.unwrap().unwrap_err();
        assert!(matches!(*error.what, Cause::Internal(_)), "{error}");
    }
}
