//! [`DirectoryUpload`]: parts written to their places in one temporary file.
//!
//! The place of a part follows from the common size of the parts, which the caller does not state. It is known from
//! part 1, or from any two parts, since only the last may be shorter. Until then at most one part waits in memory.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::Advice;

use super::DirectoryStore;
use super::files::Temporary;
use super::local_error::LocalError;
use super::watch::Watch;
use crate::parts::total_size;
use crate::{ObjectName, Operation, PutMode, StoreError, StoreErrorKind, Upload};

/// How long the end of an upload waits until its temporary file is removed; after that the file is removed later.
const REMOVE_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct DirectoryUpload {
    store: DirectoryStore,
    name: ObjectName,
    mode: PutMode,
    growing: Arc<Growing>,
}

#[derive(Debug)]
struct Growing {
    /// `None` once aborted.
    temporary: Mutex<Option<Arc<Temporary>>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    part_size: Option<u64>,
    /// Parts whose place is not known yet, or that could not be written.
    waiting: BTreeMap<u32, Bytes>,
    /// Bytes of the parts in the file.
    written: BTreeMap<u32, u64>,
}

impl DirectoryUpload {
    pub(super) fn new(store: DirectoryStore, name: ObjectName, mode: PutMode, temporary: Temporary) -> Self {
        let growing = Growing { temporary: Mutex::new(Some(Arc::new(temporary))), state: Mutex::default() };
        Self { store, name, mode, growing: Arc::new(growing) }
    }
}

impl Drop for DirectoryUpload {
    /// Removes the temporary file. A network mount whose server is gone must not stop the task that drops the upload.
    fn drop(&mut self) {
        let Some(temporary) = self.growing.temporary.lock().take() else { return };
        let (removed, wait) = mpsc::sync_channel(1);
        let remove = std::thread::Builder::new().spawn(move || {
            drop(temporary);
            removed.send(()).ok();
        });
        if remove.is_ok() {
            wait.recv_timeout(REMOVE_WITHIN).ok();
        }
    }
}

impl Growing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn temporary(&self) -> Result<Arc<Temporary>, LocalError> {
        let temporary = self.temporary.lock();
        temporary.clone().ok_or_else(|| LocalError::new(StoreErrorKind::InvalidConfig, "the upload was aborted"))
    }

    /// Writes every part whose place is known. The lock is not held during the write, so parts are written in parallel.
    fn write(&self, number: u32, body: Bytes, watch: &Watch) -> Result<(), LocalError> {
        let temporary = self.temporary()?;
        let (part_size, ready) = {
            let mut state = self.state();
            if number == 1 {
                state.part_size = NonZeroU64::new(body.len() as u64).map(NonZeroU64::get).or(Some(1));
            }
            state.waiting.insert(number, body);
            if state.part_size.is_none() && state.waiting.len() > 1 {
                state.part_size = state.waiting.values().map(|part| part.len() as u64).max();
            }
            let Some(part_size) = state.part_size else { return Ok(()) };
            (part_size, std::mem::take(&mut state.waiting))
        };
        let mut result = Ok(());
        for (number, body) in ready {
            let written = write_part(&temporary, u64::from(number).saturating_sub(1), part_size, &body, watch);
            let mut state = self.state();
            match written {
                Ok(()) => {
                    state.written.insert(number, body.len() as u64);
                }
                Err(trouble) => {
                    state.waiting.insert(number, body);
                    result = Err(trouble);
                }
            }
        }
        result
    }
}

fn write_part(
    temporary: &Temporary,
    index: u64,
    part_size: u64,
    body: &Bytes,
    watch: &Watch,
) -> Result<(), LocalError> {
    let Some(offset) = index.checked_mul(part_size) else {
        return Err(LocalError::new(StoreErrorKind::InvalidConfig, "the part's number is too large"));
    };
    temporary.write(body, offset, watch)?;
    // Begins to write the range back without waiting (Linux: filemap_fdatawrite_range), which keeps the sync at the end
    // short and the page cache for PostgreSQL. Only advice: a failure changes nothing.
    let length = NonZeroU64::new(body.len() as u64);
    if let Err(error) = rustix::fs::fadvise(temporary.file(), offset, length, Advice::DontNeed) {
        tracing::debug!(%error, "no early write-back");
    }
    Ok(())
}

#[async_trait]
impl Upload for DirectoryUpload {
    async fn part(&self, number: u32, body: Bytes) -> Result<(), StoreError> {
        let growing = Arc::clone(&self.growing);
        self.store.run(Operation::Part, self.name.as_str(), move |_, watch| growing.write(number, body, watch)).await
    }

    async fn try_complete(&self) -> Result<(), StoreError> {
        let growing = Arc::clone(&self.growing);
        let (name, mode) = (self.name.clone(), self.mode);
        self.store
            .run(Operation::Complete, self.name.as_str(), move |files, watch| {
                let temporary = growing.temporary()?;
                {
                    let state = growing.state();
                    let waiting = state.waiting.iter().map(|(number, body)| (*number, body.len() as u64));
                    let sizes = state.written.clone().into_iter().chain(waiting).collect();
                    let total =
                        total_size(&sizes).map_err(|detail| LocalError::new(StoreErrorKind::InvalidConfig, detail))?;
                    if let Some(number) = state.waiting.keys().next() {
                        let detail = format!("part {number} could not be written");
                        return Err(LocalError::new(StoreErrorKind::Other, detail));
                    }
                    // A part that was sent twice may have been longer the first time.
                    temporary.file().set_len(total)?;
                }
                files.publish(&temporary, &name, mode, watch)
            })
            .await
    }

    async fn try_abort(&self) -> Result<(), StoreError> {
        let growing = Arc::clone(&self.growing);
        self.store
            .run(Operation::Abort, self.name.as_str(), move |_, _| {
                *growing.temporary.lock() = None;
                Ok(())
            })
            .await
    }
}
