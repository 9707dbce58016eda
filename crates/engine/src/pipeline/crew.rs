//! A crew of threads for work that keeps a processor busy: hashing, compression, decompression.
//!
//! Such work runs neither on the async workers, which must stay free to move bytes, nor on tokio's
//! blocking pool, whose size has nothing to do with the number of processors.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::{Error, What};

/// A bounded number of threads; cheap to clone.
#[derive(Clone)]
pub struct Crew {
    pool: Arc<rayon::ThreadPool>,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew").field("threads", &self.threads()).finish()
    }
}

impl Crew {
    /// A crew of `threads` threads, or one for each processor when 0.
    pub fn new(threads: usize) -> Result<Self, Error> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|n| format!("crew-{n}"))
            .panic_handler(|_| {})
            .build()
            .map_err(|e| What::Internal(format!("cannot start worker threads: {e}")))?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `job` on the crew and returns its result over a one-shot channel. A job that panicked is an internal error,
    /// never a silent success.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static {
        let (answer, waiting) = oneshot::channel();
        self.pool.spawn_fifo(move || {
            // If the command was cancelled, nobody waits for the result any more, and it is not needed.
            drop(answer.send(job()));
        });
        async move { waiting.await.map_err(|_| What::Internal("a worker thread panicked".to_owned()).into()) }
    }
}
