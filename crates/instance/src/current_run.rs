//! The one run of its kind that is under way, such as a backup: a task that can be cancelled and waited for.

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The run under way, if any. `S` is what can be said to it while it runs.
#[derive(Debug)]
pub struct CurrentRun<S> {
    running: Mutex<Option<Running<S>>>,
}

#[derive(Debug)]
struct Running<S> {
    uid: String,
    cancel: CancellationToken,
    signal: S,
    task: JoinHandle<()>,
}

impl<S> Default for CurrentRun<S> {
    fn default() -> Self {
        Self { running: Mutex::new(None) }
    }
}

impl<S: Clone> CurrentRun<S> {
    /// Makes this task the run under way. The caller made sure that the one before it has ended.
    pub fn set(&self, uid: &str, cancel: CancellationToken, signal: S, task: JoinHandle<()>) {
        *self.running.lock() = Some(Running { uid: uid.to_owned(), cancel, signal, task });
    }

    /// The signal of the run of this uid, if it is the one under way.
    pub fn signal(&self, uid: &str) -> Option<S> {
        self.running.lock().as_ref().filter(|running| running.uid == uid).map(|running| running.signal.clone())
    }

    /// Cancels the run under way, if it is the one of this uid or no uid is given, and waits until it has cleaned up.
    pub async fn cancel(&self, uid: Option<&str>) {
        let running = self.running.lock().take_if(|running| uid.is_none_or(|uid| uid == running.uid));
        if let Some(Running { cancel, task, .. }) = running {
            cancel.cancel();
            drop(task.await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_run_that_is_meant_is_cancelled() {
        let current = CurrentRun::default();
        let cancel = CancellationToken::new();
        let waits = cancel.clone();
        current.set("a", cancel.clone(), 7, tokio::spawn(async move { waits.cancelled().await }));
        assert_eq!((current.signal("a"), current.signal("b")), (Some(7), None));
        current.cancel(Some("b")).await;
        assert!(!cancel.is_cancelled());
        current.cancel(None).await;
        assert!(cancel.is_cancelled());
        assert_eq!(current.signal("a"), None);
    }
}
