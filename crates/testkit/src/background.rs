//! A runtime on threads of its own for a server inside the test process.
//!
//! A test that waits for a child process with a blocking call stops its own runtime. The server that the child talks to
//! must continue meanwhile. Dropping a [`Background`] ends its tasks without waiting, which is allowed inside another
//! runtime.

use std::future::Future;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{KitError, Result};

/// A small runtime that ends with the value.
#[derive(Debug)]
pub struct Background {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Background {
    /// Starts a runtime with two worker threads named after their server.
    pub fn start(name: &str) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(KitError::io(format!("start the threads of {name}")))?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle })
    }

    /// Runs a task on this runtime.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(task)
    }

    /// The handle of the runtime, for tasks that start tasks.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
