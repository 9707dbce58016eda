//! [`WholeUpload`]: an upload on a store whose multipart uploads do not work. The parts stay in memory and are sent in
//! one PUT. Repositories on such stores use small packs.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::shared::Shared;
use crate::parts::total_size;
use crate::{ObjectName, Operation, PutMode, StoreError, StoreErrorKind, Upload};

#[derive(Debug)]
pub(super) struct WholeUpload {
    shared: Arc<Shared>,
    name: ObjectName,
    mode: PutMode,
    parts: Mutex<BTreeMap<u32, Bytes>>,
}

impl WholeUpload {
    pub(super) fn new(shared: Arc<Shared>, name: &ObjectName, mode: PutMode) -> Self {
        Self { shared, name: name.clone(), mode, parts: Mutex::default() }
    }
}

#[async_trait]
impl Upload for WholeUpload {
    async fn part(&self, number: u32, body: Bytes) -> Result<(), StoreError> {
        self.parts.lock().insert(number, body);
        Ok(())
    }

    async fn try_complete(&self) -> Result<(), StoreError> {
        // The parts are kept for another attempt.
        let parts = self.parts.lock().clone();
        let sizes = parts.iter().map(|(number, part)| (*number, part.len() as u64)).collect();
        let total = total_size(&sizes).map_err(|detail| {
            self.shared.fail(Operation::Complete, self.name.as_str(), StoreErrorKind::InvalidConfig, detail)
        })?;
        let mut whole = BytesMut::with_capacity(usize::try_from(total).unwrap_or(0));
        for part in parts.into_values() {
            whole.extend_from_slice(&part);
        }
        self.shared.put(&self.name, whole.freeze(), self.mode).await
    }

    async fn try_abort(&self) -> Result<(), StoreError> {
        self.parts.lock().clear();
        Ok(())
    }
}
