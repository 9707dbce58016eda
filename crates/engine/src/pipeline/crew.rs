//! A crew of threads for work that keeps a processor busy: hashing, compression, decompression.
//!
//! Such work runs neither on the async workers, which must stay free to move bytes, nor on tokio's
//! blocking pool, whose size has nothing to do with the number of processors.

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use tokio::sync::oneshot;

use crate::error::{Cause, Error};

/// A bounded number of threads; cheap to clone. They are started by the first job: a command that has none, such as a
/// `wal get` that finds its segment in the spool, starts none.
#[derive(Clone)]
pub struct Crew {
    threads: usize,
    pool: Arc<OnceLock<Result<rayon::ThreadPool, String>>>,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew").field("threads", &self.threads()).finish()
    }
}

impl Crew {
    /// A crew of `threads` threads, or one for each processor when 0.
    pub fn new(threads: usize) -> Self {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            threads => threads,
        };
        Self { threads, pool: Arc::default() }
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    fn pool(&self) -> Result<&rayon::ThreadPool, Error> {
        let started = self.pool.get_or_init(|| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(self.threads)
                .thread_name(|n| format!("crew-{n}"))
                .panic_handler(|_| {})
                .build()
                .map_err(|e| e.to_string())
        });
        started.as_ref().map_err(|e| Cause::Internal(format!("cannot start worker threads: {e}")).into())
    }

    /// Runs `job` on the crew and returns its result over a one-shot channel. A job that panicked is never a silent
    /// success.
    ///
    /// # Errors
    /// [`Cause::Internal`] if the job panics, or the threads cannot be started.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static {
        let (answer, waiting) = oneshot::channel();
        let begun = self.pool().map(|pool| {
            pool.spawn_fifo(move || {
                // If the command was cancelled, nobody waits for the result.
                drop(answer.send(job()));
            });
        });
        async move {
            begun?;
            waiting.await.map_err(|_| Cause::Internal("a worker thread panicked".to_owned()).into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[tokio::test]
    async fn threads_are_started_by_the_first_job() {
        let crew = Crew::new(3);
        assert_eq!(crew.threads(), 3);
        assert!(crew.pool.get().is_none());
        let other = crew.clone();
        let name = crew.run(|| std::thread::current().name().map(str::to_owned)).await.unwrap();
        assert!(name.unwrap().starts_with("crew-"));
        assert_eq!(other.pool.get().unwrap().as_ref().unwrap().current_num_threads(), 3);
        assert!(Crew::new(0).threads() > 0);
    }
}
