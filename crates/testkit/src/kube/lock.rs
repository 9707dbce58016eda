//! The lock of the state folder: only one start or stop of the bed at a time.
//!
//! The system's tools that a start runs (`mount`, `ip`, `iptables`) inherit the lock. When a start is killed, a tool
//! that it had just begun still runs to its end. A stop that did not wait for it would find nothing to undo, and the
//! mount or link would appear afterwards. So the next holder gets the lock only after the last tool has ended.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{KitError, Result};

/// The lock that this process holds, for the tools that it starts.
static HELD: Mutex<Option<fs::File>> = Mutex::new(None);

/// A held lock. After it is dropped, the next one gets the lock as soon as the tools that inherited it have ended.
#[derive(Debug)]
pub(super) struct Lock;

impl Lock {
    /// Waits for the lock of this state folder, and makes the folder if necessary.
    ///
    /// # Errors
    /// [`KitError::Timeout`] when others hold it for five minutes.
    pub(super) fn take(state: &Path) -> Result<Self> {
        fs::create_dir_all(state).map_err(KitError::io(format!("make {}", state.display())))?;
        let path = state.join("lock");
        let failed = || KitError::io(format!("lock {}", path.display()));
        let file = fs::File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(failed())?;
        let limit = Duration::from_mins(5);
        let start = Instant::now();
        while let Err(error) = file.try_lock() {
            match error {
                fs::TryLockError::Error(error) => return Err(failed()(error)),
                fs::TryLockError::WouldBlock if start.elapsed() > limit => {
                    let what = "the end of another start or stop of the bed".to_owned();
                    return Err(KitError::Timeout { what, limit, log: String::new() });
                }
                fs::TryLockError::WouldBlock => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        *HELD.lock() = Some(file);
        Ok(Self)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        HELD.lock().take();
    }
}

/// An empty standard input for a tool, which keeps the lock that this process holds until the tool ends.
pub(super) fn stdin() -> Result<Stdio> {
    match &*HELD.lock() {
        Some(file) => Ok(file.try_clone().map_err(KitError::io("pass the lock of the bed to a tool"))?.into()),
        None => Ok(Stdio::null()),
    }
}

#[cfg(test)]
mod tests {
    use super::Lock;
    use crate::error::{KitError, Result};
    use crate::kube::tools::sh;

    #[test]
    fn a_tool_keeps_the_lock_of_a_start_that_was_killed() -> Result<()> {
        let folder = tempfile::tempdir().map_err(KitError::io("make a folder"))?;
        let (begun, ended) = (folder.path().join("begun"), folder.path().join("ended"));
        let script = format!("touch {}; sleep 1; touch {}", begun.display(), ended.display());

        let lock = Lock::take(folder.path())?;
        let tool = std::thread::spawn(move || sh(&["sh", "-c", &script]));
        while !begun.exists() {
            std::thread::yield_now();
        }
        // As the kernel does for a killed process.
        drop(lock);

        let _next = Lock::take(folder.path())?;
        assert!(ended.exists(), "the lock was released while the tool was running");
        tool.join().map_err(|_| KitError::Unsupported("the tool's thread panicked".to_owned()))?.map(drop)
    }
}
