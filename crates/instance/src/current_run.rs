//! The one current run of its kind, such as a backup: a task that can be cancelled and waited for.
//!
//! A waiting caller may go away: a request whose connection closes is dropped. So a run stays here until it has ended,
//! and the shutdown waits for it, no matter who cancelled it. After [`CurrentRun::close`] no run begins any more.

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The current run, if any. `S` is the signal that it can get.
#[derive(Debug)]
pub struct CurrentRun<S> {
    inner: Mutex<Inner<S>>,
}

#[derive(Debug)]
struct Inner<S> {
    /// The last run that began.
    last: Option<Begun<S>>,
    closed: bool,
}

#[derive(Debug)]
struct Begun<S> {
    uid: String,
    signal: S,
    handle: Handle,
}

/// How to cancel and wait for one run.
#[derive(Debug, Clone)]
struct Handle {
    cancel: CancellationToken,
    /// Cancelled when the task has ended, in whatever way.
    ended: CancellationToken,
}

impl Handle {
    async fn end(self) {
        self.cancel.cancel();
        self.ended.cancelled().await;
    }
}

impl<S> Default for CurrentRun<S> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { last: None, closed: false }) }
    }
}

impl<S: Clone> CurrentRun<S> {
    /// Begins a run, which `cancel` cancels, after the clean-up of the one before. The caller knows that the one before
    /// has its result. Returns whether it began: it does not after [`Self::close`].
    #[must_use]
    pub fn begin(
        &self,
        uid: &str,
        cancel: CancellationToken,
        signal: S,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let mut inner = self.inner.lock();
        if inner.closed {
            return false;
        }
        let before = inner.last.take().map(|before| before.handle.ended);
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        tokio::spawn(async move {
            let _ended = guard;
            if let Some(before) = before {
                before.cancelled().await;
            }
            work.await;
        });
        inner.last = Some(Begun { uid: uid.to_owned(), signal, handle: Handle { cancel, ended } });
        true
    }

    /// The signal of the run of this uid, if it is the current one.
    pub fn signal(&self, uid: &str) -> Option<S> {
        let inner = self.inner.lock();
        let running = inner.last.as_ref().filter(|run| run.uid == uid && !run.handle.ended.is_cancelled());
        running.map(|run| run.signal.clone())
    }

    /// Cancels the run of this uid, if it is the current one, and waits for its clean-up.
    pub async fn cancel(&self, uid: &str) {
        let handle = self.inner.lock().last.as_ref().filter(|run| run.uid == uid).map(|run| run.handle.clone());
        if let Some(handle) = handle {
            handle.end().await;
        }
    }

    /// Prevents new runs, cancels the current one and waits for its clean-up.
    pub async fn close(&self) {
        let handle = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.last.as_ref().map(|run| run.handle.clone())
        };
        if let Some(handle) = handle {
            handle.end().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::Notify;

    /// A run that cleans up after it was cancelled, as soon as the test allows it.
    struct Run {
        cancel: CancellationToken,
        may_clean_up: Arc<Notify>,
        is_clean: Arc<AtomicBool>,
    }

    impl Run {
        fn begin(current: &CurrentRun<u8>, uid: &str) -> Self {
            let run = Self { cancel: CancellationToken::new(), may_clean_up: Arc::default(), is_clean: Arc::default() };
            let (cancelled, may_clean_up, is_clean) =
                (run.cancel.clone(), Arc::clone(&run.may_clean_up), Arc::clone(&run.is_clean));
            let begun = current.begin(uid, run.cancel.clone(), 7, async move {
                cancelled.cancelled().await;
                may_clean_up.notified().await;
                is_clean.store(true, Ordering::Relaxed);
            });
            assert!(begun);
            run
        }

        fn is_clean(&self) -> bool {
            self.is_clean.load(Ordering::Relaxed)
        }
    }

    /// Lets all other tasks run.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn only_the_named_run_is_cancelled() {
        let current = CurrentRun::default();
        let run = Run::begin(&current, "a");
        run.may_clean_up.notify_one();
        assert_eq!((current.signal("a"), current.signal("b")), (Some(7), None));
        current.cancel("b").await;
        assert!(!run.cancel.is_cancelled());
        current.cancel("a").await;
        assert!(run.is_clean());
        assert_eq!(current.signal("a"), None);
    }

    #[tokio::test]
    async fn a_cancelled_run_is_waited_for_though_its_canceller_went_away() {
        let current = Arc::new(CurrentRun::default());
        let run = Run::begin(&current, "a");
        let request = Arc::clone(&current);
        let request = tokio::spawn(async move { request.cancel("a").await });
        settle().await;
        assert!(run.cancel.is_cancelled());
        request.abort();
        let shutdown = Arc::clone(&current);
        let shutdown = tokio::spawn(async move { shutdown.close().await });
        settle().await;
        assert!(!shutdown.is_finished(), "the run has not cleaned up yet");
        run.may_clean_up.notify_one();
        assert!(shutdown.await.is_ok());
        assert!(run.is_clean());
    }

    #[tokio::test]
    async fn a_run_begins_when_the_one_before_has_cleaned_up() {
        let current = CurrentRun::default();
        let first = Run::begin(&current, "a");
        first.cancel.cancel();
        let second = Run::begin(&current, "b");
        second.may_clean_up.notify_one();
        second.cancel.cancel();
        settle().await;
        assert!(!second.is_clean(), "the first has not cleaned up yet");
        first.may_clean_up.notify_one();
        current.cancel("b").await;
        assert!(first.is_clean() && second.is_clean());
    }

    #[tokio::test]
    async fn no_run_begins_at_the_end() {
        let current = CurrentRun::default();
        current.close().await;
        let ran = Arc::new(AtomicBool::new(false));
        let runs = Arc::clone(&ran);
        assert!(!current.begin("a", CancellationToken::new(), 7, async move { runs.store(true, Ordering::Relaxed) }));
        settle().await;
        assert!(!ran.load(Ordering::Relaxed));
    }
}
