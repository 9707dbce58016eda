//! What the reconciles of clusters share besides the common context: the images, and what is remembered between
//! reconciles. The memory is empty when an operator starts.

use super::desired::Images;
use super::memory::Memory;
use super::observed::Apis;
use crate::context::Context;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// What the reconciles of clusters share.
#[derive(Debug)]
pub(crate) struct ClusterContext {
    /// The context that all controllers share.
    pub(crate) operator: Arc<Context>,
    /// The images that the operator was started with.
    pub(crate) images: Images,
    /// Which optional APIs the API server has, and when this was read.
    pub(crate) apis: tokio::sync::Mutex<Option<(Instant, Apis)>>,
    /// The memory of each cluster, by uid.
    memories: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Memory>>>>,
    /// The version of the Lease of each other operator, by its namespace, and when it was first seen.
    pub(crate) others: Mutex<HashMap<String, (String, Instant)>>,
    /// The newest version of each Lease from the watch, and when it came.
    leases: Mutex<HashMap<(String, String), (String, Instant)>>,
}

impl ClusterContext {
    /// With empty memories.
    pub(crate) fn new(operator: Arc<Context>, images: Images) -> Self {
        Self {
            operator,
            images,
            apis: tokio::sync::Mutex::default(),
            memories: Mutex::default(),
            others: Mutex::default(),
            leases: Mutex::default(),
        }
    }

    pub(crate) fn memory(&self, uid: &str) -> Arc<tokio::sync::Mutex<Memory>> {
        Arc::clone(self.memories.lock().entry(uid.to_owned()).or_default())
    }

    /// Records a Lease from the watch. The same version again, as when the watch restarts, changes nothing.
    pub(crate) fn hear_of_lease(&self, namespace: &str, name: &str, version: &str) {
        let mut leases = self.leases.lock();
        let heard = leases.entry((namespace.to_owned(), name.to_owned()));
        let heard = heard.or_insert_with(|| (version.to_owned(), Instant::now()));
        if heard.0 != version {
            *heard = (version.to_owned(), Instant::now());
        }
    }

    /// The newest version of a Lease from the watch, and when it came.
    pub(crate) fn heard_of_lease(&self, namespace: &str, name: &str) -> Option<(String, Instant)> {
        self.leases.lock().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Drops the memory of a deleted cluster.
    pub(crate) fn forget(&self, uid: &str, namespace: &str, lease: &str) {
        self.leases.lock().remove(&(namespace.to_owned(), lease.to_owned()));
        self.memories.lock().remove(uid);
    }
}
